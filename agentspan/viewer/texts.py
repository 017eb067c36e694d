"""Texts and links that several pages across runs share."""

from collections.abc import Sequence
from typing import Any, NamedTuple

from agentspan.analysis.outcomes import Judge, OutcomeRule, decided, rule_of
from agentspan.analysis.runs import run_briefs
from agentspan.answers.blocks import Bar
from agentspan.storage.protocol import Storage
from agentspan.text import cost_text, count_text, duration_text
from agentspan.viewer.address import Address


class Linked(NamedTuple):
    """A text, and the address that it leads to, relative to the viewer's first page; "" for none."""

    text: str
    link: str = ""


def rule_in(address: Address) -> Judge:
    """Return the rule that decides whether runs passed, from the parameter `outcome`; None without it.

    Raises:
        InvalidValue: the text is not a rule.
    """
    return rule_of(address.get("outcome") or None)


def judged(storage: Storage, address: Address) -> tuple[Address, str]:
    """Return an address with the rule that judges its runs as `outcome`, and the rule if this call added it, else "".

    An address without `outcome` has the rule over a score that runs missed, if no run failed by its status.
    """
    if address.get("outcome"):
        return address, ""
    rule = decided(storage, run_briefs(storage, address.filter()._replace(signature=None)), None)
    if not isinstance(rule, OutcomeRule):  # each agent has its own: the pages find them again
        return address, ""
    return address._replace(own=(*address.own, ("outcome", str(rule)))), str(rule)


def at_text(stored: str) -> str:
    """Return a stored time to the minute, in UTC."""
    return stored[:16].replace("T", " ")


def took_text(duration_ms: float | None) -> str:
    """Return a duration; "" for None."""
    return "" if duration_ms is None else duration_text(duration_ms)


def tokens_text(tokens: float | None) -> str:
    """Return a number of tokens; "" for None."""
    return "" if tokens is None else count_text(round(tokens))


def usd_text(cost_usd: float | None) -> str:
    """Return a cost; "" for None."""
    return "" if cost_usd is None else cost_text(cost_usd)


WIDTH = 4
"""The width of a bar of a sparkline and of the gap after it."""
HEIGHT = 18


def spark(counts: Sequence[float | None]) -> dict[str, Any]:
    """Return the bars of a sparkline in whole pixels: `width`, `height`, and `bars` with `x`, `y` and `height`."""
    most = max((each or 0 for each in counts), default=0)
    bars = [
        {"x": WIDTH * place, "y": HEIGHT - height, "height": height}
        for place, each in enumerate(counts)
        if each
        for height in (max(2, round(HEIGHT * each / most)),)
    ]
    return {"width": WIDTH * len(counts), "height": HEIGHT, "bars": bars}


BAR, CHART = 24, 72
"""The width of a bar of a chart, with its gap, and the height of the chart."""


def chart(bars: Sequence[Bar]) -> dict[str, Any]:
    """Return the bars of a chart in whole pixels: `width`, `height`, `bar`, and `bars` with `x`, `y` and `height`."""
    most = max((each.value or 0 for each in bars), default=0)
    heights = [max(2, round(CHART * each.value / most)) if each.value else 0 for each in bars]
    places = [{"x": BAR * n, "y": CHART - height, "height": height} for n, height in enumerate(heights)]
    return {"width": BAR * len(bars), "height": CHART, "bar": BAR - 4, "bars": places}
