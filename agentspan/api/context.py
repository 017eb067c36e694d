"""The context of an operation: a storage, its ids, the span types of its instances, and the loop that commits."""

from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple, ParamSpec, Protocol, TypeVar

from agentspan import clock, ids, jsontext
from agentspan.errors import (
    AgentspanError,
    DatabaseBusy,
    IdempotencyKeyAlreadyUsed,
    InvalidAction,
    NotFound,
    NotPermitted,
)
from agentspan.journal.stored_span_types import StoredSpanTypes
from agentspan.model import schema_versions, sensitive
from agentspan.model.changes import Applied, Key, KeyTaken, Outcome, Refused, Replayed, Unit
from agentspan.model.refusals import refuse_violations
from agentspan.model.rows import (
    AccountRow,
    AgentInstanceRow,
    AgentRow,
    AgentSpanRow,
    Row,
    Value,
    Violation,
    instance_of,
)
from agentspan.model.schema_versions import SpanTypeSchema
from agentspan.model.status import PURPOSES
from agentspan.schemas.span_types import Registry
from agentspan.storage.answers import Found
from agentspan.storage.lookup import expect
from agentspan.storage.protocol import Storage
from agentspan.storage.questions import Account, Find

R = TypeVar("R", bound=Row)
P = ParamSpec("P")
T = TypeVar("T")

_new = tuple.__new__  # see model.spans
ATTEMPTS = 20


class Done(NamedTuple):
    """The resource of an operation as it is now, and the reason if its instance is terminated."""

    row: Row
    terminated: str | None

    @property
    def control(self) -> str | None:
        """The reason for the control signal: of spans, and of ends of instances; None where there is none."""
        row = self.row
        tells = isinstance(row, AgentSpanRow) or (isinstance(row, AgentInstanceRow) and row.ended_late)
        return self.terminated if tells else None


class Plan(NamedTuple):
    """An operation that is one commit, before anything is read for it.

    Attributes:
        wanted: ids to find; None is skipped.
        key: its idempotency key.
        decide: the model's part: makes a unit with a subject from the found rows and the time, or raises.
        kept: rows that the first attempt uses instead of reading.
        instance_id: the run that all wanted spans and runs are of (see Storage.find).
    """

    wanted: tuple[str | None, ...]
    key: Key | None
    decide: Callable[[Found, str], Unit]
    kept: Found | None = None
    instance_id: Any = None

    def ids(self) -> list[str]:
        """Return the ids to find that can be one."""
        return [id for id in self.wanted if id is not None and ids.is_pfid(id)]


class Redacts(Protocol):
    """Keeps credentials out of what is stored; recording.capture.sent has one.

    Attributes:
        suspicious: tells of a JSON text whether there may be a credential in it, or a value marked as sensitive.
    """

    suspicious: Callable[[str], bool]

    def text(self, text: str) -> str:
        """Return a text without them."""
        ...

    def object(self, text: str, plain: Any) -> tuple[str, Any]:
        """Return JSON without them, as text and parsed; it is given in both forms, too."""
        ...


class Admitted(NamedTuple):
    """A payload as it may be stored.

    Attributes:
        text: JSON text, to be stored.
        plain: the same, parsed, without the wrappers of sensitive values: to be checked and summed up.
        is_marked: 1 if values in it are marked as sensitive, else 0.
    """

    text: str
    plain: Any
    is_marked: int


