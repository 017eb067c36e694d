"""The difference of two runs as Markdown, for a pull request. What came from a payload can never become markup."""

import re
from collections.abc import Iterator, Sequence

from agentspan.analysis import diff_text
from agentspan.analysis.diff import RunDiff
from agentspan.analysis.wording import FieldChange
from agentspan.text import cut, one_line, printable

MAX_TITLE = 200
MAX_SENTENCE = 2000
"""Characters of what agentspan says, which may name filters and agents."""
MAX_LINES = 40
"""Changes after the divergence that are listed, at most."""
MAX_VALUE = 4000
"""Characters of a value."""
_MARKUP = re.compile(r"([\\`*_\[\]<>|~&#])")
_TICKS = re.compile(r"`+")


def markdown(found: RunDiff) -> Iterator[str]:
    """Yield the lines of a report, without line ends."""
    yield f"# {escaped(diff_text.run_name(found.a))} → {escaped(diff_text.run_name(found.b))}"
    yield ""
    yield f"- A `{found.a.run_id}`: {escaped(diff_text.facts(found.a))}"
    yield f"- B `{found.b.run_id}`: {escaped(diff_text.facts(found.b))}"
    yield f"- B − A: {escaped(diff_text.deltas(found.a, found.b))}"
    if not found.is_shortest:
        yield f"- {diff_text.not_shortest()}"
    yield from _fields(found.fields)
    yield ""
    first = found.first_divergence
    if first is None:
        yield "The steps are the same."
        return
    yield f"{diff_text.before(first)}, then: **{diff_text.parting(first)}**"
    if (hint := diff_text.read_first(first)) is not None:
        yield ""
        yield hint
    yield ""
    for side, step in (("A", first.a), ("B", first.b)):
        text = "no more steps" if step is None else f"{step.number} {step.title}{diff_text.attempts_text(step)}"
        yield f"- {side} {escaped(text)}"
    if found.against is not None:
        yield ""
        yield escaped(diff_text.against(found.against, first.same), MAX_SENTENCE)
    yield from _fields(first.fields)
    changes = [change for change in diff_text.rest(found) if change.kind not in diff_text.QUIET]
    if any(change.kind != "same" for change in changes):
        yield ""
        yield "After that:"
        yield ""
        for change in changes[:MAX_LINES]:
            yield f"- {escaped(diff_text.change_text(change))}"
        if len(changes) > MAX_LINES:
            yield f"- and {len(changes) - MAX_LINES} more"


def _fields(fields: Sequence[FieldChange]) -> Iterator[str]:
    for field in fields:
        yield ""
        yield f"{escaped(field.path)}:"
        yield ""
        lines = [*_value("-", field.a), *_value("+", field.b)]
        fence = "`" * max(3, 1 + max((len(ticks) for line in lines for ticks in _TICKS.findall(line)), default=0))
        yield f"{fence}diff"
        yield from lines
        yield fence


def _value(mark: str, text: str | None) -> Iterator[str]:
    if text is not None:
        for line in printable(cut(text, MAX_VALUE), keep="\n").split("\n"):
            yield f"{mark} {line}"


def escaped(text: str, limit: int = MAX_TITLE) -> str:
    """Return a text of a payload on one line, without markup."""
    return _MARKUP.sub(r"\\\1", one_line(text, limit))
