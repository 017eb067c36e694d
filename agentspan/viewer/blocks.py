"""Shows answers in notebooks: as HTML, and as short text where HTML is not shown.

Text from payloads is escaped, and there is no script.
"""

import shlex
from collections.abc import Collection, Iterable, Iterator, Sequence
from html import escape
from itertools import chain
from typing import Any

from agentspan.analysis.by_name import STEP
from agentspan.answers.blocks import Block, Cell, Column, Command, Facts, Heading, Part, Sentence, Table
from agentspan.text import one_line, visible

MOST_ROWS = 100
"""The largest number of rows of a table."""
MOST_LINES = 20
"""The largest number of lines of a result as text."""
MAX_CELL = 300
"""The largest number of characters of a cell, and of a line about a result."""
MAX_CELL_OF_TEXT = 60
"""The largest number of characters of a cell where HTML is not shown."""
UNBROKEN = 30
"""The largest number of characters of a cell whose line never breaks."""
MAX_SENTENCE = 2000


Shows = Block | str
"""A block, or the text of a sentence."""


def flat(
    columns: Sequence[str],
    rows: Iterable[Sequence[str]],
    right: Collection[str] = (),
    codes: Collection[str] = (),
    total: int | None = None,
) -> Table:
    """Return a table of texts.

    Args:
        right: the names of the columns with numbers.
        codes: the names of the columns with ids.
        total: the number of rows that there are, if `rows` has only some of them.
    """
    heads = [Column(name, is_number=name in right, is_code=name in codes) for name in columns]
    return Table(heads, [[*map(Cell, row)] for row in rows], total)


# Colours are those of the notebook, so that tables can be read in its light and dark themes. Not all notebooks keep a
# style element; without it a table is a plain one. The class is named twice to win over rules of JupyterLab for tables.
_STYLE = """<style>
.agentspan.agentspan { max-width: 100%; overflow-x: auto; }
.agentspan.agentspan p { margin: .3em 0; }
.agentspan.agentspan table { border-collapse: collapse; border: none; margin: .4em 0; color: inherit; font-size: 13px; }
.agentspan.agentspan :is(tr, th, td, code, pre) { background: none; color: inherit; }
.agentspan.agentspan :is(th, td) { padding: 2px 14px 2px 0; border: none; border-bottom: 1px solid #8884; }
.agentspan.agentspan :is(th, td) { text-align: left; vertical-align: top; max-width: 44em; white-space: nowrap; }
.agentspan.agentspan .w { min-width: 16em; white-space: normal; overflow-wrap: anywhere; }
.agentspan.agentspan .n { text-align: right; font-variant-numeric: tabular-nums; }
.agentspan.agentspan code { padding: 0; white-space: nowrap; font-size: .92em; }
.agentspan.agentspan pre { overflow-x: auto; }
.agentspan.agentspan iframe { display: block; box-sizing: border-box; width: 100%; }
.agentspan.agentspan iframe { border: 1px solid #8886; border-radius: 6px; }
</style>
"""


def html(blocks: Iterable[Shows], *more: str) -> str:
    """Return blocks as HTML without scripts, which can also be read without its style.

    Args:
        more: HTML that follows the blocks.
    """
    return f'<div class="agentspan">{_STYLE}{"".join(map(_html, blocks))}{"".join(more)}</div>'


def _html(block: Shows) -> str:
    if not isinstance(block, Table):
        return "".join(f"<p>{_escaped(text, MAX_SENTENCE)}</p>" for text in _texts(block))
    heads, rows, more = _shown(block)
    classes = [
        " class=n" if head.is_number else " class=w" if max(map(len, texts)) > UNBROKEN and not head.is_code else ""
        for head, texts in zip(heads, zip(*rows, strict=True), strict=True)
    ]
    head = "".join(f"<th{own}>{_escaped(each.head, MAX_CELL)}</th>" for each, own in zip(heads, classes, strict=True))
    body = "".join(f"<tr>{''.join(map(_cell, heads, row, classes))}</tr>\n" for row in rows)
    below = f"<p>{_escaped(more, MAX_CELL)}</p>" if more else ""
    return f"<table><thead><tr>{head}</tr></thead>\n<tbody>{body}</tbody></table>{below}"


def _cell(column: Column, text: str, attribute: str) -> str:
    shown = _escaped(text, MAX_CELL)
    return f"<td{attribute}><code>{shown}</code></td>" if shown and column.is_code else f"<td{attribute}>{shown}</td>"


def _escaped(text: str, limit: int) -> str:
    return escape(visible(one_line(text, limit)))


def _texts(block: Shows) -> Iterator[str]:
    """Yield the text of a block that is no table; a notebook has no place for pictures and links."""
    if isinstance(block, str):
        yield block
    elif isinstance(block, Sentence | Heading):
        yield block.text
    elif isinstance(block, Facts):
        yield from (f"{fact.label}: {fact.text}" for fact in block.facts)
    elif isinstance(block, Command):
        yield f"{block.text}: {shlex.join(('agentspan', *block.words))}"


def _shown(table: Table) -> tuple[list[Column], list[list[str]], str]:
    """Return the columns that have some text, the rows that are shown, and a sentence about further ones."""
    rows = [[_text(cell) for cell in row] for row in table.rows[:MOST_ROWS]]
    filled = [n for n, column in enumerate(table.columns) if not column.is_hint and any(row[n] for row in rows)]
    left = (len(table.rows) if table.total is None else table.total) - len(rows)
    shown = [[row[n] for n in filled] for row in rows]
    return [table.columns[n] for n in filled], shown, f"and {left:,} more" if left > 0 else ""


def _text(cell: Cell) -> str:
    if cell.at is not None and not cell.text:
        if cell.at.step is not None:
            return f"{cell.at.run_id}{STEP}{cell.at.step}"
        return cell.at.run_id if cell.at.is_run else cell.at.span_id or cell.at.run_id
    return "· " * cell.depth + f"{cell.mark} {cell.text}".strip() + (f" ({cell.hint})" if cell.hint else "")


def text(blocks: Iterable[Shows]) -> str:
    """Return blocks as text of at most MOST_LINES lines."""
    lines = [line for block in blocks for line in _lines(block)]
    if len(lines) > MOST_LINES:
        lines[MOST_LINES - 1 :] = [f"… and {len(lines) - MOST_LINES + 1:,} more lines"]
    return "\n".join(lines)


def _lines(block: Shows) -> Iterator[str]:
    if not isinstance(block, Table):
        yield from (one_line(text, MAX_CELL) for text in _texts(block))
        return
    heads, shown, more = _shown(block)
    rows = [[one_line(text, MAX_CELL_OF_TEXT) for text in row] for row in ([each.head for each in heads], *shown)]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        cells = zip(row, widths, heads, strict=True)
        yield "  ".join(t.rjust(width) if head.is_number else t.ljust(width) for t, width, head in cells).rstrip()
    if more:
        yield more


class Shown:
    """A result that a notebook shows as sentences and tables; its `repr` is short text."""

    __slots__ = ()

    def blocks(self) -> Iterable[Shows]:
        """Yield the sentences and tables of the result."""
        raise NotImplementedError

    def _repr_html_(self) -> str:
        return html(self.blocks())

    def __repr__(self) -> str:
        return text(self.blocks())


class Found(Shown):
    """The answer of a finding.

    Attributes:
        result: what the finding found.
    """

    def __init__(self, result: Any, parts: Sequence[Part]) -> None:
        self.result = result
        self._blocks = [*chain(*parts)]

    def blocks(self) -> Iterable[Shows]:
        """Return the blocks of the answer."""
        return self._blocks
