"""The storage that a recorder writes to: opened once, with a new sink for each process. And how runs register in it.

A run registers without reading the storage (Unread), behind a journal or units that wait, or after a read (register).
"""

import os
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import NamedTuple, TypeAlias, cast

from agentspan import clock, host, ids
from agentspan.errors import DatabaseBusy, DatabaseUnusable, StorageError
from agentspan.host import log
from agentspan.journal import journal_folder, writers
from agentspan.journal.committer import Committer, Listener
from agentspan.journal.names import StoredSpanTypes
from agentspan.journal.opening import Spooled, open_storage
from agentspan.model import registration
from agentspan.model.changes import Applied, Put, Unit
from agentspan.model.registration import References, Referred, Registration, SchemaFields, admitted, fields_of
from agentspan.model.rows import AccountRow, AgentInstanceRow, AgentRow, AgentSchemaVersionRow, AgentVersionRow
from agentspan.recording.sinks.commit import CommitSink
from agentspan.recording.sinks.facts import RunListener
from agentspan.schemas import span_types
from agentspan.schemas.span_types import SpanType
from agentspan.storage.access import Identity, check_unused, expect, identity_of, references, unique
from agentspan.storage.location import Location, memory
from agentspan.storage.patience import Patience, waiting
from agentspan.storage.protocol import BesideJournals, Storage
from agentspan.storage.questions import Account, Find, Notes, WaitAtMost
from agentspan.storage.registry import location_of
from agentspan.tuning import STANDARD, Tuning

if journal_folder.is_possible():  # early: what is imported late is taken apart first when the interpreter ends
    from agentspan.recording.sinks.journal import JournalSink, Surroundings

Sink: TypeAlias = "CommitSink | JournalSink"
"""Writes transitions in order, from any thread, as durably as the `durability` setting requires. It reports faults to a
listener, and never raises."""


class RunTypes:
    """The span types that runs are registered with.

    Args:
        admit: returns a text without credentials; None if nothing is redacted.
    """

    def __init__(self, admit: Callable[[str], str] | None = None) -> None:
        self.registry = span_types.REGISTRY
        self._admit = admit
        self._content: tuple[int, SchemaFields | None] = (0, None)
        self._first_version: int | None = None  # the registry's version at the first registered run

    def content(self) -> SchemaFields:
        """Return the span types in the form of a schema version (0.3 ms; cached until a type is registered)."""
        version, content = self._content
        if self._first_version is None:
            self._first_version = self.registry.version
        if content is None or version != self.registry.version:
            version = self.registry.version
            items = self.registry.items()
            content = fields_of(items if self._admit is None else admitted(items, self._admit))
            self._content = (version, content)
        return content

    def late(self) -> str | None:
        """Return the span types as JSON text if some run was registered before one of them; else None."""
        is_late = self._first_version not in (None, self.registry.version)
        return self.content().span_type_schemas if is_late else None

    def resolve(self, instance_id: str, schema_name: str) -> SpanType:
        """Return the span type of a schema_name in any run of this process."""
        return self.registry.resolve(schema_name)


