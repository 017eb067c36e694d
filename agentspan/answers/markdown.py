"""Writes answers as Markdown, for reports and pull requests."""

from collections.abc import Iterable, Iterator

from agentspan.analysis.diff_text import MAX_SENTENCE, escaped
from agentspan.answers.blocks import Block, Cell, Heading, Sentence, Table


def markdown(blocks: Iterable[Block]) -> Iterator[str]:
    """Yield the lines of blocks, without line ends; blocks that are no text or table are left out."""
    shown = [block for block in blocks if isinstance(block, Heading | Sentence | Table)]
    for number, block in enumerate(shown):
        if number:
            yield ""
        if isinstance(block, Table):
            yield from _table(block)
        elif isinstance(block, Heading):
            yield f"## {escaped(block.text)}"
        else:
            text = escaped(block.text, MAX_SENTENCE)
            yield f"**{text}**" if block.kind == "verdict" else text


def _table(found: Table) -> Iterator[str]:
    columns = [n for n, column in enumerate(found.columns) if not column.detail and not column.series]
    heads = [column.head if column.is_name else column.name for column in found.columns]
    yield f"|{'|'.join(f' {escaped(heads[n])} ' if heads[n] else ' ' for n in columns)}|"
    yield f"|{'---|' * len(columns)}"
    for row in found.rows:
        yield f"| {' | '.join(_cell(row[n]) for n in columns)} |"


def _cell(cell: Cell) -> str:
    text = escaped(cell.text) + (f" ({escaped(cell.hint)})" if cell.hint else "")
    return f"**{text}**" if cell.mark == "!" else text
