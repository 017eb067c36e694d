"""The ids that spans of OpenTelemetry get here, and ours there: the same ones however often and by which way they come.

A span's id has its run's time, the file's partition, and 80 bits of a hash of its trace's and its own id. So a child
can name its parent before the parent has arrived, and a program that sends its spans and records them stores each once.
"""

import hashlib
from collections.abc import Callable
from importlib import import_module
from typing import Any

from agentspan import ids
from agentspan.otel.w3c import Named

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
