"""The headers `traceparent` and `tracestate` of W3C's Trace Context: read and written, nothing else."""

import re
from collections.abc import Iterable
from typing import NamedTuple

from agentspan import ids

MAX_MEMBERS = 32
MEMBER = "agentspan"
"""The name of agentspan's member of a tracestate. Its value is `RUN`, `RUN:SPAN` or `RUN:SPAN:SENT`."""
SAMPLED = "01"
_PARENT = re.compile(r"(?!ff)([0-9a-f]{2})-(?!0{32})([0-9a-f]{32})-(?!0{16})([0-9a-f]{16})-([0-9a-f]{2})(-.*)?\Z")
_KEY = re.compile(r"[a-z0-9][a-z0-9_*/-]{0,240}(@[a-z][a-z0-9_*/-]{0,13})?\Z")
_VALUE = re.compile(r"[\x20-\x2b\x2d-\x3c\x3e-\x7e]{0,255}[\x21-\x2b\x2d-\x3c\x3e-\x7e]\Z")

State = tuple[tuple[str, str], ...]
"""Members of a tracestate, the newest first."""


class TraceParent(NamedTuple):
    """The place in a trace that a request comes from; ids in lower-case hexadecimal digits, not all 0."""

    trace_id: str
    span_id: str
    flags: str = SAMPLED


class Named(NamedTuple):
    """The place in agentspan that a `tracestate` names.

    Attributes:
        run, span: ids of agentspan; no span where the request was sent by the run itself.
        sent: the id of the span in the `traceparent` beside it, where that is one of OpenTelemetry around `span`.
    """

    run: str | None = None
    span: str | None = None
    sent: str | None = None


def read_parent(header: str) -> TraceParent | None:
    """Return the place in a `traceparent`; None if it is not valid. Versions after 00 may add to its end."""
    found = _PARENT.match(header.strip(" \t"))
    if found is None or (found[1] == "00" and found[5] is not None):
        return None
    return TraceParent(found[2], found[3], found[4])


def write_parent(parent: TraceParent) -> str:
    """Return the header, in version 00, which has no flags but the first two."""
    return f"00-{parent.trace_id}-{parent.span_id}-{int(parent.flags, 16) & 3:02x}"


def read_state(header: str) -> State:
    """Return the members of a `tracestate`; none if one of them is not valid, as the standard wants."""
    members: dict[str, str] = {}
    for part in header.split(","):
        name, _, value = part.strip(" \t").partition("=")
        if not name and not value:
            continue
        if not _KEY.match(name) or not _VALUE.match(value) or name in members:
            return ()
        members[name] = value
    return tuple(members.items()) if len(members) <= MAX_MEMBERS else ()


def write_state(members: Iterable[tuple[str, str]]) -> str:
    """Return the header, with as many members as it may have."""
    return ",".join(f"{name}={value}" for name, value in [*members][:MAX_MEMBERS])


def changed(members: State, value: str | None) -> State:
    """Return members with agentspan's at the front, as the one that was changed last; None: without it."""
    others = tuple(each for each in members if each[0] != MEMBER)
    return others if value is None else ((MEMBER, value), *others)


def carried(header: str) -> Named:
    """Return the place in agentspan that a `tracestate` names."""
    return read_member(dict(read_state(header)).get(MEMBER)) if MEMBER in header else Named()


def read_member(member: str | None) -> Named:
    """Return the place that the value of agentspan's member names."""
    run, span, sent = [*(member or "").split(":"), "", ""][:3]
    return Named(run, span if ids.is_pfid(span) else None, sent or None) if ids.is_pfid(run) else Named()
