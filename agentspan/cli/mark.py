"""`agentspan mark`: marks a run or a span with a word and a note, which are scores without a number."""

import click

from agentspan.analysis import id_prefixes
from agentspan.cli.output import Failed, document, safe
from agentspan.database import Database
from agentspan.model.rows import AgentSpanRow
from agentspan.model.score_resources import Score
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
    if as_json:
        scores = database.scores.list(target.id)
        document({"target_id": target.id, "scores": [_plain(score) for score in scores], "total": len(scores)})
    else:
        click.echo(safe(f"{said} {'span' if isinstance(target, AgentSpanRow) else 'run'} {target.id}"))


def _plain(score: Score) -> dict[str, object]:
    return score.model_dump(mode="json")
