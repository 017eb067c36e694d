"""Migrates a schema to the version that this code needs: one program at a time, and again after it was interrupted.

A migration is a transaction. What takes long in a large table is a step before it, outside any transaction, while
others read and write: validating a constraint, or building an index CONCURRENTLY. A step finds out what an interrupted
one has left. One lock is held over all of it, by the session, so it is gone when the program or its connection dies.
"""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from agentspan.errors import DatabaseBusy, DatabaseUnusable
from agentspan.storage import before_release
from agentspan.storage.new_account import new_account
from agentspan.storage.postgres.connection import Connection
from agentspan.storage.postgres.connections import Connections, wait_at_most
from agentspan.storage.postgres.driver_errors import DRIVER_ERRORS, translated
from agentspan.storage.postgres.lending import rows_of
from agentspan.storage.postgres.migrations import BEFORE, MIGRATIONS, Migration, newest
from agentspan.storage.postgres.tables import FUNCTIONS, VERSION, VIEWS

LONGEST_S = 86_400
"""Seconds that a statement of a migration may take."""
PAUSE_S = 0.05
# Tried again and again: whoever waited in a statement would hold a snapshot, which building an index waits for.
_LOCK = "select pg_try_advisory_lock(hashtextextended('agentspan:' || %s, 0))"
_UNLOCK = "select pg_advisory_unlock(hashtextextended('agentspan:' || %s, 0))"
_VIEWS = "select viewname, definition from pg_views where schemaname = current_schema() and viewname = any(%s)"
_IS_VALID = "select indisvalid from pg_index where indexrelid = to_regclass(%s)"


def built(name: str, on: str) -> Callable[[Connection], None]:
    """Return a step that builds an index CONCURRENTLY: others write to its table meanwhile.

    An invalid one, which a build that was killed has left, is dropped and built again.

    Args:
        on: the table and its columns, as in `on runs (id)`.
    """

    def build(connection: Connection) -> None:
        found = rows_of(connection, _IS_VALID, (name,))
        if found and not found[0][0]:
            connection.execute(f"drop index concurrently {name}")
        if not found or not found[0][0]:
            connection.execute(f"create index concurrently {name} {on}")

    return build


def migrate(connections: Connections, wait_s: float, migrations: Sequence[Migration] = MIGRATIONS) -> None:
    """Create the schema, or migrate it to the version of the last migration.

    Raises:
        DatabaseBusy: another program migrates it for longer than `wait_s` seconds.
        DatabaseUnusable: it is of a newer agentspan or of before the first release, or the user lacks a privilege.
    """
    try:
        with connections.lent(wait_s) as connection:
            wait_at_most(connection, wait_s)
            connection.execute("set statement_timeout = 0")
            connection.answer_s = LONGEST_S
            try:
                with _alone(connection, connections, wait_s):
                    _migrate(connection, connections, migrations)
            finally:
                connection.close()  # with its settings
    except DRIVER_ERRORS as error:
        raise translated(error, connections.location) from error


@contextmanager
def _alone(connection: Connection, connections: Connections, wait_s: float) -> Iterator[None]:
    until = time.monotonic() + wait_s
    while not rows_of(connection, _LOCK, (connections.schema,))[0][0]:
        if time.monotonic() > until:
            raise DatabaseBusy(f"another program migrates the tables of {connections.location}; try again")
        time.sleep(PAUSE_S)
    yield


def _migrate(connection: Connection, connections: Connections, migrations: Sequence[Migration]) -> None:
    connection.execute(f'create schema if not exists "{connections.schema}"')
    connection.execute("create table if not exists storage_version (version integer not null)")
    found = connection.execute(VERSION).fetchone()
    version = 0 if found is None else found[0]
    check(connections, version, migrations)
    is_new = version == 0
    rest = list(migrations[0 if is_new else version - BEFORE :])
    while rest:
        for step in () if is_new else rest[0].before:
            step(connection)
        # As many versions in one transaction as there are without steps between.
        count = next((number for number in range(1, len(rest)) if not is_new and rest[number].before), len(rest))
        with connection.transaction():
            _lead_to(connection, rest[:count], newest(migrations) - len(rest) + count, is_last=count == len(rest))
        rest = rest[count:]


def check(connections: Connections, version: int, migrations: Sequence[Migration]) -> None:
    """Raise for tables that this code does not know.

    Args:
        version: that of the tables; 0 where there are none.

    Raises:
        DatabaseUnusable: they are of a newer agentspan, or of before the first release.
    """
    if version > newest(migrations):
        raise DatabaseUnusable(
            f"the tables have version {version}, this agentspan knows {newest(migrations)}; install a newer agentspan"
        )
    if 0 < version <= BEFORE:
        raise before_release.refused(str(connections.location), "schema", version)


def _lead_to(connection: Connection, migrations: Sequence[Migration], version: int, *, is_last: bool) -> None:
    """Lead to a version by some migrations, in the transaction that is under way."""
    views = dict(VIEWS)
    if not is_last:  # those of the code before, for its programs
        stored = dict(rows_of(connection, _VIEWS, (list(VIEWS),)))
        views = {name: stored[name] for name in VIEWS if name in stored}
    for view in reversed(VIEWS):
        connection.execute(f"drop view if exists {view}")
    for migration in migrations:
        for statement in migration.statements:
            if callable(statement):
                statement(connection)
            else:
                connection.execute(statement)
    for statement in FUNCTIONS:
        connection.execute(statement)
    for view, sql in views.items():
        connection.execute(f"create view {view} as {sql}")
    if connection.execute("select 1 from accounts").fetchone() is None:
        connection.execute("insert into accounts values (%s, %s, %s, %s, %s)", new_account())
    connection.execute("delete from storage_version")
    connection.execute("insert into storage_version values (%s)", (version,))
