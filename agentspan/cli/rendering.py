"""Prints answers on a terminal, and for a program that collects them, such as an MCP server."""

from collections.abc import Iterable, Iterator, Mapping, Sequence

from agentspan.analysis import by_name, diff_text
from agentspan.analysis.by_name import STEP
from agentspan.answers.blocks import Block, Cell, Column, Command, Facts, Heading, Part, Sentence, Table, Ways
from agentspan.cli.output import (
    COLORS,
    columns_of,
    echo_lines,
    fit,
    fit_end,
    fit_indented,
    hint,
    pad,
    safe,
    style,
    table_lines,
    to_copy,
    width,
    wrap,
)
from agentspan.storage.protocol import Storage
from agentspan.text import dotted, one_line

SENTENCE_LINES, ENTRY_LINES = 8, 3
BAR_COLUMNS = 24
"""The columns beside the bars of a series in an entry."""
_LEVELS = "▁▂▃▄▅▆▇█"
NAME_COLUMNS = 30
"""The width that names get at least, and at most beside a series, of which the latest periods have columns."""
PERIOD_COLUMNS = 11
MOST_PERIODS = 7
FACT_LINES = 3
TONES = {"worse": "red", "better": "green", "different": "yellow", "inconclusive": "yellow"}


def show(parts: Iterable[Part], storage: Storage, *, whole: str = "") -> None:
    """Print the parts of an answer (see lines)."""
    echo_lines(lines(parts, storage, whole=whole))


def lines(parts: Iterable[Part], storage: Storage, *, whole: str = "") -> Iterator[str]:
    """Yield the lines of the parts of an answer, with an empty line between them.

    Args:
        whole: the option that lists all rows of a table, in which `{}` stands for their number.
    """
    for number, blocks in enumerate(filter(None, map(list, parts))):
        if number:
            yield ""
        for block in blocks:
            if isinstance(block, Table) and block.rows_as != "line":
                yield from _ROWS[block.rows_as](block, storage, whole)
            else:
                yield from _lines(block)


