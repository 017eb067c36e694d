"""The answer why one run failed: the failed step, what was around it, and where the nearest passing run parts."""

import json
from collections.abc import Callable, Iterator

from agentspan import jsontext
from agentspan.analysis import diff_text
from agentspan.analysis.by_name import STEP
from agentspan.analysis.diff import DiffStep
from agentspan.analysis.differences import FieldChange
from agentspan.analysis.failures import FailedStep
from agentspan.analysis.tree import MARKS, run_name
from agentspan.analysis.why import Nearest, RunWhy, StillOpen
from agentspan.answers.blocks import Block, Cell, Column, Command, Fact, Facts, Heading, Part, Sentence, Table
from agentspan.answers.why import SHORTEST, Seen, seen_utc
from agentspan.text import cut, dotted, noun

FIELDS = 2
"""The number of differing members that are shown unless a surface shows more."""
MAX_SIDE = 40
"""The largest number of characters of a differing value."""


def why(
    found: RunWhy,
    seen: Seen = seen_utc,
    named: Callable[[str], str] = str,
    *,
    most: int = FIELDS,
    is_dead: bool = False,
) -> Iterator[Part]:
    """Yield the parts of the answer: the verdict, the failed step, and the nearest passing run.

    Args:
        named: returns the name of a run for commands, by its id.
        most: the largest number of members that are shown of the step where the runs part.
        is_dead: whether the program of the run died.
    """
    run = named(found.run_id)
    yield _verdict(found, run, is_dead=is_dead)
    yield _reason(found, run, seen, is_dead=is_dead)
    if not found.passed:
        yield _parted(found, run, named, most)


def _verdict(found: RunWhy, run: str, *, is_dead: bool) -> Iterator[Block]:
    yield Heading(f"run {found.run_id} {run_name(found.agent, found.version)}")
    yield Sentence(f"{'? left open' if is_dead else found.verdict} · {dotted(*found.head)}")
    if is_dead:
        yield Command("? its program died; this closes what it left open", ("doctor",))
    if found.missed is not None:
        rule = str(found.missed.rule)
        yield Command(f"it missed {rule}", ("why", run, "--outcome", rule))


def _reason(found: RunWhy, run: str, seen: Seen, *, is_dead: bool) -> Iterator[Block]:
    step, signature = found.step, found.signature.id[:SHORTEST]
    own = [] if found.error is None else [Fact("error", found.error, 3)]
    if found.still_open is not None:
        own.append(Fact("left open" if is_dead else "still open", place(found.still_open), 2))
    elif step is None:
        own.append(Fact("no step failed; it ended", found.signature.text, 2))
    if own:
        yield Facts(own)
    if step is None:
        yield Command("read it", ("show", run))
        if found.still_open is None:
            yield Command("the same ending", ("runs", "--signature", signature))
        return
    if found.passed and found.missed is None:
        yield Sentence("this run passed all the same")
    yield Sentence(f"✗ step {STEP}{step.number}: {title(step)}", tone="worse")
    other = found.elsewhere
    times = f", {seen(other.first_at, other.last_at)}" if other is not None and other.runs else ""
    yield Facts([*step_facts(found), Fact(f"{signature} elsewhere", f"{elsewhere(found)}{times}", 1)])
    yield Command("read it", ("show", f"{run}{STEP}{step.number}", "--around"))


def _parted(found: RunWhy, run: str, named: Callable[[str], str], most: int) -> Iterator[Block]:
    partner = found.nearest
    if partner is None:
        yield Sentence(nearest(found, None))
        return
    yield Sentence(f"{nearest(found, partner)}: {partner.run_id}")
    first = partner.divergence
    if first is None:
        yield Sentence(parting(partner))
        return
    yield Sentence(f"≠ {parting(partner)}", "verdict")
    if (read_first := diff_text.read_first(first)) is not None:
        yield Sentence(read_first)
    members = sorted(first.fields, key=interest)[:most]
    rows = [[Cell(each.path), Cell(each.a or "nothing"), Cell(each.b or "nothing")] for each in members]
    columns = [Column(name, is_number=False) for name in ("what differs", "passing", "this one")]
    steps = [Cell(), _step(first.a), _step(first.b)]
    yield Table(columns, [steps, *rows], len(first.fields) + 1, "member", rows_as="sides")
    yield Command("compare them", ("diff", named(partner.run_id), run))


def _step(step: DiffStep | None) -> Cell:
    if step is None:
        return Cell("no more steps")
    return Cell(step.title, mark=f"{step.number:,} {MARKS[step.status]}")


def sentence(found: RunWhy) -> str:
    """Return the reason in one sentence."""
    step = found.step
    if step is not None:
        return f"Step {step.number:,} failed: {title(step)}"
    if found.error is not None:
        return "The run failed, but none of its steps did."
    return f"No step failed. It ended: {found.signature.text}"


