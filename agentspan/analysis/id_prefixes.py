"""Finds runs and spans by the text that a person types: an id, a unique prefix of one, `-` for the latest run.

`AGENT@VERSION` is the latest run of a version.
"""

from typing import TypeVar

from agentspan.analysis.agent_names import AT, latest_run
from agentspan.errors import InvalidValue, NotFound, UnexpectedRefType
from agentspan.ids import is_pfid
from agentspan.model.rows import AgentInstanceRow, AgentSpanRow, ResourceType, Row
from agentspan.storage.protocol import Query, Storage

LATEST = "-"
BETWEEN = "…"
"""Replaces the middle of an id, as in `013xrzp12g…hn3t`."""
MAX_CANDIDATES = 1000
R = TypeVar("R", bound=Row)


def find_run(storage: Storage, what: str) -> AgentInstanceRow:
    """Return the run that `what` names.

    Raises:
        NotFound: there is none.
        InvalidValue: several ids begin like that.
    """
    if what == LATEST:
        rows = storage.page(Query("agent_instance", descending=True, limit=1)).rows
        if not rows:
            raise NotFound("nothing has been recorded here yet; `agentspan demo` records a run to look at")
        return _as(AgentInstanceRow, rows[0], what)
    if AT in what:
        return latest_run(storage, what)
    return _as(AgentInstanceRow, _by_prefix(storage, "agent_instance", what), what)


def find_span(storage: Storage, what: str) -> AgentSpanRow:
    """Return the span that `what` names (see find_run)."""
    return _as(AgentSpanRow, _by_prefix(storage, "agent_span", what), what)


def find_run_or_span(storage: Storage, what: str) -> AgentInstanceRow | AgentSpanRow:
    """Return the run that `what` names (see find_run), else the span.

    Raises:
        NotFound: there is neither.
        InvalidValue: several ids begin like that.
    """
    try:
        return find_run(storage, what)
    except UnexpectedRefType:
        return find_span(storage, what)
    except NotFound:
        if what == LATEST:
            raise
    try:
        return find_span(storage, what)
    except NotFound:
        raise NotFound(f"no run or span has an id like {what[:40]!r}") from None


def _by_prefix(storage: Storage, type_: ResourceType, what: str) -> Row:
    noun = "run" if type_ == "agent_instance" else "span"
    if is_pfid(what):
        found = storage.find(what).rows
        if what not in found:
            raise NotFound(f"no {noun} has the id {what}")
        return found[what][1]
    head, between, tail = what.partition(BETWEEN)
    query = Query(type_, prefix=head, limit=MAX_CANDIDATES if between else 2)
    rows = storage.page(query).rows if head.isascii() else []  # a shell's odd bytes are no text for SQLite
    rows = [row for row in rows if row.id.endswith(tail)]
    if not rows:
        raise NotFound(f"no {noun}'s id begins with {what[:40]!r}")
    if len(rows) > 1:
        raise InvalidValue(noun, f"several ids begin with {what[:40]!r}; type more of it")
    return rows[0]


def _as(row_type: type[R], row: Row, what: str) -> R:
    if not isinstance(row, row_type):
        raise UnexpectedRefType(f"{what[:40]} is the id of something else")
    return row
