"""Pure functions over arrays: no parameters, no files, no configuration."""
