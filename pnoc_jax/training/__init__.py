"""The training loop, its clock and its log."""
