"""The stages of a run: each reads files and writes files."""
