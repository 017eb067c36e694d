"""Begins and ends of spans as a foreign instrumentor told them, which are read when their record is drained.

Reading one costs more than all the rest of a span (0.1 ms, where a recorded call costs 7 µs). So the caller appends
what it was told, and the drain thread, or the process that recovers the journal, reads it. A begin whose end comes in
the same batch is not read at all.
"""

from importlib import import_module
from typing import Any, NamedTuple

from agentspan import forks
from agentspan.model.status import FinishStatus

_READERS = {"otel": "agentspan.otel.sdk"}
"""The module of each reader, by its name in records. It has the functions `begin` and `end`. It is imported when it is
needed: a process that recovers the journal of another one may never have recorded such spans."""


class Begin(NamedTuple):
    """The begin of a span: its type, which may be a guess, and its payload as JSON text."""

    schema_name: str
    payload: str


class End(NamedTuple):
    """The end of a span, with the type and the payload that were learnt by then.

    Attributes:
        payload, result: as JSON text; `result` is None if nothing came out.
    """

    schema_name: str
    status: FinishStatus
    payload: str
    result: str | None


def read_begin(reader: str, text: str) -> Begin:
    """Return the begin that a text tells.

    Raises:
        LookupError: a reader that this version does not have.
    """
    found: Begin = _module(reader).begin(text)
    return found


def read_end(reader: str, text: str) -> End:
    """Return the end that a text tells.

    Raises:
        LookupError: a reader that this version does not have.
    """
    found: End = _module(reader).end(text)
    return found


def _module(reader: str) -> Any:
    with forks.importing:
        return import_module(_READERS[reader])
