"""What was said is stored once in a run: cut (`splitting`), stored (`numbering`), read (`joining`)."""
