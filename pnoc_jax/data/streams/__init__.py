"""Deterministic streams of batches, for training and for inference."""
