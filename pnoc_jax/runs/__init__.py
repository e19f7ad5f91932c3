"""Whole runs: the order of stages, running them, checks before, and use of the result."""
