"""Sentences about the difference of two runs, for the command line and for Markdown in pull requests.

In Markdown, text from payloads is escaped, so that it never becomes markup.
"""

import re
import shlex
from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

from agentspan.analysis.baseline import MAX_RUNS, Against, By, Does
from agentspan.analysis.diff import DiffRun, DiffStep, Divergence, Kind, RunDiff, StepChange
from agentspan.analysis.differences import FieldChange, Words
from agentspan.analysis.tree import run_name
from agentspan.schemas.builtin import built_in_part
from agentspan.text import amounts, cost_text, count_text, cut, dotted, duration_text, noun, one_line, printable

N = TypeVar("N", int, float)
MARKS: dict[Kind, str] = {"same": "=", "figures": "~", "words": "~", "moved": "→", "added": "+", "removed": "-"}
"""The mark of each kind of change; all other kinds have the mark CHANGED."""
CHANGED = "≠"
NOT_SHORTEST = "More than 2,000 edits on one level: there may be a shorter difference than this one."
FIGURES = "figures such as tokens"
SHOWN_BEFORE, SHOWN_AFTER = 24, 16
"""The number of characters of two texts that are shown before the place at which they differ, and after it."""
_NAME = re.compile(r"[^\"(\[{:→]*[\"(]")
"""The name of a step, up to its text or arguments."""
QUIET: frozenset[Kind] = frozenset({"figures", "words"})
"""Kinds of changes after the divergence that are listed only in full output."""
KINDS: dict[Kind, str] = {
    "same": "the same",
    "figures": "other figures",
    "words": "other words",
    "answer": "another answer",
    "arguments": "other arguments",
    "result": "another result",
    "status": "another status",
    "retries": "another number of attempts",
    "moved": "moved",
    "added": "only in B",
    "removed": "only in A",
}


def facts(run: DiffRun, verdict: str = "") -> str:
    """Return the status of a run, or the verdict on it, and the sums over its spans in one line."""
    failed = f"{run.failed:,} failed" if run.failed else ""
    return dotted(
        verdict or run.status, noun(run.spans, "span"), failed, *amounts(run.tokens, run.cost_usd, run.duration_ms)
    )


def deltas(a: DiffRun, b: DiffRun) -> str:
    """Return the differences B minus A of spans, failures, tokens, cost and duration in one line."""
    changes = [
        _change(a.spans, b.spans, lambda number: noun(number, "span")),
        _change(a.failed, b.failed, lambda number: f"{number:,} failed") if b.failed != a.failed else "",
        _change(a.tokens, b.tokens, lambda number: f"{count_text(number)} tok"),
        _change(a.cost_usd, b.cost_usd, cost_text),
        _change(a.duration_ms, b.duration_ms, duration_text),
    ]
    return dotted(*changes)


def before(found: Divergence) -> str:
    """Return the number of same steps before two runs part, in words; and how many differ in text or figures."""
    if not found.same:
        return "no step before is the same"
    differ = {"words": found.other_words, FIGURES: found.other_figures}
    kinds = [kind for kind, number in differ.items() if number]
    if sum(differ.values()) == found.same:
        differ_only = "differs only" if found.same == 1 else "differ only"
        return f"{noun(found.same, 'step')} that {differ_only} in {' or '.join(kinds)}"
    parts = [f"{differ[kind]:,} of them in other {kind}" for kind in kinds]
    return ", ".join([noun(found.same, "same step"), *parts])


def read_first(found: Divergence) -> str | None:
    """Return a hint that the user message just before the divergence differs, which may be the cause; else None."""
    if found.user_said is None:
        return None
    a, b = found.user_said
    which = f"step {a:,}" if a == b else f"step {a:,} of A and {b:,} of B"
    return f"{which}, what the user said, differs: read it first"


def after(found: Divergence) -> str:
    """Return the start of a sentence: `after` and the number of same steps, or that the first step already differs."""
    return f"after {before(found)}" if found.same else "the first step already differs"


def parting(found: Divergence, a: str = "A", b: str = "B") -> str:
    """Return a sentence about the step at which two runs part.

    Args:
        a, b: the names of the two runs in the sentence.
    """
    if found.kind == "words":
        return "only words differ, these first"
    if found.kind == "figures":
        return f"only {FIGURES} differ, these first"
    if found.kind == "moved":
        return "a step is at another place"
    if found.a is None:
        return f"{a} has no more steps here"
    if found.b is None:
        return f"{b} has no more steps here"
    if found.kind in ("added", "removed", "result") and _is_model(found.a) and _is_model(found.b):
        return KINDS["answer"]  # the model calls another tool in one run, or answers without a call
    return "another step" if found.kind in ("added", "removed") else KINDS[found.kind]


