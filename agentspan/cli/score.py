"""`agentspan score`: adds a score to a run or a span, or takes it back."""

import click

from agentspan.analysis import id_prefixes
from agentspan.cli.mark import answer
from agentspan.cli.output import Failed
from agentspan.database import Database
from agentspan.model.scores import Source

TRUTHS = {"true": True, "false": False}


def command(
    database: Database,
    what: str,
    name: str,
    text: str | None,
    *,
    note: str | None,
    by: Source,
    identifier: str | None,
    remove: bool,
    as_json: bool,
) -> None:
    """Add a score, or with `remove` take back those of this name and identifier."""
    for each in (name, text):
        if each is not None and each.startswith("-") and not isinstance(_value(each), float):
            raise click.NoSuchOption(each)
    if remove and (text or note):
        raise Failed("--remove stands alone: it takes back the value and the note")
    if not (text or note or remove):
        raise Failed("a score has a VALUE: a number, true, false, or a word; or give a --note")
    value = None if text is None else _value(text)
    number, label = (None, value) if isinstance(value, str) else (value, None)
    target = id_prefixes.find_run_or_span(database.storage, what)
    counting = database.scores.list(target.id)
    if remove and not any((each.name, each.identifier) == (name, identifier) for each in counting):
        said = f"there was no {name} on"
    else:
        database.scores.record(
            target.id, name, number, label=label, explanation=note, by=by, identifier=identifier, withdraw=remove
        )
        said = f"{name} removed from" if remove else f"{name} {text or 'noted'}:"
    answer(database, target, said, as_json=as_json)


def _value(text: str) -> float | bool | str:
    """Return what a person typed: a number, true or false, else a word."""
    truth = TRUTHS.get(text.lower())
    if truth is not None:
        return truth
    try:
        return float(text)
    except ValueError:
        return text
