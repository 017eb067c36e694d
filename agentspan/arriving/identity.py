"""Derives ids from what a source calls its runs and steps: OpenTelemetry's ids, or a session's id and a step's key.

An id is the same on each way by which a step arrives. A span's id consists of the time of its run, the partition of the
file, and 80 bits of a hash of the source's ids. So a child can name its parent before the parent has arrived, and a
program that both records and exports its spans stores each span once.
"""

import hashlib
from collections.abc import Callable
from importlib import import_module
from typing import Any

from agentspan import ids

_MAX_MILLIS = 2**48 - 1
_HEAD = 16
"""The number of characters at the start of an id that hold its time and partition."""


def _sha256() -> Callable[[bytes], Any]:
    """Return the interpreter's own SHA-256: 0.6 µs for a short text. OpenSSL's takes 1.0 µs, to set up a context."""
    for name in ("_sha2", "_sha256"):  # hashlib uses these modules, too, if OpenSSL is missing
        try:
            own: Callable[[bytes], Any] = import_module(name).sha256
            return own
        except ImportError:
            continue
    return hashlib.sha256


_hash = _sha256()


def span_id(run: str, trace_id: str, span_id: str) -> str:
    """Return the id in agentspan of an OpenTelemetry span, or of a step of a session.

    Args:
        run: the id of the span's run. Its time and partition become those of the span's id.
        trace_id, span_id: OpenTelemetry's ids in lower-case hex; or a session's id and a step's key, any texts.
    """
    digest = _hash(f"{trace_id}:{span_id}".encode("utf-8", "surrogatepass")).digest()
    return run[:_HEAD] + ids.encode_randomness(digest)


def span_id_of_number(run: str, trace_id: str, span_id: int) -> str:
    """Return the id in agentspan of an OpenTelemetry span, equal to that of `span_id`.

    Args:
        run: the id of the span's run.
        trace_id: OpenTelemetry's trace id in lower-case hex.
        span_id: OpenTelemetry's span id as a number, as the SDK stores it.
    """
    digest = _hash(f"{trace_id}:{span_id.to_bytes(8).hex()}".encode()).digest()  # `:016x` takes twice as long
    return run[:_HEAD] + ids.encode_randomness(digest)


def run_id(key: str, begun_ns: int, partition: int) -> str:
    """Return the id of a new run that holds OpenTelemetry spans.

    Args:
        key: the unique key of the run, from the module `traces`.
        begun_ns: the start of the first known span, in nanoseconds since the epoch.
        partition: the partition of the file.
    """
    return hashed_id(key, begun_ns, partition)


def hashed_id(content: str, time_ns: int, partition: int) -> str:
    """Return an id made of a time and a hash of a content: the same content at the same time gets the same id."""
    randomness = int.from_bytes(hashlib.sha256(content.encode("utf-8", "surrogatepass")).digest()[:10])
    return ids.encode(min(max(time_ns // 1_000_000, 0), _MAX_MILLIS), partition, randomness)
