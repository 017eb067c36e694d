"""Blocks: the text of a finding as values without markup, widths or colours. No block knows which surface shows it.

An answer comes in parts, each of which is some blocks: a page streams them, a terminal and a notebook join them. Texts
are not escaped. A surface escapes them, cuts them, and chooses by the roles here, never by the finding:
`agentspan.cli.rendering` for terminals and MCP, `serve/templates/blocks.html` for pages, `agentspan.viewer.blocks` for
notebooks.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import ClassVar, Literal, NamedTuple

from agentspan.text import noun

Kind = Literal["answer", "verdict", "plain", "note"]
Runs = Mapping[str, str]
"""Conditions of a filter of runs by their names, and `sort`. A page makes a link of it, MCP a call."""


@dataclass(frozen=True, slots=True)
class Sentence:
    """A sentence, without a capital and a full stop, which a surface may add.

    Attributes:
        kind: the answer itself, a verdict, plain, or a note: an explanation that may be shown smaller.
        tone: of a verdict: `worse`, `better`, `different` …
        starts_with_name: whether its first word is a recorded name, which has no capital of its own.
    """

    text: str
    kind: Kind = "plain"
    tone: str = ""
    starts_with_name: bool = False
    block: ClassVar[str] = "sentence"


@dataclass(frozen=True, slots=True)
class Heading:
    """The title of the blocks after it, for surfaces that have titles."""

    text: str
    block: ClassVar[str] = "heading"


class At(NamedTuple):
    """A run, or a step of it, with its number as `agentspan show` prints it; `view` is that of the run's page.

    `is_run` names a step by its run; a page leads to the step all the same.
    """

    run_id: str
    span_id: str | None = None
    step: int | None = None
    view: str = ""
    is_run: bool = False


@dataclass(frozen=True, slots=True)
class Command:
    """A command of agentspan, which is a page, too.

    Attributes:
        text: what it shows.
        words: the words of the command.
        page: the name of the page; "" if there is none.
        parameters: those of the page's address.
        link: the text of the link; `text` when left out.
        is_current: whether this answer is that of the command.
    """

    text: str
    words: Sequence[str]
    page: str = ""
    parameters: Runs = field(default_factory=dict)
    link: str = ""
    is_current: bool = False
    block: ClassVar[str] = "command"


@dataclass(frozen=True, slots=True)
class Cell:
    """A cell of a table.

    Attributes:
        text: "" for a cell that is empty, or only names its run or step.
        runs: the runs that the text is about; None if no filter finds them.
        hint: a text beside it, such as an interval.
        mark: a sign before it.
        at: the run or the step that it names.
        way: the command that the text leads to; beside a text that leads to runs, a link of its own.
        parts: the cells that the text consists of, for a surface that makes links.
        series: the values of a column with a series, each with its text.
        is_bad: whether it is bad news.
        depth: of the first cell of a row: how far it stands below the row that it is a part of.
        is_rest: of the first cell of a row: whether it is a sentence about rows that are left out.
        status: of the mark: the name of a status or of a verdict, which has a colour or a sign.
        matches: the first and last place of each searched word in the text.
        alone: the text where no head of a column stands above it, such as `4 steps`; `text` when left out.
    """

    text: str = ""
    runs: Runs | None = None
    hint: str = ""
    mark: str = ""
    at: At | None = None
    way: Command | None = None
    parts: Sequence["Cell"] = ()
    series: Sequence[tuple[float | None, str]] = ()
    is_bad: bool = False
    depth: int = 0
    is_rest: bool = False
    status: str = ""
    matches: Sequence[tuple[int, int]] = ()
    alone: str = ""

    def pieces(self) -> Iterator[tuple[str, bool]]:
        """Yield the text in pieces, each with whether it is a searched word."""
        done = 0
        for start, end in self.matches:
            yield from ((self.text[done:start], False), (self.text[start:end], True))
            done = end
        yield self.text[done:], False


FREE = 9
"""The detail of a column that only surfaces show for which columns cost nothing."""


@dataclass(frozen=True, slots=True)
class Column:
    """A column of a table.

    Attributes:
        name: its head, in few letters.
        long: its head where there is room; the name when left out.
        is_number: whether it is aligned as numbers are.
        is_code: whether it has ids.
        is_name: whether its head is a recorded name, such as that of a version, which stays as it is.
        keeps_end: whether the end of a text is the part to keep, as of a folder.
        detail: 0 for a column that all surfaces show. The others, up to FREE, are left out where room lacks, those with
            the highest number first.
        is_hint: whether it has the hints of other cells as a column, for a surface that has no room beside a text.
        series: of a column with a value for each period: their names, each with a short one.
        hint: a sentence about the column, for those who see it.
        phrase: what a cell is in an entry, with `{}` for its text.
    """

    name: str
    long: str = ""
    is_number: bool = True
    is_code: bool = False
    is_name: bool = False
    keeps_end: bool = False
    is_hint: bool = False
    detail: int = 0
    series: Sequence[tuple[str, str]] = ()
    hint: str = ""
    phrase: str = "{}"

    @property
    def head(self) -> str:
        """The head where there is room."""
        return self.long or self.name

    @property
    def is_free(self) -> bool:
        """True for a column that only those surfaces show for which columns cost nothing."""
        return self.detail == FREE


@dataclass(frozen=True, slots=True)
class Table:
    """A table. A row may begin with the mark of its first cell.

    Attributes:
        total: the number of rows that there are, if `rows` has only some of them.
        row: the noun of a row.
        rows_as: how a surface without tables may show a row. `cells`: as a table all the same. `line`: a number, of
            what, and a hint; other columns are details then. `entry`: some lines that begin with the first id and the
            first cell; phrases of the others, those of hints on lines of their own. `item`: the mark and the text of
            the first cell, and the others as facts below it; a text with searched words, and the hint of what is bad,
            stand on lines of their own. A page makes a list of items, too, unless there are numbers to compare.
            `sides`: the second and the third cell are what the first is on two sides, of which only that is shown in
            which they differ; of the first row, the step itself.
    """

    columns: Sequence[Column]
    rows: Sequence[Sequence[Cell]]
    total: int | None = None
    row: str = "row"
    rows_as: Literal["cells", "line", "entry", "item", "sides"] = "cells"
    block: ClassVar[str] = "table"

    def filled(self) -> "Table":
        """Return the table without the columns of which all cells are empty."""
        kept = [n for n in range(len(self.columns)) if any(row[n] != Cell() for row in self.rows)]
        rows = [[row[n] for n in kept] for row in self.rows]
        return replace(self, columns=[self.columns[n] for n in kept], rows=rows)

    def more(self, shown: int | None = None) -> str:
        """Return how many rows are not shown: `9 more rows`; "" if all are."""
        left = (len(self.rows) if self.total is None else self.total) - (len(self.rows) if shown is None else shown)
        return noun(left, f"more {self.row}") if left > 0 else ""


class Fact(NamedTuple):
    """A fact.

    Attributes:
        label: the name of the fact.
        text: the fact.
        lines: the number of lines that a terminal shows of it.
    """

    label: str
    text: str
    lines: int


@dataclass(frozen=True, slots=True)
class Facts:
    """Facts with their names, one below the other."""

    facts: Sequence[Fact]
    block: ClassVar[str] = "facts"


class Bar(NamedTuple):
    """A bar: its value as number and as text, and the runs that it is about."""

    value: float | None
    text: str
    runs: Runs | None


@dataclass(frozen=True, slots=True)
class Bars:
    """Values in an order as a picture. A surface without pictures leaves it out: tables have its numbers."""

    title: str
    bars: Sequence[Bar]
    caption: str
    block: ClassVar[str] = "bars"


@dataclass(frozen=True, slots=True)
class Ways:
    """Commands that stand beside each other, with a text before them."""

    text: str
    ways: Sequence[Command]
    block: ClassVar[str] = "ways"


Block = Sentence | Heading | Facts | Table | Bars | Command | Ways
Part = Iterable[Block]
