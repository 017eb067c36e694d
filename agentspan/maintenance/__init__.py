"""Work on a whole file: doctor, prune, resummarize, import. Nothing here is an operation of the API."""
