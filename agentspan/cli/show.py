"""`agentspan show`: prints a run as a tree, whole or in part; or one span in full."""

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import click

from agentspan import jsontext
from agentspan.analysis import id_prefixes, tree
from agentspan.analysis.runs import closed_text
from agentspan.analysis.tree import Node, build, every, numbers, walk
from agentspan.analysis.wording import score_text
from agentspan.blobs import described
from agentspan.cli.app import command, reads
from agentspan.cli.output import (
    MARKS,
    document,
    echo_lines,
    fit,
    hint,
    local,
    noun,
    page,
    safe,
    status_style,
    style,
    to_copy,
    utc_option,
    width,
)
from agentspan.cli.runs import name_of
from agentspan.cli.tree import Picture, Timeline, title
from agentspan.database import Database
from agentspan.journal.writers import Lives
from agentspan.model.columns import other_facts
from agentspan.model.rows import AgentInstanceRow, AgentSpanRow
from agentspan.model.status import OPEN
from agentspan.schemas.meaning import error_of, returned_error
from agentspan.storage.access import expect
from agentspan.storage.protocol import Storage
from agentspan.storage.questions import Account, Find, NewestScores, Outlines, SpansOf, Violations
from agentspan.storage.row_by_row import labels_of, names_of
from agentspan.text import cost_text, duration_text, one_line

AROUND = 5
"""The number of steps before, and after, a span that `--around` shows."""
SCORE_CHARACTERS = 500


@command("show")
@click.argument("id")
@click.option("--full", is_flag=True, help="Show each of the siblings that repeat, instead of counting them.")
@click.option("--payloads", is_flag=True, help="Show what went into each span, and what came out.")
@click.option("--slow", metavar="N", type=click.IntRange(1), help="Show the N spans that took longest by themselves.")
@click.option("--failed", is_flag=True, help="Show only the spans that failed.")
@click.option("--around", is_flag=True, help="With the id of a span: show its run at that step.")
@utc_option
@reads
def show_command(
    database: Database,
    id: str,
    *,
    as_json: bool,
    full: bool = False,
    payloads: bool = False,
    slow: int | None = None,
    failed: bool = False,
    around: bool = False,
) -> None:
    """Show a run, one span in full, or the steps around a span; use a pager if a run does not fit on the terminal."""
    storage = database.storage
    found = id_prefixes.find_run_or_span(storage, id)
    at = found if isinstance(found, AgentSpanRow) else None
    if at is not None and (slow is not None or failed):
        raise click.UsageError("--slow and --failed are about a whole run, not about a span")
    if around and at is None:
        raise click.UsageError("--around is about a span: it shows the steps of its run around it")
    if at is not None and not around:
        show_span(storage, at, as_json=as_json)
        return
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
    if not full and slow is None and at is None:  # spans that --slow selects are not folded
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
    """Return the ids of a span and of the AROUND steps before and after it."""
    return {id for id, number in steps.items() if abs(number - steps[span.id]) <= AROUND}


def _wanted(roots: list[Node], slow: int | None, failed: bool) -> set[str] | None:
    """Return the ids of the spans that `--slow` and `--failed` select; None if neither is set."""
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
    labels = labels_of(database.storage, [run.id])[run.id]
    yield from picture.head(run, name_of(names_of(database.storage, [run])[run.id]), spans, labels)
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
    from agentspan.api import from_rows  # imported late: Pydantic takes 80 ms

    storage = database.storage
    account = storage.ask(Account())
    document(
        {
            "run": {
                **from_rows.plain(from_rows.details_of(storage, run, account)),
                "agent": name_of(names_of(storage, [run])[run.id]),
            },
            "spans": [from_rows.plain(from_rows.span(span, account, run.purpose)) for span in spans],
            "span_scores": [
                from_rows.plain(from_rows.score(row))
                for row in storage.ask(NewestScores([run.id]))
                if row.target_type == "agent_span"
            ],
            "step": step,
            "total": total,
        }
    )


def show_span(storage: Storage, row: AgentSpanRow, *, as_json: bool) -> None:
    """Print one span in full; images and other blobs are shown by type and size only."""
    scores = [each for each in storage.ask(NewestScores([row.agent_instance_id])) if each.target_id == row.id]
    violations = storage.ask(Violations([row.id], instance_id=row.agent_instance_id))[row.id]
    if as_json:
        from agentspan.api import from_rows

        found = from_rows.plain(from_rows.span(row, storage.ask(Account()), _run_of(storage, row).purpose))
        judged = [from_rows.plain(from_rows.score(each)) for each in scores]
        document({"span": found, "violations": [violation._asdict() for violation in violations], "scores": judged})
        return
    click.echo(status_style(MARKS[row.status], row.status) + " " + style(fit(title(row), width() - 2), bold=True))
    closed = closed_text(row)
    facts: dict[str, Any] = {
        "id": row.id,
        "run": row.agent_instance_id,
        "parent": row.parent_span_id,
        "type": row.schema_name,
        "status": row.status if closed is None else f"{row.status} (closed by being {closed})",
        "started": _time(row.started_at),
        "finished": _time(row.finished_at),
        "took": None if row.duration_ms is None else duration_text(row.duration_ms),
        "tokens": _tokens(row.input_tokens, row.output_tokens),
        "cost": None if row.cost_usd is None else cost_text(row.cost_usd),
    }
    facts |= other_facts(row)
    for name, value in facts.items():
        if value is not None:
            click.echo(f"  {name:<8} {safe(str(value))}")
    for each in scores:
        click.echo(f"  {'score':<9}{safe(one_line(score_text(each), SCORE_CHARACTERS))}")
    _show_json("payload", jsontext.decode(described(row.payload)))
    if row.result_payload is not None:
        result = jsontext.decode(described(row.result_payload))
        error = error_of(result)
        trace = error.get("stacktrace") if isinstance(error, dict) else None
        if isinstance(trace, str):
            shown = {key: value for key, value in error.items() if key != "stacktrace"}
            result = shown if error is result else {**result, "error": shown}
        _show_json("result_payload", result)
        if isinstance(trace, str):
            click.echo(style("stacktrace", bold=True))
            click.echo(safe("".join(f"  {line}" for line in trace.splitlines(keepends=True))))
    if violations:
        click.echo(style("does not match its schema", bold=True))
        for violation in violations:
            click.echo(safe(f"  {violation.side} {violation.path}: {violation.message}"))
    echo_lines(hint("its run at this step", to_copy("show", row.id, "--around"), width()))


def _show_json(name: str, value: Any) -> None:
    click.echo(style(name, bold=True))
    text = json.dumps(value, indent=2, ensure_ascii=False)
    click.echo(safe("".join(f"  {line}" for line in text.splitlines(keepends=True))))


def _time(text: str | None) -> str | None:
    return None if text is None else f"{local(text):%Y-%m-%d %H:%M:%S.%f %Z}"


def _tokens(input_tokens: int | None, output_tokens: int | None) -> str | None:
    if input_tokens is None and output_tokens is None:
        return None
    return f"{'?' if input_tokens is None else input_tokens} in, {'?' if output_tokens is None else output_tokens} out"
