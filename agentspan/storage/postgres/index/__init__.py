"""The read index of a schema: a narrow copy of the numbers of finished spans, and of the words new in each."""