def against(found: Against, same: int) -> str:
    """Return the sentence about how the runs of a baseline continue.

    Args:
        same: the number of same steps before the two runs part.
    """
    latest = "the latest " if found.runs == MAX_RUNS else ""
    runs = f"{latest}{noun(found.runs, 'other run')} ({found.filter})"
    if not found.runs:
        return f"No other run matches {found.filter}."
    if not found.reached:
        return f"None of {runs} did the same{_steps(same)} before."
    other = max(0, found.reached - found.a - found.b - found.a_tool - found.b_tool)
    parts = [
        _did("A", found.a, found.by, found.a_does, found.a_failed) + _its_tool(found.a_tool),
        _did("B", found.b, found.by, found.b_does, found.b_failed) + _its_tool(found.b_tool),
        f"{other:,} did something else" if other else "",
    ]
    next_steps = ", ".join(part for part in parts if part)
    kinds = "same calls" if found.calls_before else "none calls a tool"
    steps = f"{_steps(same)} before{f' ({kinds}, words not compared)' if same else ''}"
    return f"{found.reached:,} of {runs} did the same{steps}; next, {next_steps}."


def _did(run: str, number: int, by: By, does: Does, failed: int) -> str:
    """Return the part of a sentence that `number` runs of the baseline continue like the run A, or B."""
    alike = {"attempts": "as many attempts", "status": "the same status", "result": "the same result"}.get(by)
    if does == "end":
        return f"{number:,} had no more steps, like {run}"
    if alike is not None:
        return f"{number:,} had {alike} as {run}"
    if does == "call":
        return f"{number:,} made {run}'s call{f' ({failed:,} failed)' if failed else ''}"
    words = "" if by == "arguments" else " (words not compared)"
    if does == "answer":
        return f"{number:,} answered without a call, like {run}{words}"
    return f"{number:,} {'had a message' if does == 'message' else 'did a step'} like {run}'s{words}"


def _its_tool(runs: int) -> str:
    return f" and {runs:,} called its tool with other arguments" if runs else ""


def same_task(found: RunDiff) -> str | None:
    """Return `task=…`, a filter for the task that both runs share; None if the baseline is already of one task.

    Also None without a baseline, or if the runs do not share a task.
    """
    is_of_all = found.against is not None and "task=" not in found.against.filter
    is_shared = found.a.task is not None and found.a.task == found.b.task
    return f"task={shlex.quote(found.a.task)}" if is_of_all and is_shared and found.a.task else None


def _steps(same: int) -> str:
    """Return the number of same steps, for the sentence about a baseline."""
    return f" {same:,} steps" if same > 1 else " step" if same else " (there was no step)"


def rest(found: RunDiff) -> Iterator[StepChange]:
    """Yield the changes after the divergence of two runs; none if they do not part."""
    if found.first_divergence is not None:
        yield from found.steps[found.first_divergence.place + 1 :]


def change_text(change: StepChange) -> str:
    """Return a change as one line, without its mark."""
    if change.kind == "same":
        return noun(change.count, "same step")
    step = change.b or change.a
    inside = f" · {noun(change.count - 1, 'step')} in it" if change.count > 1 else ""
    title = f"{step.title if step else ''}{inside}"
    if change.kind in ("added", "removed"):
        return f"only {_numbers(change.a, change.b)}: {title}"
    what = kind_text(change)
    is_other = change.a is not None and change.b is not None and change.a.title != change.b.title
    return f"{_numbers(change.a, change.b)} {what}{', B' if is_other else ''}: {title}"


def kind_text(change: StepChange) -> str:
    """Return the kind of a change in words. Another result of a model is another answer."""
    return KINDS["answer"] if change.kind == "result" and _is_model(change.b) else KINDS[change.kind]


