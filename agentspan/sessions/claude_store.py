"""ClaudeSessionStore: the Claude Agent SDK's `SessionStore` over an agentspan file.

All work is done in threads, so an event loop never waits for the disk. This module does not import the SDK; without
it, only summaries are missing.
"""

import os
import threading
import weakref
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property, partial
from typing import TYPE_CHECKING, Any, Literal, ParamSpec, Self, TypeVar, cast

from agentspan.ground import Database, Storage, Wrapper, errors, has_storage, host, open
from agentspan.sessions.deriving import Deriver, DerivingThread, Of
from agentspan.sessions.entries import WAIT_S, Address, Entries, Fold, address_of, lines_of

if TYPE_CHECKING:
    from agentspan.ground import Location

P = ParamSpec("P")
T = TypeVar("T")

CLOSE_WAIT_S = 30.0
SETTLE_WAIT_S = 10.0
"""How long a deletion waits until the entries are derived, in seconds."""


class ClaudeSessionStore:
    """Stores sessions of the Claude Agent SDK in an agentspan file, where each is also a run with its steps.

        store = ClaudeSessionStore()
        options = ClaudeAgentOptions(session_store=store)

    An append is on disk when it returns. A thread derives the steps from what was appended: the viewer shows them
    within two seconds. The run is the one that `agentspan import` makes of the session's file, so both can be used.

    The SDK resumes a session from its entries, so they are stored as they are, **without redaction**, and only once.
    The steps are redacted as all that is recorded. `keep_entries=False` stores no entries and no summaries: then the
    store has only steps, and the SDK finds no session in it to resume.

    One store can be used by several event loops, of asyncio or trio, and by several threads; several processes can use
    the same file. The methods are those of the SDK's protocol. Call `close` when the program has ended its sessions:
    their runs are then complete. A run whose session has not gone on for five minutes is complete, too.

    Args:
        db: a file, a URL, or an opened Database, which stays open; when left out, the file that `agentspan.open` opens:
            the storage of `agentspan.configure`, else AGENTSPAN_DB, else ./agentspan.db.
        keep_entries: store the entries, unredacted, so that sessions can be resumed from this store.
        record: make runs with steps of the sessions.

    Raises:
        InvalidValue: both `keep_entries` and `record` are False, so that nothing would be stored.
        DatabaseUnusable: the file cannot be used.
    """

    def __init__(
        self,
        db: "str | os.PathLike[str] | Location | Storage | Database | None" = None,
        *,
        keep_entries: bool = True,
        record: bool = True,
    ) -> None:
        if not keep_entries and not record:
            raise errors.InvalidValue("keep_entries", "and `record` are both False, so the store would store nothing")
        self._opened = _Opened(db if isinstance(db, Database) else open(db))
        self._closes = not isinstance(db, Database)
        self._keeps = keep_entries
        self._deriving = DerivingThread(self._opened.deriver, keeps=keep_entries) if record else None
        self.renew()
        _all.add(self)
        if self._deriving is not None:
            weakref.finalize(self, self._deriving.end_soon).atexit = False
            if keep_entries and self._opened.may_have_entries:
                self._deriving.start()

    def renew(self) -> None:
        """In a forked child: forget the appends of the parent's threads."""
        self._lock = threading.RLock()
        self._queues: dict[Address, _Queue] = {}

    async def append(self, key: Mapping[str, object], entries: Sequence[Mapping[str, object]]) -> None:
        """Store entries after those that the key has, in the order of the calls. They are on disk on return.

        An entry whose uuid the key has is left out. Entries without a uuid are always stored.

        Raises:
            DatabaseBusy: other programs kept the file for 20 s. Nothing is stored.
            StorageError: nothing is stored.
        """
        address = address_of(key)
        if not entries:
            return
        queue, item = self._queued(address, entries)
        try:
            await _in_thread(queue.work_off, item)
        finally:
            item.is_dropped = True

    def _queued(self, address: Address, entries: Sequence[Any]) -> "tuple[_Queue, _Item]":
        if not host.page[0]:
            host.renew()
        with self._lock:
            queue = self._queues.get(address)
            if queue is None:
                self._queues = {other: each for other, each in self._queues.items() if each.items}
                queue = self._queues[address] = _Queue()
            item = _Item(partial(self._append, address, entries))
            queue.items.append(item)
        return queue, item

    def _append(self, address: Address, entries: Sequence[Any]) -> None:
        of = Of(address.project_key, address.session)
        if not self._keeps:
            assert self._deriving is not None
            self._deriving.appended(of, [(address.subpath, line.text.encode()) for line in lines_of(entries)])
        elif self._opened.entries.append(address, entries) and self._deriving is not None:
            self._deriving.appended(of)

    async def load(self, key: Mapping[str, object]) -> list[Any] | None:
        """Return the entries of a key, in order, equal to those that were appended; None if it has none."""
        address = address_of(key)
        return await _in_thread(lambda: self._opened.entries.load(address))

    async def list_sessions(self, project_key: str) -> list[Any]:
        """Return `session_id` and `mtime` (of the last append, ms since 1970) of each session of `project_key`."""
        return await _in_thread(lambda: self._opened.entries.sessions(project_key))

    async def list_session_summaries(self, project_key: str) -> list[Any]:
        """Return the SDK's summary of each session of `project_key`, stored with the entries; none without the SDK."""
        return await _in_thread(lambda: self._opened.entries.summaries(project_key))

    async def delete(self, key: Mapping[str, object]) -> None:
        """Remove the entries and the summary of a key; of a main session, also the entries of its sub-agents.

        The run and its steps stay: `agentspan prune` removes them. What is not derived yet is derived before.
        """
        await _in_thread(self._delete, address_of(key))

    def _delete(self, address: Address) -> None:
        if self._deriving is not None:
            self._deriving.settle(SETTLE_WAIT_S)
        self._opened.entries.delete(address)

    async def list_subkeys(self, key: Mapping[str, object]) -> list[str]:
        """Return the subpaths of the session of a `key`, such as `subagents/agent-1`."""
        address = address_of(key)
        return await _in_thread(lambda: self._opened.entries.subkeys(address.project_key, address.session))

    def flush(self, wait_s: float = SETTLE_WAIT_S) -> bool:
        """Wait until all that was appended has been derived, for at most `wait_s` seconds; return whether it has."""
        return self._deriving is None or self._deriving.settle(wait_s)

    def close(self) -> None:
        """Derive the rest, complete the runs of the sessions, and close the file. Blocks for at most 30 s.

        At the end of a program, this is done for each store. What a killed program has not derived, the next store over
        the file derives, and so does `agentspan import`.
        """
        if self._deriving is not None:
            self._deriving.close(CLOSE_WAIT_S)
        if self._closes:
            self._opened.database.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> Literal[False]:
        self.close()
        return False

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc_info: object) -> Literal[False]:
        await _in_thread(self.close)
        return False


