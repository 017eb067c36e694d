"""A storage backend that keeps everything in one JSON file, called `jsonfile://PATH`."""

import fcntl
import json
import os
import tempfile
import time
from collections import Counter
from contextlib import contextmanager
from pathlib import Path

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


class State:
    """Everything that is stored, and how a unit changes it."""

    def __init__(self, account: spi.AccountRow, rows: dict, keys: dict, violations: dict) -> None:
        self.account, self.rows, self.keys, self.violations = account, rows, keys, violations

    def copy(self) -> "State":
        return State(self.account, {**self.rows}, {**self.keys}, {**self.violations})

    def apply(self, unit: Unit) -> spi.Outcome:
        key = "" if unit.key is None else json.dumps(unit.key[:2])
        if key in self.keys:
            stored = self.keys[key]
            if stored.request_hash != unit.key.request_hash:
                return spi.KeyTaken()
            row = self.rows.get(stored.subject)
            return Refused("missing") if row is None else spi.Replayed(row, self.terminated(row))
        told: list[Row] = []  # the rows whose run may be terminated, which their recorder has to learn
        for change in unit.changes:
            for each in spi.puts_of(change) if isinstance(change, PutSpans) else [change]:
                refused = self.change(each, told)
                if refused is not None:
                    return refused
        if unit.key is not None:
            self.keys[key] = spi.StoredKey(unit.key.request_hash, unit.subject)
        if unit.subject is not None:
            row = self.rows[unit.subject]
            return Applied(row, self.terminated(row))
        return Applied(None, next((self.terminated(row) for row in told if self.terminated(row) is not None), None))

    def change(self, change: Put | Move | spi.Remove, told: list[Row]) -> Refused | None:
        stored = self.rows.get(change.row.id if isinstance(change, Put) else change.id)
        if isinstance(change, Put):
            if stored is not None:
                return Refused("id_used", stored)
            row, unique = change.row, spi.unique_of(change.row)
            for other in self.rows.values():
                if unique is not None and type(other) is type(row) and spi.unique_of(other) == unique:
                    return Refused("not_unique", other)
            for ref in (*spi.references_of(row), *change.refs):
                if ref.id not in self.rows or spi.TYPE_OF[type(self.rows[ref.id])] != ref.type:
                    return Refused("missing", self.rows.get(ref.id))
            self.rows[row.id], self.violations[row.id] = row, change.violations
            told.append(row)
        elif isinstance(change, Move):
            moved = spi.moved(change, stored)
            if isinstance(moved, Refused):
                return moved
            self.rows[change.id] = moved.row
            self.violations[change.id] = spi.violations_after(change, self.violations.get(change.id, ()))
            told += [moved.row] * moved.is_over
        else:
            if stored is None or spi.TYPE_OF[type(stored)] != change.type:
                return Refused("missing", stored)
            if any(spi.Ref(change.type, change.id) in spi.references_of(other) for other in self.rows.values()):
                return Refused("referenced", stored)
            del self.rows[change.id]
        return None

    def terminated(self, row: Row) -> str | None:
        return spi.terminated(self.rows.get(spi.instance_of(row)))


class JsonStorage:
    """One JSON file, which each read reads whole and each write replaces whole."""

    def __init__(self, path: Path, read_only: bool, wait_s: float) -> None:
        self.path, self.read_only, self.closed = path, read_only, False
        if not path.exists():
            with self.locked(wait_s):
                if not path.exists():
                    self.write(State(spi.new_account(), {}, {}, {}))

    def capabilities(self) -> spi.Capabilities:
        return spi.Capabilities("jsonfile", location=Location("jsonfile", f"jsonfile://{self.path}"))

    def account(self) -> spi.AccountRow:
        return self.read().account

    def apply(self, units, *, stop_at_refusal=False, wait_s=5.0) -> list[spi.Outcome]:
        if self.read_only:
            raise spi.NotPermitted(f"{self.path} was opened to be read only")
        outcomes: list[spi.Outcome] = []
        with self.locked(wait_s):
            state = self.read()
            for unit in units:
                changed = state.copy()  # dropped if the unit is refused, so nothing of it is stored
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
        stored = None if key is None else state.keys.get(json.dumps(key[:2]))
        rows = [state.rows[id] for id in (*ids, stored and stored.subject) if id in state.rows]
        reasons = {spi.instance_of(row): state.terminated(row) for row in rows}
        terminated = {id: reason for id, reason in reasons.items() if reason is not None}
        return spi.Found({row.id: (spi.TYPE_OF[type(row)], row) for row in rows}, stored, terminated)

    def page(self, query: Query) -> spi.Rows:
        return spi.page_of(self.read().rows.values(), query)

    def iter_spans(self, instance_id: str):
        return iter(self.page(Query("agent_span", {"agent_instance_id": instance_id})).rows)

    def counts(self, instance_ids) -> dict[str, spi.SpanCounts]:
        spans = self.page(Query("agent_span")).rows
        by_run = {id: Counter(span.status for span in spans if span.agent_instance_id == id) for id in instance_ids}
        return {id: spi.span_counts(by_status) for id, by_status in by_run.items()}

    def violations(self, span_ids, *, instance_id: str | None = None) -> dict[str, list[spi.Violation]]:
        violations = self.read().violations
        return {id: [*violations.get(id, ())] for id in span_ids}

    def close(self) -> None:
        self.closed = True

    def read(self) -> State:
        """Read the file. That needs no lock, because the file is replaced in one step."""
        if self.closed:
            raise spi.StorageError("the storage is closed; open it again")
        try:
            stored = json.loads(self.path.read_bytes())
            rows = {values[0]: spi.ROWS[type]._make(values) for type, values in stored["rows"]}
            violations = {id: [spi.Violation(*each) for each in found] for id, found in stored["violations"].items()}
            keys = {key: spi.StoredKey(*values) for key, values in stored["keys"].items()}
            return State(spi.AccountRow(*stored["account"]), rows, keys, violations)
        except (OSError, ValueError, LookupError, TypeError) as error:
            raise spi.DatabaseUnusable(f"{self.path} cannot be read: {type(error).__name__}") from error

    def write(self, state: State) -> None:
        """Replace the file; it is on disk when this returns."""
        rows = [[spi.TYPE_OF[type(row)], row] for row in state.rows.values()]
        try:
            with tempfile.NamedTemporaryFile("w", dir=self.path.parent, delete=False) as file:
                json.dump({**vars(state), "rows": rows}, file)
                file.flush()
                os.fsync(file.fileno())
            os.replace(file.name, self.path)
        except OSError as error:
            raise spi.StorageError(f"{self.path} cannot be written: {error.strerror}") from error

    @contextmanager
    def locked(self, wait_s: float):
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
