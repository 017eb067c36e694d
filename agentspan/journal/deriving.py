"""Derives units for the storage from records, with summaries, labels and violations, once for each span.

A span that started and finished in one batch becomes one finished row. The moves of a span that is stored already are
derived by `start`, `update` and `end`, also for a sink that commits each transition.

A batch may be derived in steps, while the storage commits the batch before it.
"""

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from operator import itemgetter
from types import MappingProxyType
from typing import Any, NamedTuple, cast

from pydantic_core import from_json

from agentspan import clock, jsontext
from agentspan.errors import NOT_NOW
from agentspan.host import guard, let_through
from agentspan.journal import records
from agentspan.journal.records import (
    CREATED,
    FINISHED,
    FINISHED_AS,
    HISTORY,
    RAW_BEGIN,
    RAW_END,
    REGISTRATION,
    SEPARATOR,
    STARTED,
    UNIT,
    UPDATED,
    Elements,
    Payload,
    decode_unit,
)
from agentspan.model import columns, spans
from agentspan.model.changes import FinishStatus, Move, Put, PutSpans, Unit, unit_of
from agentspan.model.columns import MARK_IN_TEXT, unwrapped
from agentspan.model.rows import AgentSpanRow, ScoreRow, Violation
from agentspan.model.spans import Times
from agentspan.schemas.span_types import SpanType, describe, title_of
from agentspan.tuning import STANDARD, Tuning

Resolve = Callable[[str, str], SpanType]
"""A function of an instance id and a schema_name that returns the span type."""

_new = tuple.__new__  # see model.spans
_id = itemgetter(0)
_text_of = clock.text_of
_SEPARATOR, _UPDATED = SEPARATOR.encode(), UPDATED.encode()
_WITH_PAYLOAD = frozenset({_UPDATED, FINISHED_AS.encode(), RAW_END.encode()})
_decode = jsontext.decode


class Unreadable(NamedTuple):
    """An undamaged record whose body this version cannot decode."""

    body: bytes
    error: Exception


_CREATED_FIELDS, _FINISHED_FIELDS = 9, 6
_PAYLOAD, _RESULT, _SCHEMA_NAME = _CREATED_FIELDS - 1, _FINISHED_FIELDS - 1, 5


def outdated(bodies: Sequence[bytes]) -> frozenset[int]:
    """Return the indexes of payload updates that a later record replaces: only the last payload of a span is stored."""
    ids = [tuple(body.split(_SEPARATOR, 2)[1:2]) if body[:1] in _WITH_PAYLOAD else None for body in bodies]
    last = {id: number for number, id in enumerate(ids)}
    replaced = [number for number, id in enumerate(ids) if id is not None and last[id] != number]
    return frozenset(number for number in replaced if bodies[number][:1] == _UPDATED)


def _decoded(spans: Sequence[tuple[list[Any], list[Any]]], known: Mapping[str, Any]) -> Iterable[tuple[Any, Any]]:
    """Decode the payloads and results of spans in one call (0.4 µs less each).

    If one text is not valid JSON, None is returned for all, and the caller decodes each by itself.

    Args:
        known: payloads that are decoded already, by the id of the span; None is returned for them.
    """
    texts = [
        f"{'null' if known and created[1] in known else created[_PAYLOAD]},{(ended and ended[_RESULT]) or 'null'}"
        for created, ended in spans
    ]
    try:
        found = from_json(f"[{','.join(texts)}]")
    except ValueError:
        found = []
    if len(found) != 2 * len(spans):
        return [(None, None)] * len(spans)
    return zip(found[::2], found[1::2], strict=True)


