"""The statuses, and which status may follow which. This table is the only place that says so.

    create ─▶ pending ──start──▶ active ──finish──▶ complete | failed
                 └──finish(cancelled)──▶ cancelled        active ──terminate──▶ terminated   (instances only)

Source: the page "Finish an agent span" of the Prefactor API; `terminated` from its official clients.
"""

from collections.abc import Mapping
from typing import Literal

SpanStatus = Literal["pending", "active", "complete", "failed", "cancelled"]
InstanceStatus = Literal["pending", "active", "complete", "failed", "cancelled", "terminated"]
FinishStatus = Literal["complete", "failed", "cancelled"]
AgentStatus = Literal["pending", "active", "retired"]
Purpose = Literal["live", "smoke_test", "eval"]

SPAN_STATUSES: tuple[SpanStatus, ...] = ("pending", "active", "complete", "failed", "cancelled")
INSTANCE_STATUSES: tuple[InstanceStatus, ...] = (*SPAN_STATUSES, "terminated")
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
"""The statuses of what is not finished."""
