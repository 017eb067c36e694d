"""The address of a page across runs: the filter of the runs, and the page's own parameters.

The filter has the names of the command line. Links between pages keep it, so that every view can be sent as a link.
"""

from collections.abc import Iterable, Mapping
from typing import NamedTuple
from urllib.parse import quote, urlencode

from agentspan.analysis.filter_words import FAILED, MANY, NAMES, filter_of
from agentspan.errors import InvalidValue
from agentspan.storage.questions import RunFilter

MOST_PAIRS = 100
"""The most parameters of an address that are read."""
LONGEST = 2000
"""The most characters of a parameter's value that are read."""

Pair = tuple[str, str]


class Address(NamedTuple):
    """The query of a page's address.

    Attributes:
        words: the conditions of the filter, as (name, value) pairs of the filter grammar. `failed` has the value "1".
        own: the parameters that are no conditions, such as `by`, `sort` and `offset`; of each name the last value.
        ignored: (name, problem) of the conditions that are invalid: they are ignored, and the page says so.
    """

    words: tuple[Pair, ...] = ()
    own: tuple[Pair, ...] = ()
    ignored: tuple[Pair, ...] = ()

    def word(self, name: str) -> str:
        """Return the last value of a condition; "" without one."""
        return dict(self.words).get(name, "")

    def get(self, name: str) -> str:
        """Return the value of a parameter of the page's own; "" without one."""
        return dict(self.own).get(name, "")

    @property
    def offset(self) -> int:
        """The number of rows to skip, from the parameter `offset`: 0 for anything that is no number, at most 2**31."""
        return number(self.get("offset"))

    def most(self, rows: int) -> int:
        """Return the largest number of rows of a table: `rows`, or no limit if the parameter `all` is there."""
        return 10**9 if self.get("all") else rows

    def filter(self) -> RunFilter:
        """Return the filter of the runs."""
        values: dict[str, str | bool | list[str]] = {}
        for name, value in self.words:
            if name in MANY:
                values[name] = [*[*values.get(name, [])], value]  # type: ignore[misc]  # a list, as only these are
            else:
                values[name] = True if name == FAILED else value
        return filter_of(values)

    def link(self, page: str = "", /, **changes: str | int | None) -> str:
        """Return the address of a page with the same filter and other parameters, relative to the viewer's first page.

        Args:
            page: the path of the page, such as `failures` or `runs/ID`; "" for the list of runs.
            changes: conditions and parameters by name; None and "" remove one. Parameters of the page's own are kept
                only if they are named here.
        """
        kept = [(name, value) for name, value in self.words if name not in changes]
        set_ = [(name, str(value)) for name, value in changes.items() if value not in (None, "")]
        query = urlencode([*kept, *set_])
        path = quote(page) or "./"
        return f"{path}?{query}" if query else path

    def same(self, page: str = "", /, **changes: str | int | None) -> str:
        """Return the address of a page with the same filter and the same parameters, but for the changes (see link)."""
        return self.link(page, **{**dict(self.own), **changes})

    def of_runs(self, runs: Mapping[str, str]) -> str:
        """Return the address of the list of some runs, within the range of times of the page's filter."""
        filter, words = self.filter(), dict(runs)
        if filter.since is not None and "since" in words:
            words["since"] = max(filter.since, words["since"])
        if filter.until is not None and "until" in words:
            words["until"] = min(filter.until, words["until"])
        return self.narrowed(*words.items()).link()

    def narrowed(self, *pairs: Pair) -> "Address":
        """Return the address with further conditions. One that may occur once replaces its name's; "" removes it."""
        names = {name for name, _ in pairs if name not in MANY}
        kept = [each for each in self.words if each[0] not in names and each not in pairs]
        return self._replace(words=(*kept, *(pair for pair in pairs if pair[1])))

    def without(self, pair: Pair, page: str = "") -> str:
        """Return the address of a page without one condition, and at its first row."""
        kept = self._replace(words=tuple(each for each in self.words if each != pair))
        return kept.same(page, offset=None)


def address_of(pairs: Iterable[Pair]) -> Address:
    """Parse the query of a URL. Of a name of the filter that may occur once, the last value counts."""
    words: list[Pair] = []
    own: dict[str, str] = {}
    ignored: list[Pair] = []
    for name, value in list(pairs)[:MOST_PAIRS]:
        value = value.strip()[:LONGEST]
        if not value:
            continue
        if name not in NAMES:
            own[name] = value
        elif (problem := _problem(name, value)) is not None:
            ignored.append((name, problem))
        else:
            words = [each for each in words if each[0] != name or (name in MANY and each[1] != value)]
            words.append((name, "1" if name == FAILED else value))
    return Address(tuple(words), tuple(own.items()), tuple(ignored))


def number(text: str | None) -> int:
    """Parse a number of a URL's query: 0 for anything that is none, at most 2**31."""
    return min(int(text), 2**31) if text and text.isascii() and text.isdigit() and len(text) < 12 else 0


def _problem(name: str, value: str) -> str | None:
    try:
        filter_of({name: [value] if name in MANY else value})
    except InvalidValue as error:
        return str(error)
    return None
