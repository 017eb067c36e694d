"""Looks whether the rows are there that a new row refers to."""

from collections.abc import Iterable

from agentspan.model.changes import Ref, Refused
from agentspan.storage.postgres import statements
from agentspan.storage.postgres.connection import Connection
from agentspan.storage.postgres.lending import rows_of
from agentspan.storage.postgres.reads import locate


def missing(connection: Connection, refs: Iterable[Ref]) -> Refused | None:
    """Lock the rows that a row refers to, so that nothing removes them; return the refusal where one is not there."""
    for ref in refs:
        if ref in connection.kept:  # a drain registers many runs of one agent
            continue
        if not rows_of(connection, statements.REFERRED[ref.type], (ref.id,)):
            found = locate(connection, ref.id)
            return Refused("missing", found[1] if found is not None else None)
        connection.kept |= {ref}
    return None
