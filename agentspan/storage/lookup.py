"""Finds one row, by its id or by the columns that are unique together, and makes the API's errors for wrong ids."""

from typing import Any, TypeVar, cast

from agentspan.errors import InvalidValue, NotFound, UnexpectedRefType
from agentspan.model.registration import References
from agentspan.model.rows import (
    ROWS,
    TYPE_OF,
    AgentInstanceRow,
    AgentRow,
    AgentSchemaVersionRow,
    AgentVersionRow,
    ResourceType,
    Row,
    Value,
)
from agentspan.storage.answers import Found
from agentspan.storage.protocol import Storage
from agentspan.storage.questions import Find, Query

R = TypeVar("R", bound=Row)


def unique(storage: Storage, row_type: type[R], **where: Value) -> R | None:
    """Return the row whose unique columns have these values; None if there is no such row."""
    rows = storage.ask(Query(TYPE_OF[cast(Any, row_type)], cast(Any, where), limit=1)).rows
    return rows[0] if rows and isinstance(rows[0], row_type) else None


def references(storage: Storage, agent: AgentRow | None, version: str, content_hash: str) -> References:
    """Return the stored rows that the registration of a run needs: the agent, its version and its schema version.

    Args:
        agent: the run's agent; None for a new agent.
        version: the external_identifier of the run's agent version.
        content_hash: the hash of the run's schema version.
    """
    if agent is None:
        return References(None, None, None)
    return References(
        agent,
        unique(storage, AgentVersionRow, agent_id=agent.id, external_identifier=version),
        unique(storage, AgentSchemaVersionRow, agent_id=agent.id, content_hash=content_hash),
    )


def check_unused(found: Found, id: str | None) -> None:
    """Check that an id that a client chose is unused. None, for no such id, always passes.

    Raises:
        InvalidValue: a row has the id already.
    """
    if id is not None and id in found.rows:
        raise InvalidValue("id", f"{id} is used already; leave it out to get a new one")


_NOUNS: dict[type, str] = {row: type_.replace("_", " ") for type_, row in ROWS.items()}


def expect(found: Found, row_type: type[R], id: object) -> R:
    """Return the row with an id from `found`, and check its type.

    Raises:
        NotFound: no row has this id.
        UnexpectedRefType: the row has another type.
    """
    noun = _NOUNS[row_type]
    located: tuple[ResourceType, Row] | None = found.rows.get(id) if isinstance(id, str) else None
    if located is None:
        raise NotFound(f"no {noun} has the id {_shown(id)}")
    row = located[1]
    if not isinstance(row, row_type):
        raise UnexpectedRefType(f"{_shown(id)} is the id of an {located[0].replace('_', ' ')}, not of an {noun}")
    return row


def instance(storage: Storage, id: str) -> AgentInstanceRow:
    """Return the run with an id.

    Raises:
        NotFound: no row has this id.
        UnexpectedRefType: the row has another type.
    """
    return expect(storage.ask(Find(id, instance_id=id)), AgentInstanceRow, id)


def _shown(id: object) -> str:
    return repr(id[:40]) if isinstance(id, str) else f"(a value of type {type(id).__name__})"
