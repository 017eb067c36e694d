"""Work on a whole file: backup, doctor, prune, resummarize, import. Nothing here is an operation of the API."""
