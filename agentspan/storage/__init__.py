"""Storage of rows: the contract of backends, and three backends: SQLite, PostgreSQL and memory."""
