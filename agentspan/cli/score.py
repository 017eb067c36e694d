"""`agentspan score` adds or removes scores; `run allow` gives a run more of its budget; `run terminate` stops it."""

import click

from agentspan.analysis import by_name
from agentspan.analysis.budgets import budget_of
from agentspan.cli.app import changes, command
from agentspan.cli.completion import RUN
from agentspan.cli.output import Failed, Unanswered, answer, safe
from agentspan.database import Database
from agentspan.errors import InvalidValue
from agentspan.model.changes import OPEN
from agentspan.model.rows import AgentSpanRow
from agentspan.model.scores import MARK, NOTE, SOURCES, Source, typed
from agentspan.recording.budgets import ALLOWED, LIMITS, NAME, more_of, number_of, user
from agentspan.storage.questions import SpansOf
from agentspan.text import noun


@command("score", context_settings={"ignore_unknown_options": True})  # a VALUE may be -1
@click.argument("target", metavar="RUN", type=RUN)
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
    """Add a score, a mark or a note to a run or a step.

    RUN may be a step, such as -#12. NAME is what is judged, VALUE a number, true, false or a word. The newest score of
    a NAME counts, and so does the newest mark.
    """
    for each in (name, value):
        if each is not None and each.startswith("-") and not isinstance(typed(each), float):
            raise click.NoSuchOption(each)
    if remove and (value or mark or note):
        raise Unanswered("--remove stands alone: it takes back the value, the mark and the note")
    if mark and name:
        raise Unanswered("--mark has no NAME: it is a score of the name `mark`")
    if name and not (value or note or remove):
        raise Unanswered("a score has a VALUE: a number, true, false, or a word; or give a --note")
    if not (name or mark or note or remove):
        raise Unanswered("a score has a NAME and a VALUE, such as reward 0.8; or give --mark bad, or a --note")
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
        judgement = mark if value is None else typed(value)
        number, label = (None, judgement) if isinstance(judgement, str) else (judgement, None)
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
    scores = [score.model_dump(mode="json") for score in database.scores.list(judged.id)]
    text = safe(f"{done} {'span' if isinstance(judged, AgentSpanRow) else 'run'} {judged.id}")
    answer({"target_id": judged.id, "scores": scores, "total": len(scores)}, text, as_json=as_json)


@command("run", context_settings={"ignore_unknown_options": True, "allow_extra_args": True})
@click.argument("what", type=click.Choice(["allow", "terminate"]))
def run_command(what: str) -> None:
    """Allow a run more than its budget, or terminate it.

    Each has options of its own: `run allow --help` and `run terminate --help` list them.
    """
    raise click.UsageError(f"{what} stands before all else: agentspan run {what} RUN")


@command("allow")
@click.argument("run", type=RUN)
@click.option("--usd", metavar="N", help="Allow N US dollars more, such as +2.")
@click.option("--steps", metavar="N", help="Allow N steps more.")
@click.option("--minutes", metavar="N", help="Allow N minutes more.")
@click.option("--tokens", metavar="N", help="Allow N tokens more.")
@click.option("--repeats", metavar="N", help="Allow each call N times more.")
@click.option("--as", "by", metavar="NAME", help="Say who allows it; the name of the user, when left out.")
@changes
def allow_command(database: Database, *, run: str, by: str | None, as_json: bool, **amounts: str | None) -> None:
    """Allow a run more than its budget.

    A run that is paused goes on. Without options, as much again as each limit of its budget.
    """
    found = by_name.find_run(database.storage, run)
    if found.status not in OPEN:
        raise Failed(f"run {found.id} is {found.status}: it takes no further step")
    try:
        wanted = {name: number_of(name, text) for name in LIMITS if (text := amounts[name]) is not None}
    except InvalidValue as error:
        raise Unanswered(f"run {found.id} is allowed nothing: {error}") from None
    try:
        more = more_of(found.metadata, wanted)
    except InvalidValue as error:
        raise Failed(f"run {found.id} is allowed nothing: {error}") from None
    database.scores.record(found.id, NAME, label=ALLOWED, explanation=more, by="human", identifier=by or user())
    used = budget_of(database.storage, found)
    text = safe(f"run {found.id} is allowed {more}")
    answer({"run_id": found.id, "allowed": more, "budget": used and used.plain()}, text, as_json=as_json)


@command("terminate")
@click.argument("run", type=RUN)
@click.option("--reason", required=True, help="Say why. It is stored on the run, and its program receives it.")
@changes
def terminate_command(database: Database, *, run: str, reason: str, as_json: bool) -> None:
    """Terminate a run from outside, for good.

    Its open spans are closed, and its program learns of it at its next span.
    """
    done = database.agent_instances.terminate(by_name.find_run(database.storage, run).id, reason)
    closed = sum(span.closed_by == "terminated" for span in database.storage.ask(SpansOf(done.id)))
    text = f"terminated run {done.id}; {noun(closed, 'open span')} closed"
    answer({"run": done.model_dump(mode="json")}, text, as_json=as_json)
