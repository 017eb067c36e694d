"""`agentspan drift`: prints whether one group of runs is worse than another, or only differs by chance."""

from collections.abc import Iterator, Sequence
from dataclasses import asdict
from typing import Any

import click

from agentspan.analysis import drift_text
from agentspan.analysis.agent_names import resolved, versions_of
from agentspan.analysis.drift import Drift, DriftRow, drift, least_of
from agentspan.analysis.filter_words import parse
from agentspan.cli.collecting import paused
from agentspan.cli.output import Unanswered, bar, document, echo_lines, noun, style, table, width, wrap, zone
from agentspan.cli.project_settings import outcome_rule
from agentspan.database import Database

WIDE = 110
"""From so many columns on, with intervals, and percentiles over runs; over calls where a row is about a call."""


def command(
    database: Database,
    base: str,
    head: str,
    *,
    outcome: str | None,
    least: Sequence[str] = (),
    whole: bool,
    markdown: bool,
    as_json: bool,
) -> None:
    """Compare two groups of runs, and print the verdict."""
    storage = database.storage
    filters = [resolved(storage, parse(text, name, zone=zone())) for name, text in (("base", base), ("head", head))]
    with_calls = as_json or (not markdown and width() >= WIDE)
    with bar("indexing") as progress, paused():
        found = drift(
            storage,
            *filters,
            rule=outcome_rule(outcome),
            least=least_of(_numbers(least)),
            with_calls=with_calls,
            progress=progress,
        )
    if found.verdict == "not_compared":
        lacking = next((each for each, number in zip(filters, found.matched, strict=True) if not number), None)
        known = "" if lacking is None else versions_of(storage, lacking)
        raise Unanswered(drift_text.sentence(found, base, head) + known)
    if as_json:
        document(plain(found, base, head))
    elif markdown:
        echo_lines(drift_text.markdown(found, base, head, whole=whole))
    else:
        _print(found, base, head, whole=whole)


def _numbers(given: Sequence[str]) -> dict[str, float]:
    found = {}
    for text in given:
        name, _, number = text.partition("=")
        try:
            found[name] = float(number)
        except ValueError:
            raise click.UsageError(f"--least must be such as duration_ms=50, not {text!r}") from None
    return found


def plain(found: Drift, base: str, head: str) -> dict[str, Any]:
    """Return a comparison for the document of `--json`."""
    rows = [
        {
            **asdict(row),
            "metric": row.metric._asdict(),
            "is_significant": row.is_significant,
            "is_worse": row.is_worse,
            "is_small": row.is_small,
            "is_turned": row.is_turned,
        }
        for row in found.rows
    ]
    text = drift_text.sentence(found, base, head)
    missed = None if found.missed is None else found.missed._asdict() | {"rule": str(found.missed.rule)}
    over_all = [*drift_text.over_all(found)]
    own = {"base": base, "head": head, "text": text, "over_all": over_all, "rows": rows, "total": len(rows)}
    return asdict(found) | {"missed": missed} | own


def _print(found: Drift, base: str, head: str, *, whole: bool) -> None:
    color = {"worse": "red", "better": "green", "different": "yellow"}.get(found.verdict)
    for line in wrap(drift_text.sentence(found, base, head), width(), 4):
        echo_lines([style(line, fg=color, bold=True)])
    for line in drift_text.over_all(found):
        echo_lines(wrap(line, width(), 3))
    if found.missed is not None:
        echo_lines(wrap(str(found.missed), width(), 3))
    echo_lines(wrap(drift_text.facts(found, base, head), width(), 5))
    is_wide = width() >= WIDE
    rows = drift_text.shown_rows(found, whole=whole)
    header = ["", "base", "head", "change", "q", *(["base p50–p95", "head p50–p95"] if is_wide else [])]
    cells = [[*_cells(row), *(_spreads(row) if is_wide else ())] for row in rows]
    table(header, cells, right=range(1, len(header)))
    echo_lines(style(line, fg="bright_black") for line in wrap(drift_text.legend(found), width(), 8))
    if len(rows) < len(found.rows):
        echo_lines([style(f"{noun(len(found.rows) - len(rows), 'more row')}; --all shows each", fg="bright_black")])


def _cells(row: DriftRow) -> list[str]:
    values = [drift_text.value_text(row.metric, value) for value in (row.base, row.head)]
    return [
        f"{drift_text.mark(row)} {drift_text.row_name(row)}",
        *values,
        drift_text.change_text(row),
        drift_text.q_text(row),
    ]


def _spreads(row: DriftRow) -> Iterator[str]:
    of_runs = (row.base_p50, row.base_p95), (row.head_p50, row.head_p95)
    of_calls = (row.base_call_p50, row.base_call_p95), (row.head_call_p50, row.head_call_p95)
    are_calls = any(p50 is not None for p50, _ in of_calls)
    for is_head, (p50, p95) in enumerate(of_calls if are_calls else of_runs):
        if p50 is None or p95 is None:
            interval = drift_text.interval_text(row, is_head=bool(is_head))
            yield interval and f"95% interval {interval}"
        else:
            yield "–".join(drift_text.value_text(row.metric, value) for value in (p50, p95))
