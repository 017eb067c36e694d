"""The ids of OpenTelemetry that runs and spans get, and the caller of a request; reads and writes its two headers."""

import hashlib
import re
from collections.abc import Iterable
from typing import NamedTuple

from agentspan import ids
from agentspan.arriving.identity import span_id
from agentspan.model.rows import AgentInstanceRow, OtelTraceRow
from agentspan.storage.access import unique
from agentspan.storage.protocol import Storage

MAX_MEMBERS = 32
MEMBER = "agentspan"
"""The name of agentspan's member of a tracestate. Its value is `RUN`, `RUN:SPAN` or `RUN:SPAN:SENT`."""
SAMPLED = "01"
_PARENT = re.compile(r"(?!ff)([0-9a-f]{2})-(?!0{32})([0-9a-f]{32})-(?!0{16})([0-9a-f]{16})-([0-9a-f]{2})(-.*)?\Z")
_KEY = re.compile(r"[a-z0-9][a-z0-9_*/-]{0,240}(@[a-z][a-z0-9_*/-]{0,13})?\Z")
_VALUE = re.compile(r"[\x20-\x2b\x2d-\x3c\x3e-\x7e]{0,255}[\x21-\x2b\x2d-\x3c\x3e-\x7e]\Z")

State = tuple[tuple[str, str], ...]
"""The members of a `tracestate` as pairs of name and value, the newest first."""


class TraceParent(NamedTuple):
    """The span that sent a request, parsed from `traceparent`; ids in lower-case hexadecimal digits, not all 0."""

    trace_id: str
    span_id: str
    flags: str = SAMPLED


class Named(NamedTuple):
    """The run and span of agentspan that a `tracestate` names as the sender of a request.

    Attributes:
        run, span: ids of agentspan; `span` is None if the run itself sent the request.
        sent: the span id that the sender wrote into `traceparent`, if it is the id of an OpenTelemetry span instead of
            the id derived from `span`.
    """

    run: str | None = None
    span: str | None = None
    sent: str | None = None


def read_parent(header: str) -> TraceParent | None:
    """Parse a `traceparent`; return None if it is not valid. Versions after 00 may have more fields at the end."""
    found = _PARENT.match(header.strip(" \t"))
    if found is None or (found[1] == "00" and found[5] is not None):
        return None
    return TraceParent(found[2], found[3], found[4])


def write_parent(parent: TraceParent) -> str:
    """Return the header `traceparent` in version 00, with the two flags that are defined."""
    return f"00-{parent.trace_id}-{parent.span_id}-{int(parent.flags, 16) & 3:02x}"


def read_state(header: str) -> State:
    """Parse a `tracestate`; return no members if one of them is not valid, as the W3C standard wants."""
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
    """Return the header `tracestate` with the first MAX_MEMBERS members."""
    return ",".join(f"{name}={value}" for name, value in [*members][:MAX_MEMBERS])


def changed(members: State, value: str | None) -> State:
    """Return members with agentspan's member set to `value`, or removed if `value` is None.

    It comes first, because the standard wants the member that was changed last at the front.
    """
    others = tuple(each for each in members if each[0] != MEMBER)
    return others if value is None else ((MEMBER, value), *others)


def carried(header: str) -> Named:
    """Return the run and span of agentspan that a `tracestate` header names; all None if it names none."""
    return read_member(dict(read_state(header)).get(MEMBER)) if MEMBER in header else Named()


def read_member(member: str | None) -> Named:
    """Parse the value of agentspan's member of a `tracestate`; all fields are None if it has no valid run id."""
    run, span, sent = [*(member or "").split(":"), "", ""][:3]
    return Named(run, span if ids.is_pfid(span) else None, sent or None) if ids.is_pfid(run) else Named()


def run_of_caller(storage: Storage, named: Named, trace_id: str) -> AgentInstanceRow | None:
    """Return the run that a request came from: the one that `tracestate` names, else that of the trace; None without.

    Args:
        named: the run and span named in `tracestate`.
        trace_id: the id in `traceparent`.
    """
    row = None if named.run is None else unique(storage, AgentInstanceRow, id=named.run)
    if row is None:
        trace = unique(storage, OtelTraceRow, id=trace_id)
        row = None if trace is None else unique(storage, AgentInstanceRow, id=trace.agent_instance_id)
    return row


def caller_id(run: str, named: Named, trace_id: str, parent: str) -> str | None:
    """Return the id in agentspan of the span that sent a request; None if the run itself sent it.

    Args:
        run: the id of the run that the span is in.
        named: the run and span named in `tracestate`. Services with other libraries pass `tracestate` on unchanged.
        trace_id, parent: the ids in `traceparent`, where each service in between puts its own span.
    """
    if named.run == run and parent == (named.sent or span_id_of(named.span or run)):
        return named.span
    return span_id(run, trace_id, parent)


def trace_id_of(run: str) -> str:
    """Return the trace id that a run of agentspan gets in OpenTelemetry, in 32 hexadecimal digits."""
    return hashlib.sha256(run.encode()).hexdigest()[:32]


def span_id_of(id: str) -> str:
    """Return the span id that a span or a run of agentspan gets in OpenTelemetry, in 16 hexadecimal digits."""
    return hashlib.sha256(id.encode()).hexdigest()[:16]
