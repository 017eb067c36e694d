"""A storage backend that keeps everything in one JSON file, called `jsonfile://PATH`."""

import fcntl
import json
import os
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from agentspan.storage import authoring as spi
from agentspan.storage.authoring import Applied, Key, Location, Move, Put, PutSpans, Query, Refused, Row, Unit


def open_json(location: Location, *, read_only: bool, wait_s: float) -> spi.Storage:
    """Open the file of a location; the entry point names this function."""
    if spi.PROTOCOL != 1:
        raise spi.DatabaseUnusable(f"jsonfile is for version 1 of the storage protocol, not {spi.PROTOCOL}")
    path = Path(location.text.removeprefix("jsonfile://")).absolute()
    if not path.parent.is_dir() or (read_only and not path.exists()):
        raise spi.DatabaseUnusable(f"there is no {path if path.parent.is_dir() else path.parent}; create it")
    return JsonStorage(path, read_only, wait_s)


class State(NamedTuple):
    """Everything that is stored: rows and violations by id, keys by their scope. A unit changes it in place."""

    rows: dict[str, tuple[spi.ResourceType, Row]]
    keys: dict[str, spi.StoredKey]
    violations: dict[str, Sequence[spi.Violation]]

    def apply(self, unit: Unit) -> spi.Outcome:
        used = self.key(unit.key)
        if unit.key is not None and used is not None:
            subject = self.row(used.subject)
            if used.request_hash != unit.key.request_hash:
                return spi.KeyTaken()
            return Refused("missing") if subject is None else spi.Replayed(subject, self.terminated(subject))
        reasons = []
        for change in unit.changes:
            for each in spi.puts_of(change) if isinstance(change, PutSpans) else [change]:
                done = self.change(each)
                if isinstance(done, Refused):
                    return done
                reasons += [] if done.terminated is None else [done.terminated]
        subject = self.row(unit.subject)
        if unit.key is not None and subject is not None:
            self.keys[scope(unit.key)] = spi.StoredKey(unit.key.request_hash, subject.id)
        return (
            Applied(None, next(iter(reasons), None)) if subject is None else Applied(subject, self.terminated(subject))
        )

    def change(self, change: Put | Move | spi.Remove) -> Applied | Refused:
        if isinstance(change, Put):
            return self.put(change)
        stored = self.row(change.id)
        if isinstance(change, Move):
            moved = spi.moved(change, stored)
            if isinstance(moved, Refused):
                return moved
            self.rows[change.id] = change.type, moved.row
            self.violations[change.id] = spi.violations_after(change, self.violations.get(change.id, ()))
            return Applied(None, self.terminated(moved.row) if moved.is_over else None)
        if stored is None or self.rows[change.id][0] != change.type:
            return Refused("missing", stored)
        if any(spi.Ref(change.type, change.id) in spi.references_of(row) for _, row in self.rows.values()):
            return Refused("referenced", stored)
        del self.rows[change.id]
        return Applied()

    def put(self, put: Put) -> Applied | Refused:
        row, type_, unique = put.row, spi.TYPE_OF[type(put.row)], spi.unique_of(put.row)
        if row.id in self.rows:
            return Refused("id_used", self.row(row.id))
        for other_type, other in self.rows.values():
            if unique is not None and other_type == type_ and spi.unique_of(other) == unique:
                return Refused("not_unique", other)
        for ref in (*spi.references_of(row), *put.refs):
            if ref.id not in self.rows or self.rows[ref.id][0] != ref.type:
                return Refused("missing", self.row(ref.id))
        self.rows[row.id], self.violations[row.id] = (type_, row), put.violations
        return Applied(None, self.terminated(row))

    def row(self, id: str | None) -> Row | None:
        return self.rows[id][1] if id in self.rows else None

    def key(self, key: Key | None) -> spi.StoredKey | None:
        return None if key is None else self.keys.get(scope(key))

    def terminated(self, row: Row) -> str | None:
        return spi.terminated(self.row(spi.instance_of(row)))

    def page(self, query: Query) -> spi.Rows:
        return spi.page_of([row for _, row in self.rows.values()], query)

    def spans(self, run: str) -> list[spi.AgentSpanRow]:
        rows = self.page(Query("agent_span", {"agent_instance_id": run})).rows
        return [row for row in rows if isinstance(row, spi.AgentSpanRow)]


def scope(key: Key) -> str:
    return json.dumps([key.operation, key.key])


