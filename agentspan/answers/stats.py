"""The statistics of steps: a table of types, and of models and tools below them, and the sums."""

from collections.abc import Iterator, Sequence

from agentspan.analysis.runs import Rest, StatsByVersion
from agentspan.answers.blocks import Block, Cell, Column, Sentence, Table
from agentspan.storage.row_by_row import tokens_of
from agentspan.storage.sums import Stat
from agentspan.text import amounts, cost_text, count_text, dotted, duration_text, noun, share_text

COLUMNS = (
    Column("span type", is_number=False), Column("spans"), Column("failed"), Column("p50", detail=3),
    Column("p95", detail=1), Column("p99", detail=6), Column("max", detail=5), Column("total", detail=2),
    Column("tok", "tokens", detail=4), Column("cost"),
)  # fmt: skip
_USED = ("tok", "cost")
"""The columns that many files have no values for."""


def statistics(
    found: Sequence[Stat], shown: Sequence[Stat | Rest] | None = None, parted: StatsByVersion | None = None
) -> Iterator[Block]:
    """Yield the table of types and labels, and a sentence with the sums over all of them.

    Args:
        shown: the rows; all when left out.
        parted: the statistics of each version, for rows below those of all versions.
    """
    rows = [*_rows(found if shown is None else shown, parted)]
    kept = [n for n, each in enumerate(COLUMNS) if each.name not in _USED or any(row[n].text for row in rows)]
    yield Table([COLUMNS[n] for n in kept], [[row[n] for n in kept] for row in rows])
    yield Sentence(_sums([stat for stat in found if stat.label is None]))
    if parted is not None:
        left = (parted.left_out_versions, "version", "earlier runs"), (parted.left_out_labels, "label", "less time")
        if texts := [f"{noun(number, of)} with {why}" for number, of, why in left if number]:
            yield Sentence(f"not broken down: {', '.join(texts)}")


def _rows(shown: Sequence[Stat | Rest], parted: StatsByVersion | None) -> Iterator[Sequence[Cell]]:
    """Yield the row of each type or label, followed by its rows of each version."""
    versions = () if parted is None else parted.versions
    of_version = [{(each.schema_name, each.label): each for each in version.stats} for version in versions]
    for stat in shown:
        if isinstance(stat, Rest):
            yield [Cell(_rest(stat), depth=stat.schema_name is not None, is_rest=True), *[Cell()] * len(COLUMNS[1:])]
            continue
        yield _row(Cell(stat.label or stat.schema_name, depth=stat.label is not None), stat)
        for version, own in zip(versions, of_version, strict=True):
            if (stat.schema_name, stat.label) in own:
                yield _row(Cell(version.name, depth=2), own[stat.schema_name, stat.label])


def _row(name: Cell, stat: Stat) -> Sequence[Cell]:
    tokens = tokens_of(stat)
    texts = (
        f"{stat.count:,}",
        share_text(stat.error_rate, 1) if stat.error_rate else "",
        *("" if ms is None else duration_text(ms) for ms in (stat.p50_ms, stat.p95_ms, stat.p99_ms, stat.max_ms)),
        duration_text(stat.total_ms) if stat.ran else "",
        "" if tokens is None else count_text(tokens),
        "" if stat.cost_usd is None else cost_text(stat.cost_usd),
    )
    return [name, *map(Cell, texts)]


def _rest(rest: Rest) -> str:
    of = noun(rest.number, "more type") if rest.schema_name is None else f"{rest.number:,} more"
    return f"… and {of}{' that occur once' if rest.is_once else ''}"


def _sums(types: Sequence[Stat]) -> str:
    failed = sum(stat.failed for stat in types)
    open_ = sum(stat.open for stat in types)
    counted = [stat for stat in types if not stat.is_aggregate]
    tokens = [number for stat in counted if (number := tokens_of(stat)) is not None]
    costs = [stat.cost_usd for stat in counted if stat.cost_usd is not None]
    return dotted(
        noun(sum(stat.count for stat in types), "span"),
        noun(failed, "failed step") if failed else "",
        f"{open_:,} open" if open_ else "",
        f"of {noun(len(types), 'type')}",
        *amounts(sum(tokens) if tokens else None, sum(costs) if costs else None),
    )
