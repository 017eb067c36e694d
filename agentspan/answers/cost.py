"""The cost of runs, and the savings by caches: sentences, a bar for each period, and tables."""

from collections.abc import Iterator, Sequence
from dataclasses import asdict
from typing import Any, Final

from agentspan.analysis.costs import BY_STEPS, BYS, CacheRow, CostRow, Costs, costs
from agentspan.answers.blocks import At, Bar, Bars, Block, Cell, Column, Command, Heading, Part, Sentence, Table, Ways
from agentspan.answers.finding import Asked, Finding
from agentspan.storage.protocol import Storage
from agentspan.storage.questions import RunFilter
from agentspan.text import cost_text, cost_texts, count_text, noun, one_line, share_text

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
CACHE_COLUMNS = tuple(map(Column, ("calls", "read", "written", "for 1 h", "reading", "writing", "saved")))
"""The columns of a cache: tokens read and written, what reading saved, what writing cost more, and both."""
CACHE_EXPLAINED = (
    "Reading: what these tokens would have cost more as plain input. Writing: what they cost more than plain input."
)


def answer(found: Costs, most: int) -> Sequence[Part]:
    """Return the parts of the answer: the sums, the rows, and the use of caches; none without runs.

    Args:
        most: the largest number of rows of a table.
    """
    parts = sums(found), rows(found, most), cache_rows(found.cache, found.by, most)
    return parts if found.total.runs else ()


def _find(storage: Storage, filter: RunFilter | None, asked: Asked) -> Costs:
    return costs(storage, filter, asked.kind, zone=asked.zone, progress=asked.progress)


def _plain(found: Costs, limit: int | None) -> dict[str, Any]:
    return asdict(found) | {
        "periods": [period._asdict() for period in found.periods],
        "rows": [asdict(row) for row in found.rows[:limit]],
        "total_rows": len(found.rows),
        "cache": [{**asdict(row), "net_usd": row.net_usd} for row in found.cache],
    }


ABOUT = "A cost belongs to the day on which its call began. By tool it is that of all model calls inside its calls."
FINDING = Finding("Cost", _find, answer, _plain, BYS, about=ABOUT)


def sums(found: Costs) -> Iterator[Block]:
    """Yield the sums over all runs in sentences: the cost, the calls missing in it, and the effect of caches."""
    spent = found.total
    calls = noun(spent.calls, "call of a model", "calls of models")
    tokens = f"{_count(spent.input_tokens)} tokens in, {_count(spent.output_tokens)} out"
    cost = "No cost is known" if spent.cost_usd is None else cost_text(spent.cost_usd)
    yield Sentence(f"{cost}: {noun(spent.runs, 'run')}, {calls}, {tokens}.", "answer")
    if found.unpriced:
        models = [one_line(each.model, MAX_NAME) or "a model without a name" for each in found.unpriced[:MOST_MODELS]]
        more = len(found.unpriced) - len(models)
        names = ", ".join([*models, *([f"{more} more"] if more else [])])
        yield Sentence(
            f"Not in it: {noun(spent.unpriced_calls, 'call')} with {count_text(spent.unpriced_tokens)} tokens of "
            f"{names}, without a known price (AGENTSPAN_PRICES names prices of your own)."
        )
    yield from unread(found)
    yield from (Sentence(_cache(each)) for each in found.cache[:1])


def unread(found: Costs) -> Iterator[Block]:
    """Yield a sentence about the runs whose spans were not read for their tools or prompts, if there are some."""
    if found.by in BY_STEPS and found.read_runs < found.total.runs:
        latest = noun(found.read_runs, "run")
        yield Sentence(f"{found.by.capitalize()}s are those of the latest {latest}: more spans are not read.")


def ways(by: str) -> Ways:
    """Return the other kinds of rows."""
    return Ways(
        "By", [Command(each, ("cost", "--by", each), "cost", {"by": each}, is_current=each == by) for each in BYS]
    )


def picture(found: Costs) -> Iterator[Block]:
    """Yield a bar for each period, if there are several, and a cost is known."""
    if len(found.periods) > 1 and found.total.cost_usd:
        bars = [
            Bar(cost, f"{period.name}: {_cost(cost)}", {"since": period.since, "until": period.until} if cost else None)
            for period, cost in zip(found.periods, found.costs, strict=True)
        ]
        yield Bars(
            f"Cost of each {found.unit}",
            bars,
            f"{found.periods[0].name} to {found.periods[-1].name}, a bar for each {_unit(found, ' from Monday on')}; "
            f"at most {_cost(max((bar.value or 0.0 for bar in bars), default=0.0))}. "
            "A cost counts for the day (UTC) on which its call began.",
        )


