"""From what records say to units for the storage: summaries, labels and violations are derived here, once a span.

A span that started and finished in one batch becomes one row that is finished already.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple, cast

from pydantic_core import from_json

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
_text_of = clock.text_of
_SEPARATOR, _UPDATED = SEPARATOR.encode(), UPDATED.encode()
_decode = jsontext.decode


class Unreadable(NamedTuple):
    """A record that was read whole, and says nothing that this version understands."""

    body: bytes
    error: Exception


_CREATED_FIELDS = 9
_PAYLOAD = _CREATED_FIELDS - 1
_ENDED = _CREATED_FIELDS
"""Where the fields of a record that finishes a span stand behind those of the one that created it."""


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

    Attributes:
        first: what must be in the storage before the units are made, and applied.
        unreadable: records of which nothing can be made; they cost no others.
    """

    def __init__(
        self, writer_id: str, resolve: Resolve, find: Callable[[Iterable[str]], Mapping[str, AgentSpanRow]]
    ) -> None:
        self._writer_id = writer_id
        self._resolve = resolve
        self._find = find
        self._spans: dict[str, list[Any]] = {}
        self._changes: dict[str, list[list[str]]] = {}
        self._later: list[list[str]] = []
        self._types: dict[tuple[str, str], tuple[SpanType, str]] = {}
        self.first: list[Unit] = []
        self.unreadable: list[Unreadable] = []

    def add(self, bodies: Iterable[bytes]) -> None:
        """Take the bodies of records; one that cannot be read is kept apart."""
        spans = self._spans
        for body in bodies:
            try:
                fields: list[Any] = body.decode().split(SEPARATOR)
                kind = fields[0]
                if kind == CREATED and len(fields) == _CREATED_FIELDS:
                    spans[fields[1]] = fields
                elif kind == FINISHED and len(spans.get(fields[1], ())) == _CREATED_FIELDS:
                    spans[fields[1]].append(fields)
                else:
                    self._add_other(kind, fields, body)
            except Exception as error:
                self.unreadable.append(Unreadable(body, error))

    def _add_other(self, kind: str, fields: list[str], body: bytes) -> None:
        if kind == UNIT:
            unit = decode_unit(body[2:].decode())
            if isinstance(unit.changes[0], Put):  # a run that could not be registered at once: its spans need it
                self.first.append(unit)
            else:
                self._later.append([UNIT, body[2:].decode()])
        elif kind in (STARTED, UPDATED) and len(self._spans.get(fields[1], ())) == _CREATED_FIELDS:
            self._changes.setdefault(fields[1], []).append(fields)
        elif kind in (STARTED, UPDATED, FINISHED):  # also what another thread did too late: the storage refuses that
            self._later.append(fields)
        else:
            raise ValueError("a record of a kind that this version does not know")

    def units(self) -> list[Unit]:
        """Return the units of what was added, but for those in `first`."""
        units: list[Unit] = []
        for span, (payload, result) in zip(self._spans.values(), self._decoded(), strict=True):
            try:
                units.append(unit_of(self._put(span, payload, result)))
            except Exception as error:
                records = [span[:_CREATED_FIELDS], *self._changes.get(span[1], []), *span[_ENDED:]]
                self.unreadable += [Unreadable(SEPARATOR.join(each).encode(), error) for each in records]
        ids = {fields[1] for fields in self._later if fields[0] != UNIT}
        stored = dict(self._find(ids)) if ids else {}
        for each in self._later:
            try:
                units.append(decode_unit(each[1]) if each[0] == UNIT else self._move(each, stored))
            except Exception as error:
                self.unreadable.append(Unreadable(SEPARATOR.join(each).encode(), error))
        return units

    def _decoded(self) -> Iterable[tuple[Any, Any]]:
        """Read the payloads and results of all spans at once (0.4 µs less each); None for what `_put` is to read."""
        spans = self._spans.values()
        texts = [text for span in spans for text in (span[_PAYLOAD], span[_ENDED][-1] if len(span) > _ENDED else "")]
        try:
            found = from_json(f"[{','.join([text or 'null' for text in texts])}]")
        except ValueError:
            found = []
        if len(found) != len(texts):
            return [(None, None)] * len(spans)
        return zip(found[::2], found[1::2], strict=True)

    def _put(self, span: list[Any], payload: Any, result: Any) -> Put:
        """Return the row of a span that this batch creates, as it is at the end of the batch (7 µs)."""
        _, id, instance_id, agent_id, parent_span_id, schema_name, status, created_ns, payload_text, *ended = span
        created_at = touched_at = _text_of(created_ns)
        started_at = created_at if status == "active" else None
        if id in self._changes:
            for kind, _, touched_ns, *text in self._changes[id]:
                touched_at = _text_of(touched_ns)
                if kind == UPDATED:
                    payload_text, payload = text[0], None
                else:
                    status, started_at = "active", touched_at
        result_text = finished_at = elapsed_ms = None
        if ended:
            _, _, status, ended_ns, elapsed_ns, result_text = ended[0]
            touched_at = finished_at = _text_of(ended_ns)
            elapsed_ms = int(elapsed_ns) / 1_000_000
            if result is None and result_text:
                result = _decode(result_text)
            if status == "cancelled":
                started_at = finished_at
        if payload is None:
            payload = _decode(payload_text)
        known = self._types.get((instance_id, schema_name))
        if known is None:
            span_type = self._resolve(instance_id, schema_name)
            known = self._types[instance_id, schema_name] = (span_type, title_of(span_type, schema_name))
        span_type, title = known
        meaning = describe(span_type, schema_name, status, payload, result, elapsed_ms, (True, True))
        return spans.created(
            id,
            agent_id,
            instance_id,
            parent_span_id or None,
            schema_name,
            title,
            status,
            payload_text,
            result_text or None,
            _new(Times, (started_at, finished_at, elapsed_ms)),
            meaning,
            created_at,
            self._writer_id,
            True,
            (),
            touched_at,
        )

    def _move(self, fields: list[str], stored: dict[str, AgentSpanRow]) -> Unit:
        """Return the move of a span that an earlier batch created; what it was then is looked up."""
        kind, id = fields[0], fields[1]
        row = stored.get(id)
        payload = {} if row is None else _decode(row.payload)
        instance_id, schema_name = ("", "custom") if row is None else (row.agent_instance_id, row.schema_name)
        span_type = self._resolve(instance_id, schema_name)
        if kind == STARTED:
            at = _text_of(fields[2])
            meaning = describe(span_type, schema_name, "active", payload, None, None, (False, False))
            if row is not None:
                stored[id] = row._replace(status="active", started_at=at, updated_at=at)
            return unit_of(spans.started(id, started_at=at, meaning=meaning, now=at))
        if kind == UPDATED:
            _, _, at_ns, text = fields
            at = _text_of(at_ns)
            # The later time: it may be read again after the span went on.
            status, at = ("active", at) if row is None else (row.status, max(at, row.updated_at))
            meaning = describe(span_type, schema_name, status, _decode(text), None, None, (True, False))
            if row is not None:
                stored[id] = row._replace(payload=text, updated_at=at)
            return unit_of(spans.updated(id, payload=text, meaning=meaning, now=at))
        _, _, status, at_ns, elapsed_ns, result_text = fields
        at, elapsed_ms = _text_of(at_ns), int(elapsed_ns) / 1_000_000
        result = _decode(result_text) if result_text else None
        meaning = describe(span_type, schema_name, status, payload, result, elapsed_ms, (False, True))
        started_at = at if row is None or status == "cancelled" else row.started_at
        times = Times(started_at, at, elapsed_ms)
        return unit_of(spans.finished(id, cast(FinishStatus, status), result_text or None, times, meaning, at))
