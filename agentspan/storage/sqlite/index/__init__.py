"""The index beside a database file, for questions about many runs. The module `index_file` explains the design."""
