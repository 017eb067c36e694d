"""Stores the entries of sessions that the Claude Agent SDK appends, and returns them verbatim, in order.

The tables have one row for each entry (SessionEntryRow), and one for each key of the SDK (SessionSummaryRow), whose
`last_entry` is the id of the key's newest entry. An append is one unit: it inserts entries, and moves the row of the
key on from the `last_entry` that it has read. So of two appends at once, one is refused and tries again after the
other: entries and summary always agree, also between processes.
"""

import json
import secrets
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple, cast

from pydantic_core import PydanticSerializationError, to_json

from agentspan.ground import (
    NUL,
    Account,
    Applied,
    Change,
    Move,
    Put,
    Query,
    Remove,
    SessionEntryRow,
    SessionSummaryRow,
    Storage,
    Unit,
    Value,
    clock,
    errors,
    ids,
    jsontext,
    scan,
    unique,
)

WAIT_S = 20.0
"""How long a write waits for other writers, in seconds. The SDK gives an append 60 s, and then drops it."""
ATTEMPTS = 100
MOST_KEPT = 256
"""The number of keys whose rows are cached, so that an append need not read them."""

Fold = Callable[[Any, Any, Any], Any]
"""The SDK's `fold_session_summary`: returns the summary after the previous summary, a key and new entries."""


class Address(NamedTuple):
    """A key of the SDK. `subpath` is empty for the main session, and names the file of a sub-agent otherwise."""

    project_key: str
    session: str
    subpath: str = ""

    @property
    def where(self) -> dict[str, Value]:
        """The columns that the key's rows have."""
        return cast(dict[str, Value], self._asdict())


def address_of(key: Mapping[str, Any]) -> Address:
    """Return the address of a key that the SDK passes.

    Raises:
        InvalidValue: a part is no text, or `subpath` is empty; the SDK leaves it out instead.
    """
    parts = (key.get("project_key"), key.get("session_id"))
    for name, part in zip(("project_key", "session_id"), parts, strict=True):
        if not isinstance(part, str):
            raise errors.InvalidValue(name, "must be a text")
    subpath = key.get("subpath")
    if subpath is not None and (not isinstance(subpath, str) or not subpath):
        raise errors.InvalidValue("subpath", "must be a text that is not empty, or left out for the main session")
    return Address(cast(str, parts[0]), cast(str, parts[1]), subpath or "")


class Line(NamedTuple):
    """An entry: its id in the source, or None; its JSON text; and its value."""

    uuid: str | None
    text: str
    value: Any


def lines_of(entries: Iterable[Any]) -> list[Line]:
    """Encode entries, and leave out those whose uuid an earlier one has."""
    found: list[Line] = []
    known: set[str] = set()
    for value in entries:
        uuid = _uuid_of(value)
        if uuid is not None:
            if uuid in known:
                continue
            known.add(uuid)
        found.append(Line(uuid, verbatim(value), value))
    return found


def _uuid_of(value: Any) -> str | None:
    """Return the id of an entry; None if it has none that every database can store."""
    uuid = value.get("uuid") if isinstance(value, Mapping) else None
    if not isinstance(uuid, str) or not uuid or NUL in uuid:
        return None
    return uuid if uuid.isascii() or uuid.encode("utf-8", "replace").decode() == uuid else None


def verbatim(value: Any) -> str:
    """Encode a JSON value as text that decodes to an equal value, with its keys in the same order."""
    try:
        return to_json(value, inf_nan_mode="constants").decode()
    except (PydanticSerializationError, ValueError, RecursionError):  # a lone surrogate, or depth over 200
        return json.dumps(value, separators=(",", ":"))


