"""Metrics as sums over images, which merge by adding."""
