"""Texts of the comparison of two groups of runs: the verdict as a sentence and the cells of the table."""

from collections.abc import Iterator, Sequence
from dataclasses import replace

from agentspan.analysis import statistics
from agentspan.analysis.drift import PASSED, Drift, DriftRow
from agentspan.analysis.drift_metrics import Metric
from agentspan.analysis.power import ALPHA
from agentspan.analysis.statistics import FEWEST_TASKS, Q_MEANS
from agentspan.schemas.builtin import built_in_part
from agentspan.text import cost_text, count_text, duration_text, noun, p_text, points, share_text

MAX_REASONS = 4
"""The largest number of differences that the verdict lists."""
SHOWN = 20
"""The number of rows of types and labels that are shown by default."""
_RUN_NAMES = {
    "passed": "passed",
    "cost_usd": "cost a run",
    "tokens": "tokens a run",
    "duration_ms": "duration of a run",
    "spans": "steps a run",
    "tool_mix": "mix of tools",
}
_LABEL_NAMES = {
    "calls": "calls",
    "failure_rate": "fails",
    "duration_ms": "takes",
    "tokens": "tokens",
    "cost_usd": "costs",
}
METHODS = {
    "permutation": "permutation of runs",
    "paired": "paired by task (means over tasks)",
    "normal": "normal approximation, clustered by run",
}


def sentence(found: Drift, base: str, head: str) -> str:
    """Return the verdict of a comparison as one sentence.

    Args:
        base, head: the names of the two groups, such as versions.
    """
    if found.verdict == "not_compared":
        return f"not compared: {_lacking(found, base, head)}"
    if found.verdict == "no_evidence":
        return f"no evidence of a difference; {_blind(found)}"
    if found.doubt is not None:
        also = f"; different: {_reasons(found.significant, MAX_REASONS)}" if found.significant else ""
        return f"inconclusive{also}; {found.doubt}"
    what = {"worse": "worse than", "better": "better than", "different": "different from"}[found.verdict]
    side = {"worse": True, "better": False}.get(found.verdict)
    own = [row for row in found.significant if side is None or row.is_worse is side]
    others = [row for row in found.significant if row not in own]
    by_task = ", task by task" if any(over_all(found)) else ""
    reasons = _reasons(own, MAX_REASONS)
    also = _reasons(others, MAX_REASONS - len(own))
    return f"{head} is {what} {base}{by_task}: {reasons}{f'; also different: {also}' if also else ''}"


def beside_verdict(found: Drift, base: str, head: str) -> str:
    """Return a sentence about the other metrics than the outcome, where another verdict on that has been said."""
    if found.verdict == "not_compared":
        return sentence(found, base, head)
    others = [row for row in found.significant if row is not found.outcome]
    return f"other measures: {_reasons(others, MAX_REASONS) if others else 'no evidence of a difference'}"


def _reasons(rows: Sequence[DriftRow], most: int) -> str:
    """Return up to `most` differences as text, and the number of further ones."""
    reasons = [_reason(row) for row in rows[: max(0, most)]]
    more = len(rows) - len(reasons)
    return "; ".join([*reasons, *([f"{'and ' if reasons else ''}{more} more"] if more else ())])


def over_all(found: Drift) -> Iterator[str]:
    """Yield sentences about metrics whose difference over all runs deviates from the one paired by task.

    The outcome is listed if its shares differ; other significant metrics, if they differ in the opposite direction.
    """
    outcome = found.outcome
    if outcome is not None and _has_other_share(outcome):
        shares = (value_text(PASSED, value) for value in (outcome.all_head, outcome.all_base))
        way = "the opposite: " if outcome.is_turned else ""
        yield "over all runs {}{} passed instead of {}, because tasks have unequal numbers of runs".format(way, *shares)
    turned = [row for row in found.significant if row.is_turned and row is not outcome]
    if turned:
        whole = [replace(row, base=row.all_base, head=row.all_head) for row in turned]
        reasons = _reasons(whole, MAX_REASONS)
        yield f"over all runs the opposite: {reasons}, because tasks have unequal numbers of runs or calls"


