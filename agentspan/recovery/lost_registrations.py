"""Registers a run whose registration was damaged in a journal, so that the damage costs its name and not its spans."""

import platform

from agentspan import clock, ids
from agentspan.ids import IdSource
from agentspan.model import registration
from agentspan.model.changes import Applied, Put, Unit, unit_of
from agentspan.model.registration import DEFAULT, Registration, VersionFields
from agentspan.model.rows import AgentRow, WriterRow
from agentspan.model.schema_versions import fields_of
from agentspan.recovery.committer import Listener
from agentspan.recovery.names import run_of
from agentspan.storage.lookup import references, unique
from agentspan.storage.protocol import Storage
from agentspan.storage.questions import Find

ATTEMPTS = 20


class LostRegistrations(Listener):
    """Registers the runs of one writer anew, named after its program.

    Args:
        writer_id: of the writer whose journal is recovered.
        ids: mints the ids of an agent and its versions.

    Attributes:
        is_damaged: whether a part of the journal was damaged. Otherwise a run that is missing was removed.
    """

    def __init__(self, storage: Storage, writer_id: str, ids: IdSource) -> None:
        self.is_damaged = False
        self._storage = storage
        self._writer_id = writer_id
        self._ids = ids

    def missing(self, unit: Unit) -> Unit | None:
        """See Listener."""
        run_id = run_of(unit) if self.is_damaged else None
        if run_id is None or not ids.is_pfid(run_id):
            return None
        for _ in range(ATTEMPTS):
            if run_id in self._storage.ask(Find(run_id, instance_id=run_id)).rows or self._register(run_id):
                return unit
        return None

    def restore_writer(self) -> None:
        """Store a row for the writer if its own was damaged: it is a process of this host, and dead.

        Raises:
            StorageError: the storage cannot take it now.
        """
        if self.is_damaged and self._writer_id not in self._storage.ask(Find(self._writer_id)).rows:
            # A boot that is none of this host's: a program of an earlier one is dead.
            row = WriterRow(self._writer_id, platform.node(), "damaged", 0, "", "unknown", clock.now())
            self._storage.apply([unit_of(Put(row, minted=True))])

    def _register(self, run_id: str) -> bool:
        located = self._storage.ask(Find(self._writer_id)).rows.get(self._writer_id)
        writer = None if located is None else located[1]
        wanted = Registration(
            run_id,
            writer.program if isinstance(writer, WriterRow) else DEFAULT,
            VersionFields(),
            fields_of(()),
            "live",
            None,
            started_at=clock.to_text(ids.decode(run_id)[0] * 1_000_000),
            writer_id=self._writer_id,
        )
        agent = unique(self._storage, AgentRow, external_identifier=wanted.agent)
        stored = references(self._storage, agent, wanted.version.external_identifier, wanted.schema.content_hash)
        changes = registration.register(wanted, stored, self._ids.new, clock.now())
        return isinstance(self._storage.apply([Unit(changes, run_id)])[0], Applied)
