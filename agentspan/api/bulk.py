"""Several operations in one request: in order, each completely or not at all, and one commit for all of them."""

import logging
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from functools import partial
from typing import Annotated, Any, ClassVar, Literal, NamedTuple

from agentspan.api import agents, envelopes, runs, spans
from agentspan.api.checks import MAX_KEY, as_sent
from agentspan.api.context import Context
from agentspan.api.envelopes import Envelope
from agentspan.api.operation import KEY, Check, Fields, Operation, Route
from agentspan.errors import AgentspanError, InvalidValue, NotPermitted, RequiredValue, StorageError
from agentspan.host import let_through
from agentspan.storage.protocol import Storage

MIN_KEY = 8
"""The least characters of an idempotency key in a bulk request."""
MAX_ITEMS = 1000
"""The most items of a bulk request."""

BULK: Mapping[str, type[Operation]] = {
    "agents/list": agents.ListAgents,
    "agents/show": agents.ShowAgent,
    "agents/create": agents.CreateAgent,
    "agents/update": agents.UpdateAgent,
    "agent_instances/register": runs.RegisterInstance,
    "agent_instances/start": runs.StartInstance,
    "agent_instances/finish": runs.FinishInstance,
    "agent_instances/terminate": runs.TerminateInstance,
    "agent_instances/record_quality": runs.RecordQuality,
    "agent_instances/score": spans.ScoreInstance,
    "agent_spans/create": spans.CreateSpan,
    "agent_spans/start": spans.StartSpan,
    "agent_spans/finish": spans.FinishSpan,
    "agent_spans/list": spans.ListSpans,
    "agent_spans/score": spans.ScoreSpan,
}
"""The operations that a bulk request may hold, by their `_type`."""

log = logging.getLogger("agentspan")


class BulkItem(Fields):
    """One action of a bulk request, with its own fields beside these, or in `details`.

    Attributes:
        _type: which action.
        idempotency_key: unique in the request; it labels the output too.
    """

    others: ClassVar[Literal["ignore", "allow", "forbid"]] = "allow"

    _type: Annotated[str, Check(None, {"json_schema_extra": {"enum": [*BULK]}})]
    idempotency_key: Annotated[str, Check(None, {"min_length": MIN_KEY, "max_length": MAX_KEY})]


class RunBulk(Operation):
    """Several operations, in order; the first that is refused is the last.

    Attributes:
        items: the operations.
    """

    route = Route("POST", "/bulk", "bulk")
    summary = "Run several operations"
    envelope = "BulkOutputs"
    body_name = "Bulk"
    has_body = checks_body = True

    items: Annotated[list[BulkItem], Check(None, {"min_length": 1, "max_length": MAX_ITEMS, "fail_fast": True})]


class Item(NamedTuple):
    """A checked item of a bulk request: its type is known, and no other item has its key.

    Attributes:
        key: the idempotency key of the item, which also labels its answer.
        operation: the class of its operation.
        fields: the fields of the operation.
        details: the names of the fields that came in `details`.
    """

    key: str
    operation: type[Operation]
    fields: dict[str, Any]
    details: Collection[str]


def writes(items: Sequence[Item]) -> bool:
    """Return whether any item may change something."""
    # A list, no generator: an exception of a signal handler is lost while a generator is closed.
    return True in [item.operation.writes for item in items]


def plan(items: Any) -> list[Item]:
    """Check the items of a bulk request before the first one runs.

    Raises:
        InvalidValue, RequiredValue: an item has no usable type or key.
    """
    planned = [_planned(number, item) for number, item in enumerate(_checked(items))]
    keys = {item.key for item in planned}
    if len(keys) < len(planned):
        raise InvalidValue("items", f"two items have the same {KEY}")
    return planned


Add = Callable[[str, Callable[[], Envelope]], bool]
"""Receives the key of an item, and a function that runs the item and returns its answer.

Returns whether the next item may run.
"""


def run(ctx: Context, planned: Sequence[Item]) -> dict[str, Envelope]:
    """Run the items of a bulk request, and return their answers by key."""
    outputs: dict[str, Envelope] = {}

    def add(key: str, answer: Callable[[], Envelope]) -> bool:
        outputs[key] = answer()
        return bool(outputs[key]["status"] != "error")

    run_into(ctx, planned, add)
    return outputs


def run_into(ctx: Context, planned: Sequence[Item], add: Add) -> None:
    """Run the items of a bulk request.

    Each item is a unit of its own: a refused item stores nothing, and the items before it stay. All items share one
    commit, so no item is durable before all are.

    Raises:
        DatabaseBusy, StorageError: nothing is stored.
        NotPermitted: the database was opened read-only, and an item would write.
    """

    def work(lent: Storage) -> None:
        within = ctx.within(lent)
        for item in planned:
            if not add(item.key, partial(_answer, within, item)):
                break

    # Only several writes need a group. Reads need no lock and no writable file; a single item commits itself, and needs
    # the lock in its last step only.
    if writes(planned) and len(planned) > 1:
        ctx.storage.group(work, ctx.wait_s)
    else:
        work(ctx.storage)


def answers(ctx: Context, planned: Sequence[Item]) -> Iterator[tuple[str, Envelope]]:
    """Run items that only read, and yield the key and the answer of each. Stop after the first refused item."""
    for item in planned:
        made = [_answer(ctx, item)]
        is_refused = made[0]["status"] == "error"
        yield item.key, made.pop()
        if is_refused:
            return


def _answer(ctx: Context, item: Item) -> Envelope:
    try:
        return item.operation.of_json(item.fields)(ctx)
    except (StorageError, NotPermitted):
        raise  # the transaction is lost with all items before; or nothing may be written
    except AgentspanError as error:
        return envelopes.of_error(as_sent(error, item.details))
    except Exception as raised:
        let_through(raised)
        log.exception("bulk: an item failed unexpectedly")
        return {"status": "error", "code": "unexpected", "message": "an unexpected fault; the log has more"}


def _checked(items: Any) -> Sequence[Any]:
    if not isinstance(items, Sequence) or isinstance(items, str | bytes):
        raise InvalidValue("items", "must be a list")
    if not items:
        raise RequiredValue("items", "must have at least one item")
    if len(items) > MAX_ITEMS:
        raise InvalidValue("items", f"has {len(items)} items; at most {MAX_ITEMS} are allowed")
    return items


def _planned(number: int, item: Any) -> Item:
    where = f"items[{number}]"
    if not isinstance(item, Mapping):
        raise InvalidValue(where, "must be an object")
    operation = BULK.get(item.get("_type", "")) if isinstance(item.get("_type"), str) else None
    if operation is None:
        raise InvalidValue(f"{where}._type", f"must be one of {', '.join(BULK)}")
    key = item.get(KEY)
    if not isinstance(key, str) or not MIN_KEY <= len(key) <= MAX_KEY or not key.isprintable():
        raise InvalidValue(f"{where}.{KEY}", f"must be {MIN_KEY} to {MAX_KEY} printable characters")
    details = item.get("details")
    inner: Mapping[str, Any] = details if isinstance(details, Mapping) else {}
    return Item(key, operation, {**item, **inner, KEY: key}, inner)
