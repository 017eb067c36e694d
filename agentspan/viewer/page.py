"""A page across runs as a value: its name, its title, and its parts."""

from collections.abc import Callable, Iterable, Mapping
from itertools import chain
from typing import Any, NamedTuple

from agentspan.answers.blocks import Block
from agentspan.answers.findings import asked_in, finding_of
from agentspan.storage.protocol import Storage
from agentspan.viewer.address import Address

ROWS = 50
"""The number of rows that are shown unless all are asked for."""
Read = Callable[[Storage, Address], Mapping[str, Any]]


class Part(NamedTuple):
    """A part of a page.

    Attributes:
        template: the name of its template, such as `compare_steps.html`.
        read: returns the values for the template: the result of a function of `agentspan.analysis` as texts. It runs in
            a thread, and its result is kept until the file changes.
    """

    template: str
    read: Read


def part(answer: Callable[[Storage, Address], Iterable[Block]]) -> Part:
    """Return the part of a page that shows these blocks."""
    return Part("blocks.html", lambda storage, address: {"blocks": [*answer(storage, address)]})


def of_finding(name: str) -> "Page":
    """Return the page of a finding."""

    def read(storage: Storage, address: Address) -> Iterable[Block]:
        finding, asked = asked_in(name, address.get("by"))
        return chain(*finding.answer(finding.find(storage, address.filter(), asked), address.most(ROWS)))

    return Page(name, finding_of(name).title, (part(read),))


class Page(NamedTuple):
    """A page across runs. The server sends the first part at once, and each later part as soon as it is there.

    Attributes:
        name: the path of the page below the viewer's first page, such as `failures`.
        title: the title, also the text of its link in the bar.
        parts: the first one must take at most a second of processor time with 1,000,000 spans in 5,000 runs.
        in_bar: whether the bar has a link to it.
        parameters: the pattern of what may follow its path, such as `/{session}`. These values are read as those of
            the address's query.
    """

    name: str
    title: str
    parts: tuple[Part, ...]
    in_bar: bool = True
    parameters: str = ""

    @property
    def paths(self) -> tuple[str, ...]:
        """The patterns of the page's paths."""
        return (f"/{self.name}", *([f"/{self.name}{self.parameters}"] if self.parameters else []))