def rows(found: Costs, most: int) -> Iterator[Block]:
    """Yield the table of the models, days, agents …"""
    columns = [Column(found.by, is_number=False, keeps_end=found.by == "project")]
    columns += map(Column, ("step" if found.by == "prompt" else "runs", "calls"))
    columns += [Column("in", "tokens in"), Column("out"), Column("cost"), Column("", "share")]
    if len(found.periods) > 1 and found.by not in ("day", "prompt"):
        names = [(each.name, each.name if found.unit == "month" else each.name[5:]) for each in found.periods]
        hint = f"Costs by {_unit(found, ' (from Monday on)')} on which the call began."
        columns.append(Column(f"by {found.unit}", series=names, hint=hint))
    if found.rows:
        shown = found.rows[:most]
        costs = cost_texts(row.spent.cost_usd for row in shown)
        cells = [_row(row, found, cost)[: len(columns)] for row, cost in zip(shown, costs, strict=True)]
        yield Table(columns, cells, len(found.rows))


def cache_rows(found: Sequence[CacheRow], by: str, most: int) -> Iterator[Block]:
    """Yield the table of the use of caches. With one row and the sum, the sentence has all figures."""
    if len(found) > 2:
        of = Column("model" if by in BY_STEPS else by, is_number=False, keeps_end=by == "project")
        cells = [tuple(map(Cell, (_name(row, by), *_cache_cells(row)))) for row in found[1 : most + 1]]
        yield Table([of, *CACHE_COLUMNS], cells, len(found) - 1)


def caches(found: Sequence[CacheRow], by: str, most: int) -> Iterator[Block]:
    """Yield the use of caches as a part of its own."""
    if found:
        yield Heading("What caches saved")
        yield Sentence(_cache(found[0]))
        table = [*cache_rows(found, by, most)]
        yield from (*table, *(Sentence(CACHE_EXPLAINED, "note") for _ in table))


def _row(row: CostRow, found: Costs, cost: str) -> Sequence[Cell]:
    spent, runs = row.spent, row.filter
    at = None if row.run_id is None else At(row.run_id, row.span_id, row.step)
    by_tokens, by_cost = (None if runs is None else {**runs, "sort": sort} for sort in ("tokens", "cost"))
    number = Cell(noun(spent.runs, "run") if found.by == "prompt" else f"{spent.runs:,}", runs)
    return (
        Cell(_name(row, found.by), runs, at=at),
        number if at is None else Cell(at=at),
        Cell(f"{spent.calls:,}" if spent.calls else "", runs),
        Cell(_count(spent.input_tokens), by_tokens),
        Cell(_count(spent.output_tokens), by_tokens),
        Cell(f"≥ {cost}" if cost and spent.unpriced_calls else cost or UNKNOWN, by_cost),
        Cell(share_text(spent.cost_usd or 0.0, found.total.cost_usd or 0.0)),
        Cell(series=[(cost, _cost(cost)) for cost in row.costs]),
    )


def _name(row: CostRow | CacheRow, by: str) -> str:
    return NO_NAME.get(by, "unknown") if row.name is None else one_line(row.name, MAX_NAME)


def _cache(row: CacheRow) -> str:
    """Return the sentence about the savings and costs of caches."""
    used = f"Caches: {count_text(row.read)} tokens were read from one"
    if row.saved_usd is None:
        return f"{used}; no price of these calls is known."
    net = row.net_usd or 0.0
    result = f"saved {cost_text(net)}" if net >= 0 else f"cost {cost_text(-net)} more than no cache"
    written = f"writing {count_text(row.written)} cost {cost_text(row.extra_usd or 0.0)} more"
    return f"{used}, which {result}: reading saved {cost_text(row.saved_usd)}, {written}."


def _cache_cells(row: CacheRow) -> Iterator[str]:
    yield f"{row.calls:,}"
    yield from (count_text(each) if each else "" for each in (row.read, row.written, row.written_1h))
    yield from map(_cost, (row.saved_usd, None if row.extra_usd is None else -row.extra_usd, row.net_usd))


def _unit(found: Costs, of_week: str) -> str:
    return f"{found.unit}{of_week if found.unit == 'week' else ''}"


def _cost(usd: float | None) -> str:
    return UNKNOWN if usd is None else cost_text(usd)


def _count(number: int | None) -> str:
    return UNKNOWN if number is None else count_text(number)
