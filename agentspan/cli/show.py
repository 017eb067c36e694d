"""`agentspan show`: prints a run as a tree; whole, only the failed or slow spans, or the steps around one span."""

from collections.abc import Iterator, Mapping, Sequence

import click

from agentspan.analysis import id_prefixes, tree
from agentspan.analysis.tree import Node, build, every, numbers, walk
from agentspan.api import from_rows
from agentspan.api.from_rows import details_of, score
from agentspan.cli.output import document, noun, page, to_copy, width
from agentspan.cli.runs import name_of
from agentspan.cli.tree import Picture, Timeline
from agentspan.database import Database
from agentspan.journal.writers import Lives
from agentspan.model.rows import AgentInstanceRow, AgentSpanRow
from agentspan.model.status import OPEN
from agentspan.schemas.meaning import returned_error
from agentspan.storage.protocol import Storage
from agentspan.storage.questions import Account, Find, NewestScores, Outlines, SpansOf
from agentspan.storage.row_by_row import expect, names_of, said_of

AROUND = 5
"""Steps before and after a span that are shown with it."""


def command(
    database: Database,
    what: str,
    *,
    as_json: bool,
    full: bool = False,
    payloads: bool = False,
    slow: int | None = None,
    failed: bool = False,
) -> None:
    """Show a run, or a span in its run, through the pager where it is longer than the terminal."""
    storage = database.storage
    found = id_prefixes.find_run_or_span(storage, what)
    at = found if isinstance(found, AgentSpanRow) else None
    if at is not None and (slow is not None or failed):
        raise click.UsageError("--slow and --failed are about a whole run, not about a span")
    run = found if isinstance(found, AgentInstanceRow) else _run_of(storage, found)
    spans = [*storage.ask(SpansOf(run.id))] if as_json or payloads else storage.ask(Outlines(run.id))
    if at is not None:
        spans = [at if span.id == at.id else span for span in spans]
    roots = build(spans)
    steps = numbers(roots)
    wanted = _wanted(roots, slow, failed) if at is None or full else _around(steps, at)
    if as_json:
        shown_spans = [span for span in spans if wanted is None or span.id in wanted]
        _document(database, run, shown_spans, len(spans), step=None if at is None else steps[at.id])
        return
    shown = roots if wanted is None else tree.keep(roots, lambda node: node.span.id in wanted)
    kept = sum(1 for _ in every(shown))
    if not full and slow is None and at is None:  # each of the slow ones was asked for
        shown = tree.fold(shown)
    lives = Lives(storage)
    writers = {run.writer_id, *(span.writer_id for span in spans if span.status in OPEN)}
    picture = Picture(
        width(),
        Timeline(run, spans, width()),
        dead={id for id in writers if lives.of(id) == "dead"},
        payloads=payloads,
        with_ids=(wanted or ()) if at is None else (),
        selected=None if at is None else at.id,
        numbers=steps,
    )
    whole = f"the whole run: {to_copy('show', run.id)}"
    end = None if at is None else (f"step {steps[at.id]:,} of {len(spans):,}", whole)
    part = None if wanted is None else kept
    page(_lines(database, picture, run, shown, spans, part=part, end=end, is_failed=failed and slow is None))


def _run_of(storage: Storage, span: AgentSpanRow) -> AgentInstanceRow:
    id = span.agent_instance_id
    return expect(storage.ask(Find(id, instance_id=id)), AgentInstanceRow, id)


def _around(steps: Mapping[str, int], span: AgentSpanRow) -> set[str]:
    """Return the ids of the steps around a span, and its own."""
    return {id for id, number in steps.items() if abs(number - steps[span.id]) <= AROUND}


def _wanted(roots: list[Node], slow: int | None, failed: bool) -> set[str] | None:
    """Return the ids of the spans that were asked for; None for all."""
    wanted = None
    if slow is not None:
        wanted = tree.slowest(roots, slow)
    if failed:
        ids = {node.span.id for node in every(roots) if node.span.status == "failed" or returned_error(node.span)}
        wanted = ids if wanted is None else wanted & ids
    return wanted


def _lines(
    database: Database,
    picture: Picture,
    run: AgentInstanceRow,
    shown: list[Node],
    spans: list[AgentSpanRow],
    *,
    part: int | None,
    end: Sequence[str] | None = None,
    is_failed: bool = False,
) -> Iterator[str]:
    said = said_of(database.storage, [run.id])[run.id]
    yield from picture.head(run, name_of(names_of(database.storage, [run])[run.id]), spans, said)
    drawn = 0
    for node, lasts in walk(shown):
        drawn += 1
        yield from picture.span(node, lasts)
    if end is not None:
        yield from end
    elif part == 0 and is_failed:
        yield f"no step failed; how it ended: {to_copy('why', run.id)}"
    elif part is not None:
        folded = f", in {noun(drawn, 'line')}; --full shows each" if drawn < part else ""
        yield f"{part:,} of {noun(len(spans), 'span')}{folded}"
    elif drawn < len(spans):
        yield f"{noun(drawn, 'line')} for {noun(len(spans), 'span')}; --full shows each"


def _document(
    database: Database, run: AgentInstanceRow, spans: list[AgentSpanRow], total: int, *, step: int | None
) -> None:
    storage = database.storage
    account = storage.ask(Account())
    document(
        {
            "run": {
                **from_rows.plain(details_of(storage, run, account)),
                "agent": name_of(names_of(storage, [run])[run.id]),
            },
            "spans": [from_rows.plain(from_rows.span(span, account, run.purpose)) for span in spans],
            "span_scores": [
                from_rows.plain(score(row))
                for row in storage.ask(NewestScores([run.id]))
                if row.target_type == "agent_span"
            ],
            "step": step,
            "total": total,
        }
    )