class Batch:
    """Turns the bodies of one batch of records into units, in an order in which the storage can apply them.

    Args:
        writer_id: the writer of the records.
        resolve: finds span types.
        elements: the list elements in the earlier records of the same segment.
        agents: the known agent ids by instance id. The mapping may change while a batch is derived.
        knows_types: whether `resolve` needs no storage.
        tuning: sizes of batches.

    Attributes:
        first: units that must be committed before `units` is called.
        unreadable: the records that cannot be decoded. The other records of the batch are not affected.
    """

    def __init__(
        self,
        writer_id: str,
        resolve: Resolve,
        elements: Elements,
        *,
        agents: Mapping[str, str] = MappingProxyType({}),
        knows_types: bool = False,
        tuning: Tuning = STANDARD,
    ) -> None:
        self._knows_types = knows_types
        self._tuning = tuning
        self._writer_id = writer_id
        self._resolve = resolve
        self._elements = elements
        self._agents = agents
        self._payloads: dict[str, Payload] = {}
        self._in_parts = 0
        self._open: dict[str, list[Any]] = {}
        self._unread: dict[str, list[str]] = {}
        self._finished: list[tuple[list[Any], list[Any]]] = []
        self._changes: dict[str, list[list[str]]] = {}
        self._later: list[list[str]] = []
        self._rows: list[AgentSpanRow] = []
        self._violations: list[tuple[str, Violation]] = []
        self._types: dict[tuple[str, str], tuple[SpanType, str]] = {}
        self.first: list[Unit] = []
        self.unreadable: list[Unreadable] = []

    def add(self, bodies: Sequence[bytes]) -> int:
        """Add the bodies of records, and derive the spans that no later record can change.

        A body that cannot be decoded is added to `unreadable`.

        Raises:
            StorageError, MemoryError, OSError: the bodies cannot be added now; add all of them to a new batch.

        Returns:
            the number of bodies that were added. The others need a new batch, because this one is full.
        """
        created, finished = self._open, self._finished
        at_once, most_in_parts = self._tuning.derived_spans, self._tuning.batch_histories_characters
        for number, body in enumerate(bodies, 1):
            try:
                fields: list[Any] = body.decode().split(SEPARATOR)
                kind = fields[0]
                if kind == CREATED and len(fields) == _CREATED_FIELDS:
                    created[fields[1]] = fields
                elif kind == FINISHED and fields[1] in created and len(fields) == _FINISHED_FIELDS:
                    finished.append((created.pop(fields[1]), fields))
                    if len(finished) >= at_once and (self._knows_types or not self.first):
                        self._derive()
                else:
                    self._add_other(kind, fields, body)
                    if self._in_parts > most_in_parts:
                        return number
            except Exception as error:
                self._add_unreadable(error, body)
        return len(bodies)

    def _add_other(self, kind: str, fields: list[str], body: bytes) -> None:
        if kind in (RAW_BEGIN, RAW_END, FINISHED_AS):
            self._add_reported(kind, fields)
            return
        if self._unread and kind not in (UNIT, REGISTRATION) and fields[1] in self._unread:
            self._read_begin(fields[1])
        if kind == HISTORY:
            payload = self._payloads[fields[1]] = self._elements.payload(fields)
            self._open[fields[1]] = [CREATED, *fields[1:_PAYLOAD], payload.text]
            self._in_parts += len(payload.text)
        elif kind == UNIT:
            unit = decode_unit(body[2:].decode())
            change = unit.changes[0]
            if isinstance(change, Put) and not isinstance(change.row, ScoreRow):
                self.first.append(unit)  # a writer, a trace
            else:
                self._later.append([UNIT, body[2:].decode()])
        elif kind == REGISTRATION:
            unit = decode_unit(body[2:].decode())
            if isinstance(unit.changes[-1], Move):  # it renames a run: earlier records of the run must come first
                self._later.append([UNIT, body[2:].decode()])
            else:
                self.first.append(unit)
        elif kind in (STARTED, UPDATED) and fields[1] in self._open:
            self._changes.setdefault(fields[1], []).append(fields)
        elif kind == FINISHED and fields[1] in self._open:
            self._finished.append((self._open.pop(fields[1]), fields))
        elif kind in (STARTED, UPDATED, FINISHED):  # also a change after the end of its span, which is refused later
            self._later.append(fields)
        else:
            raise ValueError("a record of a kind that this version does not know")

    def _add_reported(self, kind: str, fields: list[str]) -> None:
        """Add a raw begin, which is parsed later, or an end that also has the type and the payload."""
        if kind == RAW_BEGIN:
            self._unread[fields[1]] = fields
            return
        _, id, status, at_ns, elapsed_ns, result_text, *learnt = _read_end(fields) if kind == RAW_END else fields
        begun = self._unread.pop(id, None)
        created = self._open.pop(id, None) if begun is None else _created(begun, *learnt)
        if created is None:
            self._later.append([FINISHED_AS, id, status, at_ns, elapsed_ns, result_text, *learnt])
            return
        if id in self._changes:
            self._changes[id] = [change for change in self._changes[id] if change[0] != UPDATED]
        self._payloads.pop(id, None)
        created[_SCHEMA_NAME], created[_PAYLOAD] = learnt
        self._finished.append((created, [FINISHED, id, status, at_ns, elapsed_ns, result_text]))

    def _read_begin(self, id: str) -> None:
        fields = self._unread.pop(id)
        with self._reading(fields):
            self._open[id] = _created(fields, *records.read_begin(*fields[-2:]))

    def units(self, find: Callable[[Iterable[str]], Mapping[str, AgentSpanRow]]) -> list[Unit]:
        """Return the units of all added records, except the units in `first`: one of all new spans, then the moves.

        Args:
            find: returns the stored spans with these ids, for records about spans of earlier batches.
        """
        for id in [*self._unread]:
            self._read_begin(id)
        self._finished += [(created, []) for created in self._open.values()]
        self._open = {}
        self._derive()
        self._rows.sort(key=_id)  # ids grow with time, so the rows are stored in the order of creation
        units = [unit_of(PutSpans(self._rows, self._violations))] if self._rows else []
        ids = {fields[1] for fields in self._later if fields[0] != UNIT}
        stored = dict(find(ids)) if ids else {}
        for each in self._later:
            with self._reading(each):
                units.append(decode_unit(each[1]) if each[0] == UNIT else self._move(each, stored))
        return units

    def _derive(self) -> None:
        """Make the rows of the finished spans of this batch: no later record can change them."""
        finished = self._finished.copy()
        self._finished.clear()
        for (created, ended), (payload, result) in zip(finished, _decoded(finished, self._payloads), strict=True):
            try:
                self._rows.append(self._row(created, ended, payload, result))
            except Exception as error:
                self._add_unreadable(error, created, *self._changes.get(created[1], []), *([ended] if ended else []))

    def _reading(self, record: list[str]) -> "guard[None]":
        return guard(report=lambda error: self._add_unreadable(error, record))

    def _add_unreadable(self, error: Exception, *records: bytes | list[str]) -> None:
        """Add records to `unreadable`. A fault of the storage (NOT_NOW) is raised again instead."""
        let_through(error)
        if isinstance(error, NOT_NOW):
            raise error
        bodies = [each if isinstance(each, bytes) else SEPARATOR.join(each).encode() for each in records]
        self.unreadable += [Unreadable(body, error) for body in bodies]

    def _row(self, created: list[Any], ended: list[Any], payload: Any, result: Any) -> AgentSpanRow:
        """Return the row of a span that this batch creates, as it is at the end of the batch (5 µs)."""
        _, id, instance_id, agent_id, parent_span_id, schema_name, status, created_ns, payload_text = created
        created_at = touched_at = _text_of(created_ns)
        started_at = created_at if status == "active" else None
        if self._changes and id in self._changes:
            for kind, _, touched_ns, *text in self._changes[id]:
                touched_at = _text_of(touched_ns)
                if kind == UPDATED:
                    payload_text, payload = text[0], None
                else:
                    status, started_at = "active", touched_at
        result_text = finished_at = elapsed_ms = None
        if ended:
            _, _, status, ended_ns, elapsed_ns, result_text = ended
            touched_at = finished_at = _text_of(ended_ns)
            elapsed_ms = int(elapsed_ns) / 1_000_000
            if result is None and result_text:
                result = _decode(result_text)
            if status == "cancelled":
                started_at = finished_at
        known = None
        if payload is None:
            known = self._payloads.get(id)
            if known is not None and payload_text is known.text:
                payload = known.value
            else:
                known, payload = None, _decode(payload_text)
        try:
            span_type, title = self._types[instance_id, schema_name]
        except KeyError:  # once a batch
            span_type = self._resolve(instance_id, schema_name)
            title = title_of(span_type, schema_name)
            self._types[instance_id, schema_name] = (span_type, title)
        is_marked = 0
        is_suspect = MARK_IN_TEXT in payload_text if known is None else known.is_suspect
        if is_suspect or (result_text and MARK_IN_TEXT in result_text):
            marked, payload, result = (payload, result), unwrapped(payload), unwrapped(result)
            is_marked = int(payload is not marked[0] or result is not marked[1])
        meaning = describe(span_type, schema_name, status, payload, result, elapsed_ms)
        violations = meaning[-1]
        if violations:
            self._violations += [(id, violation) for violation in violations]
        head = (  # not by spans.created, which also makes a Times and a Put for each row
            id,
            agent_id or self._agents.get(instance_id, ""),
            instance_id,
            parent_span_id or None,
            schema_name,
            title,
            status,
            payload_text,
            result_text or None,
            started_at,
            finished_at,
            elapsed_ms,
            created_at,
            touched_at,
            self._writer_id,
            None,  # closed_by, closed_at, ended_late
            None,
            None,
            is_marked,
        )
        return _new(AgentSpanRow, head + meaning[:-1])

    def _move(self, fields: list[str], stored: dict[str, AgentSpanRow]) -> Unit:
        """Return the move for a record about a span that an earlier batch created.

        Args:
            stored: the stored spans by id. The row of the span is updated, for later records of the batch.
        """
        kind, id = fields[0], fields[1]
        row = stored.get(id)
        payload = {} if row is None else columns.read_payload(row.payload)[0]
        instance_id, schema_name = (None, "custom") if row is None else (row.agent_instance_id, row.schema_name)
        span_type = self._resolve(instance_id or "", schema_name)
        span = id, instance_id, span_type, schema_name
        if kind == STARTED:
            at = _text_of(fields[2])
            if row is not None:
                stored[id] = row._replace(status="active", started_at=at, updated_at=at)
            return unit_of(start(*span, payload, at))
        if kind == UPDATED:
            _, _, at_ns, text = fields
            at = _text_of(at_ns)
            # The later of two times, because the record may be read again after later changes were stored.
            status, at = ("active", at) if row is None else (row.status, max(at, row.updated_at))
            if row is not None:
                stored[id] = row._replace(payload=text, updated_at=at)
            return unit_of(update(*span, status, text, at))
        _, _, status, at_ns, elapsed_ns, result_text, *learnt = fields
        at, learnt_payload = _text_of(at_ns), None
        if learnt:
            schema_name, learnt_payload = learnt
            span = id, instance_id, self._resolve(instance_id or "", schema_name), schema_name
        started_at = at if row is None or status == "cancelled" else row.started_at
        times = Times(started_at, at, int(elapsed_ns) / 1_000_000)
        move = end(*span, cast(FinishStatus, status), payload, result_text or None, times, learnt_payload)
        if row is not None and row.closed_by is not None and row.status == "cancelled" != status:
            move = spans.also_started(move, clock.to_text(int(at_ns) - int(elapsed_ns)))
        return unit_of(move)


