"""The index beside a database file, for queries over many runs. `index_file` explains the design."""