class Destination:
    """The opened storage of a recorder.

    Args:
        db: the storage to record into, as in Tracer.
        wants_journal: put a journal in front of the storage, if the storage can have one.
        open_wait_s: seconds to wait for a file that another process has locked. With a journal there is no wait:
            records stay in the journal until the file can be used.
        tuning: sizes and times, also for a storage that is opened by this class.

    Attributes:
        storage: the storage for readers, which includes the records in journals.
        store: the plain storage, for recording.
        ids: mints ids for the rows.
        is_journaled: whether a journal is in front of the storage.
        is_server: whether the storage is a server that may have a journal. With one, recording calls never wait for it.
        is_file: whether the storage is a file.
        is_remote: whether the storage is used over a connection, also if it cannot have a journal.
        location: the location to open the storage again; None if no other process can open it.

    Raises:
        DatabaseUnusable: the file cannot be used; the message says what to do.
    """

    def __init__(
        self,
        db: str | os.PathLike[str] | Location | Storage | None,
        *,
        wants_journal: bool,
        open_wait_s: float,
        tuning: Tuning = STANDARD,
    ) -> None:
        self._tuning = tuning
        if db is None or isinstance(db, (str, os.PathLike)):
            db = location_of(db)
        location = db if isinstance(db, Location) else None
        self._folder = None if location is None else journal_folder.spool_of(location)
        self.is_server = location is not None and location.path is None and self._folder is not None
        if self.is_server and wants_journal:
            _check_state_folder()
        later = wants_journal and self._folder is not None and journal_folder.why_not(self._folder) is None
        # A recording call does not wait for a server to be opened: its record waits in memory.
        later = later or (self.is_server and open_wait_s <= tuning.recording_wait_s)
        wait_s = tuning.recording_wait_s if later else open_wait_s
        self.storage = open_storage(db, wait_s=wait_s, later=later, tuning=tuning)
        self._account: AccountRow | None = None
        self._journals: BesideJournals | None = None
        self._is_account_read = False  # until then, _account is None or the row cached by an earlier program
        self._stored_span_types = StoredSpanTypes(tuning.cached_runs)
        self.is_server = isinstance(self.storage, Spooled)  # a server that other processes can open, too
        if not self.is_server and location is not None and location.path is None:
            self._folder = None
        if self.is_server:
            self.location, self.is_file = location, False
            self.store: Storage = cast(Spooled, self.storage).direct
            self.is_journaled = wants_journal and self._may_journal()
            if later:
                self._account = journal_folder.read(cast(Path, self._folder))
            else:
                self.learn()
        else:
            self._open_here(wants_journal=wants_journal)
        # Computed once: a Path cannot be created while the interpreter ends.
        self.is_remote = self.location is not None and self.location.path is None and self.location != memory()
        if self.is_remote:
            self.store = waiting(self.store, Patience(answer_s=tuning.server_answer_s))
        self.ids = ids.IdSource(self.account.partition)

    def _open_here(self, *, wants_journal: bool) -> None:
        can = self.storage.capabilities()
        self.location, self.is_file = can.location, can.journals is not None
        self.store = self.storage if can.journals is None else can.journals.direct
        self._journals = can.journals
        if can.journals is not None:
            self._folder = journal_folder.folder_of(can.journals.path)
        self.is_journaled = wants_journal and self._may_journal()
        if can.journals is not None and not self.is_journaled:
            can.journals.look_seldom()  # recording calls wait for each commit, which takes 5 % less time so
        waits = WaitAtMost in self.store.capabilities().answers
        if waits:
            self.store.ask(WaitAtMost(0.0))  # no second wait, if opening the file has waited already
        self.learn()
        if waits:
            self.store.ask(WaitAtMost(self._tuning.recording_wait_s))

    @property
    def account(self) -> AccountRow:
        """The account row of the storage; until it could be read, a row without ids in partition 0."""
        return self._account or _UNKNOWN

    def learn(self, storage: Storage | None = None) -> None:
        """Read the account row of the storage, once. A cached row is replaced, because the database may be a new one.

        Args:
            storage: the storage with the patience of the caller; None for the plain one.

        Raises:
            StorageError: the row cannot be read, and there is no journal in which records can wait.
        """
        if not self._is_account_read:
            try:
                self._account = (storage or self.store).ask(Account())
                self._is_account_read = True
                if self.is_server and self.is_journaled and self._folder is not None:
                    journal_folder.write(self._folder, self._account)
            except DatabaseUnusable:
                raise
            except StorageError:
                if not self.is_journaled and not self.is_server:
                    raise

    def identity(self) -> Identity:
        """Return the identity of the storage, which changes if its file is replaced. A server is not queried."""
        return (0, self.account.id) if self._journals is None else (self._journals.files, "")

    def identity_now(self, storage: Storage) -> Identity:
        """Return the current identity of the storage, read from it with its patience, also from a server.

        Raises:
            StorageError: the storage cannot be read.
        """
        self.learn(storage)
        return identity_of(storage)

    def new_sink(self, outcomes: RunListener, writer_id: Callable[[], str], types: RunTypes) -> Sink:
        """Return a new sink of this process.

        Args:
            outcomes: receives the outcomes of the changes.
            writer_id: returns the writer id of this process.
        """

        store = self.store
        journals = None if self.is_server else store.capabilities().journals
        if self.is_journaled and self._folder is not None and journals is not None:
            store = journals.draining()

        def new_committer(listener: Listener) -> Committer:
            return Committer(
                store,
                writer_id,
                self.ids,
                resolve=types.resolve,
                stored_span_types=self._stored_span_types,
                listener=listener,
                wait_s=self._tuning.recording_wait_s,
                knows_types=True,
                tuning=self._tuning,
            )

        if not self.is_journaled or self._folder is None:
            return CommitSink(
                store,
                new_committer,
                outcomes,
                journals=journals,
                is_server=self.is_remote,
                has_thread=True,
                tuning=self._tuning,
            )
        with host.importing:
            from agentspan.journal.adopting import Adoption

        adoption = Adoption(lambda: nullcontext(self.store), self._folder, tuning=self._tuning, report=outcomes.fault)
        name = str(self.location)
        renew_lease = (lambda: self._renew_lease(writer_id())) if self.is_server else None
        around = Surroundings(name, self._folder, writer_id, new_committer, adoption, types.late, renew_lease)
        return JournalSink(store, outcomes, around, self._tuning)

    def _renew_lease(self, writer_id: str) -> None:
        if Notes in self.store.capabilities().answers:
            writers.renew(self.store, writer_id, self._tuning.lease_s)

    def renew(self) -> None:
        """In a forked child: do not use the database any more if the fork happened during a call of SQLite."""
        if host.is_cut_off and self.is_file:  # other processes recover the records in the journal
            with host.importing:
                from agentspan.storage.memory import CutOff
            self.store = CutOff()
            self.is_journaled = self._may_journal()

    def _may_journal(self) -> bool:
        if self._folder is None:
            return False
        why_not = journal_folder.why_not(self._folder)
        if why_not is not None and why_not not in _logged:
            _logged.add(why_not)
            (log.warning if journal_folder.is_possible() else log.info)("recording by commits: %s", why_not)
        return why_not is None


