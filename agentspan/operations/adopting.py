"""Bringing in what dead processes have left in their journals: at a first open, before reads, by whoever comes."""

import logging
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass, field
from pathlib import Path

from agentspan import clock, jsontext
from agentspan.errors import NotFound, StorageError, UnexpectedRefType
from agentspan.journal import replaying
from agentspan.journal.deriving import Batch
from agentspan.journal.place import folder_of
from agentspan.journal.records import Gap, read
from agentspan.journal.segments import Left, take_over
from agentspan.journal.spool import segments, tidy
from agentspan.model.changes import Put, Refused, Unit, unit_of
from agentspan.model.refusals import refused_change
from agentspan.model.rows import AgentSpanRow, RefusedChangeRow
from agentspan.operations.agent_instances import rebased
from agentspan.operations.context import Context
from agentspan.schemas.span_types import Registry, SpanType
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

    def look(self, *, at_once: bool = False) -> None:
        """Adopt what is there, if it is time; a fault is logged, and what it concerns left for the next look."""
        now = time.monotonic()
        if (now < self._next_s and not at_once) or self._busy:
            return
        self._next_s = now + LOOK_EVERY_S
        try:
            self.adopt()
        except Exception as error:
            log.warning("a journal in %s could not be read now: %s", self._folder, error)

    def adopt(self, progress: Progress | None = None) -> Adopted:
        """Bring everything into the storage that processes have left which are dead.

        Raises:
            StorageError: the storage cannot take it now; nothing is lost.
        """
        adopted = Adopted()
        paths = segments(self._folder)
        if not paths or self._busy:
            return adopted
        self._busy = True  # what is read on the way must not come here again
        ctx: Context | None = None
        try:
            with ExitStack() as stack:
                sizes = [path.stat().st_size if path.exists() else 0 for path in paths]
                for number, path in enumerate(paths):
                    left = take_over(path)
                    if left is not None:
                        ctx = ctx or Context(stack.enter_context(self._lend()))
                        with left:
                            _take(ctx, left, adopted, progress, sum(sizes[:number]), sum(sizes))
            tidy(self._folder)
        finally:
            self._busy = False
        return adopted


def _take(ctx: Context, left: Left, adopted: Adopted, progress: Progress | None, before: int, size: int) -> None:
    damage = [f"{left.path.name}: its start is damaged; all of it was read again"] if left.damaged else []
    bodies: list[bytes] = []
    for each in read(left.data, left.start, after=left.after):
        if isinstance(each, Gap):
            damage.append(f"{left.path.name}: {_described(each)}")
            continue
        bodies.append(each.body)
        if len(bodies) == BATCH:
            adopted.refused += bring(ctx, bodies, left.writer_id)
            adopted.records += len(bodies)
            bodies = []
            if progress is not None:
                progress(before + each.end, size)
    adopted.refused += bring(ctx, bodies, left.writer_id)
    adopted.records += len(bodies)
    for said in damage:
        log.warning("journal: %s", said)
        _keep_damage(ctx, left, said)
    adopted.damage += damage
    left.remove()
    adopted.segments += 1


def bring(ctx: Context, bodies: list[bytes], writer_id: str) -> int:
    """Commit the bodies of records; return how many changes fitted nothing, and were kept as refused ones."""
    types = _Types(ctx)
    batch = Batch(writer_id, types.resolve, lambda ids: _find(ctx, ids))
    batch.add(bodies)
    refused = 0
    for unit in batch.first:
        outcome = ctx.storage.apply((unit,))[0]
        if isinstance(outcome, Refused) and outcome.why == "not_unique":  # its agent was made by others meanwhile
            ctx.storage.apply((rebased(ctx, unit)[0],))
    units = batch.units()
    for unit, outcome in zip(units, ctx.storage.apply(units), strict=True):
        if isinstance(outcome, Refused):
            refused += _settle(ctx, unit, outcome, writer_id)
    for unreadable in batch.unreadable:
        said = f"a record cannot be understood ({type(unreadable.error).__name__})"
        _keep(
            ctx, writer_id, writer_id, "unreadable", {"said": said, "record": unreadable.body.decode(errors="replace")}
        )
    return refused + len(batch.unreadable)


def _settle(ctx: Context, unit: Unit, refused: Refused, writer_id: str) -> bool:
    if replaying.is_there(unit, refused):
        return False
    rest = replaying.the_rest(unit, refused)
    if rest is not None:
        outcome = ctx.storage.apply((rest,))[0]
        if not isinstance(outcome, Refused):
            return False
        unit, refused = rest, outcome
    ctx.storage.apply((unit_of(refused_change(ctx.ids.new(), unit, refused, writer_id, clock.now())),))
    return True


def _find(ctx: Context, ids: Iterable[str]) -> Mapping[str, AgentSpanRow]:
    rows = ctx.storage.find(*ids).rows
    return {id: row for id, (_, row) in rows.items() if isinstance(row, AgentSpanRow)}


class _Types:
    """The span types that instances were registered with."""

    def __init__(self, ctx: Context) -> None:
        self._ctx = ctx
        self._unknown = Registry()

    def resolve(self, instance_id: str, schema_name: str) -> SpanType:
        try:
            return self._ctx.registry_of(instance_id).resolve(schema_name)
        except (NotFound, UnexpectedRefType):  # its file was replaced
            return self._unknown.resolve(schema_name)


def _described(gap: Gap) -> str:
    if gap.missing is None:
        return f"damaged from byte {gap.start} on; what follows could not be read"
    records = "1 record is" if gap.missing == 1 else f"{gap.missing} records are"
    return f"{records} missing at byte {gap.start}, damaged"


def _keep_damage(ctx: Context, left: Left, said: str) -> None:
    _keep(ctx, left.writer_id, left.path.name, "damaged", {"said": said})


def _keep(ctx: Context, writer_id: str, subject: str, why: str, wanted: dict[str, str]) -> None:
    row = RefusedChangeRow(
        id=ctx.ids.new(),
        subject=subject,
        agent_instance_id=None,
        why=why,
        stored_status=None,
        wanted=jsontext.encode(wanted)[0],
        writer_id=writer_id,
        inserted_at=clock.now(),
    )
    try:
        ctx.storage.apply((unit_of(Put(row, minted=True)),))
    except StorageError as error:
        log.warning("journal: what could not be read could not be noted: %s", error)
