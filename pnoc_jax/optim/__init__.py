"""Schedules, optimisers by parameter group, and moving averages."""
