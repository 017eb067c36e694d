"""Blocks, and the functions that say a finding in them. Each surface renders blocks in its own way."""
