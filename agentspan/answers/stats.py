"""The statistics of steps: the cells of a row."""

from collections.abc import Sequence

from agentspan.storage.row_by_row import tokens_of
from agentspan.storage.sums import Stat
from agentspan.text import cost_text, count_text, duration_text, share_text


def cells(stat: Stat) -> Sequence[str]:
    """Return count, share of failures, p50, p95, p99, maximum and sum of durations, tokens and cost, as texts."""
    tokens = tokens_of(stat)
    return [
        f"{stat.count:,}",
        share_text(stat.error_rate, 1) if stat.error_rate else "",
        *("" if ms is None else duration_text(ms) for ms in (stat.p50_ms, stat.p95_ms, stat.p99_ms, stat.max_ms)),
        duration_text(stat.total_ms) if stat.ran else "",
        "" if tokens is None else count_text(tokens),
        "" if stat.cost_usd is None else cost_text(stat.cost_usd),
    ]