def _has_other_share(row: DriftRow) -> bool:
    """Return whether the text of a share compared by task differs from its text over all runs, in either group."""
    sides = ((row.base, row.all_base), (row.head, row.all_head))
    return bool(row.tasks) and any(value_text(row.metric, a) != value_text(row.metric, b) for a, b in sides)


def _blind(found: Drift) -> str:
    """Return the drop of passed runs that a comparison without a result could have missed, in words."""
    if found.detectable is None:
        return "no outcome is known"
    if any(row.metric == PASSED and not row.base for row in found.rows):
        return "no run of the base passed, so that no drop could show"
    if found.detectable >= 1:
        return "with this few runs no drop of passed runs would show"
    return found_drops(found.detectable, " of passed runs")


def found_drops(detectable: float, of: str = "") -> str:
    """Return the least drop that the runs detect reliably, in words."""
    return f"of drops of {points(detectable)} points{of}, so few runs find four in five"


def _lacking(found: Drift, base: str, head: str) -> str:
    """Return the reason why a group has no run to compare."""
    for name, runs, matched in ((base, found.base_runs, found.matched[0]), (head, found.head_runs, found.matched[1])):
        if not matched:
            return f"no run matches {name}"
        if not runs and name == base and found.shared:
            which = "the latest " if matched > found.shared else ""
            return f"{which}{found.shared:,} runs match base {base}; each also matches head {head}, so nothing is left"
        if not runs:
            return f"no run of {name} has ended"
    raise ValueError("both groups have runs")


def _reason(row: DriftRow) -> str:
    subject = "" if row.metric.schema_name is None else f"{row.metric.label or row.metric.schema_name} "
    if row.metric.measure == "passed":
        return f"{value_text(row.metric, row.head)} passed instead of {value_text(row.metric, row.base)}"
    if row.metric.measure == "failure_rate":
        return f"{subject}fails {value_text(row.metric, row.head)} instead of {value_text(row.metric, row.base)}"
    if row.moved is not None:
        return f"another mix of tools: {change_text(row)} to other tools"
    if row.is_new or row.is_gone:
        gone = "gone" if _are_messages(row.metric) else "no longer called"
        return f"{subject}is {'new' if row.is_new else gone}"
    if _are_messages(row.metric):
        return f"{row_name(row)} {change_text(row)}"
    return f"{subject}{_name(row.metric)} {change_text(row)}"


def _are_messages(metric: Metric) -> bool:
    """Return whether a metric is the number of messages, which have the measure `calls` but are not calls."""
    return metric.measure == "calls" and built_in_part(metric.schema_name or "") == "message"


def _name(metric: Metric) -> str:
    return (_RUN_NAMES if metric.schema_name is None else _LABEL_NAMES)[metric.measure]


def row_name(row: DriftRow) -> str:
    """Return the name of a row: its measure, with the label or type of the spans."""
    metric = row.metric
    if metric.schema_name is None:
        return _name(metric)
    if _are_messages(metric):
        return "messages" if metric.label is None else f"{metric.label}: messages"
    return f"{metric.schema_name if metric.label is None else metric.label}: {_name(metric)}"


def value_text(metric: Metric, value: float | None) -> str:
    """Return a value of a metric as text, in the unit of its measure; "" for None."""
    if value is None:
        return ""
    if metric.measure in ("passed", "failure_rate"):
        return share_text(value, 1) or "0%"
    if metric.measure == "duration_ms":
        return duration_text(value)
    if metric.measure == "cost_usd":
        return cost_text(value)
    if value < 1:  # calls of a run: one in 25 runs is 0.04
        return f"{value:.2g}"
    return count_text(round(value)) if value >= 100 else f"{value:.1f}"


def change_text(row: DriftRow) -> str:
    """Return the change from base to head: in points for a share, the moved calls for a tool mix, else a factor."""
    if row.moved is not None:
        return f"{share_text(row.moved, 1) or '0%'} of calls moved"
    if row.base is None or row.head is None:
        return ""
    if row.is_share:
        return f"{100 * (row.head - row.base):+.1f} points"
    if not row.base:
        return "new" if row.head else ""
    return f"×{row.head / row.base:.2g}" if row.head else "gone"


