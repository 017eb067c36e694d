"""The PostgreSQL backend: a schema of a database that many hosts write at once. Needs the extra `postgres`."""

from typing import TYPE_CHECKING

from agentspan import host
from agentspan.errors import DatabaseUnusable
from agentspan.installing import needs_extra
from agentspan.storage.location import Location
from agentspan.tuning import STANDARD, Tuning

if TYPE_CHECKING:
    from agentspan.storage.protocol import Storage


def check(location: Location) -> None:
    """Check a URL without connecting.

    Raises:
        DatabaseUnusable: psycopg is not installed.
        InvalidValue: libpq does not understand the URL.
    """
    _check_driver()
    with host.importing:
        from agentspan.storage.postgres.connections import Connections

    Connections(location, read_only=False, wait_s=0.0)


def open_postgres(location: Location, *, read_only: bool, wait_s: float, tuning: Tuning = STANDARD) -> "Storage":
    """Open the schema that a URL names, and return its storage.

    Raises:
        DatabaseUnusable: psycopg is not installed, the server cannot be reached, or the tables are of a newer version.
    """
    _check_driver()
    with host.importing:
        from agentspan.storage.postgres.storage import PostgresStorage

    return PostgresStorage(location, read_only=read_only, wait_s=wait_s, tuning=tuning)


def _check_driver() -> None:
    with host.importing:
        try:
            import psycopg  # noqa: F401
        except ImportError:
            raise DatabaseUnusable(needs_extra("PostgreSQL", "postgres")) from None
