"""Sinks write recorded transitions: `commit` to the storage, `journal` to files in front of it."""
