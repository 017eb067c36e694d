"""Sentences and tables, which are written as HTML for notebooks, and as short text where HTML is not shown.

Text from payloads is escaped, and there is no script.
"""

from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from html import escape

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


@dataclass(frozen=True, slots=True)
class Table:
    """A table of texts. Columns without any text are left out.

    Attributes:
        columns: the names of the columns.
        rows: the rows; at most MOST_ROWS are shown.
        right: the names of the columns with numbers.
        codes: the names of the columns with ids.
        total: the number of rows that there are, if `rows` has only some of them.
    """

    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    right: Collection[str] = ()
    codes: Collection[str] = ()
    total: int | None = None

    @property
    def shown(self) -> Sequence[Sequence[str]]:
        """The rows that are shown."""
        return self.rows[:MOST_ROWS]

    @property
    def filled(self) -> list[int]:
        """The indexes of the columns that have some text."""
        return [n for n in range(len(self.columns)) if any(row[n] for row in self.rows)]

    def class_of(self, column: int) -> str:
        """Return the HTML attribute for the class of a column's cells: numbers, or texts whose lines may break."""
        name = self.columns[column]
        longest = max((len(row[column]) for row in self.shown), default=0)
        return " class=n" if name in self.right else " class=w" if longest > UNBROKEN and name not in self.codes else ""

    @property
    def more(self) -> str:
        """The sentence about rows that are not shown; "" if all are."""
        left = (len(self.rows) if self.total is None else self.total) - len(self.shown)
        return f"and {left:,} more" if left > 0 else ""


Block = str | Table
"""A sentence, or a table."""

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


def html(blocks: Iterable[Block], *more: str) -> str:
    """Return blocks as HTML without scripts, which can also be read without its style.

    Args:
        more: HTML that follows the blocks.
    """
    return f'<div class="agentspan">{_STYLE}{"".join(map(_html, blocks))}{"".join(more)}</div>'


def _html(block: Block) -> str:
    if isinstance(block, str):
        return f"<p>{_escaped(block, MAX_SENTENCE)}</p>"
    classes = {n: block.class_of(n) for n in block.filled}
    head = "".join(f"<th{classes[n]}>{_escaped(block.columns[n], MAX_CELL)}</th>" for n in classes)
    rows = "".join(f"<tr>{''.join(_cell(block, n, row[n], classes[n]) for n in classes)}</tr>\n" for row in block.shown)
    more = f"<p>{_escaped(block.more, MAX_CELL)}</p>" if block.more else ""
    return f"<table><thead><tr>{head}</tr></thead>\n<tbody>{rows}</tbody></table>{more}"


def _cell(table: Table, column: int, text: str, attribute: str) -> str:
    shown = _escaped(text, MAX_CELL)
    is_code = shown and table.columns[column] in table.codes
    return f"<td{attribute}><code>{shown}</code></td>" if is_code else f"<td{attribute}>{shown}</td>"


def _escaped(text: str, limit: int) -> str:
    return escape(visible(one_line(text, limit)))


def text(blocks: Iterable[Block]) -> str:
    """Return blocks as text of at most MOST_LINES lines."""
    lines = [line for block in blocks for line in _lines(block)]
    if len(lines) > MOST_LINES:
        lines[MOST_LINES - 1 :] = [f"… and {len(lines) - MOST_LINES + 1:,} more lines"]
    return "\n".join(lines)


def _lines(block: Block) -> Iterator[str]:
    if isinstance(block, str):
        yield one_line(block, MAX_CELL)
        return
    columns = block.filled
    rows = [[one_line(row[n], MAX_CELL_OF_TEXT) for n in columns] for row in (block.columns, *block.shown)]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    is_right = [block.columns[n] in block.right for n in columns]
    for row in rows:
        cells = zip(row, widths, is_right, strict=True)
        yield "  ".join(cell.rjust(width) if right else cell.ljust(width) for cell, width, right in cells).rstrip()
    if block.more:
        yield block.more


class Shown:
    """A result that a notebook shows as sentences and tables; its `repr` is short text."""

    __slots__ = ()

    def blocks(self) -> Iterator[Block]:
        """Yield the sentences and tables of the result."""
        raise NotImplementedError

    def _repr_html_(self) -> str:
        return html(self.blocks())

    def __repr__(self) -> str:
        return text(self.blocks())
