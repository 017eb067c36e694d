"""Translates errors of psycopg into agentspan's, by SQLSTATE. No message has a value that is stored, or a password.

The server's own messages are dropped where they may quote a value; the SQLSTATE and its name stay.
"""

import psycopg

from agentspan.errors import AgentspanError, DatabaseBusy, DatabaseUnusable, NotPermitted, NotStorable, StorageError
from agentspan.storage.location import Location

DRIVER_ERRORS = (psycopg.Error, UnicodeEncodeError, OverflowError)
"""The errors that psycopg raises. The last two: text that is no Unicode, and numbers that no column holds."""

_AGAIN = frozenset({"40001", "40P01", "23505", "23514"})
"""Worth doing again at once: serialization failure, deadlock, a key that another transaction stored first, and a
partition that another one made for a row which was on its way to the default partition."""
_BUSY = frozenset({"55P03", "57014", "53300", "57P03", "57P01", "57P02", "23514"})
"""Lock and statement timeouts, too many connections, a server that starts or stops, a migration to partitions."""
_NO_TABLES = frozenset({"42P01", "3F000"})


def is_worth_repeating(error: BaseException) -> bool:
    """Return whether the same transaction may succeed at once, now that another one is done."""
    return isinstance(error, psycopg.Error) and error.sqlstate in _AGAIN


def has_no_tables(error: psycopg.Error) -> bool:
    """Return whether a statement failed because its table or schema does not exist."""
    return error.sqlstate in _NO_TABLES


def translated(error: BaseException, location: Location) -> AgentspanError:
    """Return the error of agentspan for an error of the driver."""
    state = getattr(error, "sqlstate", None)
    if state is None:
        if isinstance(error, (UnicodeEncodeError, OverflowError, psycopg.DataError)):
            return NotStorable(f"PostgreSQL cannot store a value: {type(error).__name__}")
        if isinstance(error, psycopg.OperationalError):
            return StorageError(f"{location}: {location.hidden_in(_one_line(error))}")
        return StorageError(f"{location}: {type(error).__name__}")
    named = f"{type(error).__name__}, SQLSTATE {state}"
    if state in _BUSY or state[:2] == "53":
        return DatabaseBusy(f"{location} did not answer in time or has no room ({named}); try again")
    if state in ("40001", "40P01"):
        return DatabaseBusy(f"other writers kept getting in the way in {location} ({named}); try again")
    if state == "25006":
        return NotPermitted(f"{location} was opened to be read only")
    if state[:2] in ("22", "54") or state in ("23502", "42804"):
        return NotStorable(f"PostgreSQL cannot store a value ({named})")
    if state == "42501":
        return DatabaseUnusable(
            f"the user of {location} lacks a privilege ({named}); see 'Roles' in docs/postgresql.md"
        )
    if state in _NO_TABLES or state == "42703":
        return DatabaseUnusable(f"{location} lacks a table or column of agentspan ({named})")
    return StorageError(f"{location}: PostgreSQL refused a statement ({named})")


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split())[:300]
