"""Losses: arrays in, a scalar out, always in float32."""
