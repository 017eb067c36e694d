"""The steps that have some words, and the same by run."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from agentspan.analysis.causes import STATUS_MARKS, Verdict
from agentspan.analysis.search import Hit, Hits, HitsByRun, RunHits
from agentspan.analysis.tree import run_name, session_title
from agentspan.answers.blocks import At as Place
from agentspan.answers.blocks import Block, Cell, Column, Command, Sentence, Table
from agentspan.model.rows import AgentInstanceRow
from agentspan.text import dotted, noun

At = Callable[[str], str]
"""Returns a stored time as text, in the zone of the surface."""
NOTHING = "nothing found; words must be whole, or end in *: book* finds booking"
COLUMNS = (
    Column("step", is_number=False), Column("run", is_number=False, is_code=True),
    Column("type", is_number=False), Column("agent", is_number=False),
    Column("started", "started (UTC)", is_number=False), Column("repeated", is_number=False),
    Column("text", is_number=False),
)  # fmt: skip


def hits(found: Hits, at: At, offset: int = 0) -> Iterator[Block]:
    """Yield the steps, and how many there are."""
    if found.hits:
        yield Table(COLUMNS, [_hit(each, at) for each in found.hits], rows_as="item")
    from_ = f", from number {offset + 1} on" if offset and found.hits else ""
    yield Sentence(f"{len(found.hits):,} of {noun(found.total, 'span')}{from_}" if found.total else NOTHING)


def by_run(
    found: HitsByRun, verdicts: Mapping[str, Verdict], at: At, words: Sequence[str], short: Callable[[str], str] = str
) -> Iterator[Block]:
    """Yield a table for each run: the run, the first of its steps, and how many more there are.

    Args:
        verdicts: the verdicts on the runs, by their ids.
        words: the words of the search, for the command that lists the other steps of a run; none if that is this one.
        short: returns the id of a run as that command has it.
    """
    for each in found.runs:
        rows = [_run(each, verdicts[each.run.id], at), *(_hit(hit, at, depth=1) for hit in each.hits)]
        left = each.steps - len(each.hits)
        if left and words:
            own = {"q": " ".join(words), "run": each.run.id}
            more = Command(f"{left:,} more", ("search", *words, "--run", short(each.run.id)), "search", own)
            rows.append([Cell(more.text, way=more, depth=1, is_rest=True), *[Cell()] * len(COLUMNS[1:])])
        yield Table(COLUMNS, rows, rows_as="item")


def named(found: HitsByRun, word: str) -> Iterator[Command]:
    """Yield the command that shows the run or the step that a word names, if it names one."""
    if found.named is not None:
        kind = "run" if isinstance(found.named, AgentInstanceRow) else "step"
        yield Command(f"{word} names a {kind}", ("show", found.named.id))


def counted(found: HitsByRun) -> Sentence:
    """Return how many steps and runs were found, and how many runs of them are listed."""
    return Sentence(f"{found}; {len(found.runs):,} of them are listed" if len(found.runs) < found.found else str(found))


def plain_by_run(found: HitsByRun) -> dict[str, Any]:
    """Return the hits by run as an object of JSON."""
    runs = [
        {
            "run_id": each.run.id,
            "agent": each.agent,
            "version": each.version,
            "status": each.run.status,
            "steps": each.steps,
            "hits": [hit._asdict() for hit in each.hits],
        }
        for each in found.runs
    ]
    numbers = {"total": found.total, "examined": found.examined, "found": found.found}
    return {"runs": runs, **numbers, "named": None if found.named is None else found.named.id}


def _run(each: RunHits, verdict: Verdict, at: At) -> Sequence[Cell]:
    row = each.run
    name = dotted(run_name(each.agent, each.version), verdict.text if verdict.kind == "missed" else "")
    title = session_title(row) or (f"task {row.task}" if row.task else "")
    return (
        Cell(name, mark=verdict.mark, status=verdict.status, at=Place(row.id)),
        Cell(at=Place(row.id)), Cell(), Cell(),
        Cell(at(row.started_at or row.inserted_at)), Cell(alone=noun(each.steps, "step")), Cell(alone=title),
    )  # fmt: skip


def _hit(hit: Hit, at: At, depth: int = 0) -> Sequence[Cell]:
    place, found = Place(hit.run_id, hit.span_id, hit.step), Cell(hit.snippet, matches=hit.matches)
    is_title = hit.field == "summary"
    title = Cell(
        hit.snippet if is_title else hit.summary, mark=STATUS_MARKS[hit.status], status=hit.status, at=place,
        matches=hit.matches if is_title else (), depth=depth,
    )  # fmt: skip
    of_run = ("", "") if depth else (run_name(hit.agent, hit.version) if hit.agent else "", at(hit.started_at or ""))
    repeats = Cell(f"{hit.repeats:,}", alone=f"and in {noun(hit.repeats, 'later step')}") if hit.repeats else Cell()
    return title, Cell(at=place), *map(Cell, (hit.schema_name, *of_run)), repeats, Cell() if is_title else found
