"""Migrates a schema to the version that this code needs: one program at a time, and again after it was interrupted.

A migration is a transaction. What takes long in a large table is a step before it, outside any transaction, while
others read and write: validating a constraint, or building an index CONCURRENTLY. A step finds out what an interrupted
one has left. One lock is held over all of it, by the session, so it is gone when the program or its connection dies.
"""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager

from agentspan.errors import DatabaseBusy, DatabaseUnusable
from agentspan.storage.new_account import new_account
from agentspan.storage.postgres import partitioning
from agentspan.storage.postgres.connection import Connection
from agentspan.storage.postgres.connections import Connections, wait_at_most
from agentspan.storage.postgres.driver_errors import DRIVER_ERRORS, translated
from agentspan.storage.postgres.lending import rows_of
from agentspan.storage.postgres.migrations import MIGRATIONS, NAMES_BY_RUN, Migration
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


STEPS: Mapping[int, tuple[Callable[[Connection], None], ...]] = {
    4: (partitioning.constrain,),
    5: (built(*NAMES_BY_RUN),),
}
"""For a version, what is done before the transaction that leads to it, where the schema has rows."""


def migrate(connections: Connections, wait_s: float, migrations: Sequence[Migration] = MIGRATIONS) -> None:
    """Create the schema, or migrate it to the version of the last migration.

    Raises:
        DatabaseBusy: another program migrates it for longer than `wait_s` seconds.
        DatabaseUnusable: a newer agentspan has migrated it, or the user lacks a privilege.
    """
    try:
        with connections.lent(wait_s) as connection:
            wait_at_most(connection, wait_s)
            connection.execute("set statement_timeout = 0")
            connection.answer_s = LONGEST_S
            try:
                with _alone(connection, connections, wait_s):
                    _migrate(connection, connections.schema, migrations)
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


def _migrate(connection: Connection, schema: str, migrations: Sequence[Migration]) -> None:
    newest = len(migrations)
    connection.execute(f'create schema if not exists "{schema}"')
    connection.execute("create table if not exists storage_version (version integer not null)")
    found = connection.execute(VERSION).fetchone()
    version = 0 if found is None else found[0]
    if version > newest:
        raise newer(version, newest)
    while version < newest:
        is_new = version == 0
        if not is_new:
            for step in STEPS.get(version + 1, ()):
                step(connection)
        # As many versions in one transaction as there are without steps between.
        last = next((each for each in range(version + 1, newest) if not is_new and STEPS.get(each + 1)), newest)
        with connection.transaction():
            _lead_to(connection, migrations, version, last)
        version = last


def _lead_to(connection: Connection, migrations: Sequence[Migration], version: int, last: int) -> None:
    """Lead from one version to another, in the transaction that is under way."""
    views = dict(VIEWS)
    if last < len(migrations):  # those of the code before, for its programs
        stored = dict(rows_of(connection, _VIEWS, (list(VIEWS),)))
        views = {name: stored[name] for name in VIEWS if name in stored}
    for view in reversed(VIEWS):
        connection.execute(f"drop view if exists {view}")
    for statements in migrations[version:last]:
        for statement in statements:
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
    connection.execute("insert into storage_version values (%s)", (last,))


def newer(version: int, newest: int) -> DatabaseUnusable:
    """Return the error for a schema of a version that this code does not know."""
    return DatabaseUnusable(
        f"the tables have version {version}, this agentspan knows {newest}; install a newer agentspan"
    )
