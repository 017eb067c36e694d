"""Work on a whole file: backup, doctor, prune, compact, resummarize, import. None of it is an operation of the API."""
