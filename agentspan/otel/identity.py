"""Ids of spans of OpenTelemetry here, and of ours there: the same by every way; headers `traceparent`, `tracestate`.

A span's id has its run's time, the file's partition, and 80 bits of a hash of its trace's and its own id. So a child
can name its parent before the parent has arrived, and a program that sends its spans and records them stores each once.
"""

import hashlib
import re
from collections.abc import Callable, Iterable
from importlib import import_module
from typing import Any, NamedTuple

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


_MAX_MILLIS = 2**48 - 1
_HEAD = 16
"""Characters of an id that hold its time and partition."""


def _sha256() -> Callable[[bytes], Any]:
    """Return the interpreter's own SHA-256: 0.6 µs for a short text, where OpenSSL's sets up a context for 1.0."""
    for name in ("_sha2", "_sha256"):  # hashlib takes them, too, where OpenSSL is missing
        try:
            own: Callable[[bytes], Any] = import_module(name).sha256
            return own
        except ImportError:
            continue
    return hashlib.sha256


_hash = _sha256()


def span_id(run: str, trace_id: str, span_id: str) -> str:
    """Return the id of a span.

    Args:
        run: the id of the run that it is in, from which time and partition are taken.
        trace_id, span_id: of OpenTelemetry, as lower-case hex.
    """
    digest = _hash(f"{trace_id}:{span_id}".encode()).digest()
    return run[:_HEAD] + ids.encode_randomness(digest)


def span_id_of_number(run: str, trace_id: str, span_id: int) -> str:
    """Return the same id of a span whose id in OpenTelemetry is given as a number, as the SDK has it."""
    digest = _hash(f"{trace_id}:{span_id.to_bytes(8).hex()}".encode()).digest()  # a format takes twice as long
    return run[:_HEAD] + ids.encode_randomness(digest)


def run_id(key: str, begun_ns: int, partition: int) -> str:
    """Return the id of a new run.

    Args:
        key: of its trace or process, which tells the run from all others.
        begun_ns: when its first known span began, in nanoseconds since the epoch.
        partition: of the file.
    """
    randomness = int.from_bytes(hashlib.sha256(key.encode()).digest()[:10])
    return ids.encode(min(max(begun_ns // 1_000_000, 0), _MAX_MILLIS), partition, randomness)


def caller_id(run: str, named: Named, trace_id: str, parent: str) -> str | None:
    """Return the id of the span in a run that a request came from; None where the run itself sent it.

    Args:
        named: what its `tracestate` names: passed on unchanged by services whose spans are of other libraries.
        trace_id, parent: of its `traceparent`, in which each service has put its own span.
    """
    if named.run == run and parent == (named.sent or span_id_of(named.span or run)):
        return named.span
    return span_id(run, trace_id, parent)


def trace_id_of(run: str) -> str:
    """Return the id of the trace that a run of agentspan is for others, in hexadecimal digits."""
    return hashlib.sha256(run.encode()).hexdigest()[:32]


def span_id_of(id: str) -> str:
    """Return the id that a span of agentspan, or the span of a run, has in that trace."""
    return hashlib.sha256(id.encode()).hexdigest()[:16]
