"""Storage of rows: the protocol of backends, and two backends under the same contract, SQLite and memory."""
