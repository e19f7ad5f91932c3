"""Looks at data sets before they are used: broken files, statistics, findings."""
