"""`agentspan score`: adds a score, a mark or a note to a run or a span, or takes it back."""

import click

from agentspan.analysis import id_prefixes
from agentspan.cli.output import Failed, document, safe
from agentspan.database import Database
from agentspan.model.rows import AgentInstanceRow, AgentSpanRow
from agentspan.model.scores import MARK, NOTE, Source

TRUTHS = {"true": True, "false": False}


def command(
    database: Database,
    what: str,
    name: str | None,
    text: str | None,
    *,
    mark: str | None,
    note: str | None,
    by: Source | None,
    identifier: str | None,
    remove: bool,
    as_json: bool,
) -> None:
    """Add a score, or with `remove` take back those of this name and identifier; without a name a mark or a note."""
    for each in (name, text):
        if each is not None and each.startswith("-") and not isinstance(_value(each), float):
            raise click.NoSuchOption(each)
    if remove and (text or mark or note):
        raise Failed("--remove stands alone: it takes back the value, the mark and the note")
    if mark and name:
        raise Failed("--mark has no NAME: it is a score of the name `mark`")
    if name and not (text or note or remove):
        raise Failed("a score has a VALUE: a number, true, false, or a word; or give a --note")
    if not (name or mark or note or remove):
        raise Failed("a score has a NAME and a VALUE, such as reward 0.8; or give --mark bad, or a --note")
    target = id_prefixes.find_run_or_span(database.storage, what)
    if remove:
        names = {name} if name else {MARK, NOTE}
        removed = [score.name for score in database.scores.list(target.id) if score.identifier == identifier]
        removed = [each for each in removed if each in names]
        for each in removed:
            database.scores.record(
                target.id, each, by=by or ("code" if name else "human"), identifier=identifier, withdraw=True
            )
        said = f"{' and '.join(removed)} removed from" if removed else f"there was no {name or MARK} on"
    else:
        value = mark if text is None else _value(text)
        number, label = (None, value) if isinstance(value, str) else (value, None)
        database.scores.record(
            target.id,
            name or (MARK if mark else NOTE),
            number,
            label=label,
            explanation=note,
            by=by or ("code" if name else "human"),
            identifier=identifier,
        )
        said = f"{name} {text or 'noted'}:" if name else f"marked as {mark}:" if mark else "noted on"
    _answer(database, target, said, as_json=as_json)


def _answer(database: Database, target: AgentInstanceRow | AgentSpanRow, said: str, *, as_json: bool) -> None:
    """Print what was done to the scores of a run or a span, or the document of all that count."""
    if as_json:
        scores = [score.model_dump(mode="json") for score in database.scores.list(target.id)]
        document({"target_id": target.id, "scores": scores, "total": len(scores)})
    else:
        click.echo(safe(f"{said} {'span' if isinstance(target, AgentSpanRow) else 'run'} {target.id}"))


def _value(text: str) -> float | bool | str:
    """Return what a person typed: a number, true or false, else a word."""
    truth = TRUTHS.get(text.lower())
    if truth is not None:
        return truth
    try:
        return float(text)
    except ValueError:
        return text
