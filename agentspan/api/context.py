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
from agentspan.journal.names import StoredSpanTypes
from agentspan.model import columns, registration
from agentspan.model.changes import (
    PURPOSES,
    Applied,
    Key,
    KeyTaken,
    Outcome,
    Refused,
    Replayed,
    Unit,
    refuse_violations,
)
from agentspan.model.registration import SpanTypeSchema
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
from agentspan.schemas.span_types import Registry
from agentspan.storage.access import expect
from agentspan.storage.answers import Found
from agentspan.storage.protocol import Storage
from agentspan.storage.questions import Account, Find

R = TypeVar("R", bound=Row)
P = ParamSpec("P")
T = TypeVar("T")

_new = tuple.__new__  # 0.1 µs; a named tuple's own constructor takes 0.25
ATTEMPTS = 20


class Done(NamedTuple):
    """The result of an operation: its resource as it is now, and the reason if the instance was terminated, or None."""

    row: Row
    terminated: str | None

    @property
    def control(self) -> str | None:
        """The reason for the control signal `terminate`: for spans, and for late ends of instances; else None."""
        row = self.row
        tells = isinstance(row, AgentSpanRow) or (isinstance(row, AgentInstanceRow) and row.ended_late)
        return self.terminated if tells else None


class Plan(NamedTuple):
    """An operation of one commit, before its rows are read.

    Attributes:
        wanted: ids of the rows to find; None is skipped.
        key: the idempotency key of the operation.
        decide: returns a unit with a subject, from the found rows and the current time, or raises the API's error.
        kept: cached rows that the first attempt uses instead of a read.
        instance_id: the run of all wanted spans and runs, so that a storage partitioned by run reads one partition.
    """

    wanted: tuple[str | None, ...]
    key: Key | None
    decide: Callable[[Found, str], Unit]
    kept: Found | None = None
    instance_id: Any = None

    def ids(self) -> list[str]:
        """Return the wanted ids that have the form of an id."""
        return [id for id in self.wanted if id is not None and ids.is_pfid(id)]


class Redacts(Protocol):
    """Removes credentials from data to be stored; recording.capture.sent implements it.

    Attributes:
        suspicious: returns whether a JSON text may contain a credential, or a value marked as sensitive.
        suspicious_among: returns the indexes of the suspicious texts in a list, in less time than a call of
            `suspicious` for each.
    """

    suspicious: Callable[[str], bool]
    suspicious_among: Callable[[Sequence[str]], list[int]]

    def text(self, text: str) -> str:
        """Return a text without credentials."""
        ...

    def cleaned(self, plain: Any) -> tuple[str, Any]:
        """Remove credentials from parsed JSON whose text is suspicious. Return the rest as text and as parsed JSON."""
        ...