class JsonStorage:
    """One JSON file, which each read reads whole and each write replaces whole."""

    def __init__(self, path: Path, read_only: bool, wait_s: float) -> None:
        self.path, self.read_only, self.closed = path, read_only, False
        if not path.exists():
            with self.locked(wait_s):
                if not path.exists():
                    account = spi.new_account()
                    self.write(State({account.id: ("account", account)}, {}, {}))

    def capabilities(self) -> spi.Capabilities:
        return spi.Capabilities("jsonfile", location=Location("jsonfile", f"jsonfile://{self.path}"))

    def account(self) -> spi.AccountRow:
        return next(row for _, row in self.read().rows.values() if isinstance(row, spi.AccountRow))

    def apply(self, units: Sequence[Unit], *, stop_at_refusal: bool = False, wait_s: float = 5.0) -> list[spi.Outcome]:
        if self.read_only:
            raise spi.NotPermitted(f"{self.path} was opened to be read only")
        outcomes: list[spi.Outcome] = []
        with self.locked(wait_s):
            state = self.read()
            for unit in units:
                # A copy, which is dropped if the unit is refused.
                changed = State({**state.rows}, {**state.keys}, {**state.violations})
                outcomes.append(changed.apply(unit))
                if isinstance(outcomes[-1], Applied):
                    state = changed
                elif stop_at_refusal and not isinstance(outcomes[-1], spi.Replayed):
                    break
            if any(isinstance(outcome, Applied) for outcome in outcomes):
                self.write(state)
        return outcomes

    def find(self, *ids: str, key: Key | None = None, instance_id: str | None = None) -> spi.Found:
        state = self.read()
        used = state.key(key)
        wanted = ids if used is None else (*ids, used.subject)
        found = {id: state.rows[id] for id in wanted if id in state.rows}
        reasons = {spi.instance_of(row): state.terminated(row) for _, row in found.values()}
        return spi.Found(found, used, {run: reason for run, reason in reasons.items() if reason is not None})

    def page(self, query: Query) -> spi.Rows:
        return self.read().page(query)

    def iter_spans(self, instance_id: str) -> Iterator[spi.AgentSpanRow]:
        return iter(self.read().spans(instance_id))

    def counts(self, instance_ids: Sequence[str]) -> dict[str, spi.SpanCounts]:
        state = self.read()
        return {id: spi.span_counts(Counter(span.status for span in state.spans(id))) for id in instance_ids}

    def violations(self, span_ids: Sequence[str], *, instance_id: str | None = None) -> dict[str, list[spi.Violation]]:
        violations = self.read().violations
        return {id: [*violations.get(id, ())] for id in span_ids}

    def close(self) -> None:
        self.closed = True

    def read(self) -> State:
        """Read the file. That needs no lock, because the file is replaced in one step."""
        if self.closed:
            raise spi.StorageError("the storage is closed; open it again")
        try:
            rows, keys, violations = json.loads(self.path.read_bytes())
            return State(
                {id: (type_, spi.ROWS[type_]._make(values)) for id, (type_, values) in rows.items()},
                {used: spi.StoredKey(*values) for used, values in keys.items()},
                {id: [spi.Violation(*values) for values in found] for id, found in violations.items()},
            )
        except (OSError, ValueError, LookupError, TypeError) as error:
            raise spi.DatabaseUnusable(f"{self.path} cannot be read: {type(error).__name__}") from error

    def write(self, state: State) -> None:
        """Replace the file; it is on disk when this returns."""
        try:
            with tempfile.NamedTemporaryFile("w", dir=self.path.parent, delete=False) as file:
                json.dump(state, file)
                file.flush()
                os.fsync(file.fileno())
            os.replace(file.name, self.path)
        except OSError as error:
            raise spi.StorageError(f"{self.path} cannot be written: {error.strerror}") from error

    @contextmanager
    def locked(self, wait_s: float) -> Iterator[None]:
        """Keep other threads and processes out."""
        until = time.monotonic() + wait_s
        with open(f"{self.path}-lock", "w") as lock:
            while True:
                try:
                    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    break
                except BlockingIOError:
                    if time.monotonic() > until:
                        raise spi.DatabaseBusy(f"{self.path} is being written; try again") from None
                    time.sleep(0.002)
            try:
                yield
            finally:  # closing is not enough: a child that is forked meanwhile has a copy of the open file
                fcntl.flock(lock, fcntl.LOCK_UN)
