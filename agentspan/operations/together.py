"""Carries out operations of several callers in one reading and one commit, so that they share the round trips of both.

No operation learns of the others: each has its own outcome, as if it had been alone.
"""

from collections.abc import Sequence

from agentspan.model.changes import Unit
from agentspan.model.rows import instance_of
from agentspan.operations.context import Context, Done, Plan, done_of
from agentspan.storage.answers import Found
from agentspan.storage.questions import Find


def carry_out_together(ctx: Context, plans: Sequence[Plan]) -> list[Done | Exception | None]:
    """Return for each plan what was done, or its error; None where it has to be carried out again, alone.

    Raises:
        StorageError: nothing is stored (after InDoubt, it may be). Each can be carried out alone then.
    """
    ctx.check_writable()
    ids = {id for plan in plans if plan.kept is None for id in plan.ids()}
    found = ctx.storage.ask(Find(*ids)) if ids else Found({})
    results: list[Done | Exception | None] = [None] * len(plans)
    units: list[tuple[int, Unit]] = []
    for place, plan in enumerate(plans):
        try:
            decided = ctx.decided(plan, plan.kept or _part_of(found, plan), is_first=True)
        except Exception as error:  # it must cost this operation only
            results[place] = error
            continue
        if isinstance(decided, Unit):
            units.append((place, decided))
    outcomes = ctx.storage.apply([unit for _, unit in units], wait_s=ctx.wait_s) if units else []
    for (place, _), outcome in zip(units, outcomes, strict=True):
        try:
            results[place] = done_of(plans[place], outcome)
        except Exception as error:
            results[place] = error
    return results


def _part_of(found: Found, plan: Plan) -> Found:
    """Return what a plan would have found alone."""
    rows = {id: found.rows[id] for id in plan.ids() if id in found.rows}
    if not found.terminated:
        return Found(rows)
    runs = {instance_of(row) for type_, row in rows.values() if type_ in ("agent_instance", "agent_span")}
    return Found(rows, None, {run: reason for run, reason in found.terminated.items() if run in runs})
