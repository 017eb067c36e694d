"""A storage that keeps its rows in dictionaries, for tests and for `agentspan.open(":memory:")`."""

import json
import threading
import weakref
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, TypeVar, cast

from agentspan import host
from agentspan.errors import DatabaseBusy, StorageError
from agentspan.host import Renewal, is_mine, page, within
from agentspan.model.changes import Applied, KeyTaken, Move, Outcome, Put, PutSpans, Refused, Remove, Replayed, Unit
from agentspan.model.rows import (
    REFERENCES,
    ROWS,
    TYPE_OF,
    AccountRow,
    AgentInstanceRow,
    AgentSpanRow,
    ResourceType,
    Row,
    Violation,
    instance_of,
)
from agentspan.model.status import OPEN
from agentspan.storage.answers import Found, KeyRow, Rows, SpanCounts, StoredKey, span_counts
from agentspan.storage.protocol import (
    Capabilities,
    moved,
    new_account,
    page_of,
    references_of,
    terminated,
    unique_of,
    violations_after,
)
from agentspan.storage.questions import (
    Account,
    Counts,
    Find,
    PutKeys,
    Query,
    Question,
    RemoveKeys,
    RemoveRuns,
    SpansOf,
    StoredKeys,
    Violations,
)
from agentspan.tuning import STANDARD, Tuning

T = TypeVar("T")
Undo = Callable[[], object]