class Context:
    """One opened storage, with the state and settings that operations need.

    Args:
        strict_schemas: refuse payloads that do not match their schema, instead of recording the mismatch.
        wait_s: how long a write may wait for other writers.
        read_only: refuse every write, also one that would change nothing.
        redacts: what keeps credentials out of what is stored; None for nothing.
        keep_sensitive: store the values that are marked as sensitive (see model.sensitive).
        piece_bytes: characters of a span's payloads, or of a page, from which an answer is made in pieces (see
            envelopes.InPieces); None for never.
    """

    def __init__(
        self,
        storage: Storage,
        *,
        strict_schemas: bool = False,
        wait_s: float = 5.0,
        read_only: bool = False,
        redacts: Redacts | None = None,
        keep_sensitive: bool = False,
        piece_bytes: int | None = None,
    ) -> None:
        self.storage = storage
        self.piece_bytes = piece_bytes
        self._read_only = read_only
        self._redacts = redacts
        self._suspicious = None if redacts is None else redacts.suspicious
        self._keep_sensitive = keep_sensitive
        self.strict_schemas = strict_schemas
        self.wait_s = wait_s
        self.account: AccountRow = storage.ask(Account())
        self.ids = ids.IdSource(self.account.partition)
        self.stored_span_types = StoredSpanTypes()

    def within(self, storage: Storage) -> "Context":
        """Return the same context over another view of its storage, such as a group."""
        context = object.__new__(Context)
        context.__dict__.update(self.__dict__)  # copy.copy takes four times as long
        context.storage = storage
        return context

    def admit(self, text: str, plain: Any) -> Admitted:
        """Return a payload as it may be stored. Call it after the request's hash is made, which is of what was sent.

        Args:
            text, plain: JSON in both forms (see request.json_value).
        """
        if self._suspicious is not None and not self._suspicious(text):  # the common case
            return _new(Admitted, (text, plain, 0))
        is_marked = 0
        if sensitive.IN_TEXT in text:
            is_marked = int(sensitive.unwrapped(plain) is not plain)
            if is_marked and not self._keep_sensitive:
                plain = sensitive.masked(plain)
                text = jsontext.encode(plain)[0]
        if self._redacts is not None:
            text, plain = self._redacts.object(text, plain)
        return Admitted(text, sensitive.unwrapped(plain) if is_marked else plain, is_marked)

    def admit_text(self, text: str) -> str:
        """Return a text as it may be stored."""
        return text if self._redacts is None else self._redacts.text(text)

    def admit_types(self, schemas: Sequence[SpanTypeSchema]) -> Sequence[SpanTypeSchema]:
        """Return span types or quality schemas as they may be stored."""
        if self._redacts is None or self._suspicious is None or not self._suspicious(jsontext.text_of(schemas)):
            return schemas
        return schema_versions.admitted(schemas, self._redacts.text)

    def registry_of(self, instance_id: str) -> Registry:
        """Return the span types that an instance was registered with.

        Raises:
            NotFound: no instance has this id.
        """
        return self.stored_span_types.of(self.storage, instance_id)

    def keep(self, instance: AgentInstanceRow) -> AgentInstanceRow:
        """Cache an instance, and return it."""
        return self.stored_span_types.keep(instance)

    def kept(self, instance_id: Any) -> Found | None:
        """Return a cached instance, or None.

        Its unchanging columns are correct unless the file was replaced, or its registration was rolled back. Add a
        guard that its agent exists.
        """
        row = self.stored_span_types.kept(instance_id) if isinstance(instance_id, str) else None
        return None if row is None else Found({row.id: ("agent_instance", row)})

    def purpose_of(self, span: AgentSpanRow) -> str:
        """Return the purpose of a span's instance."""
        kept = self.stored_span_types.kept(span.agent_instance_id)
        return self.purposes_of([span])[span.agent_instance_id] if kept is None else kept.purpose

    def purposes_of(self, spans: Iterable[AgentSpanRow]) -> dict[str, str]:
        """Return the purposes of the instances of spans, by the instance's id. Cached: a purpose never changes."""
        kept = {span.agent_instance_id: self.stored_span_types.kept(span.agent_instance_id) for span in spans}
        unknown = [id for id, row in kept.items() if row is None]
        if unknown:
            hint = unknown[0] if len(unknown) == 1 else None
            for _, row in self.storage.ask(Find(*unknown, instance_id=hint)).rows.values():
                if isinstance(row, AgentInstanceRow):
                    kept[row.id] = self.keep(row)
        return {id: PURPOSES[0] if row is None else row.purpose for id, row in kept.items()}

    def row(self, row_type: type[R], id: Any) -> R:
        """Return the row of an id.

        Raises:
            NotFound: nothing has this id.
            UnexpectedRefType: it names another type of resource.
        """
        run_id = id if row_type is AgentInstanceRow else None
        return expect(self.storage.ask(Find(id, instance_id=run_id)) if ids.is_pfid(id) else _NOTHING, row_type, id)

    def where_agent(self, agent_id: Any) -> dict[str, Value]:
        """Return the filter for rows of an agent; None for all."""
        return {} if agent_id is None else {"agent_id": self.row(AgentRow, agent_id).id}

    def check_environment(self, environment_id: Any) -> None:
        """Check the id of an environment. A storage has one, so a filter by it matches everything; None is fine.

        Raises:
            NotFound: the id is of no environment.
        """
        if environment_id is not None and environment_id != self.account.environment_id:
            raise NotFound(f"no environment has this id; the only one is {self.account.environment_id}")

    def check_strict(self, violations: tuple[Violation, ...], schema_name: str) -> None:
        """Raise for violations in strict mode.

        Raises:
            ValidationErrors: there are violations, and `strict_schemas` is True.
        """
        if self.strict_schemas:
            refuse_violations(violations, schema_name)

    def check_writable(self) -> None:
        """Refuse to write, before anything is read: a write may be refused for another reason, or be done already.

        Raises:
            NotPermitted: the database was opened to be read only.
        """
        if self._read_only:
            raise NotPermitted("this database was opened with read_only=True")

    def carry_out(self, plan: Plan, *, again: bool = False) -> Done:
        """Find, decide, apply. A refused unit is decided again on fresh rows, so that the model makes the error.

        The first attempt does not look for the key: it is new nearly always, and apply looks for it anyway. It raises
        no error, so that a replay is answered as one whatever happened to its resource.

        Args:
            again: the first attempt was made already.
        """
        self.check_writable()
        run_id = plan.instance_id if ids.is_pfid(plan.instance_id) else None
        for attempt in range(int(again), ATTEMPTS):
            if attempt or plan.kept is None:
                found = self.storage.ask(Find(*plan.ids(), key=plan.key if attempt else None, instance_id=run_id))
            else:
                found = plan.kept
            decided = self.decided(plan, found, is_first=not attempt)
            if isinstance(decided, Done):
                return decided
            done = None if decided is None else done_of(plan, self.storage.apply([decided], wait_s=self.wait_s)[0])
            if done is not None:
                return done
        raise DatabaseBusy(f"other writers changed the same rows {ATTEMPTS} times in between; try again")

    def decided(self, plan: Plan, found: Found, *, is_first: bool) -> Unit | Done | None:
        """Return the unit of a plan; what an earlier request with its key did; None where that may be to be found."""
        key = plan.key
        if key is not None and found.key is not None:
            if found.key.request_hash != key.request_hash:
                raise _key_taken(key)
            located = found.rows.get(found.key.subject)
            if located is None:
                raise NotFound(f"what the {key.operation} request with this idempotency key made was deleted since")
            return Done(located[1], _terminated(found))
        try:
            return plan.decide(found, clock.now())
        except AgentspanError as error:
            if is_first and (key is not None or plan.kept is not None):
                return None
            if isinstance(error, InvalidAction):
                error.terminated = _terminated(found)
            raise


