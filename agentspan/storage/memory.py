"""A storage that keeps its rows in dictionaries, for tests and for `agentspan.open(":memory:")`."""

import json
import threading
import weakref
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from operator import attrgetter
from typing import Any, TypeVar, cast

from agentspan import host
from agentspan.errors import DatabaseBusy, StorageError
from agentspan.host import Renewal, is_mine, page, undoing, within
from agentspan.model.changes import (
    OPEN,
    Applied,
    Change,
    KeyTaken,
    Move,
    Outcome,
    Put,
    PutSpans,
    Ref,
    Refused,
    Remove,
    Replayed,
    Unit,
)
from agentspan.model.rows import (
    ROWS,
    TYPE_OF,
    AccountRow,
    AgentInstanceRow,
    AgentSpanRow,
    Row,
    SessionFileRow,
    Violation,
    instance_of,
    with_agents,
)
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
        self._rows: dict[str, Row] = {self._account.id: self._account}
        self._keys: dict[tuple[str, str], KeyRow] = {}
        self._violations: dict[str, tuple[Violation, ...]] = {}
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
                row = ROWS[type_]._make(values)
                stored._rows[row.id] = row
            stored._keys = {(row.operation, row.key): row for row in map(KeyRow._make, keys)}
            stored._violations = {id: tuple(Violation(*each) for each in found) for id, found in violations.items()}
        except (LookupError, TypeError) as error:
            raise ValueError("these are not the rows of a MemoryStorage") from error
        return stored

    def to_json(self) -> str:
        """Return the whole storage as JSON: the rows (the account first), the idempotency keys and the violations."""
        with self._open():
            rows = [(TYPE_OF[type(row)], row) for row in self._rows.values()]
            return json.dumps((rows, list(self._keys.values()), self._violations))

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
        with self._writing(wait_s), undoing(self._restoring()):
            return work(self)

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
            rows = {id: (TYPE_OF[type(row)], row) for id in wanted if (row := self._rows.get(id)) is not None}
            reasons = {instance_of(row): self._terminated(row) for _, row in rows.values()}
        terminated = {run: reason for run, reason in reasons.items() if reason is not None}
        return Found(rows, None if stored is None else StoredKey(stored.request_hash, stored.subject), terminated)

    def _page(self, asked: Query) -> Rows:
        with self._open():
            rows = list(self._rows.values())
        return page_of(rows, asked)

    def _spans(self, asked: SpansOf) -> Iterator[AgentSpanRow]:
        with self._open():
            return iter(self._spans_by_id(asked.instance_id))

    def _spans_by_id(self, instance_id: str) -> list[AgentSpanRow]:
        rows = [row for row in self._rows.values() if type(row) is AgentSpanRow]
        return sorted((row for row in rows if row.agent_instance_id == instance_id), key=attrgetter("id"))

    def _counted(self, asked: Counts) -> Mapping[str, SpanCounts]:
        with self._open():
            spans = {id: self._spans_by_id(id) for id in asked.instance_ids}
        return {id: span_counts(Counter(span.status for span in each)) for id, each in spans.items()}

    def _violations_of(self, asked: Violations) -> Mapping[str, list[Violation]]:
        with self._open():
            return {id: [*self._violations.get(id, ())] for id in asked.span_ids}

    def _stored_keys(self, asked: StoredKeys) -> list[KeyRow]:
        with self._open():
            keys = sorted(self._keys.items())
        after = asked.after or ("", "")
        return [row for used, row in keys if row.inserted_at >= asked.since and used > after][: asked.limit]

    def _remove_runs(self, asked: RemoveRuns) -> tuple[int, int]:
        runs = spans = 0
        with self._writing(asked.wait_s):
            for id in asked.ids:
                run, inside = self._rows.get(id), self._spans_by_id(id)
                if not isinstance(run, AgentInstanceRow) or {run.status, *(span.status for span in inside)} & OPEN:
                    continue
                about = [row for row in self._rows.values() if _belongs_to(row, id)]
                for row in (run, *about):
                    del self._rows[row.id]
                    self._violations.pop(row.id, None)
                runs, spans = runs + 1, spans + len(inside)
        return runs, spans

    def _remove_keys(self, asked: RemoveKeys) -> int:
        with self._writing(asked.wait_s):
            old = [used for used, row in self._keys.items() if row.inserted_at < asked.before]
            for used in () if asked.dry_run else old:
                del self._keys[used]
        return len(old)

    def _put_keys(self, asked: PutKeys) -> int:
        with self._writing(asked.wait_s):
            before = len(self._keys)
            self._keys = {(row.operation, row.key): row for row in reversed(asked.keys)} | self._keys
            return len(self._keys) - before

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

    def _restoring(self) -> Callable[[], None]:
        """Return a function that restores all rows, keys and violations as they are now."""
        before = dict(self._rows), dict(self._keys), dict(self._violations)

        def restore() -> None:
            self._rows, self._keys, self._violations = before

        return restore

    def _apply(self, unit: Unit) -> Outcome:
        key, subject = unit.key, unit.subject
        if key is not None:
            stored = self._keys.get((key.operation, key.key))
            if stored is not None:
                if stored.request_hash != key.request_hash:
                    return KeyTaken()
                found = self._rows.get(stored.subject)
                if found is None:  # the row that the request created has been deleted
                    return Refused("missing")
                return Replayed(found, self._terminated(found))
        is_single = len(unit.changes) == 1 and not isinstance(unit.changes[0], PutSpans)
        restore = None if is_single else self._restoring()  # a single change is refused before it changes anything
        late: list[Row] = []
        for change in unit.changes:
            refused = self._change(change, late)
            if refused is not None:
                if restore is not None:
                    restore()
                return refused
        if key is not None:
            assert subject is not None
            self._keys[key.operation, key.key] = KeyRow(*key[:3], subject, key.inserted_at)
        if subject is None:
            reasons = (self._terminated(row) for row in late)
            return Applied(None, next((reason for reason in reasons if reason is not None), None))
        row = self._rows[subject]
        return Applied(row, self._terminated(row))

    def _change(self, change: Change, late: list[Row]) -> Refused | None:
        if isinstance(change, Put):
            return self._put(change, late)
        if isinstance(change, PutSpans):
            return self._put_spans(change, late)
        return self._move(change, late) if isinstance(change, Move) else self._remove(change)

    def _put(self, put: Put, late: list[Row]) -> Refused | None:
        row = put.row
        if row.id in self._rows:
            return Refused("id_used", self._rows[row.id])
        same = self._same(row)
        if same is not None:
            return Refused("not_unique", same)
        for ref in (*references_of(row), *put.refs):
            found = self._rows.get(ref.id)
            if found is None or TYPE_OF[type(found)] != ref.type:
                return Refused("missing", found)
        if isinstance(row, AgentSpanRow):
            run = cast(AgentInstanceRow, self._rows[row.agent_instance_id])
            (row,) = with_agents([row], {run.id: run.agent_id})
            if self._terminated(row) is not None:
                late.append(row)
        self._rows[row.id] = row
        self._add_violations(row.id, put.violations)
        return None

    def _same(self, row: Row) -> Row | None:
        """Return the stored row with the same values in the unique columns; None if there is none."""
        unique = unique_of(row)
        if unique is None:
            return None
        rows = (other for other in self._rows.values() if type(other) is type(row))
        return next((other for other in rows if unique_of(other) == unique), None)

    def _put_spans(self, put: PutSpans, late: list[Row]) -> Refused | None:
        for row in put.rows:
            refused = self._put(Put(row), late)
            if refused is not None:
                return refused
        for id, violation in put.violations:
            self._add_violations(id, (violation,))
        return None

    def _move(self, move: Move, late: list[Row]) -> Refused | None:
        row = self._rows.get(move.id)
        after = moved(move, row)
        if isinstance(after, Refused):
            return after
        if after.is_over:
            late.append(after.row)
        self._rows[move.id] = after.row
        if move.type == "agent_instance" and "agent_id" in move.set:
            agent_id = cast(str, move.set["agent_id"])
            self._rows |= {span.id: span._replace(agent_id=agent_id) for span in self._spans_by_id(move.id)}
        before = self._violations.get(move.id, ())
        if before or move.violations:
            self._violations[move.id] = violations_after(move, before)
        return None

    def _remove(self, remove: Remove) -> Refused | None:
        row = self._rows.get(remove.id)
        if row is None or TYPE_OF[type(row)] != remove.type:
            return Refused("missing", row)
        reference = Ref(remove.type, remove.id)
        if any(reference in references_of(other) for other in self._rows.values()):
            return Refused("referenced", row)
        del self._rows[row.id]
        return None

    def _add_violations(self, id: str, violations: tuple[Violation, ...]) -> None:
        if violations:
            self._violations[id] = self._violations.get(id, ()) + violations

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


def _belongs_to(row: Row, run: str) -> bool:
    """Return whether a row is removed together with a run. What was read of a session file is remembered."""
    return getattr(row, "agent_instance_id", None) == run and not isinstance(row, SessionFileRow)
