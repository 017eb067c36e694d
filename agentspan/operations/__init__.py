"""The API's operations by id: one function each, find → model → apply. They return rows; `database` wraps them."""
