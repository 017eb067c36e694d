"""A journal in front of a storage: what a program records is on disk at once, and in the storage a moment later."""
