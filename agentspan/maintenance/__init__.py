"""Work on a whole file: backup, doctor, prune, resummarize, import. None of it is an operation of the API."""
