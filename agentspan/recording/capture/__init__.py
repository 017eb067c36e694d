"""Turns what a program passes in into JSON text, redacted and within limits. Imports nothing else of recording."""
