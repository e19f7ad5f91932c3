"""Datasets and input pipelines: numpy, Pillow and grain, never jax."""
