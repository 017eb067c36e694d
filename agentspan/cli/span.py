"""`agentspan span`: prints one span in full."""

import json
from typing import Any

import click

from agentspan import jsontext
from agentspan.analysis import id_prefixes
from agentspan.analysis.late_ends import closed_text
from agentspan.analysis.score_text import score_text
from agentspan.api import from_rows
from agentspan.api.from_rows import score
from agentspan.blobs import described
from agentspan.cli.output import MARKS, document, fit, local, safe, status_style, style, width
from agentspan.cli.tree import title
from agentspan.database import Database
from agentspan.figures import cost_text, duration_text
from agentspan.model.columns import other_facts
from agentspan.model.rows import AgentInstanceRow
from agentspan.schemas.meaning import error_of
from agentspan.storage.lookup import expect
from agentspan.storage.questions import Account, Find, NewestScores, Violations
from agentspan.text import one_line

SCORE_CHARACTERS = 500


def command(database: Database, what: str, *, as_json: bool) -> None:
    """Print one span in full; of images and the like type and size."""
    storage = database.storage
    row = id_prefixes.find_span(storage, what)
    scores = [each for each in storage.ask(NewestScores([row.agent_instance_id])) if each.target_id == row.id]
    violations = storage.ask(Violations([row.id], instance_id=row.agent_instance_id))[row.id]
    if as_json:
        run = storage.ask(Find(row.agent_instance_id, instance_id=row.agent_instance_id))
        instance = expect(run, AgentInstanceRow, row.agent_instance_id)
        found = from_rows.plain(from_rows.span(row, storage.ask(Account()), instance.purpose))
        judged = [from_rows.plain(score(each)) for each in scores]
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