def _lines(block: Block) -> Iterator[str]:
    columns = width()
    if isinstance(block, Sentence):
        color = "bright_black" if block.kind == "note" else TONES.get(block.tone)
        for line in wrap(block.text, columns, SENTENCE_LINES):
            yield style(line, fg=color, bold=True if block.kind == "verdict" else None)
    elif isinstance(block, Facts):
        for label, text, most in block.facts:
            first, *rest = wrap(text, columns - columns_of(label) - 4, most)
            yield f"  {style(label, bold=True)}: {first}"
            yield from (" " * (columns_of(label) + 4) + line for line in rest)
    elif isinstance(block, Heading):
        yield from (style(line, bold=True) for line in wrap(block.text, columns, 3))
    elif isinstance(block, Command):
        yield from hint(block.text, to_copy(*block.words), columns)
    elif isinstance(block, Ways):
        yield from beside({to_copy(*each.words): each.text for each in block.ways})
    elif isinstance(block, Table):
        for number, of, *_ in block.rows:
            more = " " + fit(f"· {of.hint}", columns // 3) if of.hint else ""
            yield f"  {number.text:>4} × {fit(of.text, columns - 9 - columns_of(more))}{more}"
        if block.more():
            yield f"  {'…':>4}   and {block.more().partition(' ')[0]} more"


def beside(ways: Mapping[str, str]) -> Iterator[str]:
    """Yield commands with their meanings beside them. A command is never cut; a meaning that lacks room is left out."""
    widest = max(columns_of(way) for way in ways)
    for way, meaning in ways.items():
        line = f"  {pad(way, widest)}  {meaning}"
        yield line if columns_of(line) <= width() else f"  {way}"


def items(found: Table, storage: Storage, whole: str = "") -> Iterator[str]:
    """Yield each row as an item: its first cell, and below it the others as facts, and texts on lines of their own."""
    ids = _ids(found, storage)
    for first, *others in found.rows:
        indent, room = "  " * first.depth, width() - 2 * first.depth - 2
        if first.is_rest and first.way is not None:
            yield from (indent + line for line in hint(first.text, to_copy(*first.way.words), room))
            continue
        mark = style(first.mark, fg=COLORS.get(first.status, "red" if first.status == "missed" else None))
        yield f"{indent}{mark} {_matched(first, room)}"
        facts = [
            cell.alone or cell.text if at is None else f"{'step' if at.span_id else 'run'} {_text(cell, ids)}"
            for cell in others
            if not cell.matches
            for at in (cell.at,)
        ]
        yield from (f"{indent}  {style(line, fg='bright_black')}" for line in wrap(dotted(*facts), room, FACT_LINES))
        for cell in others:
            if cell.matches:
                yield f"{indent}  {_matched(cell, room)}"
            elif cell.is_bad and cell.hint:
                yield f"{indent}  {style(fit(cell.hint, room), fg='red')}"


def _matched(cell: Cell, columns: int) -> str:
    """Return the text of a cell on at most that many columns, with the searched words coloured, if it has some."""
    if not cell.matches:
        return style(fit(cell.text, columns), bold=True)
    first = cell.matches[0][0]
    begin = first - columns // 4 if first > columns // 2 else 0
    shown = fit(cell.text[begin:], columns - (columns_of("…") if begin else 0))
    out, done = "…" if begin else "", 0
    for start, stop in cell.matches:
        if start >= begin + done and stop - begin <= len(shown.removesuffix("…")):
            word = style(safe(shown[start - begin : stop - begin]), fg="yellow", bold=True)
            out += safe(shown[done : start - begin]) + word
            done = stop - begin
    return out + safe(shown[done:])


def _ids(found: Table, storage: Storage) -> Mapping[str, str]:
    return by_name.short_ids(storage, [cell.at.run_id for row in found.rows for cell in row if cell.at is not None])


def _notes(found: Table, whole: str, *hints: str) -> Iterator[str]:
    more = f"{found.more()}; {whole.format(found.total)}" if whole and found.more() else ""
    return (style(note, fg="bright_black") for note in (more, *hints) if note)


def _entries(found: Table, storage: Storage, whole: str) -> Iterator[str]:
    ids = _ids(found, storage)
    key = next((n for n, column in enumerate(found.columns) if column.is_code), None)
    for row in found.rows:
        id = "" if key is None else row[key].text
        indent = " " * ((columns_of(id) or 2) + 2)
        room = width() - len(indent)
        title = wrap(row[0].text, room if id else room + 2, 2)
        yield f"{style(id, fg='yellow')}  {title[0]}"
        yield from (indent + line for line in title[1:])
        said = [(column, column.phrase.format(_text(cell, ids))) for column, cell in _facts(found, row, key)]
        for detail in (0, 1):
            facts = [text for column, text in said if column.detail == detail and not column.is_hint]
            color = "bright_black" if detail else None
            yield from (indent + style(line, fg=color) for line in _packed(facts, room))
        for text in (text for column, text in said if column.is_hint):
            yield from (indent + line for line in wrap(text, room, ENTRY_LINES))
        for column, cell in zip(found.columns, row, strict=True):
            if cell.series and room >= len(cell.series) + BAR_COLUMNS:
                line = f"{column.head} ▕{bars([value or 0 for value, _ in cell.series])}▏"
                yield indent + style(line, fg="bright_black")
    yield from _notes(found, whole)


def _facts(found: Table, row: Sequence[Cell], key: int | None) -> Iterator[tuple[Column, Cell]]:
    """Yield the cells of an entry that are not on its first line."""
    for n, (column, cell) in enumerate(zip(found.columns, row, strict=True)):
        if n not in (0, key) and (cell.text or cell.at):
            yield column, cell


def _packed(facts: Iterable[str], columns: int) -> Iterator[str]:
    """Yield lines of as many facts as fit; a longer fact is wrapped."""
    line = ""
    for fact in facts:
        if line and columns_of(line) + 3 + columns_of(fact) > columns:
            yield line
            line = ""
        *whole, line = wrap(dotted(line, fact), columns, ENTRY_LINES)
        yield from whole
    yield from filter(None, [line])


def _sides(found: Table, _: Storage, whole: str) -> Iterator[str]:
    what, *names = (column.name for column in found.columns)
    head = iter([f"  {what}: {' → '.join(names)}"])
    for of, *sides in found.rows:
        if not of.text:
            titles = diff_text.apart(sides[0].text, sides[1].text, width() - 20)
            for name, cell, title in zip(names, sides, titles, strict=True):
                yield f"  {pad(name, 8)}  {fit(f'{cell.mark} {title}'.strip(), width() - 12)}"
            continue
        yield from head  # once
        path = fit(of.text, width() // 2)
        half = max(10, (width() - 4 - columns_of(path) - 5) // 2)
        texts = diff_text.apart(one_line(sides[0].text, 1000), one_line(sides[1].text, 1000), half)
        widths = [min(half, columns_of(text)) for text in texts]
        shown = [fit(text, 2 * half - other) for text, other in zip(texts, reversed(widths), strict=True)]
        yield fit_end(f"    {path}: {' → '.join(shown)}", width())
    yield from _notes(found, whole)


def bars(values: Sequence[float]) -> str:
    """Return values as a row of bars; a value of 0 is a blank."""
    most = max(values, default=0)
    return "".join(_LEVELS[int(-(-len(_LEVELS) * each // most)) - 1] if each else " " for each in values)


def _table(found: Table, storage: Storage, whole: str) -> Iterator[str]:
    ids = _ids(found, storage)
    texts = [[_text(cell, ids) for cell in row] for row in found.rows]
    columns = {n: column for n, column in enumerate(found.columns) if not column.series and not column.is_free}
    widths = {n: max(columns_of(text) for text in (columns[n].name, *(row[n] for row in texts))) for n in columns}
    texts_of = [n for n, each in columns.items() if not (each.is_number or each.is_code or each.detail)]
    name = max(texts_of, key=widths.__getitem__, default=0)  # a number or an id that is cut says nothing
    for detail in sorted({column.detail for column in columns.values()} - {0}, reverse=True):
        if min(widths[name], NAME_COLUMNS) + sum(2 + widths[n] for n in columns if n != name) > width():
            columns = {n: column for n, column in columns.items() if column.detail < detail}
    room = max(NAME_COLUMNS, width() - sum(2 + widths[n] for n in columns if n != name))
    series = next((n for n, column in enumerate(found.columns) if column.series), None)
    periods = range(0)
    if series is not None:
        latest = min(MOST_PERIODS, (room - NAME_COLUMNS) // PERIOD_COLUMNS)
        periods = range(len(found.columns[series].series))[-latest:] if latest else periods
        room = NAME_COLUMNS
    header = [column.name for column in columns.values()]
    rows = [
        f"{row[0]}; {whole}"
        if cells[0].is_rest
        else [_cut(row[n], room, columns[n]) if n == name else row[n] for n in columns]
        + [cells[series].series[n][1] for n in periods if series is not None]
        for row, cells in zip(texts, found.rows, strict=True)
    ]
    header += [found.columns[series].series[n][1] for n in periods if series is not None]
    right = [at for at, n in enumerate(columns) if columns[n].is_number]
    if rows:
        yield from table_lines(
            header, rows, right=[*right, *range(len(columns), len(header))], shrink=[*columns].index(name)
        )
    hints = (column.hint for n, column in enumerate(found.columns) if n in columns or (n == series and periods))
    yield from _notes(found, whole, *hints)


def _text(cell: Cell, ids: Mapping[str, str]) -> str:
    """Return a cell as text; one that only names a step or a run has a short id, which commands take."""
    if cell.at is not None and not cell.text:
        unnumbered = ids[cell.at.run_id] if cell.at.is_run or cell.at.span_id is None else cell.at.span_id
        return unnumbered if cell.at.step is None else f"{ids[cell.at.run_id]}{STEP}{cell.at.step}"
    return "  " * cell.depth + (f"{cell.mark} {cell.text}" if cell.mark else cell.text)


def _cut(text: str, columns: int, column: Column) -> str:
    """Return a text on at most that many columns; of a folder that is too long, the end."""
    if columns_of(text) <= columns:
        return text
    return "…" + text[-columns + 1 :] if column.keeps_end else fit_indented(text, columns)


_ROWS = {"cells": _table, "entry": _entries, "item": items, "sides": _sides}
