"""A finding that a test adds: the slowest runs."""

from collections.abc import Iterator, Sequence
from typing import Any

from agentspan.analysis.runs import find_runs
from agentspan.answers.blocks import At, Block, Cell, Column, Part, Sentence, Table
from agentspan.answers.finding import Asked, Finding
from agentspan.storage.protocol import Storage
from agentspan.storage.questions import RunFilter
from agentspan.storage.sums import RunSummary
from agentspan.text import duration_text, noun

COLUMNS = (Column("agent", is_number=False), Column("run", is_number=False, is_code=True), Column("took"))


def _find(storage: Storage, filter: RunFilter | None, asked: Asked) -> Sequence[RunSummary]:
    return find_runs(storage, filter, limit=asked.limit or 10, sort="duration").runs


def _answer(found: Sequence[RunSummary], most: int) -> Sequence[Part]:
    return [_blocks(found, most)] if found else []


def _blocks(found: Sequence[RunSummary], most: int) -> Iterator[Block]:
    yield Sentence(f"the slowest of {noun(len(found), 'run')}", "answer")
    yield Table(COLUMNS, [_row(each) for each in found[:most]], len(found))


def _row(run: RunSummary) -> Sequence[Cell]:
    took = Cell(duration_text(run.duration_ms or 0), {"agent": run.agent, "sort": "duration"})
    return Cell(run.agent), Cell(at=At(run.run.id)), took


def _plain(found: Sequence[RunSummary], limit: int | None) -> dict[str, Any]:
    return {"runs": [each.run.id for each in found[:limit]]}


FINDING = Finding("Slowest", _find, _answer, _plain, tool="runs() lists runs.", rows=10)
