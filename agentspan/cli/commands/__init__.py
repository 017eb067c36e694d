"""The commands and their options: one function for each, which imports the module that does the work."""
