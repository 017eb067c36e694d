"""The runs that this process began last, by which a tool for tests finds those of one test.

It is always on, because a test may import agentspan only while it runs: then a tool could not subscribe before.
"""

import itertools
import weakref
from collections import deque
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from agentspan.recording.recorder import Recorder

MOST = 1000
"""Runs that are remembered: 150 bytes each."""


class Began(NamedTuple):
    """A run that began in this process.

    Attributes:
        number: counts the runs of this process, from 0.
        recorder: returns the recorder; None if the program dropped it.
        run_id: the agent instance's PFID.
    """

    number: int
    recorder: "weakref.ref[Recorder]"
    run_id: str


_latest: deque[Began] = deque(maxlen=MOST)
_numbers = itertools.count()


def note(recorder: "Recorder", run_id: str) -> None:
    """Remember a run that began."""
    _latest.append(Began(next(_numbers), weakref.ref(recorder), run_id))


def last_number() -> int:
    """Return the number of the latest run; -1 if none began."""
    return _latest[-1].number if _latest else -1


def began_after(number: int) -> list[Began]:
    """Return the runs with higher numbers, the earliest first; the latest 1,000 if there are more."""
    return [each for each in list(_latest) if each.number > number]
