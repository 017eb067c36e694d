"""Elements of lists, long texts and blobs, each stored once in a run: cut, numbered, and joined again when read."""
