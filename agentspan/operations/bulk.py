"""Several operations in one request: in order, each whole or not at all, and one commit for all of them."""

import logging
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any, NamedTuple, Protocol

from agentspan.errors import AgentspanError, InvalidValue, NotPermitted, RequiredValue, StorageError
from agentspan.interrupts import let_through
from agentspan.operations import envelopes
from agentspan.operations.as_sent import as_sent
from agentspan.operations.context import Context
from agentspan.operations.envelopes import Envelope
from agentspan.operations.json_operations import BULK, READS, JsonOperation
from agentspan.operations.request import MAX_KEY
from agentspan.storage.protocol import Storage

MIN_KEY = 8
MAX_ITEMS = 1000

log = logging.getLogger("agentspan")


class Plan(NamedTuple):
    """The items of a bulk request. Each has a known type and its own key."""

    items: list[tuple[JsonOperation, dict[str, Any], Collection[str]]]
    """Of each: the operation, its fields, and the names of those that came in `details`."""

    @property
    def writes(self) -> bool:
        """True if any item may change something."""
        # No generator: what a signal handler raises while one is dropped is lost.
        return not READS.issuperset([operation for operation, _, _ in self.items])


def plan(items: Any) -> Plan:
    """Check the items of a bulk request before the first one runs.

    Raises:
        InvalidValue, RequiredValue: an item has no usable type or key.
    """
    planned = [_planned(number, item) for number, item in enumerate(_checked(items))]
    keys = {fields["idempotency_key"] for _, fields, _ in planned}
    if len(keys) < len(planned):
        raise InvalidValue("items", "two items have the same idempotency_key")
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
        """See Outputs."""
        assert answer is not None  # it is never full
        self[key] = answer
        return bool(answer["status"] != "error")

    def is_full(self) -> bool:
        """See Outputs."""
        return False


def run(ctx: Context, planned: Plan) -> dict[str, Envelope]:
    """Run the items of a bulk request (see Database.bulk), and return their answers by key."""
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
        for operation, fields, details in planned.items:
            answer = None if outputs.is_full() else _answer(within, operation, fields, details)
            if not outputs.add(fields["idempotency_key"], answer):
                break

    if planned.writes and len(planned.items) > 1:
        storage.group(work, ctx.wait_s)
    else:
        work(storage)


def answers(ctx: Context, planned: Plan) -> Iterator[tuple[str, Envelope]]:
    """Run items that only read, and yield the key and the answer of each; one that is refused is the last."""
    for operation, fields, details in planned.items:
        made = [_answer(ctx, operation, fields, details)]
        is_refused = made[0]["status"] == "error"
        yield fields["idempotency_key"], made.pop()
        if is_refused:
            return


def _answer(ctx: Context, operation: JsonOperation, fields: Mapping[str, Any], details: Collection[str]) -> Envelope:
    try:
        return operation(ctx, fields)
    except (StorageError, NotPermitted):
        raise  # the transaction is lost, and with it what came before; or nothing may be written
    except AgentspanError as error:
        return envelopes.of_error(as_sent(error, details))
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


def _planned(number: int, item: Any) -> tuple[JsonOperation, dict[str, Any], Collection[str]]:
    where = f"items[{number}]"
    if not isinstance(item, Mapping):
        raise InvalidValue(where, "must be an object")
    operation = BULK.get(item.get("_type", "")) if isinstance(item.get("_type"), str) else None
    if operation is None:
        raise InvalidValue(f"{where}._type", f"must be one of {', '.join(BULK)}")
    key = item.get("idempotency_key")
    if not isinstance(key, str) or not MIN_KEY <= len(key) <= MAX_KEY or not key.isprintable():
        raise InvalidValue(f"{where}.idempotency_key", f"must be {MIN_KEY} to {MAX_KEY} printable characters")
    details = item.get("details")
    inner: Mapping[str, Any] = details if isinstance(details, Mapping) else {}
    return operation, {**item, **inner, "idempotency_key": key}, inner