class MemoryStorage:
    """A storage in this process's memory, under one lock. Save `to_json()` to keep the rows after the process ends.

    Args:
        account: the account row; None creates a new one.
        tuning: sizes and times, for tests; see agentspan/tuning.py.
    """

    def __init__(self, account: AccountRow | None = None, *, tuning: Tuning = STANDARD) -> None:
        self._tuning = tuning
        self._lock = threading.RLock()
        self._account = account or new_account()
        self._types: dict[str, ResourceType] = {self._account.id: "account"}
        self._rows: dict[str, Row] = {self._account.id: self._account}
        self._unique: dict[tuple[ResourceType, tuple[object, ...]], str] = {}
        self._by_instance: dict[str, dict[str, None]] = {}  # run → ids of its spans; a dict is an ordered set
        self._keys: dict[tuple[str, str], StoredKey] = {}
        self._key_times: dict[tuple[str, str], str] = {}
        self._violations: dict[str, tuple[Violation, ...]] = {}
        self._undo: list[Undo] | None = None  # steps that roll back the group under way
        self._closed = False
        _all.add(self)

    @classmethod
    def from_json(cls, text: str | bytes) -> "MemoryStorage":
        """Return a storage with everything that `to_json` wrote.

        Raises:
            ValueError: the text was not written by `to_json`.
        """
        try:
            rows, keys, violations = json.loads(text)
            stored = cls(AccountRow._make(rows.pop(0)[1]))
            for type_, values in rows:
                stored._add(ROWS[type_]._make(values))
            for operation, key, hash, subject, at in keys:
                stored._keys[operation, key] = StoredKey(hash, subject)
                stored._key_times[operation, key] = at
            stored._violations = {id: tuple(Violation(*each) for each in found) for id, found in violations.items()}
        except (LookupError, TypeError) as error:
            raise ValueError("these are not the rows of a MemoryStorage") from error
        return stored

    def to_json(self) -> str:
        """Return the whole storage as JSON: the rows (the account first), the idempotency keys and the violations."""
        with self._open():
            rows = [(self._types[id], row) for id, row in self._rows.items()]
            keys = [(*used, *stored, self._key_times[used]) for used, stored in self._keys.items()]
            return json.dumps((rows, keys, self._violations))

    def capabilities(self) -> Capabilities:
        """Return the abilities of this storage. It has no location, because only this object can reach its rows."""
        return Capabilities(backend="memory", answers=frozenset(_ANSWERS), page_rows=self._tuning.page_rows)

    def ask(self, question: Question[T]) -> T:
        """Answer a question from the rows in memory."""
        name = _ANSWERS.get(type(question))
        if name is None:
            from agentspan.storage import row_by_row

            return row_by_row.answer(self, question)
        return cast(T, getattr(self, name)(question))

    def apply(self, units: Sequence[Unit], *, stop_at_refusal: bool = False, wait_s: float = 5.0) -> list[Outcome]:
        """Apply units in order. Only another thread that writes can make them wait."""
        outcomes: list[Outcome] = []
        with self._writing(wait_s):
            for unit in units:
                outcome = self._apply(unit)
                outcomes.append(outcome)
                if stop_at_refusal and isinstance(outcome, (KeyTaken, Refused)):
                    break
        return outcomes

    def group(self, work: Callable[["MemoryStorage"], T], wait_s: float) -> T:
        """Run `work` under the lock, and roll back its writes if it raises. An inner group joins the outer group."""
        with self._writing(wait_s):
            outer, self._undo = self._undo, []
            try:
                done = work(self)
            except BaseException:
                for step in reversed(self._undo):
                    step()
                self._undo = outer
                raise
            self._undo = None if outer is None else [*outer, *self._undo]
            return done

    def close(self) -> None:
        """Close the storage: later calls raise StorageError."""
        self._closed = True

    def _account_row(self, asked: Account) -> AccountRow:
        with self._open():
            return self._account

    def _found(self, asked: Find) -> Found:
        key = asked.key
        with self._open():
            stored = self._keys.get((key.operation, key.key)) if key is not None else None
            wanted = (*asked.ids, stored.subject) if stored is not None else asked.ids
            rows = {id: (self._types[id], self._rows[id]) for id in wanted if id in self._rows}
            terminated = {}
            for _, row in rows.values():
                reason = self._terminated(row)
                if reason is not None:
                    terminated[instance_of(row)] = reason
            return Found(rows, stored, terminated)

    def _page(self, asked: Query) -> Rows:
        with self._open():
            rows = list(self._rows.values())
        return page_of(rows, asked)

    def _spans(self, asked: SpansOf) -> Iterator[AgentSpanRow]:
        with self._open():
            return iter(self._spans_by_id(asked.instance_id))

    def _spans_by_id(self, instance_id: str) -> list[AgentSpanRow]:
        return [cast(AgentSpanRow, self._rows[id]) for id in sorted(self._by_instance.get(instance_id, ()))]

    def _counted(self, asked: Counts) -> Mapping[str, SpanCounts]:
        with self._open():
            spans = {id: self._spans_by_id(id) for id in asked.instance_ids}
        return {id: span_counts(Counter(span.status for span in each)) for id, each in spans.items()}

    def _violations_of(self, asked: Violations) -> Mapping[str, list[Violation]]:
        with self._open():
            return {id: [*self._violations.get(id, ())] for id in asked.span_ids}

    def _stored_keys(self, asked: StoredKeys) -> list[KeyRow]:
        with self._open():
            times, after = self._key_times, asked.after
            used = sorted(used for used, at in times.items() if at >= asked.since and (not after or used > after))
            return [KeyRow(*each, *self._keys[each], times[each]) for each in used[: asked.limit]]

    def _remove_runs(self, asked: RemoveRuns) -> tuple[int, int]:
        runs = spans = 0
        with self._writing(asked.wait_s):
            for id in asked.ids:
                run, inside = self._rows.get(id), self._spans_by_id(id)
                if not isinstance(run, AgentInstanceRow) or {run.status, *(span.status for span in inside)} & OPEN:
                    continue
                about = [row for row in self._rows.values() if not isinstance(row, AgentSpanRow)]
                rows = [run, *inside, *(row for row in about if getattr(row, "agent_instance_id", None) == id)]
                for row in rows:
                    self._drop(row)
                    self._violations.pop(row.id, None)
                runs, spans = runs + 1, spans + len(inside)
        return runs, spans

    def _remove_keys(self, asked: RemoveKeys) -> int:
        with self._writing(asked.wait_s):
            old = [key for key, at in self._key_times.items() if at < asked.before]
            for key in () if asked.dry_run else old:
                del self._keys[key], self._key_times[key]
        return len(old)

    def _put_keys(self, asked: PutKeys) -> int:
        with self._writing(asked.wait_s):
            new = {(key.operation, key.key): key for key in reversed(asked.keys)}
            new = {used: key for used, key in new.items() if used not in self._keys}
            self._keys |= {used: StoredKey(key.request_hash, key.subject) for used, key in new.items()}
            self._key_times |= {used: key.inserted_at for used, key in new.items()}
        return len(new)

    def _open(self) -> threading.RLock:
        if not page[0]:
            host.renew()
        if self._closed:
            raise StorageError("the storage is closed; open it again")
        return self._lock

    def _writing(self, wait_s: float) -> "threading.RLock | within":
        """Return a context manager that holds the lock. If this thread holds it already, there is no waiting."""
        lock = self._open()
        return lock if is_mine(lock) else _Writing(lock, wait_s)

    def _apply(self, unit: Unit) -> Outcome:
        key = unit.key
        if key is not None:
            stored = self._keys.get((key.operation, key.key))
            if stored is not None:
                if stored.request_hash != key.request_hash:
                    return KeyTaken()
                found = self._rows.get(stored.subject)
                if found is None:  # the row that the request created has been deleted
                    return Refused("missing")
                return Replayed(found, self._terminated(found))
        undo: list[Undo] = []
        late: list[Row] = []
        for change in unit.changes:
            if isinstance(change, Put):
                refused = self._put(change, undo, late)
            elif isinstance(change, PutSpans):
                refused = self._put_spans(change, undo, late)
            else:
                refused = self._move(change, undo, late) if isinstance(change, Move) else self._remove(change, undo)
            if refused is not None:
                for step in reversed(undo):
                    step()
                return refused
        if key is not None:
            assert unit.subject is not None
            self._keys[key.operation, key.key] = StoredKey(key.request_hash, unit.subject)
            self._key_times[key.operation, key.key] = key.inserted_at
            used = (key.operation, key.key)
            undo.append(lambda: (self._keys.pop(used), self._key_times.pop(used)))
        if self._undo is not None:
            self._undo += undo
        if unit.subject is None:
            reasons = (self._terminated(row) for row in late)
            return Applied(None, next((reason for reason in reasons if reason is not None), None))
        row = self._rows[unit.subject]
        return Applied(row, self._terminated(row))

    def _put(self, put: Put, undo: list[Undo], late: list[Row]) -> Refused | None:
        row, type_ = put.row, TYPE_OF[type(put.row)]
        if row.id in self._rows:
            return Refused("id_used", self._rows[row.id])
        unique = unique_of(row)
        if unique is not None and (type_, unique) in self._unique:
            return Refused("not_unique", self._rows[self._unique[type_, unique]])
        for ref in (*references_of(row), *put.refs):
            if self._types.get(ref.id) != ref.type:
                return Refused("missing", self._rows.get(ref.id))
        self._add(row)
        undo.append(lambda: self._drop(row))
        if isinstance(row, AgentSpanRow) and self._terminated(row) is not None:
            late.append(row)
        self._add_violations(row.id, put.violations, undo)
        return None

    def _add(self, row: Row) -> None:
        type_, unique = TYPE_OF[type(row)], unique_of(row)
        self._rows[row.id], self._types[row.id] = row, type_
        if unique is not None:
            self._unique[type_, unique] = row.id
        if isinstance(row, AgentSpanRow):
            self._by_instance.setdefault(row.agent_instance_id, {})[row.id] = None

    def _drop(self, row: Row) -> None:
        unique = unique_of(row)
        del self._rows[row.id]
        type_ = self._types.pop(row.id)
        if unique is not None:
            del self._unique[type_, unique]
        if isinstance(row, AgentSpanRow):
            del self._by_instance[row.agent_instance_id][row.id]

    def _rename(self, before: Row, after: Row) -> None:
        """Update the index of unique columns after a row changed."""
        type_ = TYPE_OF[type(before)]
        old, new = unique_of(before), unique_of(after)
        if old is not None:
            self._unique.pop((type_, old), None)
        if new is not None:
            self._unique[type_, new] = after.id

    def _put_spans(self, put: PutSpans, undo: list[Undo], late: list[Row]) -> Refused | None:
        for row in put.rows:
            refused = self._put(Put(row), undo, late)
            if refused is not None:
                return refused
        for id, violation in put.violations:
            self._add_violations(id, (violation,), undo)
        return None

    def _move(self, move: Move, undo: list[Undo], late: list[Row]) -> Refused | None:
        row = self._rows.get(move.id)
        after = moved(move, row)
        if isinstance(after, Refused):
            return after
        assert row is not None
        if after.is_over:
            late.append(row)
        self._rows[move.id] = after.row
        undo.append(lambda: self._rows.update({move.id: row}))
        if unique_of(row) != unique_of(after.row):
            self._rename(row, after.row)
            undo.append(lambda: self._rename(after.row, row))
        if move.type == "agent_instance" and "agent_id" in move.set:
            spans = {id: cast(AgentSpanRow, self._rows[id]) for id in self._by_instance.get(move.id, ())}
            agent_id = cast(str, move.set["agent_id"])
            self._rows.update({id: span._replace(agent_id=agent_id) for id, span in spans.items()})
            undo.append(lambda: self._rows.update(spans))
        before = self._violations.get(move.id, ())
        if before or move.violations:
            self._violations[move.id] = violations_after(move, before)
            undo.append(lambda: self._violations.update({move.id: before}))
        return None

    def _remove(self, remove: Remove, undo: list[Undo]) -> Refused | None:
        row = self._rows.get(remove.id)
        if row is None or self._types[remove.id] != remove.type:
            return Refused("missing", row)
        columns = [
            (type_, column)
            for type_, references in REFERENCES.items()
            for column, to in references.items()
            if to == remove.type
        ]
        for type_, column in columns:
            for id, other in self._rows.items():
                if self._types[id] == type_ and getattr(other, column) == remove.id:
                    return Refused("referenced", row)
        self._drop(row)
        undo.append(lambda: self._add(row))
        return None

    def _add_violations(self, id: str, violations: tuple[Violation, ...], undo: list[Undo]) -> None:
        if violations:
            before = self._violations.get(id, ())
            self._violations[id] = before + violations
            undo.append(lambda: self._violations.update({id: before}))

    def _terminated(self, row: Row) -> str | None:
        return terminated(self._rows.get(instance_of(row)))


