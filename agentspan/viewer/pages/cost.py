"""The page of costs: by model, day, agent …, as `agentspan cost` prints them; each number leads to its runs."""

from collections.abc import Mapping
from typing import Any

from agentspan.analysis import costs_text
from agentspan.analysis.costs import BY_STEPS, BYS, CostRow, Costs, Period, cache_of, checked, costs
from agentspan.storage.protocol import Storage
from agentspan.text import noun
from agentspan.viewer.address import Address
from agentspan.viewer.page import Page, Part
from agentspan.viewer.texts import Linked, spark

ROWS = 50
"""The number of rows that are shown unless all are asked for."""
BAR = 24
"""The width of a bar of the chart, with its gap."""
HEIGHT = 72


def first(storage: Storage, address: Address) -> dict[str, Any]:
    """Return the sums, the costs of each period, and the rows; those of tools and prompts are a later part."""
    by = checked(address.get("by") or BYS[0])
    found = costs(storage, address.filter(), "day" if by in BY_STEPS else by, cache=False)
    return {
        "is_empty": not found.total.runs,
        "sentences": [*costs_text.sentences(found)],
        "by": by,
        "ways": [(each, address.link("cost", by=each)) for each in BYS],
        "chart": _chart(found, address) if len(found.periods) > 1 and found.total.cost_usd else None,
        "unit": found.unit,
        **(NO_ROWS if by in BY_STEPS else _shown(found, address)),
    }


NO_ROWS: Mapping[str, Any] = {"rows": [], "left": ""}


def rows_of_steps(storage: Storage, address: Address) -> Mapping[str, Any]:
    """Return the rows of tools or prompts: the tree of each run is read for them."""
    by = address.get("by")
    if by not in BY_STEPS:
        return NO_ROWS
    found = costs(storage, address.filter(), by, cache=False)
    return {"by": by, "unit": found.unit, "note": costs_text.unread(found), **_shown(found, address)}


def _shown(found: Costs, address: Address) -> dict[str, Any]:
    shown = found.rows if address.get("all") else found.rows[:ROWS]
    left = len(found.rows) - len(shown)
    return {
        "has_sparks": len(found.periods) > 1 and found.by not in ("day", "prompt"),
        "rows": [_row(row, found, address) for row in shown],
        "left": noun(left, "more row") if left else "",
        "all": address.same("cost", all=1),
    }


def _chart(found: Costs, address: Address) -> dict[str, Any]:
    most = max((cost or 0.0 for cost in found.costs), default=0.0)
    bars = []
    for place, (period, cost) in enumerate(zip(found.periods, found.costs, strict=True)):
        height = max(2, round(HEIGHT * cost / most)) if cost else 0
        text = f"{period.name}: {costs_text.cost_or_dash(cost)}"
        link = _runs(address, {}, period) if cost else ""
        bars.append({"x": BAR * place, "y": HEIGHT - height, "height": height, "text": text, "link": link})
    return {
        "width": BAR * len(bars),
        "bar": BAR - 4,
        "height": HEIGHT,
        "bars": bars,
        "first": found.periods[0].name,
        "last": found.periods[-1].name,
        "most": costs_text.cost_or_dash(most),
    }


def _row(row: CostRow, found: Costs, address: Address) -> dict[str, Any]:
    def to(**changes: str) -> str:
        return "" if row.filter is None else _runs(address, {**row.filter, **changes})

    runs, calls, tokens_in, tokens_out, cost, share = costs_text.cells(row, found)
    own = to() if row.run_id is None else f"runs/{row.run_id}#span={row.span_id}"
    costs_of = ", ".join(
        f"{period.name} {costs_text.cost_or_dash(each)}"
        for period, each in zip(found.periods, row.costs, strict=True)
        if each
    )
    return {
        "name": Linked(costs_text.row_name(row, found.by), own),
        "runs": Linked(runs if row.step is None else f"#{row.step}", own),
        "calls": Linked(calls, to()),
        "in": Linked(tokens_in, to(sort="tokens")),
        "out": Linked(tokens_out, to(sort="tokens")),
        "cost": Linked(cost, to(sort="cost")),
        "share": share,
        "spark": spark(tuple(round(1e6 * (each or 0.0)) for each in row.costs)),
        "costs": costs_of or "no cost is known",
    }


def _runs(address: Address, words: Mapping[str, str], period: Period | None = None) -> str:
    """Return the address of the runs of a row and a period, within the range of times of the page's filter."""
    words = {**words, **({} if period is None else {"since": period.since, "until": period.until})}
    filter = address.filter()
    if filter.since is not None and "since" in words and filter.since > words["since"]:
        words["since"] = filter.since
    if filter.until is not None and "until" in words and filter.until < words["until"]:
        words["until"] = filter.until
    return address.link("", **words)


def cached(storage: Storage, address: Address) -> dict[str, Any]:
    """Return the use of the caches of the models' providers."""
    by = checked(address.get("by") or BYS[0])
    every, *rows = cache_of(storage, address.filter(), by) or (None,)
    shown = rows if address.get("all") else rows[:ROWS]
    return {
        "sentence": "" if every is None else costs_text.cache(every),
        "by": "model" if by in BY_STEPS else by,
        "header": costs_text.CACHE_HEADER,
        "rows": [(costs_text.row_name(row, by), costs_text.cache_cells(row)) for row in shown],
    }


COST = Page(
    "cost", "Cost", (Part("cost.html", first), Part("cost_rows.html", rows_of_steps), Part("cost_cache.html", cached))
)
