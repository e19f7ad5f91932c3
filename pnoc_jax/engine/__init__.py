"""Trains, infers and measures any network: the loop, its clock and log, work image by image."""
