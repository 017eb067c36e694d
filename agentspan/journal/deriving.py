"""From what records say to units for the storage: summaries, labels and violations are derived here, once a span.

A span that started and finished in one batch becomes one row that is finished already.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple, cast

from agentspan import clock, jsontext
from agentspan.journal.events import CREATED, FINISHED, SEPARATOR, STARTED, UNIT, UPDATED, decode_unit
from agentspan.model import spans
from agentspan.model.changes import Put, Unit, unit_of
from agentspan.model.rows import AgentSpanRow
from agentspan.model.spans import Times
from agentspan.model.status import FinishStatus
from agentspan.schemas.meaning import describe
from agentspan.schemas.span_types import SpanType, title_of

Resolve = Callable[[str, str], SpanType]
"""Returns the span type of a schema_name in an instance."""

_new = tuple.__new__  # see model.spans
_SEPARATOR, _UPDATED = SEPARATOR.encode(), UPDATED.encode()
_to_text = clock.to_text


class Unreadable(NamedTuple):
    """A record that was read whole, and says nothing that this version understands."""

    body: bytes
    error: Exception


class InstanceRef(NamedTuple):
    """What a span's row says of its instance."""

    agent_id: str
    id: str


class _Span:
    """A span that a batch creates, with what else the batch says of it."""

    __slots__ = ("created", "ended", "payload", "started_ns", "status", "touched_ns")

    def __init__(self, created: list[str]) -> None:
        self.created = created
        self.status = created[6]
        self.payload = created[8]
        self.touched_ns = int(created[7])
        self.started_ns = self.touched_ns if self.status == "active" else 0
        self.ended: list[str] | None = None


def outdated(bodies: Sequence[bytes]) -> frozenset[int]:
    """Tell which payloads later ones replaced: where both are in the storage, only the last is seen."""
    ids = [tuple(body.split(_SEPARATOR, 2)[1:2]) if body[:1] == _UPDATED else None for body in bodies]
    last = {id: number for number, id in enumerate(ids)}
    return frozenset(number for number, id in enumerate(ids) if id is not None and last[id] != number)


