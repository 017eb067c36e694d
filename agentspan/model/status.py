"""The statuses, and which status may follow which. This table is the only definition.

    create ─▶ pending ──start──▶ active ──finish──▶ complete | failed
                 └──finish(cancelled)──▶ cancelled        active ──terminate──▶ terminated   (instances only)

Spans that a program left open are closed for it: `terminate` closes the open spans of a run, `doctor` those of a
dead program (active → failed, pending → cancelled, `closed_by` says which). Such a close is a guess. The span's own
first end, whenever it arrives, replaces status, result and times; `closed_by` and `closed_at` stay. A run that was
closed as abandoned follows the same rule. A terminated run stays terminated, but gets result, error and times.

Source: the page "Finish an agent span" of the Prefactor API; `terminated` from its official clients.
"""

from collections.abc import Mapping
from typing import Literal

from agentspan.errors import InvalidValue

SpanStatus = Literal["pending", "active", "complete", "failed", "cancelled"]
InstanceStatus = Literal["pending", "active", "complete", "failed", "cancelled", "terminated"]
FinishStatus = Literal["complete", "failed", "cancelled"]
AgentStatus = Literal["pending", "active", "retired"]
Purpose = Literal["live", "smoke_test", "eval"]

SPAN_STATUSES: tuple[SpanStatus, ...] = ("pending", "active", "complete", "failed", "cancelled")
INSTANCE_STATUSES: tuple[InstanceStatus, ...] = (*SPAN_STATUSES, "terminated")
AGENT_STATUSES: tuple[AgentStatus, ...] = ("pending", "active", "retired")
FINISH_STATUSES: tuple[FinishStatus, ...] = ("complete", "failed", "cancelled")
PURPOSES: tuple[Purpose, ...] = ("live", "smoke_test", "eval")

LEAVES: Mapping[str, frozenset[str]] = {
    "active": frozenset({"pending"}),
    "complete": frozenset({"active"}),
    "failed": frozenset({"active"}),
    "cancelled": frozenset({"pending"}),
    "terminated": frozenset({"active"}),
}
"""The statuses from which a span or an instance may move to the key."""

OPEN: frozenset[str] = frozenset({"pending", "active"})
"""The statuses of a span or run that is not finished."""

CLOSERS: frozenset[str] = frozenset({"terminated", "abandoned"})
"""The values of `closed_by`: the reason why a span or a run was closed for its program."""

REPLACED: Mapping[str, frozenset[str]] = {
    "complete": frozenset({"failed", "cancelled", "terminated"}),
    "failed": frozenset({"failed", "cancelled", "terminated"}),
    "cancelled": frozenset({"cancelled"}),
}
"""The statuses of a close that an own end replaces, by the status of the end.

A span closed as cancelled may have started before the close, unseen, so every end replaces the close. A span closed as
failed was active, so an end as cancelled does not."""


NUL = "\x00"


def check_text(field: str, text: str) -> str:
    """Return a text if every backend can store it.

    Raises:
        InvalidValue: the text holds a NUL.
    """
    if NUL in text:
        raise InvalidValue(field, "has a NUL character (U+0000), which not every database can store; remove it")
    return text


def without_nul(text: str) -> str:
    """Replace each NUL of a text by U+FFFD. For recording, which refuses no text."""
    return text.replace(NUL, "\ufffd")