def _check_state_folder() -> None:
    """Create the folder for the journals of servers.

    Raises:
        DatabaseUnusable: the folder cannot be created, so no later attempt would succeed.
    """
    try:
        if journal_folder.is_possible():
            journal_folder.make_state_folder()
    except OSError as error:
        raise DatabaseUnusable(
            f"there can be no journal in {journal_folder.state_folder()}: {error.strerror}; name a folder of this user "
            'in XDG_STATE_HOME, or use durability="commit", which waits for the server in each call'
        ) from error


_UNKNOWN = AccountRow("", "", "", 0, "")
_logged: set[str] = set()

ATTEMPTS = 20
"""The number of attempts to register a run while other programs register the same agent or version."""
MAX_KEPT = 1000
"""The number of rows of versions and schema versions that a process keeps in memory."""


class Unread:
    """Makes the units that register and rename runs, without reading the storage.

    The first unit of an agent mints an id for the agent, which later units repeat. If the agent is stored under another
    id, `journal.names` replaces the minted id.
    """

    def __init__(self) -> None:
        self._agents: dict[str, AgentRow] = {}
        self._versions: dict[tuple[str, str], AgentVersionRow] = {}
        self._schemas: dict[tuple[str, str], AgentSchemaVersionRow] = {}

    def registration(self, wanted: Registration, new_id: Callable[[], str]) -> tuple[Unit, AgentInstanceRow]:
        """Return the unit that registers a run, and the row of the run, which has no agent_id yet."""
        now = clock.now()
        unit = Unit(registration.registration(wanted, self._referred(wanted, new_id, now), new_id, now), wanted.id)
        return unit, _instance(unit)

    def renaming(self, wanted: Registration, new_id: Callable[[], str]) -> Unit:
        """Return the unit that changes the agent and the version of a registered run to those of `wanted`."""
        return Unit(registration.renaming(wanted.id, self._referred(wanted, new_id, clock.now())))

    def _referred(self, wanted: Registration, new_id: Callable[[], str], now: str) -> Referred:
        version, schema = wanted.version.external_identifier, wanted.schema.content_hash
        agent, of_version, of_schema = wanted.agent, (wanted.agent, version), (wanted.agent, schema)
        known = _of_one_agent(self._agents.get(agent), self._versions.get(of_version), self._schemas.get(of_schema))
        _, referred = registration.references(wanted, known, new_id, now)
        if len(self._versions) + len(self._schemas) > MAX_KEPT:
            self._agents, self._versions, self._schemas = {}, {}, {}
        self._agents[agent], self._versions[of_version], self._schemas[of_schema] = referred
        return referred


