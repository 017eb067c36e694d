"""The API's operations by id: one function each, find → model → apply. They return rows; `by_id` makes models."""
