"""Sessions of coding agents: their files are decoded, and stored as runs."""