class Admitted(NamedTuple):
    """A payload after redaction, ready to be stored.

    Attributes:
        text: the JSON text to be stored.
        plain: the parsed payload without the wrappers of sensitive values, for checks and summaries.
        is_marked: 1 if values of the payload are marked as sensitive, else 0.
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
        redacts: removes credentials from data to be stored; None removes none.
        keep_sensitive: store the values that are marked as sensitive (see model.columns).
        piece_bytes: the characters of a span's payloads, or of a page, above which an answer is made in pieces (see
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
        """Return a copy of the context that uses another view of its storage, such as a group."""
        context = object.__new__(Context)
        context.__dict__.update(self.__dict__)  # copy.copy takes four times as long
        context.storage = storage
        return context

    def admit(self, text: str, plain: Any) -> Admitted:
        """Return a payload without credentials, and with sensitive values masked unless the context keeps them.

        Call it after hashing the request, because the hash is of the values that the client sent.

        Args:
            text, plain: the payload as JSON text and parsed (see checks.json_value).
        """
        if self._suspicious is not None and not self._suspicious(text):  # the common case
            return _new(Admitted, (text, plain, 0))
        return self.admit_doubtful(text, plain)

    def admit_all(self, contents: Sequence[tuple[str, Any]]) -> list[Admitted]:
        """Return payloads as `admit` does, from JSON texts and their values. Many at once take a third of the time."""
        admitted = [_new(Admitted, (*content, 0)) for content in contents]
        for place in self.doubtful([text for text, _ in contents]):
            admitted[place] = self.admit_doubtful(*contents[place])
        return admitted

    def admit_doubtful(self, text: str, plain: Any) -> Admitted:
        """Do the same as `admit` for a payload whose text is known to be doubtful (see `doubtful`)."""
        is_marked, is_doubtful = 0, True
        if columns.MARK_IN_TEXT in text:
            is_marked = int(columns.unwrapped(plain) is not plain)
            if is_marked and not self._keep_sensitive:
                plain = columns.masked(plain)
                text = jsontext.encode(plain)[0]
                is_doubtful = self._suspicious is not None and self._suspicious(text)
        if self._redacts is not None and is_doubtful:
            text, plain = self._redacts.cleaned(plain)
        return Admitted(text, columns.unwrapped(plain) if is_marked else plain, is_marked)

    def doubtful(self, texts: Sequence[str]) -> list[int]:
        """Return the indexes of the JSON texts that `admit` may change; all others are admitted as they are."""
        if self._redacts is None:
            return [place for place, text in enumerate(texts) if columns.MARK_IN_TEXT in text]
        return self._redacts.suspicious_among(texts)

    def admit_text(self, text: str) -> str:
        """Return a text without credentials, as it may be stored."""
        return text if self._redacts is None else self._redacts.text(text)

    def admit_types(self, schemas: Sequence[SpanTypeSchema]) -> Sequence[SpanTypeSchema]:
        """Return span types or quality schemas without credentials, as they may be stored."""
        if self._redacts is None or self._suspicious is None or not self._suspicious(jsontext.text_of(schemas)):
            return schemas
        return registration.admitted(schemas, self._redacts.text)

    def registry_of(self, instance_id: str) -> Registry:
        """Return the span types that an instance was registered with.

        Raises:
            NotFound: no instance has this id.
        """
        types = self.stored_span_types
        row = types.instances.get(instance_id)
        found = None if row is None else types.registries.get(row.agent_schema_version_id)
        return types.of(self.storage, instance_id) if found is None else found

    def kept(self, instance_id: Any) -> Found | None:
        """Return a cached instance as found rows; None if it is not cached.

        Columns that never change are correct, unless the file was replaced or the registration was rolled back. So a
        caller adds a guard that the agent exists.
        """
        row = self.stored_span_types.instances.get(instance_id) if isinstance(instance_id, str) else None
        return None if row is None else Found({row.id: ("agent_instance", row)})

    def purpose_of(self, span: AgentSpanRow) -> str:
        """Return the purpose of a span's instance."""
        kept = self.stored_span_types.instances.get(span.agent_instance_id)
        return self.purposes_of([span])[span.agent_instance_id] if kept is None else kept.purpose

    def purposes_of(self, spans: Iterable[AgentSpanRow]) -> dict[str, str]:
        """Return the purposes of the instances of spans, by the instance's id. Cached: a purpose never changes."""
        kept = {span.agent_instance_id: self.stored_span_types.instances.get(span.agent_instance_id) for span in spans}
        unknown = [id for id, row in kept.items() if row is None]
        if unknown:
            hint = unknown[0] if len(unknown) == 1 else None
            for _, row in self.storage.ask(Find(*unknown, instance_id=hint)).rows.values():
                if isinstance(row, AgentInstanceRow):
                    kept[row.id] = self.stored_span_types.keep(row)
        return {id: PURPOSES[0] if row is None else row.purpose for id, row in kept.items()}

    def row(self, row_type: type[R], id: Any) -> R:
        """Return the row of an id.

        Raises:
            NotFound: nothing has this id.
            UnexpectedRefType: the id names another type of resource.
        """
        run_id = id if row_type is AgentInstanceRow else None
        return expect(self.storage.ask(Find(id, instance_id=run_id)) if ids.is_pfid(id) else _NOTHING, row_type, id)

    def where_agent(self, agent_id: Any) -> dict[str, Value]:
        """Return the filter for rows of an agent, or of all agents for None."""
        return {} if agent_id is None else {"agent_id": self.row(AgentRow, agent_id).id}

    def check_environment(self, environment_id: Any) -> None:
        """Check the id of an environment; None is accepted. A storage has one environment, so it is no filter.

        Raises:
            NotFound: no environment has this id.
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
        """Refuse a write before anything is read: later, another error or a replay could come first.

        Raises:
            NotPermitted: the database was opened read-only.
        """
        if self._read_only:
            raise NotPermitted("this database was opened with read_only=True")

    def carry_out(self, plan: Plan) -> Done:
        """Find rows, decide a unit, apply it. Decide a refused unit again on fresh rows, so that the model raises.

        The first attempt does not look for the key: it is new nearly always, and `apply` looks for it anyway. With a
        key, the first attempt raises no error, so that a replay gets its answer whatever happened to the resource.

        Raises:
            DatabaseBusy: other writers changed the same rows at every attempt.
        """
        self.check_writable()
        run_id = plan.instance_id if ids.is_pfid(plan.instance_id) else None
        for attempt in range(ATTEMPTS):
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
        """Return a plan's unit, or the result of an earlier request with its key; None if another attempt decides."""
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
    """Carry out plans of several callers with one read and one commit, so that they share the round trips of both.

    Each plan has its own outcome, as if it had been alone.

    Returns:
        For each plan its result or its error; None for a plan that must be carried out again, alone.

    Raises:
        StorageError: nothing is stored (after InDoubt, it may be). Each plan can then be carried out alone.
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
    """Return the result of an operation, or its exception, so that one failure does not affect the other operations."""
    try:
        return operation(*args, **kwargs)
    except Exception as error:
        return error


def _part_of(found: Found, plan: Plan) -> Found:
    """Return the part of the found rows that a plan alone would have found."""
    rows = {id: found.rows[id] for id in plan.ids() if id in found.rows}
    if not found.terminated:
        return Found(rows)
    runs = {instance_of(row) for type_, row in rows.values() if type_ in ("agent_instance", "agent_span")}
    return Found(rows, None, {run: reason for run, reason in found.terminated.items() if run in runs})


def done_of(plan: Plan, outcome: Outcome) -> Done | None:
    """Return the result of a plan; None if its unit was refused, and must be decided again.

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