class Entries:
    """The entries in one storage. Safe to call from any thread.

    Args:
        storage: the storage, without journals in front of it: no journal has entries.
        fold: the SDK's fold; None keeps no summaries.
    """

    def __init__(self, storage: Storage, fold: Fold | None) -> None:
        self.storage = storage
        self._fold = fold
        self._ids = ids.IdSource(storage.ask(Account()).partition)
        self._kept: OrderedDict[Address, SessionSummaryRow] = OrderedDict()

    def append(self, address: Address, entries: Sequence[Any]) -> bool:
        """Store entries after those that the key has, and return whether there was a new one.

        They are durable on return, together with the summary. An entry whose uuid is stored is left out.

        Raises:
            DatabaseBusy: other writers changed the key at every attempt, or kept the write lock.
            StorageError: nothing is stored.
        """
        lines, before = lines_of(entries), self._kept.get(address) or self._row(address)
        for _ in range(ATTEMPTS):
            if not lines:
                return False
            unit, after = self._unit(address, before, lines)
            try:
                outcome = self.storage.apply([unit], wait_s=WAIT_S)[0]
            except errors.InDoubt:
                outcome = None
            if isinstance(outcome, Applied):
                self._keep(address, after)
                return True
            before = self._row(address)
            if outcome is None and before is not None and before.last_entry == after.last_entry:
                return True  # the commit that was in doubt is there
            lines = self._new_ones(address, lines)
        raise errors.DatabaseBusy(f"other writers changed the same session {ATTEMPTS} times in between; try again")

    def _row(self, address: Address) -> SessionSummaryRow | None:
        return unique(self.storage, SessionSummaryRow, **address.where)

    def _keep(self, address: Address, row: SessionSummaryRow) -> None:
        self._kept[address] = row
        while len(self._kept) > MOST_KEPT:
            try:
                self._kept.popitem(last=False)
            except KeyError:  # another thread has emptied it
                break

    def _new_ones(self, address: Address, lines: list[Line]) -> list[Line]:
        """Return the lines without those whose uuid is stored."""
        where = address.where
        return [
            line
            for line in lines
            if line.uuid is None or unique(self.storage, SessionEntryRow, **where, uuid=line.uuid) is None
        ]

    def _unit(
        self, address: Address, before: SessionSummaryRow | None, lines: Sequence[Line]
    ) -> tuple[Unit, SessionSummaryRow]:
        """Return the unit of an append, and the row of its key afterwards."""
        now, last = clock.now(), "" if before is None else before.last_entry
        changes: list[Change] = []
        for line in lines:
            last = self._id_after(last)
            changes.append(Put(SessionEntryRow(last, *address, line.uuid, line.text, now), minted=True))
        summary = self._summary(address, before, lines)
        if before is None:
            after = SessionSummaryRow(self._ids.new(), *address, last, summary, now, now)
            changes.append(Put(after, minted=True))
        else:
            after = before._replace(last_entry=last, summary=summary, updated_at=now)
            values: dict[str, Value] = {"last_entry": last, "summary": summary, "updated_at": now}
            unchanged: dict[str, Value] = {"last_entry": before.last_entry}
            changes.append(Move("session_summary", before.id, frozenset(), values, unchanged=unchanged))
        return Unit(tuple(changes)), after

    def _id_after(self, last: str) -> str:
        """Return a new id that is greater than one that another process, or another host, may have made."""
        id = self._ids.new()
        if id > last:
            return id
        millis, partition, randomness = ids.decode(last)
        number = (millis << 80 | randomness) + ((secrets.randbits(36) + 1) << 40)
        return ids.encode(number >> 80, partition, number & (1 << 80) - 1)

    def _summary(self, address: Address, before: SessionSummaryRow | None, lines: Sequence[Line]) -> str:
        """Return the JSON of a key's row after new entries: the time of writing, and the SDK's data of a main session.

        Times grow by at least one millisecond, so that the SDK can tell the states of a session apart.
        """
        known = {} if before is None else jsontext.decode(before.summary)
        found = {"mtime": max(clock.wall_ns() // 1_000_000, known.get("mtime", 0) + 1)}
        if self._fold is not None and not address.subpath and (before is None or "data" in known):
            earlier = None if before is None else _summary_of(before, known)
            key = {"project_key": address.project_key, "session_id": address.session}
            found["data"] = self._fold(earlier, key, [line.value for line in lines])["data"]
        return verbatim(found)

    def load(self, address: Address) -> list[Any] | None:
        """Return the entries of a key, in order; None if it has none."""
        rows = self.storage.ask(Query("session_entry", address.where)).rows
        return [jsontext.decode(cast(SessionEntryRow, row).entry) for row in rows] or None

    def after(self, address: Address, last: str) -> Iterator[SessionEntryRow]:
        """Yield the rows of a key's entries that came after the one with the id `last`, page by page."""
        return scan(self.storage, SessionEntryRow, address.where, after=last)

    def rows(self, **where: Value) -> list[SessionSummaryRow]:
        """Return the rows of the keys that match, by session and subpath."""
        rows = scan(self.storage, SessionSummaryRow, where)
        return sorted(rows, key=lambda row: (row.project_key, row.session, row.subpath))

    def sessions(self, project_key: str) -> list[dict[str, Any]]:
        """Return the id and the time of writing of each main session of a project, in milliseconds since the epoch."""
        rows = self.rows(project_key=project_key, subpath="")
        return [{"session_id": row.session, "mtime": mtime_of(row)} for row in rows]

    def summaries(self, project_key: str) -> list[dict[str, Any]]:
        """Return the SDK's summaries of the main sessions of a project, without sessions that have none."""
        rows = ((row, jsontext.decode(row.summary)) for row in self.rows(project_key=project_key, subpath=""))
        return [_summary_of(row, known) for row, known in rows if "data" in known]

    def subkeys(self, project_key: str, session: str) -> list[str]:
        """Return the subpaths of a session."""
        return [row.subpath for row in self.rows(project_key=project_key, session=session) if row.subpath]

    def delete(self, address: Address) -> None:
        """Remove the entries of a key; of a main session, also those of its subpaths. Unknown keys are fine.

        Raises:
            DatabaseBusy: others appended to the session at every attempt.
        """
        where = address.where
        if not address.subpath:
            del where["subpath"]
        for _ in range(ATTEMPTS):
            rows = self.rows(**where)
            for row in rows:
                self._kept.pop(Address(row.project_key, row.session, row.subpath), None)
            units = [self._removal(row) for row in rows]
            if not units or all(isinstance(each, Applied) for each in self.storage.apply(units, wait_s=WAIT_S)):
                return
        raise errors.DatabaseBusy(f"others appended to the same session {ATTEMPTS} times in between; try again")

    def _removal(self, row: SessionSummaryRow) -> Unit:
        """Return the unit that removes a key. It is refused if another process has appended to the key meanwhile."""
        address = Address(row.project_key, row.session, row.subpath)
        unchanged: dict[str, Value] = {"last_entry": row.last_entry}
        guard = Move("session_summary", row.id, frozenset(), {"updated_at": clock.now()}, unchanged=unchanged)
        entries = [Remove("session_entry", entry.id) for entry in self.after(address, "")]
        return Unit((guard, *entries, Remove("session_summary", row.id)))


def mtime_of(row: SessionSummaryRow) -> int:
    """Return when a key was last appended to, in milliseconds since the epoch."""
    return int(jsontext.decode(row.summary)["mtime"])


def _summary_of(row: SessionSummaryRow, known: Mapping[str, Any]) -> dict[str, Any]:
    return {"session_id": row.session, "mtime": known["mtime"], "data": known.get("data", {})}
