"""Whole runs: the order of stages, running them, sweeps, checks before, and use of the result."""
