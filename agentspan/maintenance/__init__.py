"""Work on a whole file: backup, doctor, prune, rederive, import. None of it is an operation of the API."""
