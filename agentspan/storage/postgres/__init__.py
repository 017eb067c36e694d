"""The PostgreSQL backend: a schema of a database that many hosts write at once. Needs the extra `postgres`."""

from agentspan.storage.postgres.opening import open_postgres

__all__ = ["open_postgres"]
