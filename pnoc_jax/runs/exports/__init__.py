"""Trained networks for other programs: StableHLO, PyTorch's names, ONNX, and a card with each."""
