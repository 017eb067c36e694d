"""Bringing records of a dead process's journal into the storage, however often they are read: each change once."""

import logging
from collections.abc import Iterable, Mapping, Sequence
from typing import cast

from agentspan import clock, jsontext
from agentspan.errors import NotFound, StorageError, UnexpectedRefType
from agentspan.journal import replaying
from agentspan.journal.deriving import Batch, Unreadable
from agentspan.model.changes import Outcome, Put, Refused, Unit, parted, unit_of
from agentspan.model.refusals import refused_change
from agentspan.model.rows import AgentSpanRow, RefusedChangeRow
from agentspan.operations.agent_instances import rebased, with_agents
from agentspan.operations.context import Context
from agentspan.schemas.span_types import Registry, SpanType
from agentspan.storage.protocol import Query

log = logging.getLogger("agentspan")


class Bringer:
    """Commits what one writer has left.

    Args:
        types: the span types that it had, where the schema versions of its runs do not have all of them.
    """

    def __init__(self, ctx: Context, writer_id: str, types: Registry | None = None) -> None:
        self._ctx = ctx
        self._writer_id = writer_id
        self._types = types
        self._unknown = Registry()
        self._agents: dict[str, str] = {}
        self._kept: set[tuple[str, str]] | None = None

    def bring(self, bodies: Sequence[bytes]) -> int:
        """Commit the bodies of records; return how many changes fitted nothing, and were kept as refused ones.

        Raises:
            StorageError: the storage cannot take them now.
        """
        batch = Batch(self._writer_id, self._resolve, self._find)
        batch.add(bodies)
        refused = self._apply(batch.first, batch)
        units = batch.units()
        if self._agents:  # runs were registered with other agents after all
            units = [with_agents(unit, self._agents) for unit in units]
        refused += self._apply(units, batch)
        for unreadable in batch.unreadable:
            said = f"a record cannot be understood ({type(unreadable.error).__name__})"
            record = unreadable.body.decode(errors="replace")
            self.note(self._writer_id, "unreadable", {"said": said, "record": record})
        return refused + len(batch.unreadable)

    def note(self, subject: str, why: str, wanted: Mapping[str, str]) -> None:
        """Keep what could not be read among the refused changes, once.

        Raises:
            StorageError: the storage cannot take it now.
        """
        text = jsontext.encode(wanted)[0]
        row = RefusedChangeRow(self._ctx.ids.new(), subject, None, why, None, text, self._writer_id, clock.now())
        self._keep(Put(row, minted=True))

    def _apply(self, units: Sequence[Unit], batch: Batch) -> int:
        if not units:
            return 0
        again, settled = parted(units, self._outcomes(units))
        refused = self._apply(again, batch)
        for unit, outcome in settled:
            if isinstance(outcome, Exception):
                wanted = refused_change("", unit, Refused("missing"), self._writer_id, "").row
                batch.unreadable.append(Unreadable(cast(RefusedChangeRow, wanted).wanted.encode(), outcome))
            elif isinstance(outcome, Refused):
                refused += self._settle(unit, outcome)
        return refused

    def _outcomes(self, units: Sequence[Unit]) -> list[Outcome | Exception]:
        """Apply units together, or one by one where one of them is at fault, so that it costs no other."""
        try:
            return [*self._ctx.storage.apply(units)]
        except StorageError:
            raise
        except Exception as error:
            if len(units) == 1:
                return [error]
            return [outcome for unit in units for outcome in self._outcomes((unit,))]

    def _settle(self, unit: Unit, refused: Refused) -> bool:
        """Deal with a refused unit; tell whether it was kept as such."""
        if replaying.is_there(unit, refused):
            return False
        rest = replaying.the_rest(unit, refused)
        if refused.why == "not_unique" and len(unit.changes) > 1:  # a run whose agent was made by others meanwhile
            rest, instance = rebased(self._ctx, unit)
            self._agents[instance.id] = instance.agent_id
        if rest is not None:
            outcome = self._ctx.storage.apply((rest,))[0]
            if not isinstance(outcome, Refused) or replaying.is_there(rest, outcome):
                return False
            unit, refused = rest, outcome
        self._keep(refused_change(self._ctx.ids.new(), unit, refused, self._writer_id, clock.now()))
        return True

    def _keep(self, put: Put) -> None:
        row = cast(RefusedChangeRow, put.row)
        if self._kept is None:
            found = self._ctx.storage.page(Query("refused_change", {"writer_id": self._writer_id})).rows
            self._kept = {(each.subject, each.wanted) for each in cast(list[RefusedChangeRow], found)}
        if (row.subject, row.wanted) not in self._kept:
            self._ctx.storage.apply((unit_of(put),))
            self._kept.add((row.subject, row.wanted))

    def _find(self, ids: Iterable[str]) -> Mapping[str, AgentSpanRow]:
        rows = self._ctx.storage.find(*ids).rows
        return {id: row for id, (_, row) in rows.items() if isinstance(row, AgentSpanRow)}

    def _resolve(self, instance_id: str, schema_name: str) -> SpanType:
        if self._types is not None:
            return self._types.resolve(schema_name)
        try:
            return self._ctx.registry_of(instance_id).resolve(schema_name)
        except (NotFound, UnexpectedRefType):  # its file was replaced
            return self._unknown.resolve(schema_name)
