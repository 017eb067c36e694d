"""Prints the contexts of model calls: `agentspan show ID --context`, and `agentspan diff STEP STEP --context`."""

from collections.abc import Iterator, Sequence

import click

from agentspan.analysis.by_name import find_span
from agentspan.analysis.context import (
    ONE,
    TITLES,
    Context,
    Element,
    Share,
    by_source,
    contexts,
    largest_call,
    plain_context,
    previous_call,
    short_name,
)
from agentspan.analysis.context_diff import ContextDiff, Cut, changes_by_source, context_diff, plain_diff
from agentspan.cli.output import (
    Failed,
    document,
    echo_lines,
    fit,
    fit_end,
    pad,
    style,
    table,
    to_copy,
    width,
)
from agentspan.model.rows import AgentInstanceRow, AgentSpanRow
from agentspan.storage.protocol import Storage
from agentspan.text import count_text, dotted, noun, share_text

LARGEST = 10
"""The number of elements of a context that are shown without `--full`: the largest."""
MOST = 20
"""The number of elements that came in, or left, that are shown without `--full`."""
GREEN, RED, GREY = "green", "red", "bright_black"


def show_context(storage: Storage, found: AgentInstanceRow | AgentSpanRow, *, as_json: bool, full: bool) -> None:
    """Print the context of a model call: by source, and its largest elements.

    Of a run, use its call with the most tokens.
    """
    if isinstance(found, AgentInstanceRow):
        largest = largest_call(storage, found.id)
        if largest is None:
            raise Failed(f"run {found.id} has no model call")
        found = largest
    (context,) = contexts(storage, [found])
    if as_json:
        document(plain_context(context))
        return
    echo_lines(_call("", context, width()))
    rows = [_share_cells(share, context.tokens) for share in by_source(context.elements)]
    table(["source", "elements", "characters", "~tok", "share", "most"], rows, right=range(1, 5), shrink=5)
    numbered = [*enumerate(context.elements, start=1)]
    shown = numbered if full else sorted(numbered, key=lambda pair: -pair[1].tokens)[:LARGEST]
    echo_lines(["", *(_element("", number, each, width()) for number, each in shown)])
    if len(shown) < len(numbered):
        left = noun(len(numbered) - len(shown), "smaller element")
        echo_lines([style(f"{left}; --full shows each", fg=GREY)])


def diff_contexts(storage: Storage, a: str | None, b: str | None, *, as_json: bool, full: bool) -> None:
    """Print the elements that came into the context, left it, and were cut between two model calls.

    Args:
        a, b: the ids of two calls, or of one: it is compared with the call before it, of the same agent.
    """
    if a is None:
        raise click.UsageError("--context needs a model call, or two: their ids, as show lists them")
    first = find_span(storage, a)
    if b is not None:
        calls = [first, find_span(storage, b)]
    else:
        before = previous_call(storage, first)
        if before is None:
            other = f"RUN#{a.partition('#')[2] or 'N'}"
            how = f"compare it with a call of another run: {to_copy('diff', other, first.id, '--context')}"
            raise Failed(f"{first.id} is the first model call of its agent; {how}")
        calls = [before, first]
    found = context_diff(*contexts(storage, calls))
    if as_json:
        document(plain_diff(found))
        return
    echo_lines(_diff_lines(found, width(), full=full))
    rows = [_change_cells(change) for change in changes_by_source(found)]
    echo_lines([""])
    table(["~tok by source", "A", "B", "came in", "left", "cut"], rows, right=range(1, 6))
    if not full and max(len(found.came_in), len(found.left), len(found.cut)) > MOST:
        echo_lines([style("--full shows each element", fg=GREY)])


def _call(side: str, context: Context, columns: int) -> Iterator[str]:
    yield style(fit(f"{side}{context.span_id}  {context.summary}", columns), bold=True)
    counted = "~" if context.input_tokens is None else ""
    text = dotted(
        noun(len(context.elements), "element"),
        f"{counted}{count_text(context.tokens)} tok read",
        "as recorded" if context.is_recorded else "from the steps before it",
        f"after {noun(len(context.compactions), 'compaction')}" if context.compactions else "",
    )
    yield "  " + fit(text, columns - 2)


