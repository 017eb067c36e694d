"""`agentspan mark`: marks a run or a span with a word and a note, which are scores without a number."""

import click

from agentspan.analysis import id_prefixes
from agentspan.cli.output import Failed, document, safe
from agentspan.database import Database
from agentspan.model.rows import AgentInstanceRow, AgentSpanRow
from agentspan.model.scores import MARK, NOTE


def command(
    database: Database,
    what: str,
    label: str | None,
    *,
    note: str | None,
    identifier: str | None,
    remove: bool,
    as_json: bool,
) -> None:
    """Add a mark, or with `remove` take back the mark and the note."""
    if remove and (label or note):
        raise Failed("--remove stands alone: it takes back the mark and the note")
    if not (label or note or remove):
        raise Failed("a mark is a word, such as bad; or give a --note")
    target = id_prefixes.find_run_or_span(database.storage, what)
    if remove:
        wanted = [score for score in database.scores.list(target.id) if score.name in (MARK, NOTE)]
        names = [score.name for score in wanted if score.identifier == identifier]
        for name in names:
            database.scores.record(target.id, name, by="human", identifier=identifier, withdraw=True)
        said = f"{' and '.join(names)} removed from" if names else "there was no mark on"
    else:
        name = MARK if label else NOTE
        database.scores.record(target.id, name, label=label, explanation=note, by="human", identifier=identifier)
        said = f"marked as {label}:" if label else "noted on"
    answer(database, target, said, as_json=as_json)


def answer(database: Database, target: AgentInstanceRow | AgentSpanRow, said: str, *, as_json: bool) -> None:
    """Print what was done to the scores of a run or a span, or the document of all that count."""
    if as_json:
        scores = [score.model_dump(mode="json") for score in database.scores.list(target.id)]
        document({"target_id": target.id, "scores": scores, "total": len(scores)})
    else:
        click.echo(safe(f"{said} {'span' if isinstance(target, AgentSpanRow) else 'run'} {target.id}"))
