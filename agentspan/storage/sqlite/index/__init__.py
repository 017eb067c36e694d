"""The index beside a database file, from which reading answers questions about many runs. `index_file` has the idea."""
