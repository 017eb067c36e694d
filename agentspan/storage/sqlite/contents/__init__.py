"""Deduplicates payloads: list elements, long texts and blobs are stored once per run, and joined again when read."""