def apart(a: str, b: str, room: int) -> tuple[str, str]:
    """Return two texts whose first difference is within the first `room` characters of each.

    If it is further back, `…` replaces the equal beginning, but not the name of a step: `LLM gpt-4o "…I need your`.
    """
    same = next(
        (place for place, (one, other) in enumerate(zip(a, b, strict=False)) if one != other), min(len(a), len(b))
    )
    if a == b or max(len(a), len(b)) <= room or same <= room - SHOWN_AFTER:
        return a, b
    name = _NAME.match(a)
    kept = name[0] if name and len(name[0]) < min(same, room // 2) else ""
    begin = max(len(kept), same - min(SHOWN_BEFORE, room // 3))
    begin = a.find(" ", begin, same) + 1 or begin  # at the beginning of a word
    return f"{kept}…{a[begin:]}", f"{kept}…{b[begin:]}"


def attempts_text(step: DiffStep) -> str:
    """Return the number of attempts of a step in parentheses; "" for a single attempt."""
    return f" ({step.attempts} attempts)" if step.attempts > 1 else ""


def _is_model(step: DiffStep | None) -> bool:
    return step is not None and built_in_part(step.type) == "llm"


def _numbers(a: DiffStep | None, b: DiffStep | None) -> str:
    if a is None or b is None:
        step = a or b
        return f"{'A' if a else 'B'} {step.number if step else ''}"
    return f"{a.number}" if a.number == b.number else f"A {a.number}, B {b.number}"


def _change(a: N | None, b: N | None, text_of: Callable[[N], str]) -> str:
    """Return the difference B minus A with its sign; "" if one of both is unknown."""
    if a is None or b is None:
        return ""
    return f"{'+' if b > a else '−' if b < a else '±'}{text_of(abs(b - a))}"


CONTEXT = 60
"""The number of unchanged characters of a text that are shown before and after a change."""


def shortened(words: Sequence[Words]) -> Iterator[Words]:
    """Yield the parts of a text difference, of the long unchanged ones only CONTEXT characters around changes."""
    for number, part in enumerate(words):
        text = part.text
        if part.op == "same" and len(text) > 2 * CONTEXT:
            head = text[:CONTEXT] if number else ""
            tail = text[-CONTEXT:] if number < len(words) - 1 else ""
            text = f"{head} … {tail}"
        yield Words(part.op, text)


MAX_TITLE = 200
MAX_SENTENCE = 2000
"""The largest number of characters of a sentence, which may contain filters and names of agents."""
MAX_LINES = 40
"""The largest number of changes after the divergence that are listed."""
MAX_VALUE = 4000
"""The largest number of characters of a differing value."""
_MARKUP = re.compile(r"([\\`*_\[\]<>|~&#])")
_TICKS = re.compile(r"`+")


def markdown(found: RunDiff) -> Iterator[str]:
    """Yield the lines of a Markdown report on the difference of two runs, without line ends."""
    names = [escaped(run_name(run.agent, run.version)) for run in (found.a, found.b)]
    yield f"# {' → '.join(names)}"
    yield ""
    yield f"- A `{found.a.run_id}`: {escaped(facts(found.a))}"
    yield f"- B `{found.b.run_id}`: {escaped(facts(found.b))}"
    yield f"- B − A: {escaped(deltas(found.a, found.b))}"
    if not found.is_shortest:
        yield f"- {NOT_SHORTEST}"
    yield from _fields(found.fields)
    yield ""
    first = found.first_divergence
    if first is None:
        yield "The steps are the same."
        return
    yield f"{before(first)}, then: **{parting(first)}**"
    if (hint := read_first(first)) is not None:
        yield ""
        yield hint
    yield ""
    for side, step in (("A", first.a), ("B", first.b)):
        text = "no more steps" if step is None else f"{step.number} {step.title}{attempts_text(step)}"
        yield f"- {side} {escaped(text)}"
    if found.against is not None:
        yield ""
        yield escaped(against(found.against, first.same), MAX_SENTENCE)
    yield from _fields(first.fields)
    changes = [change for change in rest(found) if change.kind not in QUIET]
    if any(change.kind != "same" for change in changes):
        yield ""
        yield "After that:"
        yield ""
        for change in changes[:MAX_LINES]:
            yield f"- {escaped(change_text(change))}"
        if len(changes) > MAX_LINES:
            yield f"- and {len(changes) - MAX_LINES} more"


def _fields(fields: Sequence[FieldChange]) -> Iterator[str]:
    for field in fields:
        yield ""
        yield f"{escaped(field.path)}:"
        yield ""
        yield from fenced("diff", [*_value("-", field.a), *_value("+", field.b)])


def _value(mark: str, text: str | None) -> Iterator[str]:
    if text is not None:
        for line in printable(cut(text, MAX_VALUE), keep="\n").split("\n"):
            yield f"{mark} {line}"


def escaped(text: str, limit: int = MAX_TITLE) -> str:
    """Return a text on one line, truncated, with Markdown markup escaped."""
    return _MARKUP.sub(r"\\\1", one_line(text, limit))


def fenced(kind: str, lines: Sequence[str]) -> Iterator[str]:
    """Yield lines inside a code fence that no line of them can close."""
    fence = "`" * max(3, 1 + max((len(ticks) for line in lines for ticks in _TICKS.findall(line)), default=0))
    yield fence + kind
    yield from lines
    yield fence
