"""Several operations in one request: in order, each whole or not at all, and one commit for all of them."""

import logging
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Annotated, Any, ClassVar, Literal, NamedTuple, Protocol

from agentspan.api import agents, envelopes, runs, scores, spans
from agentspan.api.checks import MAX_KEY, as_sent
from agentspan.api.context import Context
from agentspan.api.envelopes import Envelope
from agentspan.api.operation import KEY, Check, Fields, Operation, Route
from agentspan.errors import AgentspanError, InvalidValue, NotPermitted, RequiredValue, StorageError
from agentspan.interrupts import let_through
from agentspan.storage.protocol import Storage

MIN_KEY = 8
MAX_ITEMS = 1000

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
    "agent_instances/score": scores.ScoreInstance,
    "agent_spans/create": spans.CreateSpan,
    "agent_spans/start": spans.StartSpan,
    "agent_spans/finish": spans.FinishSpan,
    "agent_spans/list": spans.ListSpans,
    "agent_spans/score": scores.ScoreSpan,
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
    """An item of a bulk request, of a known type and with a key of its own.

    Attributes:
        key: its idempotency key, which labels its answer too.
        operation: the type of its operation.
        fields: those of the operation.
        details: the names of those that came in `details`.
    """

    key: str
    operation: type[Operation]
    fields: dict[str, Any]
    details: Collection[str]


class Plan(NamedTuple):
    """The items of a bulk request."""

    items: list[Item]

    @property
    def writes(self) -> bool:
        """True if any item may change something."""
        # No generator: what a signal handler raises while one is dropped is lost.
        return True in [item.operation.writes for item in self.items]


def plan(items: Any) -> Plan:
    """Check the items of a bulk request before the first one runs.

    Raises:
        InvalidValue, RequiredValue: an item has no usable type or key.
    """
    planned = [_planned(number, item) for number, item in enumerate(_checked(items))]
    keys = {item.key for item in planned}
    if len(keys) < len(planned):
        raise InvalidValue("items", f"two items have the same {KEY}")
    return Plan(planned)


class Outputs(Protocol):
    """Takes the answers to the items of a bulk request, in their order."""

    def add(self, key: str, answer: Envelope | None) -> bool:
        """Take the answer to an item, None if it did not run; return whether the next one may run."""
        ...

    def is_full(self) -> bool:
        """Return whether no further item may run, because of the size of the answers."""
        ...


class OutputsInMemory(dict[str, Envelope]):
    """All answers by the keys of their items."""

    def add(self, key: str, answer: Envelope | None) -> bool:
        """Keep the answer."""
        assert answer is not None  # it is never full
        self[key] = answer
        return bool(answer["status"] != "error")

    def is_full(self) -> bool:
        """Return False: there is no limit."""
        return False


def run(ctx: Context, planned: Plan) -> dict[str, Envelope]:
    """Run the items of a bulk request, and return their answers by key."""
    outputs = OutputsInMemory()
    run_into(ctx, planned, outputs)
    return outputs


def run_into(ctx: Context, planned: Plan, outputs: Outputs) -> None:
    """Run the items of a bulk request.

    Each item is a unit of its own: a refused one stores nothing, and those before it stay. They share a commit, so none
    is durable before all are. If the file is only read, no answer is given for the items: the error is raised.

    Raises:
        DatabaseBusy, StorageError: nothing is stored.
        NotPermitted: the file is only read, and an item would write.
    """
    storage = ctx.storage
    # Reading needs no lock, and no writable file. One item commits itself, and needs the lock in its last step only.

    def work(lent: Storage) -> None:
        within = ctx.within(lent)
        for item in planned.items:
            answer = None if outputs.is_full() else _answer(within, item)
            if not outputs.add(item.key, answer):
                break

    if planned.writes and len(planned.items) > 1:
        storage.group(work, ctx.wait_s)
    else:
        work(storage)


def answers(ctx: Context, planned: Plan) -> Iterator[tuple[str, Envelope]]:
    """Run items that only read, and yield the key and the answer of each; one that is refused is the last."""
    for item in planned.items:
        made = [_answer(ctx, item)]
        is_refused = made[0]["status"] == "error"
        yield item.key, made.pop()
        if is_refused:
            return


def _answer(ctx: Context, item: Item) -> Envelope:
    try:
        return item.operation.of_json(item.fields)(ctx)
    except (StorageError, NotPermitted):
        raise  # the transaction is lost, and with it what came before; or nothing may be written
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
