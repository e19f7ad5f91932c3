"""Looks at data sets before they are used, for broken files, statistics and findings."""
