"""Questions about what was recorded, as functions over a storage's reads; shown by the command line."""