class _Writing(within):
    """Holds the storage's lock in a with-block; waits at most `wait_s` seconds for another thread."""

    def _refusal(self, is_mine: bool) -> Exception:
        return DatabaseBusy("another thread keeps the storage in memory for a group; try again")


_ANSWERS: Mapping[type[Question[Any]], str] = {
    Account: "_account_row",
    Find: "_found",
    Query: "_page",
    SpansOf: "_spans",
    Counts: "_counted",
    Violations: "_violations_of",
    StoredKeys: "_stored_keys",
    RemoveRuns: "_remove_runs",
    RemoveKeys: "_remove_keys",
    PutKeys: "_put_keys",
}
"""Type of a question → name of the method that answers it."""

_all: weakref.WeakSet[MemoryStorage] = weakref.WeakSet()


def _renew_locks() -> None:
    for storage in host.members(_all):
        storage._lock = threading.RLock()  # another thread of the parent may have held it


host.renewal(Renewal.LOCKS, _renew_locks)


class CutOff(MemoryStorage):
    """An empty storage for a forked child that must not use the real storage (see host.is_cut_off)."""

    def apply(self, units: Sequence[Unit], *, stop_at_refusal: bool = False, wait_s: float = 5.0) -> list[Outcome]:
        """Raise StorageError, because this storage stores nothing."""
        raise StorageError(
            "this process was forked while a thread was using SQLite, which could hang here; what it records stays in "
            "its journal until it has ended"
        )