def interval_text(row: DriftRow, *, is_head: bool) -> str:
    """Return the interval of a share in percent, `6–14%`; "" for other measures."""
    interval = row.head_interval if is_head else row.base_interval
    return "" if interval is None else statistics.interval_text(interval)


def q_text(row: DriftRow) -> str:
    """Return the q of a row as text; `< 10 ms` if untested because the difference is too small; "" if equal."""
    return _too_small(row) if row.q is None else p_text(row.q)


def _too_small(row: DriftRow) -> str:
    return f"< {value_text(row.metric, row.least)}" if row.q is None and row.is_small and row.base != row.head else ""


def legend(found: Drift) -> str:
    """Return the legend of the table: the meaning of the marks and of the last column."""
    has_outcome = any(row.metric == PASSED and row.q is not None for row in found.rows)
    family = f"{found.family_fdr:g}"
    differ = has_outcome and found.family_fdr != ALPHA
    levels = f"{ALPHA:g} for passed, {family} for other rows" if differ else family
    small = ", ".join(dict.fromkeys(filter(None, map(_too_small, found.rows))))
    parts = [
        f"! = unlikely to be chance: q is at most {levels}",
        f"{Q_MEANS}, adjusted for the rows tested",
        "of passed: how often chance alone makes such a difference" if has_outcome else "",
        f"{small}: too small to count" if small else "",
    ]
    return "; ".join(part for part in parts if part)


def shown_rows(found: Drift, *, whole: bool) -> list[DriftRow]:
    """Return the rows to show: all rows of whole runs, then the SHOWN types and labels with the smallest p.

    Args:
        whole: return all rows.
    """
    if whole:
        return [*found.rows]
    of_labels = [row for row in found.rows if row.metric.schema_name is not None]
    chosen = sorted(of_labels, key=lambda row: 2.0 if row.p is None else row.p)[:SHOWN]
    kept = {row.metric for row in chosen if row.is_significant or row.is_new or row.is_gone or row.p is not None}
    return [row for row in found.rows if row.metric.schema_name is None or row.metric in kept]


def facts(found: Drift, base: str, head: str) -> str:
    """Return the facts of a comparison in one line: the sizes of both groups, the method, and what was left out."""
    known = (0, 0) if found.outcome is None else (found.outcome.base_runs, found.outcome.head_runs)
    parts = [
        f"base {base}: {noun(found.base_runs, 'run')}{_with_outcome(known[0], found.base_runs)}",
        f"head {head}: {noun(found.head_runs, 'run')}{_with_outcome(known[1], found.head_runs)}",
        _tasks(found),
        METHODS[found.method],
        f"{found.shared:,} in both count for head" if found.shared else "",
        f"{found.open:,} still open" if found.open else "",
        f"{noun(found.earlier, 'earlier run')} left out" if found.earlier else "",
        f"{noun(found.left_out, 'label')} left out" if found.left_out else "",
    ]
    return " · ".join(part for part in parts if part)


def _with_outcome(known: int, runs: int) -> str:
    return "" if known == runs else f" ({f'{known:,}' if known else 'none'} with an outcome)"


def _tasks(found: Drift) -> str:
    """Return the number of tasks by which runs are paired, or the reason why they are not paired."""
    if found.tasks is None:
        too_few = "too few" if found.tasks_in_both < FEWEST_TASKS else "with too few of the runs"
        return f"{noun(found.tasks_in_both, 'task')} in both, {too_few} to pair" if found.tasks_in_both else ""
    known = None if found.outcome is None else found.outcome.tasks or 0
    return f"{noun(found.tasks, 'task')}{'' if known is None else _with_outcome(known, found.tasks)}"


def mark(row: DriftRow) -> str:
    """Return the mark of a row: `!` for a significant difference, `~` for one below the least that counts, or " "."""
    if row.is_significant:
        return "!"
    return "~" if row.is_small and row.q is not None and row.q <= row.level else " "
