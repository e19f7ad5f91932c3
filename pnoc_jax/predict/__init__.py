"""Inference as pure functions over variables."""
