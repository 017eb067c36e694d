"""The state machine as a law: any sequence of operations, in both backends, does what a three-line model says."""

from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, invariant, rule

import agentspan
from agentspan.errors import InvalidAction
from agentspan.ids import IdSource
from agentspan.storage.memory import MemoryStorage
from agentspan.storage.questions import SpansOf
from agentspan.storage.sqlite import SQLiteStorage
from tests.tiers import examples

REPLACES = {"complete": ("failed", "cancelled"), "failed": ("failed", "cancelled"), "cancelled": ("cancelled",)}
AFTER = {
    ("pending", "start"): "active",
    ("pending", "cancelled"): "cancelled",
    ("active", "complete"): "complete",
    ("active", "failed"): "failed",
}
STATUSES = st.sampled_from(["pending", "active", "complete", "failed", "cancelled"])
FINISHES = st.sampled_from(["complete", "failed", "cancelled"])


class SpanLife(RuleBasedStateMachine):
    """Creates, starts and finishes spans in both backends at once, and compares them with each other and the model."""

    spans = Bundle("spans")

    def __init__(self) -> None:
        super().__init__()
        self.paths = _TemporaryFile()
        self.dbs = [agentspan.open(MemoryStorage()), agentspan.open(SQLiteStorage(self.paths.path))]
        self.runs = [db.agent_instances.start(db.agent_instances.register("a").id).id for db in self.dbs]
        self.run_status, self.run_ended = "active", False
        self.model: dict[str, str] = {}
        self.closed: set[str] = set()
        self.ids = IdSource(1)

    def teardown(self) -> None:
        for db in self.dbs:
            db.close()
        self.paths.remove()

    @rule(target=spans, status=STATUSES)
    def create(self, status: Any) -> str:
        id = self.ids.new()
        for db, run in zip(self.dbs, self.runs, strict=True):
            assert db.agent_spans.create(run, "tool", status, id=id).status == status
        self.model[id] = status
        return id

    @rule(id=spans)
    def start(self, id: str) -> None:
        self._expect(id, "start", lambda db: db.agent_spans.start(id))

    @rule(id=spans, status=FINISHES, key=st.none() | st.sampled_from(["k1", "k2"]))
    def finish(self, id: str, status: Any, key: str | None) -> None:
        key = key and f"{id[-6:]}-{status}-{key}"
        if key is not None and key in self.model:  # the same request again succeeds, whatever the state
            for db in self.dbs:
                assert db.agent_spans.finish(id, status, idempotency_key=key).status == self.model[id]
            return
        if self._expect(id, status, lambda db: db.agent_spans.finish(id, status, idempotency_key=key)) and key:
            self.model[key] = "used"

    @rule()
    def terminate(self) -> None:
        for db, run in zip(self.dbs, self.runs, strict=True):
            try:
                db.agent_instances.terminate(run, "enough")
                assert self.run_status == "active"
            except InvalidAction:
                assert self.run_status != "active"
        if self.run_status == "active":
            self.run_status = "terminated"
            self._close()

    @rule()
    def end_the_run(self) -> None:
        for db, run in zip(self.dbs, self.runs, strict=True):
            try:
                assert db.agent_instances.finish(run).status == (
                    "complete" if self.run_status == "active" else "terminated"
                )
                assert not self.run_ended
            except InvalidAction:
                assert self.run_ended
        if not self.run_ended:
            self.run_ended = True
            if self.run_status == "terminated":
                self._close()
            else:
                self.run_status = "complete"

    def _close(self) -> None:
        for id, status in self.model.items():
            if len(id) == 32 and status in ("pending", "active"):
                self.model[id] = "failed" if status == "active" else "cancelled"
                self.closed.add(id)

    def _expect(self, id: str, action: str, call: Any) -> bool:
        after = AFTER.get((self.model[id], action))
        if id in self.closed and self.model[id] in REPLACES.get(action, ()):  # its own end replaces the close
            after = action
        for db in self.dbs:
            before = db.agent_spans.get(id)
            try:
                assert call(db).status == after
            except InvalidAction:
                assert after is None
                assert db.agent_spans.get(id) == before
        if after is not None:
            self.model[id] = after
            self.closed.discard(id)
        return after is not None

    @invariant()
    def both_backends_hold_what_the_model_says(self) -> None:
        for db, run in zip(self.dbs, self.runs, strict=True):
            found = {span.id: span for span in db.storage.ask(SpansOf(run))}
            assert {id: span.status for id, span in found.items()} == {
                id: status for id, status in self.model.items() if len(id) == 32
            }
            for span in found.values():
                guessed = span.closed_by == "terminated" and not span.ended_late
                assert guessed == (span.id in self.closed)
                assert (span.closed_by is None) == (span.closed_at is None)
                assert (span.started_at is None) == (span.status == "pending")
                assert (span.finished_at is None) == (span.status in ("pending", "active"))
                assert span.started_at is None or span.finished_at is None or span.finished_at >= span.started_at


class _TemporaryFile:
    def __init__(self) -> None:
        import tempfile

        self._folder = tempfile.TemporaryDirectory()
        self.path = f"{self._folder.name}/runs.db"

    def remove(self) -> None:
        self._folder.cleanup()


SpanLife.TestCase.settings = settings(max_examples=examples(40), stateful_step_count=25, deadline=None)
TestSpanLife = SpanLife.TestCase
