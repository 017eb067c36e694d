"""The overview of the latest runs: how many failed, why most often, and how to look further."""

from collections.abc import Iterator, Sequence

from agentspan.analysis.overview import Overview
from agentspan.answers.blocks import At, Block, Cell, Column, Command, Sentence, Table, Ways


def overview(found: Overview, most: int) -> Iterator[Block]:
    """Yield the answer, the most frequent causes of failure, and the sums of the runs.

    Args:
        most: the largest number of causes.
    """
    yield Sentence(found.answer, "answer")
    causes = found.causes or ()
    rows = [
        [
            Cell(f"{each.runs:,}"),
            Cell(each.text, {"signature": each.signature}, f"only in {each.only_in}" if each.only_in else ""),
            Cell(each.signature),
            Cell(at=At(each.run_id)),
        ]
        for each in causes[:most]
    ]
    if found.silent:
        rows.append([Cell(f"{found.silent:,}"), Cell("no step failed"), Cell(), Cell()])
    if rows:
        text = (Column("runs"), Column("most frequent causes", is_number=False))
        ids = (Column("signature", is_number=False, is_code=True), Column("latest run", is_number=False, is_code=True))
        yield Table((*text, *ids), rows, len(causes) + bool(found.silent), rows_as="line")
    if found.runs:
        yield Sentence(found.sums)


def further(found: Overview, options: Sequence[str], pair: Sequence[str]) -> Ways:
    """Return the commands that look further.

    Args:
        options: the options of the filter.
        pair: names of a run that failed and of one that passed; empty without such.
    """
    ways = [Command("each run, and why it failed", ("runs", *options))]
    if pair:
        ways.insert(0, Command("where the latest parts from a success", ("diff", *pair), "compare"))
    if found.failed or found.missed:
        ways.insert(0, Command("what goes with failure", ("why", *options), "failures"))
    return Ways("", ways)