def carry_out_together(ctx: Context, plans: Sequence[Plan]) -> list[Done | Exception | None]:
    """Carry out plans of several callers in one reading and one commit, so that they share the round trips of both.

    Each has its own outcome, as if it had been alone.

    Returns:
        For each plan what was done, or its error; None where it has to be carried out again, alone.

    Raises:
        StorageError: nothing is stored (after InDoubt, it may be). Each can be carried out alone then.
    """
    ctx.check_writable()
    ids = {id for plan in plans if plan.kept is None for id in plan.ids()}
    found = ctx.storage.ask(Find(*ids)) if ids else Found({})
    results: list[Done | Exception | None] = [None] * len(plans)
    units: list[tuple[int, Unit]] = []
    for place, plan in enumerate(plans):
        decided = attempted(ctx.decided, plan, plan.kept or _part_of(found, plan), is_first=True)
        if isinstance(decided, Unit):
            units.append((place, decided))
        elif isinstance(decided, Exception):
            results[place] = decided
    outcomes = ctx.storage.apply([unit for _, unit in units], wait_s=ctx.wait_s) if units else []
    for (place, _), outcome in zip(units, outcomes, strict=True):
        results[place] = attempted(done_of, plans[place], outcome)
    return results


def attempted(operation: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T | Exception:
    """Return what an operation returns, or the exception that it raises: a refusal, or a bug, costs no other one."""
    try:
        return operation(*args, **kwargs)
    except Exception as error:
        return error


def _part_of(found: Found, plan: Plan) -> Found:
    """Return what a plan would have found alone."""
    rows = {id: found.rows[id] for id in plan.ids() if id in found.rows}
    if not found.terminated:
        return Found(rows)
    runs = {instance_of(row) for type_, row in rows.values() if type_ in ("agent_instance", "agent_span")}
    return Found(rows, None, {run: reason for run, reason in found.terminated.items() if run in runs})


def done_of(plan: Plan, outcome: Outcome) -> Done | None:
    """Return what was done; None where the unit was refused, so that it has to be decided again.

    Raises:
        IdempotencyKeyAlreadyUsed: another request had the key.
    """
    match outcome:
        case Applied(subject, terminated) | Replayed(subject, terminated):
            assert subject is not None
            return Done(subject, terminated)
        case KeyTaken():
            assert plan.key is not None
            raise _key_taken(plan.key)
        case Refused():
            return None


_NOTHING = Found({})


def _terminated(found: Found) -> str | None:
    return next(iter(found.terminated.values()), None)


def _key_taken(key: Key) -> IdempotencyKeyAlreadyUsed:
    return IdempotencyKeyAlreadyUsed(
        f"an idempotency key was used before for another {key.operation} request; use a new key for a new request"
    )
