"""Bringing in what dead processes have left in their journals: at a first open, before reads, by whoever comes."""

import logging
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass, field
from pathlib import Path

from agentspan.journal.deriving import outdated
from agentspan.journal.place import folder_of
from agentspan.journal.records import Gap, Record, read
from agentspan.journal.segments import Left, take_over
from agentspan.journal.spool import segments, tidy, types_of
from agentspan.operations.bringing import Bringer
from agentspan.operations.context import Context
from agentspan.schemas.span_types import from_schemas
from agentspan.storage.protocol import Storage

log = logging.getLogger("agentspan")

BATCH = 500
"""Records that are committed at once."""
LOOK_EVERY_S = 1.0

Progress = Callable[[int, int], None]
"""Is told of bytes that were read, and how many there are in all."""


@dataclass
class Adopted:
    """What was found in journals.

    Attributes:
        segments: how many were read and are gone.
        records: how many transitions were in them.
        refused: how many of those fitted nothing any more, and are in the table refused_changes.
        damage: what could not be read, a sentence each; it is in that table, too.
    """

    segments: int = 0
    records: int = 0
    refused: int = 0
    damage: list[str] = field(default_factory=list)


class Adoption:
    """Looks for what was left beside one file, at most once a second.

    Args:
        lend: lends the file, to be written to.
        path: where it lies.
    """

    def __init__(self, lend: Callable[[], AbstractContextManager[Storage]], path: Path) -> None:
        self._lend = lend
        self._folder = folder_of(path)
        self._next_s = 0.0
        self._busy = False
        self._said = ""

    def look(self, *, at_once: bool = False, most_s: float | None = None) -> None:
        """Adopt what is there, if it is time; a fault is logged, and what it concerns left for the next look.

        Args:
            at_once: also if it is not time.
            most_s: seconds after which to leave the rest for others.
        """
        now = time.monotonic()
        if (now < self._next_s and not at_once) or self._busy:
            return
        self._next_s = now + LOOK_EVERY_S
        try:
            self.adopt(most_s=most_s)
            self._said = ""
        except Exception as error:
            if str(error) != self._said:  # else it is the same as a second ago
                self._said = str(error)
                log.warning("a journal in %s could not be read now: %s", self._folder, error)

    def adopt(self, progress: Progress | None = None, *, most_s: float | None = None) -> Adopted:
        """Bring everything into the storage that processes have left which are dead.

        Raises:
            StorageError: the storage cannot take it now; nothing is lost.
        """
        adopted = Adopted()
        paths = segments(self._folder)
        if self._busy:
            return adopted
        if not paths:
            tidy(self._folder)
            return adopted
        self._busy = True  # what is read on the way must not come here again
        try:
            with ExitStack() as stack:
                self._adopt(paths, stack, adopted, progress or _unheard, most_s)
            tidy(self._folder)
        finally:
            self._busy = False
        return adopted

    def _adopt(
        self, paths: list[Path], stack: ExitStack, adopted: Adopted, progress: Progress, most_s: float | None
    ) -> None:
        ctx: Context | None = None
        until = float("inf") if most_s is None else time.monotonic() + most_s
        before, size = 0, sum(map(_size_of, paths))
        for path in paths:
            left = take_over(path)
            if left is None:
                continue
            with left:
                ctx = ctx or Context(stack.enter_context(self._lend()))
                types = types_of(self._folder, left.writer_id)
                bringer = Bringer(ctx, left.writer_id, None if types is None else from_schemas(types))
                taking = _Taking(bringer, left, adopted)
                if not taking.take(lambda done, before=before: progress(before + done, size), until):  # type: ignore[misc]
                    return
            before += len(left.data)


class _Taking:
    """One segment that is brought in."""

    def __init__(self, bringer: Bringer, left: Left, adopted: Adopted) -> None:
        self._bringer = bringer
        self._left = left
        self._adopted = adopted

    def take(self, progress: Callable[[int], None], until: float) -> bool:
        """Bring a segment in, and delete it; tell whether there was time for all of it."""
        left, adopted = self._left, self._adopted
        found = list(read(left.data, left.start, after=left.after))
        self._report([each for each in found if isinstance(each, Gap)])
        records = [each for each in found if isinstance(each, Record)]
        passed_over = outdated([each.body for each in records])
        for start in range(0, len(records), BATCH):
            if start and time.monotonic() > until:
                return False
            batch = records[start : start + BATCH]
            bodies = [each.body for number, each in enumerate(batch, start) if number not in passed_over]
            adopted.refused += self._bringer.bring(bodies)
            adopted.records += len(batch)
            left.trim(batch[-1].end, batch[-1].sequence + 1)
            progress(batch[-1].end)
        left.remove()
        adopted.segments += 1
        return True

    def _report(self, gaps: list[Gap]) -> None:
        name = self._left.path.name
        damage = [] if self._left.damaged is None else [f"{name}: {self._left.damaged}"]
        damage += [f"{name}: {_described(gap)}" for gap in gaps]
        for said in damage:
            log.warning("journal: %s", said)
            self._bringer.note(name, "damaged", {"said": said})
        self._adopted.damage += damage


def _unheard(done: int, size: int) -> None:
    """Hear of progress that nobody wants to see."""


def _size_of(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:  # somebody else was faster
        return 0


def _described(gap: Gap) -> str:
    if gap.missing is None:
        return f"damaged from byte {gap.start} on; what follows could not be read"
    records = "1 record is" if gap.missing == 1 else f"{gap.missing} records are"
    return f"{records} missing at byte {gap.start}, damaged"
