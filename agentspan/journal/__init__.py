"""A journal in front of a storage: each record is on disk at once, and in the storage a moment later."""
