"""Steps that arrive from elsewhere: what a source says of them, their ids and rows, and how they are stored."""