def _of_one_agent(
    agent: AgentRow | None, version: AgentVersionRow | None, schema: AgentSchemaVersionRow | None
) -> References:
    """Return the known rows of one agent only: another thread may have minted a second id between two look-ups."""
    id = None if agent is None else agent.id
    own_version = version if version is not None and version.agent_id == id else None
    return References(agent, own_version, schema if schema is not None and schema.agent_id == id else None)


class Registered(NamedTuple):
    """The row of a registered run, and whether it is stored. If not, its unit is kept and written later."""

    instance: AgentInstanceRow
    is_stored: bool


def register(
    storage: Storage,
    wanted: Registration,
    new_id: Callable[[], str],
    put_aside: Callable[[Unit, StorageError], None],
    *,
    wait_s: float,
) -> Registered:
    """Register a run, with its agent, version and schema version if they are new.

    Args:
        new_id: mints the PFID of each new row besides the instance.
        put_aside: receives the unit if the storage fails to apply it, to write it later.
        wait_s: seconds to wait for other writers.

    Raises:
        InvalidValue: another row has the id of the instance already.
        NotFound, UnexpectedRefType: the agent's name is a PFID, and no agent has this PFID.
        StorageError: the storage cannot be read.
    """
    for _ in range(ATTEMPTS):
        named = [wanted.agent] if ids.is_pfid(wanted.agent) else []
        found = storage.ask(Find(*([] if wanted.minted else [wanted.id]), *named))
        check_unused(found, None if wanted.minted else wanted.id)
        if named:
            agent: AgentRow | None = expect(found, AgentRow, wanted.agent)
        else:
            agent = unique(storage, AgentRow, external_identifier=wanted.agent)
        stored = references(storage, agent, wanted.version.external_identifier, wanted.schema.content_hash)
        unit = Unit(registration.register(wanted, stored, new_id, clock.now()), wanted.id)
        try:
            outcome = storage.apply([unit], wait_s=wait_s)[0]
        except StorageError as error:
            put_aside(unit, error)
            return Registered(_instance(unit), is_stored=False)
        if isinstance(outcome, Applied):
            return Registered(_instance(unit), is_stored=True)
    raise DatabaseBusy(f"other writers changed the same rows {ATTEMPTS} times in between; try again")


def stored_run(storage: Storage, agent: str, id: str, key: str) -> AgentInstanceRow | None:
    """Return the stored run with this id, else the agent's run with `key` as external_identifier, else None."""
    stored = unique(storage, AgentInstanceRow, id=id)
    if stored is not None:
        return stored
    named = unique(storage, AgentRow, external_identifier=agent)
    return named and unique(storage, AgentInstanceRow, agent_id=named.id, external_identifier=key)


def refer(storage: Storage, wanted: Registration, new_id: Callable[[], str], *, wait_s: float) -> Referred:
    """Store the agent, the version and the schema version of a run if they are new; return them.

    Raises:
        StorageError: the storage fails.
    """
    for _ in range(ATTEMPTS):
        agent = unique(storage, AgentRow, external_identifier=wanted.agent)
        stored = references(storage, agent, wanted.version.external_identifier, wanted.schema.content_hash)
        changes, referred = registration.references(wanted, stored, new_id, clock.now())
        if not changes or isinstance(storage.apply([Unit(tuple(changes))], wait_s=wait_s)[0], Applied):
            return referred
    raise DatabaseBusy(f"other writers changed the same rows {ATTEMPTS} times in between; try again")


def _instance(unit: Unit) -> AgentInstanceRow:
    (row,) = (change.row for change in unit.changes if isinstance(change, Put) and change.row.id == unit.subject)
    assert isinstance(row, AgentInstanceRow)
    return row
