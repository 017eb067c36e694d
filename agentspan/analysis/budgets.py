"""Computes how much of its budget a run has used, from the run, its spans, and its scores named `budget`.

These scores also record what somebody allowed in addition.
"""

from collections.abc import Iterable
from typing import Any, NamedTuple

from agentspan import clock
from agentspan.model.changes import OPEN
from agentspan.model.rows import AgentInstanceRow, ScoreRow
from agentspan.recording.budgets import (
    ALLOWED,
    LIMITS,
    NAME,
    PART,
    PAUSED,
    SPENT,
    Budget,
    amount_text,
    amounts_of,
    parse_amounts,
    stored_in,
    used_of_row,
)
from agentspan.storage.access import outlines_of
from agentspan.storage.protocol import Storage
from agentspan.storage.questions import Query
from agentspan.text import dotted


class Limit(NamedTuple):
    """One limit of a budget.

    Attributes:
        most: the limit with what was allowed in addition.
        used: how much the run has used; None for `repeats`, of which only the program knows.
        estimated: the part of `used` that is estimated: of calls without a known price.
    """

    name: str
    most: float
    used: float | None
    estimated: float = 0.0

    @property
    def has_room(self) -> bool:
        """True unless the whole limit is used."""
        return self.used is None or self.used < self.most

    def text(self) -> str:
        """Return the limit and its use, such as `$4.31 of $7.00`."""
        most = amount_text(self.name, self.most)
        if self.used is None:
            return f"at most {most} repeats"
        about = f" ({amount_text('usd', self.estimated)} estimated)" if self.estimated else ""
        unit = "" if self.name == "usd" else f" {self.name}"
        return f"{amount_text(self.name, self.used)} of {most}{unit}{about}"


class Allowed(NamedTuple):
    """An increase of a limit: by whom (None if nobody is named), how much (`usd +2`), and when, as stored text."""

    by: str | None
    amounts: str
    at: str


class BudgetUse(NamedTuple):
    """The budget of a run, and how much of it the run has used.

    Attributes:
        on_spent: the action of the program when a limit is reached.
        limits: the limits.
        spent: the latest limit that was reached, in the program's words; None if none was.
        waits: whether the run waits for somebody to allow more, judged by the file alone.
        allowed: what was allowed in addition, the earliest first.
    """

    on_spent: str
    limits: tuple[Limit, ...]
    spent: str | None
    waits: bool
    allowed: tuple[Allowed, ...]

    def text(self) -> str:
        """Return one line such as `budget $4.31 of $7.00 · 180 of 200 steps · kim allowed usd +2`."""
        who = (f"{each.by or 'somebody'} allowed {each.amounts}" for each in self.allowed)
        state = "paused: `agentspan run allow` lets it go on" if self.waits else ""
        return f"budget {dotted(*(limit.text() for limit in self.limits), *who, state)}"

    def plain(self) -> dict[str, Any]:
        """Return the budget as JSON."""
        limits = {
            limit.name: {
                "most": limit.most,
                "used": limit.used,
                "left": None if limit.used is None else max(0.0, limit.most - limit.used),
                "estimated": limit.estimated,
            }
            for limit in self.limits
        }
        allowed = [each._asdict() for each in self.allowed]
        return {
            "on_spent": self.on_spent, "limits": limits, "spent": self.spent, "waits": self.waits, "allowed": allowed
        }  # fmt: skip


def budget_of(storage: Storage, run: AgentInstanceRow) -> BudgetUse | None:
    """Return the budget of a run and its use; None if the run has no budget.

    A run inside a run with a budget has none.
    """
    stored = stored_in(run.metadata)
    if stored is None or stored.budget is None:
        return None
    found = storage.ask(Query("score", {"agent_instance_id": run.id, "name": NAME})).rows
    events = [row for row in found if isinstance(row, ScoreRow)]
    budget, most = stored.budget, _most(stored.budget, events)
    used: dict[str, float | None] = {"steps": 0, "tokens": 0, "usd": 0.0, "repeats": None}
    steps = tokens = 0
    usd = estimated = 0.0
    for run_id in (run.id, *(row.identifier for row in events if row.label == PART and row.identifier)):
        for span in outlines_of(storage, run_id, bare=True):
            if span.status not in ("pending", "cancelled"):
                each = used_of_row(span)
                steps, tokens = steps + 1, tokens + each.tokens
                usd, estimated = usd + each.usd, estimated + each.estimated
    used |= {"steps": steps, "tokens": tokens, "usd": usd, "minutes": _minutes(run)}
    limits = tuple(Limit(name, most[name], used[name], estimated if name == "usd" else 0.0) for name in most)
    spent = next((row.explanation for row in reversed(events) if row.label == SPENT), None)
    spent_at = max((row.inserted_at for row in events if row.label == SPENT), default="")
    limit = (spent or "").partition(":")[0]
    is_answered = any(
        row.label == ALLOWED and row.inserted_at >= spent_at and limit in parse_amounts(row.explanation or "")
        for row in events
    )
    waits = budget.on_spent == "pause" and run.status in OPEN and spent is not None and not is_answered
    allowed = (
        Allowed(row.identifier, row.explanation or "", row.inserted_at) for row in events if row.label == ALLOWED
    )
    on_spent = "function" if stored.has_function else str(budget.on_spent)
    return BudgetUse(on_spent, limits, spent, waits, tuple(allowed))


def without_events(run: AgentInstanceRow, scores: Iterable[ScoreRow]) -> list[ScoreRow]:
    """Return the scores of a run without those named `budget`, which record events of its budget."""
    if stored_in(run.metadata) is None:
        return [*scores]
    return [score for score in scores if score.name != NAME or score.target_id != run.id]


def _most(budget: Budget, events: Iterable[ScoreRow]) -> dict[str, float]:
    most = {name: amounts_of(budget)[name] for name in LIMITS if name in amounts_of(budget)}
    for row in events:
        if row.label in (ALLOWED, PAUSED):
            for name, amount in parse_amounts(row.explanation or "").items():
                if name in most:
                    most[name] += amount
    return most


def _minutes(run: AgentInstanceRow) -> float:
    if run.duration_ms is not None:
        return run.duration_ms / 60_000
    return max(0.0, clock.millis_between(run.started_at or run.inserted_at, run.finished_at or clock.now()) / 60_000)
