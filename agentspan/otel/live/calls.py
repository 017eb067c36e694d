"""Calls of a model that several instrumentors of this process recorded: found when the trace around them ends."""

import threading
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import takewhile
from typing import Any

from agentspan import clock, jsontext
from agentspan.journal.parts import whole
from agentspan.model import sensitive, spans
from agentspan.model.changes import Unit, unit_of
from agentspan.otel.duplicates import Call, call_of, distance, duplicates, marked, merged
from agentspan.otel.mapping.mapped import Mapped, map_span
from agentspan.otel.sdk import span_of
from agentspan.recording.recorder import Recorder
from agentspan.recording.span_and_run import Span
from agentspan.schemas.meaning import describe
from agentspan.schemas.span_types import title_of

MOST = 256
"""Calls of a run that are compared, the latest ones. Their attributes are kept as long."""


@dataclass(slots=True)
class _Seen:
    node: Span
    span: Any
    mapped: Mapped | None = None
    call: Call | None = None

    def read(self) -> None:
        """Map the span, once: most runs have one instrumentor, and need none of this."""
        if self.mapped is None:
            plain = span_of(self.span)
            mapped = map_span(plain)
            call = call_of(plain, mapped)
            if call is not None:
                self.call = call._replace(id=self.node.id, parent=self.node.parent_span_id)
            self.mapped = mapped  # last: another thread may settle the same calls


class Calls:
    """The calls of one run."""

    def __init__(self, recorder: Recorder) -> None:
        self._recorder = recorder
        self._seen: deque[_Seen] = deque(maxlen=MOST)
        self._kept: dict[str, str] = {}
        self._lock = threading.RLock()

    def note(self, node: Span, span: Any, *, is_late: bool) -> None:
        """Note a span that has ended, and may be a call.

        Args:
            is_late: whether others that ended after it may have been noted.
        """
        self._seen.append(_Seen(node, span))
        if is_late:
            self._seen = deque(sorted(self._seen.copy(), key=lambda each: each.span.end_time), MOST)

    def _since(self, since_ns: int) -> list[_Seen]:
        """Return what ended after this time, the latest first."""
        return [*takewhile(lambda each: each.span.end_time >= since_ns, reversed(self._seen.copy()))]

    def like(self, call: Call) -> Iterator[tuple[tuple[int, int], Span]]:
        """Yield the nodes of calls that may be the same as one of another instrumentor, and how far they are from it.

        A call of which that instrumentor told already is left out.
        """
        seen = self._since(call.start_ns)
        for each in seen:
            each.read()
        told = {each.call.parent for each in seen if each.call is not None and each.call.scope == call.scope}
        for each in seen:
            other = each.call
            if other is not None and other.id not in told and (near := distance(call, other)) is not None:
                yield near, each.node

    def settle(self, since_ns: int) -> None:
        """Mark the duplicates among the calls that ended after this time, and complete those that are kept."""
        with self._lock:  # what one thread found first must not be written last
            self._settle(since_ns)

    def renew(self) -> None:
        """In a forked child: another thread of the parent may have held the lock."""
        self._lock = threading.RLock()

    def _settle(self, since_ns: int) -> None:
        seen = self._since(since_ns)
        if len(seen) < 2 or not _may_repeat(seen):
            return
        for each in seen:
            each.read()
        by_id = {each.node.id: each for each in seen}
        found = duplicates(each.call for each in seen if each.call is not None)
        new = {twin: kept for twin, kept in found.items() if self._kept.get(twin) != kept}
        self._kept = new if len(self._kept) > MOST else self._kept | new
        for kept_id in sorted(set(new.values())):
            twins = [twin for twin, kept in found.items() if kept == kept_id]
            self._write(by_id[kept_id], [by_id[twin] for twin in twins])

    def _write(self, kept: _Seen, twins: list[_Seen]) -> None:
        assert kept.mapped is not None
        whole = merged(kept.mapped, [twin.mapped for twin in twins if twin.mapped is not None])
        self._retell(kept, whole)
        for twin in twins:
            assert twin.mapped is not None
            self._retell(twin, marked(twin.mapped, whole, kept.node.id))

    def _retell(self, seen: _Seen, mapped: Mapped) -> None:
        self._recorder.out.write(_retold(self._recorder, seen, mapped))


def _may_repeat(seen: list[_Seen]) -> bool:
    scopes = {each.span.instrumentation_scope.name for each in seen if each.span.instrumentation_scope is not None}
    ids = {each.node.id for each in seen}
    return len(scopes) > 1 or any(each.node.parent_span_id in ids for each in seen)


def _retold(recorder: Recorder, seen: _Seen, mapped: Mapped) -> Unit:
    node, capture = seen.node, recorder.capture
    payload = whole(capture.object(mapped.payload, node.run.repeats))
    result = None if mapped.result_payload is None else capture.object(mapped.result_payload)
    name = capture.text(mapped.schema_name)
    span_type = recorder.registry.resolve(name)
    decoded, is_marked = sensitive.read(payload)
    returned = None if result is None else jsontext.decode(result)
    elapsed_ms = (seen.span.end_time - node.started_ns) / 1_000_000
    meaning = describe(span_type, name, mapped.status, decoded, returned, elapsed_ms)
    at = clock.to_text(max(seen.span.end_time, node.started_ns))
    move = spans.retold(node.id, name, title_of(span_type, name), payload, result, meaning, at)._replace(
        instance_id=node.run.id
    )
    return unit_of(spans.with_sensitive(move) if is_marked else move)