def start(id: str, run_id: str | None, span_type: SpanType, schema_name: str, payload: Any, at: str) -> Move:
    """Return the move that makes a pending span active, with its decoded payload."""
    meaning = describe(span_type, schema_name, "active", payload, None, None, (False, False))
    return spans.started(id, started_at=at, meaning=meaning, now=at, also_closed=True, instance_id=run_id)


def update(id: str, run_id: str | None, span_type: SpanType, schema_name: str, status: str, text: str, at: str) -> Move:
    """Return the move that sets the changed payload of an open span."""
    payload, is_marked = columns.read_payload(text)
    meaning = describe(span_type, schema_name, status, payload, None, None, (True, False))
    move = spans.updated(id, payload=text, meaning=meaning, now=at, instance_id=run_id)
    return spans.with_sensitive(move) if is_marked else move


def end(
    id: str,
    run_id: str | None,
    span_type: SpanType,
    schema_name: str,
    status: FinishStatus,
    payload: Any,
    result_text: str | None,
    times: Times,
    learnt: str | None = None,
) -> Move:
    """Return the move that ends a span.

    Args:
        payload: the decoded payload.
        learnt: the payload as JSON text, if it and the type became known at the end; then `payload` does not count.
    """
    result, is_marked = (None, 0) if result_text is None else columns.read_payload(result_text)
    if learnt is not None:
        payload, of_payload = columns.read_payload(learnt)
        is_marked = is_marked or of_payload
    at, elapsed_ms = cast(str, times[1]), times[2]
    meaning = describe(span_type, schema_name, status, payload, result, elapsed_ms, (learnt is not None, True))
    if learnt is None:
        move = spans.finished(id, status, result_text, times, meaning, at, run_id)
    else:
        title = title_of(span_type, schema_name)
        move = spans.finished_as(id, schema_name, title, learnt, status, result_text, times, meaning, at, run_id)
    return spans.with_sensitive(move) if is_marked else move


