"""Statistics of the spans of each type, and of each model and tool: counts, durations, tokens, cost."""

from collections.abc import Collection, Iterable
from typing import NamedTuple

from agentspan.storage import row_by_row
from agentspan.storage.answers import Progress, Stat
from agentspan.storage.protocol import Storage
from agentspan.storage.questions import SpanStats


def stats(
    storage: Storage,
    *,
    run: str | None = None,
    since: str | None = None,
    until: str | None = None,
    runs: Collection[str] | None = None,
    progress: Progress | None = None,
) -> list[Stat]:
    """Return statistics per span type, each followed by those of its labels. The longest total time comes first.

    Args:
        run: only the spans of this run (its id).
        since: the earliest started_at (else inserted_at) that counts, as stored text (see clock).
        until: the first time that no longer counts.
        runs: ids of the only runs whose spans count; all when left out.
        progress: called with how much is done, and of how much, while there is an index to be built.
    """
    asked = SpanStats(since, until, runs if run is None else [run], progress)
    # The spans of one run are read sooner than an index of all is made.
    return in_order(storage.ask(asked) if run is None else row_by_row.answer(storage, asked))


def in_order(found: Iterable[Stat]) -> list[Stat]:
    """Sort types by their total time, each followed by its labels in the same order."""
    found = list(found)
    types = {stat.schema_name: (-stat.total_ms, stat.schema_name) for stat in found if stat.label is None}
    return sorted(found, key=lambda s: (types[s.schema_name], s.label is not None, -s.total_ms, s.label or ""))


class Rest(NamedTuple):
    """The number of what `shorten` left out at this place: labels of a span type, or types where that is None."""

    schema_name: str | None
    number: int


def shorten(found: list[Stat], rows: int) -> list[Stat | Rest]:
    """Leave out types and labels until so many rows are left; a Rest stands where some were left out.

    At least half of the rows are for types, if there are so many. The labels with the longest total time stay.

    Args:
        found: statistics in the order of `stats`.
    """
    types = [stat for stat in found if stat.label is None]
    labels = [stat for stat in found if stat.label is not None]
    shown = {stat.schema_name for stat in types[: max(1, rows // 2, rows - len(labels))]}
    longest = sorted((s for s in labels if s.schema_name in shown), key=lambda stat: -stat.total_ms)
    kept = {(stat.schema_name, stat.label) for stat in longest[: max(0, rows - len(shown))]}
    short: list[Stat | Rest] = []
    for type_ in types:
        if type_.schema_name not in shown:
            continue
        own = [stat for stat in labels if stat.schema_name == type_.schema_name]
        some = [stat for stat in own if (stat.schema_name, stat.label) in kept]
        short += [type_, *some]
        if len(some) < len(own):
            short.append(Rest(type_.schema_name, len(own) - len(some)))
    if len(shown) < len(types):
        short.append(Rest(None, len(types) - len(shown)))
    return short