def _share_cells(share: Share, tokens: int) -> list[str]:
    names = ", ".join(f"{short_name(name)} {count_text(number)}" for name, number in share.names)
    return [
        TITLES[share.source],
        f"{share.elements:,}",
        f"{share.characters:,}",
        count_text(share.tokens),
        share_text(share.tokens, tokens) or "0%",
        names,
    ]


def _element(mark: str, number: int, element: Element, columns: int) -> str:
    name = "" if element.name is None else f" {short_name(element.name)}"
    head = fit(f"{ONE[element.source]}{name}", 30)
    size = f"~{count_text(element.tokens)} tok"
    return fit_end(f"{mark}{number:>5} {pad(head, 30)} {size:>10}  {element.excerpt}", columns)


def _diff_lines(found: ContextDiff, columns: int, *, full: bool) -> Iterator[str]:
    for side, context in (("A ", found.a), ("B ", found.b)):
        yield from _call(side, context, columns)
    if found.a.run_id == found.b.run_id:
        change = found.b.tokens - found.a.tokens
        sign = "+" if change > 0 else "−" if change < 0 else "±"
        yield f"B − A: {sign}{count_text(abs(change))} tok"
    if found.compactions:
        lost = sum(each.tokens for _, each in found.left)
        between = noun(len(found.compactions), "compaction")
        yield style(
            f"{between} in between: {noun(len(found.left), 'element')} lost, ~{count_text(lost)} tok", fg="yellow"
        )
    yield ""
    kept = [
        (each.first, f"= {_range(each.first, each.last)} kept · ~{count_text(each.tokens)} tok") for each in found.kept
    ]
    new = [
        (number, _element("+", number, each, columns))
        for number, each in (found.came_in if full else _largest(found.came_in))
    ]
    other = sorted((*found.cut, *found.changed), key=lambda cut: -cut.before.tokens)
    cuts = [(each.number, _cut("~", each, columns)) for each in (other if full else other[:MOST])]
    left = found.left if full else _largest(found.left)
    for number, each in left:
        yield style(_element("−", number, each, columns), fg=RED)
    if len(left) < len(found.left):
        yield style(f"  {len(found.left) - len(left):,} smaller that left", fg=GREY)
    lines = [line for _, line in sorted([*kept, *new, *cuts], key=lambda pair: pair[0])]
    for line in lines:
        yield style(line, fg={"+": GREEN, "=": GREY, "~": "yellow"}[line[0]])
    if len(cuts) < len(other):
        yield style(f"  {len(other) - len(cuts):,} smaller that were cut", fg=GREY)
    if len(new) < len(found.came_in):
        yield style(f"  {len(found.came_in) - len(new):,} smaller that came in", fg=GREY)


def _largest(elements: Sequence[tuple[int, Element]]) -> list[tuple[int, Element]]:
    """Return the MOST largest of numbered elements, in their order."""
    return sorted(sorted(elements, key=lambda pair: -pair[1].tokens)[:MOST])


def _range(first: int, last: int) -> str:
    return f"{first:,}" if first == last else f"{first:,}–{last:,}"


def _cut(mark: str, cut: Cut, columns: int) -> str:
    change = f"{cut.before.characters:,} → {cut.after.characters:,} characters"
    what = "cut" if cut.after.characters < cut.before.characters else "changed"
    name = "" if cut.after.name is None else f" {short_name(cut.after.name)}"
    return fit_end(f"{mark}{cut.number:>5} {ONE[cut.after.source]}{name} {what}: {change}", columns)


def _change_cells(change: dict[str, object]) -> list[str]:
    numbers = [change[name] for name in ("a", "b", "came_in", "left", "cut")]
    signs = ("", "", "+", "−", "−")
    cells = [
        f"{sign}{count_text(number)}" if isinstance(number, int) and number else ("0" if not sign else "")
        for sign, number in zip(signs, numbers, strict=True)
    ]
    return [str(change["title"]), *cells]
