"""The declaration of a finding, which `findings.py` lists."""

from collections.abc import Callable, Sequence
from datetime import tzinfo
from typing import Any, NamedTuple

from agentspan.answers.blocks import Part
from agentspan.storage.protocol import Storage
from agentspan.storage.questions import RunFilter
from agentspan.storage.sums import Progress


class Asked(NamedTuple):
    """The arguments of a finding besides the filter of its runs.

    Attributes:
        kind: one of its kinds, "" if it has none.
        limit: the largest number of rows; None for as many as the surface shows.
        zone: the zone of days; None for the machine's own.
        progress: called with (done, total) while an index is built.
    """

    kind: str
    limit: int | None
    zone: tzinfo | None
    progress: Progress | None = None


class Finding(NamedTuple):
    """A finding about the runs of a filter.

    Attributes:
        title: the title of its page.
        find: returns its result.
        answer: returns the parts of the answer, without blocks if there are no runs; of each table at most that many
            rows.
        plain: returns the result, with at most that many rows, as an object of JSON.
        kinds: the values of the option `--by`, the first of which is the default.
        tool: the tool of MCP to call after an error; "" if the finding is no tool.
        about: what the help of its command says after the first sentence.
        rows: the number of rows that the command prints by default.
    """

    title: str
    find: Callable[[Storage, RunFilter | None, Asked], Any]
    answer: Callable[[Any, int], Sequence[Part]]
    plain: Callable[[Any, int | None], dict[str, Any]]
    kinds: Sequence[str] = ()
    tool: str = ""
    about: str = ""
    rows: int = 20