class Batch:
    """Turns the bodies of one batch of records into units, in an order that the storage can take.

    Args:
        writer_id: who wrote them.
        resolve: finds span types.
        find: returns the stored spans with some ids, for what happened to spans of earlier batches.
    """

    def __init__(
        self, writer_id: str, resolve: Resolve, find: Callable[[Iterable[str]], Mapping[str, AgentSpanRow]]
    ) -> None:
        self._writer_id = writer_id
        self._resolve = resolve
        self._find = find
        self._spans: dict[str, _Span] = {}
        self._later: list[list[str]] = []
        self.first: list[Unit] = []
        self.unreadable: list[Unreadable] = []

    def add(self, body: bytes) -> None:
        """Take a record's body; one that cannot be read is kept apart."""
        try:
            self._add(body.decode())
        except Exception as error:
            self.unreadable.append(Unreadable(body, error))

    def _add(self, text: str) -> None:
        kind = text[0]
        if kind == UNIT:
            unit = decode_unit(text[2:])
            if isinstance(unit.changes[0], Put):  # a run that could not be registered at once: its spans need it
                self.first.append(unit)
            else:
                self._later.append([UNIT, text[2:]])
            return
        fields = text.split(SEPARATOR)
        if kind == CREATED:
            self._spans[fields[1]] = _Span(fields)
            return
        if kind not in (STARTED, UPDATED, FINISHED):
            raise ValueError("a record of a kind that this version does not know")
        span = self._spans.get(fields[1])
        if span is None or span.ended is not None:  # two threads finished it: the storage refuses the second
            self._later.append(fields)
        elif kind == FINISHED:
            span.status, span.ended = fields[2], fields
        elif kind == UPDATED:
            span.payload, span.touched_ns = fields[3], int(fields[2])
        else:
            span.status = "active"
            span.started_ns = span.touched_ns = int(fields[2])

    def units(self) -> list[Unit]:
        """Return the units of what was added, but for those in `first`, which must be in the storage before."""
        units: list[Unit] = []
        for span in self._spans.values():
            try:
                units.append(unit_of(self._put(span)))
            except Exception as error:  # it must not keep all others from being read
                self._unread(span.created, error)
                if span.ended is not None:
                    self._unread(span.ended, error)
        ids = {fields[1] for fields in self._later if fields[0] != UNIT}
        stored = dict(self._find(ids)) if ids else {}
        for each in self._later:
            try:
                units.append(decode_unit(each[1]) if each[0] == UNIT else self._move(each, stored))
            except Exception as error:
                self._unread(each, error)
        return units

    def _unread(self, fields: list[str], error: Exception) -> None:
        self.unreadable.append(Unreadable(SEPARATOR.join(fields).encode(), error))

    def _put(self, span: _Span) -> Put:
        _, id, instance_id, agent_id, parent_span_id, schema_name, _, created_ns, _ = span.created
        ended, created_at = span.ended, _to_text(int(created_ns))
        result_text: str | None = None
        result: dict[str, Any] | None = None
        if ended is None:
            touched_at = created_at if span.touched_ns == int(created_ns) else _to_text(span.touched_ns)
            times = _new(Times, (_to_text(span.started_ns) if span.started_ns else None, None, None))
        else:
            _, _, _, at_ns, elapsed_ns, result_text = ended
            touched_at = _to_text(int(at_ns))
            if result_text:
                result = jsontext.decode(result_text)
            started_at = _to_text(span.started_ns) if span.status != "cancelled" else touched_at
            times = _new(Times, (started_at, touched_at, int(elapsed_ns) / 1_000_000))
        span_type = self._resolve(instance_id, schema_name)
        meaning = describe(
            span_type, schema_name, span.status, jsontext.decode(span.payload), result, times[2], (True, True)
        )
        return spans.created(
            id,
            _new(InstanceRef, (agent_id, instance_id)),
            parent_span_id or None,
            schema_name,
            title_of(span_type, schema_name),
            span.status,
            span.payload,
            result_text or None,
            times,
            meaning,
            created_at,
            writer_id=self._writer_id,
            minted=True,
            updated_at=touched_at,
        )

    def _move(self, fields: list[str], stored: dict[str, AgentSpanRow]) -> Unit:
        """Return the move of a span that an earlier batch created; what it was then is looked up."""
        kind, id = fields[0], fields[1]
        row = stored.get(id)
        payload = {} if row is None else jsontext.decode(row.payload)
        instance_id, schema_name = ("", "custom") if row is None else (row.agent_instance_id, row.schema_name)
        span_type = self._resolve(instance_id, schema_name)
        if kind == STARTED:
            at = _to_text(int(fields[2]))
            meaning = describe(span_type, schema_name, "active", payload, None, None, (False, False))
            if row is not None:
                stored[id] = row._replace(status="active", started_at=at, updated_at=at)
            return unit_of(spans.started(id, started_at=at, meaning=meaning, now=at))
        if kind == UPDATED:
            _, _, at_ns, text = fields
            at = _to_text(int(at_ns))
            # The later time: it may be read again after the span went on.
            status, at = ("active", at) if row is None else (row.status, max(at, row.updated_at))
            meaning = describe(span_type, schema_name, status, jsontext.decode(text), None, None, (True, False))
            if row is not None:
                stored[id] = row._replace(payload=text, updated_at=at)
            return unit_of(spans.updated(id, payload=text, meaning=meaning, now=at))
        _, _, status, at_ns, elapsed_ns, result_text = fields
        at, elapsed_ms = _to_text(int(at_ns)), int(elapsed_ns) / 1_000_000
        result = jsontext.decode(result_text) if result_text else None
        meaning = describe(span_type, schema_name, status, payload, result, elapsed_ms, (False, True))
        started_at = at if row is None or status == "cancelled" else row.started_at
        times = Times(started_at, at, elapsed_ms)
        return unit_of(spans.finished(id, cast(FinishStatus, status), result_text or None, times, meaning, at))