class _Opened:
    """A database, and what works on it. The deriving thread refers to this, not to the store: so the store is freed."""

    def __init__(self, database: Database) -> None:
        self.database = database

    @property
    def may_have_entries(self) -> bool:
        """True if the storage exists; a missing file is made by the first append."""
        return has_storage(self.database)

    @cached_property
    def storage(self) -> Storage:
        """The storage without the journals in front of it: reading what others record would drain them each time."""
        storage = self.database.storage
        can = storage.capabilities()
        if can.journals is not None:
            return can.journals.direct
        return storage.direct if can.spool is not None and isinstance(storage, Wrapper) else storage

    @cached_property
    def entries(self) -> Entries:
        """The entries in the storage."""
        return Entries(self.storage, _fold())

    def deriver(self) -> Deriver:
        """Make the Deriver; called by its thread."""
        with host.importing:
            from agentspan.ground import Context, SentRedaction
            from agentspan.sessions.registry import formats

            format = formats()["claude"]
        return Deriver(Context(self.storage, wait_s=WAIT_S, redacts=SentRedaction()), self.entries, format)


class _Item:
    """An append that waits for its turn.

    Attributes:
        append: makes the append.
        is_done: True after the append.
        is_dropped: True if the caller was cancelled before the append.
        error: the exception of the append.
    """

    __slots__ = ("append", "error", "is_done", "is_dropped")

    def __init__(self, append: Callable[[], None]) -> None:
        self.append = append
        self.is_done = self.is_dropped = False
        self.error: BaseException | None = None


class _Queue:
    """The appends to one key, in the order of the calls. Threads may get their turn in another order."""

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self.items: deque[_Item] = deque()

    def work_off(self, item: _Item) -> None:
        """Make the appends up to `item`, unless another thread has made them. Raise the exception of its own."""
        with self._lock:
            while not item.is_done:
                self._make(self.items[0])
                self.items.popleft()
        if item.error is not None:
            raise item.error

    def _make(self, item: _Item) -> None:
        with host.guard(report=partial(setattr, item, "error")):
            if not item.is_dropped:
                item.append()
        item.is_done = True


async def _in_thread(function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Run a function in a thread of the event loop, of any library that the SDK supports.

    Cancelling waits for its end, so that a write is never going on unseen.
    """
    call = partial(function, *args, **kwargs)
    try:
        with host.importing:
            from anyio import to_thread
    except ImportError:  # without the SDK, which needs anyio
        import asyncio

        return await asyncio.to_thread(call)
    return await to_thread.run_sync(call)


def _fold() -> Fold | None:
    """Return the SDK's function that keeps summaries; None without the SDK, or in one that has none."""
    try:
        with host.importing:
            from claude_agent_sdk import fold_session_summary as fold
    except ImportError:
        return None
    return cast(Fold, fold)


_all: "weakref.WeakSet[ClaudeSessionStore]" = weakref.WeakSet()
host.renewal(host.Renewal.LOCKS, host.for_each(_all, ClaudeSessionStore.renew))
