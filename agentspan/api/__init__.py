"""The API's operations by id, one class each: find rows, decide by the model, apply.

`facade` runs them for Python and returns resources. `serve` and `bulk` run them and return the API's envelopes.
"""