def title(step: FailedStep) -> str:
    """Return the title of a failed step without its error, which is a fact of its own."""
    return step.title.partition(" → ")[0]


def step_facts(found: RunWhy) -> Iterator[Fact]:
    """Yield the facts about the step that made a run fail, without the same failure in other runs."""
    step = found.step
    if step is None:
        return
    yield Fact("error", step.error, 3)
    yield Fact("given", _spaced(step.payload), 5)
    if step.within:
        yield Fact("in", " › ".join(step.within), 1)
    if step.user_text is not None:
        yield Fact("the user had said", step.user_text, 2)
    if step.model_text is not None:
        yield Fact("the model had said", step.model_text, 2)
    elif step.asked_by is not None:
        yield Fact("asked for by", f"step {step.asked_by:,}, a model call without words", 1)
    before = _attempts(step.failed_before, step.same_before)
    if before:
        yield Fact("before it", before, 1)
    after = _attempts(step.failed_after, step.same_after)
    if after:
        yield Fact("after it", after + ("" if step.passed_after else ", and none that passed"), 2)
    if step.passed_later is not None:
        yield Fact("later call", _passed_later(step), 3)
    if step.recovered_by is not None:
        yield Fact("recovered", _recovery(step, found.failed), 2)


def elsewhere(found: RunWhy) -> str:
    """Return how often other runs of the agent have the same failure."""
    other = found.elsewhere
    if other is not None and other.runs:
        return f"{other.spans:,}× in {noun(other.runs, 'other run')}"
    return "in no other run of this agent"


def place(still_open: StillOpen) -> str:
    """Return, in words, the current step of a run that has not ended."""
    if still_open.title is not None:
        return f"in step {still_open.step:,}, {still_open.title}"
    return f"after step {still_open.step:,}" if still_open.step else "before its first step"


def nearest(found: RunWhy, partner: Nearest | None) -> str:
    """Return the words before the id of the passing run to compare with; without one, a sentence."""
    of = "this agent" if found.task is None else f"task {found.task}"
    if partner is None:
        return f"no passing run of {of} to compare with"
    if not partner.same_task and found.task is not None:
        of = f"this agent, since none of task {found.task} passed"
    several = "the passing run" if partner.passing == 1 else f"nearest of {noun(partner.passing, 'passing run')}"
    if partner.compared < partner.passing:
        latest = "the latest" if partner.compared == 1 else f"nearest of the latest {partner.compared:,}"
        several = f"{latest} of {partner.passing:,} passing runs"
    return f"{several} of {of}"


def parting(partner: Nearest) -> str:
    """Return, in words, the first difference between a failed run and the passing run that is nearest to it."""
    first = partner.divergence
    if first is None:
        return "it has the same steps"
    return f"{diff_text.after(first)}: {diff_text.parting(first, 'it', 'this one')}"


def _attempts(failed: int, same: int) -> str:
    if not failed:
        return ""
    attempts = noun(failed, "failed attempt")
    if failed == same:
        return f"{attempts} with the same arguments"
    return f"{attempts}, {same:,} of them with the same arguments" if same else f"{attempts} with other arguments"


def _passed_later(step: FailedStep) -> str:
    changed = ", ".join(_change(each) for each in step.changes[:FIELDS]) + ", …" * (len(step.changes) > FIELDS)
    return f"step {step.passed_later:,} passed with other arguments: {changed}"


def interest(change: FieldChange) -> tuple[bool, ...]:
    """Return a key that sorts differing members: names of tools, then results, what was sent, ids, figures.

    Members that one side lacks come before those that differ.
    """
    last = change.path.rpartition(".")[2]
    is_on_both_sides = change.a is not None and change.b is not None
    return (
        last != "name",
        ".usage." in change.path,
        last == "id" or last.endswith("_id"),
        not change.path.startswith("result"),
        is_on_both_sides,
    )


def _change(change: FieldChange) -> str:
    sides = diff_text.apart(change.a or "", change.b or "", MAX_SIDE)
    texts = (
        "nothing" if value is None else cut(text, MAX_SIDE)
        for value, text in zip((change.a, change.b), sides, strict=True)
    )
    return f"{change.path} {' → '.join(texts)}".lstrip()


def _recovery(step: FailedStep, failed: int) -> str:
    assert step.recovered_by is not None
    how = ", which contains it, completed" if step.recovered_by < step.number else " passed: the same call"
    return f"step {step.recovered_by:,}{how}" + (
        ", and the run recovered from each other failure" if failed > 1 else ""
    )


def _spaced(text: str) -> str:
    """Return JSON text with blanks after commas and colons, so that lines can break at them."""
    try:
        return json.dumps(jsontext.decode(text), ensure_ascii=False)
    except (ValueError, RecursionError):
        return text
