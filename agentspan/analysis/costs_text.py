"""Sentences and cells about the costs of runs, for the command line and the viewer."""

from collections.abc import Iterator
from typing import Final

from agentspan.analysis.by_name import STEP
from agentspan.analysis.costs import BY_STEPS, CacheRow, CostRow, Costs, Period, Unit
from agentspan.text import cost_text, count_text, noun, one_line, printable, share_text

MAX_NAME = 80
MOST_MODELS = 5
"""The largest number of models without a price that a sentence names."""
NO_NAME: Final = {
    "model": "not a call of a model",
    "tool": "outside of all tools",
    "prompt": "outside of all prompts",
    "project": "no folder is known",
    "session": "no session",
}
UNKNOWN = "–"
"""Stands for a sum of which no part is known."""
CACHE_HEADER = ("calls", "read", "written", "for 1 h", "reading", "writing", "saved")
"""The columns of cache_cells: tokens read and written, what reading saved, what writing cost more, and both."""


def sentences(found: Costs) -> Iterator[str]:
    """Yield the sums over all runs in sentences: the cost, the calls missing in it, and the effect of caches."""
    yield total(found)
    if found.unpriced:
        yield unpriced(found)
    if found.by in BY_STEPS and (note := unread(found)):
        yield note
    if found.cache:
        yield cache(found.cache[0])


def unread(found: Costs) -> str:
    """Return the sentence about the runs whose spans were not read for their tools or prompts; "" if all were."""
    if found.read_runs >= found.total.runs:
        return ""
    return f"{found.by.capitalize()}s are those of the latest {noun(found.read_runs, 'run')}: more spans are not read."


def total(found: Costs) -> str:
    """Return the sentence about the cost of all runs."""
    sums = found.total
    calls = noun(sums.calls, "call of a model", "calls of models")
    tokens = f"{_count(sums.input_tokens)} tokens in, {_count(sums.output_tokens)} out"
    cost = "No cost is known" if sums.cost_usd is None else cost_text(sums.cost_usd)
    return f"{cost}: {noun(sums.runs, 'run')}, {calls}, {tokens}."


def unpriced(found: Costs) -> str:
    """Return the sentence about the models without a price."""
    models = [f"{one_line(each.model, MAX_NAME) or 'a model without a name'}" for each in found.unpriced[:MOST_MODELS]]
    more = len(found.unpriced) - len(models)
    names = ", ".join([*models, *([f"{more} more"] if more else [])])
    calls, tokens = found.total.unpriced_calls, found.total.unpriced_tokens
    return (
        f"Not in it: {noun(calls, 'call')} with {count_text(tokens)} tokens of {names}, without a known price "
        "(AGENTSPAN_PRICES names prices of your own)."
    )


def cache(row: CacheRow) -> str:
    """Return the sentence about the savings and costs of caches."""
    used = f"Caches: {count_text(row.read)} tokens were read from one"
    if row.saved_usd is None:
        return f"{used}; no price of these calls is known."
    net = row.net_usd or 0.0
    result = f"saved {cost_text(net)}" if net >= 0 else f"cost {cost_text(-net)} more than no cache"
    written = f"writing {count_text(row.written)} cost {cost_text(row.extra_usd or 0.0)} more"
    parts = f"reading saved {cost_text(row.saved_usd)}, {written}"
    return f"{used}, which {result}: {parts}."


def row_name(row: CostRow | CacheRow, by: str) -> str:
    """Return the name of a row on one line."""
    return NO_NAME.get(by, "unknown") if row.name is None else printable(one_line(row.name, MAX_NAME))


def cells(row: CostRow, found: Costs) -> list[str]:
    """Return runs (of a prompt its step), calls, tokens in and out, cost, and its share of the whole as texts."""
    spent = row.spent
    runs = noun(spent.runs, "run") if found.by == "prompt" else f"{spent.runs:,}"
    share = share_text(spent.cost_usd or 0.0, found.total.cost_usd or 0.0)
    return [
        runs if row.run_id is None else f"{row.run_id}{STEP}{row.step}",
        f"{spent.calls:,}" if spent.calls else "",
        _count(spent.input_tokens),
        _count(spent.output_tokens),
        cost_or_dash(spent.cost_usd, partly=bool(spent.unpriced_calls)),
        share,
    ]


def header(by: str) -> list[str]:
    """Return the names of the columns of a row's name and of `cells`; a prompt's row has its step instead of runs."""
    return [by, "step" if by == "prompt" else "runs", "calls", "in", "out", "cost"]


def cache_cells(row: CacheRow) -> list[str]:
    """Return the texts for the columns of CACHE_HEADER."""
    extra = None if row.extra_usd is None else -row.extra_usd
    numbers = (
        f"{row.calls:,}",
        *(count_text(each) if each else "" for each in (row.read, row.written, row.written_1h)),
    )
    return [*numbers, cost_or_dash(row.saved_usd), cost_or_dash(extra), cost_or_dash(row.net_usd)]


def cost_or_dash(usd: float | None, *, partly: bool = False) -> str:
    """Return a cost as text: `–` if it is unknown, and `≥ $1.20` if a part of it is."""
    if usd is None:
        return UNKNOWN
    return f"≥ {cost_text(usd)}" if partly else cost_text(usd)


def period_name(period: Period, unit: Unit) -> str:
    """Return the name of a period for the head of a column: `11-24`, or `2026-11` for a month."""
    return period.name if unit == "month" else period.name[5:]


def _count(number: int | None) -> str:
    return UNKNOWN if number is None else count_text(number)
