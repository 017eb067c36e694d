"""Commits journal records to the storage exactly once, adopts the journals of dead processes, finds dead processes."""