def _read_end(fields: list[str]) -> list[str]:
    """Parse a raw end; return its fields in the form of a FINISHED_AS record."""
    _, id, at_ns, elapsed_ns, reader, text = fields
    end = records.read_end(reader, text)
    return [FINISHED_AS, id, end.status, at_ns, elapsed_ns, end.result or "", end.schema_name, end.payload]


def _created(fields: list[str], schema_name: str, payload: str) -> list[Any]:
    """Return the fields of a raw begin in the form of a CREATED record, with this parsed type and payload."""
    _, id, instance_id, agent_id, parent_span_id, at_ns, _, _ = fields
    return [CREATED, id, instance_id, agent_id, parent_span_id, schema_name, "active", at_ns, payload]


class BatchInSteps:
    """A batch that is derived step by step from the bodies of records.

    Args:
        bodies: the bodies, in the order of the records.
        new_batch: returns an empty batch.
        at_once: the number of bodies that one step adds.

    Attributes:
        batch: the batch. After `finish` it has the first bodies, as many as it has room for.
    """

    def __init__(
        self,
        bodies: Sequence[bytes],
        new_batch: Callable[[], Batch],
        at_once: int = STANDARD.derived_ahead_records,
    ) -> None:
        self.bodies = bodies
        self._at_once = at_once
        self._new_batch = new_batch
        self._begin()

    def _begin(self) -> None:
        self.batch = self._new_batch()
        self._added = 0
        self._is_full = self._is_broken = False

    def step(self) -> bool:
        """Add the bodies of one step; return whether there are more to add. Never raises a fault.

        If a step fails, `finish` derives the batch again: with less of the stack in use, or after an interrupt.
        """
        with guard():
            is_left = self._go_on(self._at_once)
            self._is_broken = self._is_broken or bool(self.batch.unreadable)  # perhaps only here
            return is_left and not self.batch.unreadable
        return False

    def finish(self) -> None:
        """Add bodies until the batch is full or has all of them.

        Raises:
            StorageError: a span type cannot be looked up now; begin a new batch.
        """
        if self._is_broken:
            self._begin()
        while self._go_on(len(self.bodies)):
            pass

    def rest(self) -> "BatchInSteps":
        """Return a new batch in steps of the bodies that the finished batch had no room for."""
        return BatchInSteps(self.bodies[self._added :], self._new_batch, self._at_once)

    def without(self, numbers: Collection[int]) -> "BatchInSteps":
        """Return a new batch in steps without the bodies at these indexes."""
        left = [body for number, body in enumerate(self.bodies) if number not in numbers]
        return BatchInSteps(left, self._new_batch, self._at_once)

    def _go_on(self, most: int) -> bool:
        if self._is_full or self._is_broken:
            return False
        some = self.bodies[self._added : self._added + most]
        self._is_broken = True  # an exception may come at any line until this is set to False again
        added = self.batch.add(some)
        self._added += added
        self._is_full = added < len(some)
        self._is_broken = False
        return not self._is_full and self._added < len(self.bodies)
