"""The API's operations by id: one function each, find → model → apply. They return rows.

`spans_and_runs_by_id` and `agents_by_id` call these functions and return the API's models.
"""
