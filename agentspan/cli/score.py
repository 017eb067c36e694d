"""`agentspan score` adds or removes scores of a run or span; `agentspan terminate` stops a run from outside."""

import click

from agentspan.analysis import by_name
from agentspan.cli.app import changes, command
from agentspan.cli.output import Failed, document, safe
from agentspan.database import Database
from agentspan.model.rows import AgentInstanceRow, AgentSpanRow
from agentspan.model.scores import MARK, NOTE, SOURCES, Source
from agentspan.storage.questions import SpansOf
from agentspan.text import noun

TRUTHS = {"true": True, "false": False}


@command("score", context_settings={"ignore_unknown_options": True})  # a VALUE may be -1
@click.argument("target", metavar="RUN")
@click.argument("name", required=False)
@click.argument("value", required=False)
@click.option("--mark", metavar="LABEL", help="Mark it as good, bad or any other word, instead of NAME and VALUE.")
@click.option("--note", metavar="TEXT", help="Say why. Without VALUE and mark it is a note of its own.")
@click.option("--by", type=click.Choice(SOURCES), help="Say who judged: code when left out, human for marks and notes.")
@click.option("--as", "identifier", metavar="NAME", help="Name the judge. If several judge the same, each has a score.")
@click.option("--remove", is_flag=True, help="Take back the score; without NAME, the mark and the note.")
@changes
def score_command(
    database: Database,
    *,
    target: str,
    name: str | None,
    value: str | None,
    mark: str | None,
    note: str | None,
    by: Source | None,
    identifier: str | None,
    remove: bool,
    as_json: bool,
) -> None:
    """Add a score; without a name, a mark or a note. With `remove`, remove the scores of the name and identifier."""
    for each in (name, value):
        if each is not None and each.startswith("-") and not isinstance(_value(each), float):
            raise click.NoSuchOption(each)
    if remove and (value or mark or note):
        raise Failed("--remove stands alone: it takes back the value, the mark and the note")
    if mark and name:
        raise Failed("--mark has no NAME: it is a score of the name `mark`")
    if name and not (value or note or remove):
        raise Failed("a score has a VALUE: a number, true, false, or a word; or give a --note")
    if not (name or mark or note or remove):
        raise Failed("a score has a NAME and a VALUE, such as reward 0.8; or give --mark bad, or a --note")
    judged = by_name.find_run_or_span(database.storage, target)
    if remove:
        names = {name} if name else {MARK, NOTE}
        removed = [score.name for score in database.scores.list(judged.id) if score.identifier == identifier]
        removed = [each for each in removed if each in names]
        for each in removed:
            database.scores.record(
                judged.id, each, by=by or ("code" if name else "human"), identifier=identifier, withdraw=True
            )
        done = f"{' and '.join(removed)} removed from" if removed else f"there was no {name or MARK} on"
    else:
        typed = mark if value is None else _value(value)
        number, label = (None, typed) if isinstance(typed, str) else (typed, None)
        database.scores.record(
            judged.id,
            name or (MARK if mark else NOTE),
            number,
            label=label,
            explanation=note,
            by=by or ("code" if name else "human"),
            identifier=identifier,
        )
        done = f"{name} {value or 'noted'}:" if name else f"marked as {mark}:" if mark else "noted on"
    _answer(database, judged, done, as_json=as_json)


def _answer(database: Database, target: AgentInstanceRow | AgentSpanRow, done: str, *, as_json: bool) -> None:
    """Print a line about the change to the scores of a run or span; with `as_json`, all its current scores."""
    if as_json:
        scores = [score.model_dump(mode="json") for score in database.scores.list(target.id)]
        document({"target_id": target.id, "scores": scores, "total": len(scores)})
    else:
        click.echo(safe(f"{done} {'span' if isinstance(target, AgentSpanRow) else 'run'} {target.id}"))


def _value(text: str) -> float | bool | str:
    """Parse the value of a score from the command line: true or false, else a number, else a word."""
    truth = TRUTHS.get(text.lower())
    if truth is not None:
        return truth
    try:
        return float(text)
    except ValueError:
        return text


@command("terminate")
@click.argument("run")
@click.option("--reason", required=True, help="Say why. It is stored on the run, and its program receives it.")
@changes
def terminate_command(database: Database, *, run: str, reason: str, as_json: bool) -> None:
    """Terminate a run."""
    done = database.agent_instances.terminate(by_name.find_run(database.storage, run).id, reason)
    if as_json:
        document({"run": done.model_dump(mode="json")})
    else:
        closed = sum(span.closed_by == "terminated" for span in database.storage.ask(SpansOf(done.id)))
        click.echo(f"terminated run {done.id}; {noun(closed, 'open span')} closed")
