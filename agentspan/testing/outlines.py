"""A run's spans as indented lines of `type name`: short enough to write by hand, exact enough to compare."""

import difflib
from collections.abc import Iterable, Iterator

from agentspan.testing.span import CapturedSpan

INDENT = "  "


def outline(roots: Iterable[CapturedSpan]) -> list[str]:
    """Return a line for each span, indented below its parent: `tool search`, and `tool search (failed)`.

    A status is shown unless it is complete.
    """
    lines = []
    stack = [(root, 0) for root in reversed(list(roots))]
    while stack:
        span, depth = stack.pop()
        status = "" if span.status == "complete" else f" ({span.status})"
        lines.append(f"{INDENT * depth}{span.title}{status}")
        stack += [(child, depth + 1) for child in reversed(span.children)]
    return lines


def normal(expected: str) -> list[str]:
    """Return the lines of a hand-written outline in the form of `outline`; any width of indentation is accepted.

    Raises:
        ValueError: a line is indented less than the line above it, but like no line before.
    """
    lines, depths = [], [-1]
    for number, line in enumerate(expected.expandtabs().splitlines(), 1):
        words = line.split()
        if not words:
            continue
        depth = len(line) - len(line.lstrip())
        is_deeper = depth > depths[-1]
        while depths[-1] > depth:
            depths.pop()
        if is_deeper:
            depths.append(depth)
        elif depths[-1] != depth:
            raise ValueError(f"line {number} of the expected tree, {line.strip()!r}, is indented like none above it")
        lines.append(INDENT * (len(depths) - 2) + " ".join(words))
    return lines


def difference(expected: list[str], recorded: list[str]) -> Iterator[str]:
    """Yield the lines of both outlines; `-` marks a line that was only expected, `+` one that was only recorded."""
    yield from list(difflib.unified_diff(expected, recorded, lineterm="", n=len(expected) + len(recorded)))[3:]
