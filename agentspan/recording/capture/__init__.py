"""Turns values of the program into JSON text, redacted and within limits. Imports no other module of recording."""
