"""Sends runs with their spans: new runs in bulk, and of others what differs, which both sides' rows tell."""

from collections.abc import Mapping, Sequence

from agentspan.maintenance.copying_rows import Sender, moved_to
from agentspan.model.changes import Put, PutSpans, Unit, Violation
from agentspan.model.rows import AgentInstanceRow, AgentSpanRow
from agentspan.model.status import OPEN
from agentspan.storage.answers import SpanMark
from agentspan.storage.protocol import Storage
from agentspan.storage.questions import Find, SpanMarks, Violations
from agentspan.storage.scanning import whole_spans_of
from agentspan.tuning import STANDARD

MOST_BYTES = 2 * 2**20
"""Bytes of the payloads of spans that are committed together."""
Marks = Mapping[str, frozenset[SpanMark]]


class RunSender:
    """Sends runs of a source, each as it is at that moment.

    Args:
        sender: what applies rows to the target.
        most_rows: how many runs and spans are committed together.
    """

    def __init__(self, sender: Sender, most_rows: int = STANDARD.copy_commit_rows) -> None:
        self._sender = sender
        self._batch = _Batch(sender, most_rows)
        self.open: set[str] = set()
        """Runs that were open in the source, or had an open span, when they were last sent."""

    def send(self, runs: Sequence[AgentInstanceRow], *, is_thorough: bool) -> None:
        """Send runs. When this returns, they are committed.

        Args:
            is_thorough: whether to compare the spans of runs with open spans one by one. Their payloads may change
                without a difference in marks.
        """
        sender = self._sender
        sender.send_shared(runs)
        ids = [run.id for run in runs]
        # The target first: what is committed in the source in between is sent again, never missed.
        there = sender.target.ask(Find(*ids)).rows
        known = [id for id in ids if id in there]
        target_marks = sender.target.ask(SpanMarks(known))
        marks = sender.source.ask(SpanMarks(ids))
        for run in runs:
            is_open = run.status in OPEN or any(mark.status in OPEN for mark in marks[run.id])
            (self.open.add if is_open else self.open.discard)(run.id)
            if run.id not in there:
                self._batch.add_run(run)
                for spans in whole_spans_of(sender.source, run.id):
                    self._batch.add_spans(spans)
            elif target_marks[run.id] != marks[run.id] or (is_open and is_thorough):
                self._batch.flush()
                self._send_difference(run.id)
        self._batch.flush()
        # Last: a reader of the target should not find a run finished whose spans are still to come.
        if known:
            sender.send([run for run in runs if run.id in there])

    def _send_difference(self, run_id: str) -> None:
        sender = self._sender
        for spans in whole_spans_of(sender.source, run_id):
            stored = _stored(sender.target, spans)
            lacking = [span for span in spans if span.id not in stored]
            self._batch.add_spans(lacking)
            both = [span for span in spans if span.id in stored]
            before = sender.target.ask(Violations([span.id for span in both], instance_id=run_id))
            after = sender.source.ask(Violations([span.id for span in both], instance_id=run_id))
            moves = (moved_to(stored[span.id], sender.renamed(span), before[span.id], after[span.id]) for span in both)
            sender.apply([Unit((move,)) for move in moves if move is not None])
        self._batch.flush()


def _stored(target: Storage, spans: Sequence[AgentSpanRow]) -> dict[str, AgentSpanRow]:
    """Return the spans of a run that the target has, by id."""
    found = target.ask(Find(*(span.id for span in spans), instance_id=spans[0].agent_instance_id)).rows
    return {id: row for id, (_, row) in found.items() if isinstance(row, AgentSpanRow)}


class _Batch:
    """Gathers new runs and their spans until they are worth a commit."""

    def __init__(self, sender: Sender, most_rows: int) -> None:
        self._sender = sender
        self._most_rows = most_rows
        self._runs: list[AgentInstanceRow] = []
        self._spans: list[AgentSpanRow] = []
        self._violations: list[tuple[str, Violation]] = []
        self._bytes = 0

    def add_run(self, run: AgentInstanceRow) -> None:
        self._runs.append(run)
        self._flush_if_full()

    def add_spans(self, spans: Sequence[AgentSpanRow]) -> None:
        """Add spans of one run, with their violations."""
        if not spans:
            return
        found = self._sender.source.ask(Violations([span.id for span in spans], instance_id=spans[0].agent_instance_id))
        self._violations += [(id, violation) for id, some in found.items() for violation in some]
        self._spans += spans
        self._bytes += sum(len(span.payload) + len(span.result_payload or "") for span in spans)
        self._flush_if_full()

    def _flush_if_full(self) -> None:
        if len(self._spans) + len(self._runs) >= self._most_rows or self._bytes >= MOST_BYTES:
            self.flush()

    def flush(self) -> None:
        """Commit what was gathered."""
        units = [Unit((Put(self._sender.renamed(run), minted=True),)) for run in self._runs]
        if self._spans:
            rows = [row for span in self._spans if isinstance(row := self._sender.renamed(span), AgentSpanRow)]
            units.append(Unit((PutSpans(rows, self._violations),)))
        if units:
            self._sender.apply(units)
        self._runs, self._spans, self._violations, self._bytes = [], [], [], 0
