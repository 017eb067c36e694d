"""The runs of one session in order: what was asked first, what became of it, and what it took."""

from collections.abc import Callable, Sequence

from agentspan.analysis.session_runs import SessionRun, SessionRuns
from agentspan.analysis.tree import is_session, run_name
from agentspan.answers.blocks import At as Place
from agentspan.answers.blocks import Cell, Column, Table
from agentspan.storage.row_by_row import tokens_of
from agentspan.text import cost_texts, count_text, duration_text, noun

COLUMNS = (
    Column("asked first", is_number=False), Column("run", is_number=False, is_code=True, is_hint=True),
    Column("agent", is_number=False), Column("started", "started (UTC)", is_number=False),
    Column("verdict", is_number=False),
    *map(Column, ("steps", "failed", "tokens", "cost", "took")),
)  # fmt: skip


def table(found: SessionRuns, at: Callable[[str], str], offset: int) -> Table:
    """Return the runs of a page of a session.

    Args:
        at: returns a stored time as text, in the zone of the surface.
        offset: the number of the runs before this page.
    """
    costs = cost_texts(each.run.cost_usd for each in found.runs)
    rows = [_run(each, n, cost, at) for n, (each, cost) in enumerate(zip(found.runs, costs, strict=True), offset + 1)]
    return Table(COLUMNS, rows, rows_as="item")


def _run(each: SessionRun, number: int, cost: str, at: Callable[[str], str]) -> Sequence[Cell]:
    run, row, verdict = each.run, each.run.run, each.verdict
    tokens, prompt = tokens_of(run), each.prompt or "no prompt was recorded"
    place = Place(row.id, view="conversation" if is_session(row) else "")
    used = "" if tokens is None else count_text(tokens)
    return (
        Cell(f"{number:,}. {prompt}", mark=verdict.mark, status=verdict.status, at=place),
        Cell(at=Place(row.id)),
        Cell(run_name(run.agent, run.version)),
        Cell(at(row.started_at or row.inserted_at)),
        Cell(verdict.text, hint=each.cause or "", is_bad=verdict.kind in ("failed", "missed")),
        Cell(f"{run.spans:,}", alone=noun(run.spans, "step")),
        Cell(f"{run.failed:,}", alone=noun(run.failed, "failed step"), is_bad=True) if run.failed else Cell(),
        Cell(used, alone=used and f"{used} tok"),
        Cell(cost),
        Cell("" if row.duration_ms is None else duration_text(row.duration_ms)),
    )
