"""The base of the API's operations. Each is declared once, as a class: its route, its fields, their docs and checks.

The router, the models of bodies, the OpenAPI document, bulk requests, the hash of an idempotency key and the facade are
made from these classes. They do not depend on HTTP: a `Route` is only data for `serve`.
"""

from collections.abc import Callable, Mapping, Sequence
from inspect import get_annotations
from typing import Annotated, Any, ClassVar, Literal, NamedTuple, Self, get_args, get_origin

from agentspan.api import checks, envelopes
from agentspan.api.context import Context, Done, Plan
from agentspan.api.envelopes import Envelope
from agentspan.errors import InvalidValue, RequiredValue
from agentspan.model.changes import Change, Key, Unit
from agentspan.model.rows import AgentInstanceRow, Value
from agentspan.model.rows import Row as AnyRow
from agentspan.storage.access import expect
from agentspan.storage.answers import Found, Rows
from agentspan.storage.questions import Query
from agentspan.text import one_line

PAGE_SIZE = 50
KEY = "idempotency_key"
CHANGES_NOTHING = "changes nothing"


class Check(NamedTuple):
    """The check of a field, in the field's annotation.

    Attributes:
        check: receives the field's name and the value sent, and returns the value as the operation uses it, or raises
            the API's error. None if the operation checks the value itself.
        limits: arguments of pydantic's Field for the model of a body, which checks them besides the type.
    """

    check: Callable[[str, Any], Any] | None = None
    limits: Mapping[str, Any] = {}


Text = Annotated[str | None, Check(checks.text)]
Name = Annotated[str, Check(checks.required_text)]
Time = Annotated[str | None, Check(checks.timestamp)]
OwnId = Annotated[str | None, Check(checks.own_id)]
"""A PFID of the client's own."""
Mark = Annotated[bool | None, Check(checks.mark)]
Tags = Annotated[list[str] | None, Check(None, {"max_length": 100, "fail_fast": True})]
IdempotencyKey = Annotated[str | None, Check(None, {"max_length": checks.MAX_KEY})]


class Route(NamedTuple):
    """The method and path of an operation over HTTP.

    Attributes:
        method: the HTTP method.
        path: the path below the API's prefix, with the names of id fields in braces.
        tag: the group of the operation in the OpenAPI document.
        answers: the model of the resource in the answer.
    """

    method: str
    path: str
    tag: str
    answers: Any = None


class Fields:
    """Named values of a request. A subclass declares them as annotations; those without a default are required.

    Descriptions are those of `Attributes` in the docstring of the class, or of a base of it.

    Attributes:
        fields: the annotations by name, in the order of the OpenAPI document.
        others: the treatment of unknown fields in a body over HTTP: they are ignored, kept, or the request is refused.
    """

    fields: ClassVar[Mapping[str, Any]] = {}
    others: ClassVar[Literal["ignore", "allow", "forbid"]] = "ignore"

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        found: dict[str, Any] = {}
        for base in reversed(cls.__mro__):
            for name, annotation in get_annotations(base).items():
                origin: Any = get_origin(annotation)
                if origin is not ClassVar:
                    found.pop(name, None)  # a field that is declared again moves to its new place
                    found[name] = annotation
        if KEY in found and KEY not in get_annotations(cls):
            found[KEY] = found.pop(KEY)
        cls.fields = found


class Keyable(Fields):
    """Fields with an idempotency key, which is the last of them unless a class declares it.

    Attributes:
        again: the effect of the same request with the same key, a verb phrase for the description of the key.
    """

    again: ClassVar[str] = "succeeds again"

    idempotency_key: IdempotencyKey = None


class Operation(Fields):
    """One operation with the values of its fields. A field that is left out has its default, or is None.

    Attributes:
        route: where it is found over HTTP.
        summary: one line for people; the first sentence of the docstring when left out.
        envelope: the name of the model around the resource in the answer (one of serve.responses.ENVELOPES).
        action: its name in bulk requests and for idempotency keys, such as `agent_spans/finish`.
        writes: whether it may change something.
        reads: whether it reads the storage.
        scans: whether it may read so much that a server runs it in a thread.
        has_body: whether the fields that are not in the path come in a body; else they come in the query string.
        may_be_empty: whether the body may be left out.
        checks_body: whether it checks the form of its body itself.
        wraps: the class of the fields that come in `details` of the body.
        may_wrap: whether fields may come in `details` or beside it.
        body_name: the name of the body's model in the document, where several operations share it.
        first: fields that are checked before the others.
        defaults: values of fields that are left out, as their checks would return them; part of the request's hash.
        ids: the fields in the path.
        required: other fields without a default.
    """

    route: ClassVar[Route]
    summary: ClassVar[str] = ""
    envelope: ClassVar[str] = "One"
    action: ClassVar[str] = ""
    writes: ClassVar[bool] = False
    reads: ClassVar[bool] = True
    scans: ClassVar[bool] = False
    has_body: ClassVar[bool] = False
    may_be_empty: ClassVar[bool] = False
    checks_body: ClassVar[bool] = False
    wraps: ClassVar[type[Fields] | None] = None
    may_wrap: ClassVar[bool] = False
    body_name: ClassVar[str] = ""
    first: ClassVar[Sequence[str]] = ()
    defaults: ClassVar[Mapping[str, Any]] = {}
    ids: ClassVar[Sequence[str]] = ()
    required: ClassVar[Sequence[str]] = ()
    _checks: ClassVar[Sequence[tuple[str, Callable[[str, Any], Any] | None]]] = ()

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        path = cls.route.path if hasattr(cls, "route") else ""
        cls.ids = tuple(name for name in cls.fields if f"{{{name}}}" in path)
        without_default = [name for name in cls.fields if name in cls.required or not hasattr(cls, name)]
        cls.required = tuple(name for name in without_default if name not in cls.ids)
        for name in without_default:
            setattr(cls, name, None)
        names = dict.fromkeys([*cls.first, *cls.fields])
        cls._checks = tuple((name, _check(cls.fields[name])) for name in names if name != KEY)

    def __init__(self, sent: Mapping[str, Any]) -> None:
        """Keep the known fields of a request, and ignore others, as the API does.

        Args:
            sent: values by name. A method may pass its `locals()`.
        """
        known = self.fields
        self.__dict__ = {name: value for name, value in sent.items() if name in known}

    @classmethod
    def of_json(cls, sent: Mapping[str, Any]) -> Self:
        """Return the operation of a request over HTTP, or of an item of a bulk request.

        Raises:
            RequiredValue: an id is missing that the path over HTTP has.
        """
        for name in cls.ids:
            if sent.get(name) is None:
                raise RequiredValue(name, "is required")
        return cls(sent)

    def checked(self) -> dict[str, Any]:
        """Return the checked values of the fields that were sent, without the key, merged over the defaults.

        Raises:
            RequiredValue: a required field is missing.
            InvalidValue: a value is wrong.
        """
        fields = self.__dict__
        for name in self.required:
            if fields.get(name) is None:
                raise RequiredValue(name, "is required")
        values = dict(self.defaults)
        for name, check in self._checks:
            value = fields.get(name)
            if value is not None:
                values[name] = value if check is None else check(name, value)
        return values

    def __call__(self, ctx: Context) -> Envelope:
        """Carry out the operation, and return the API's envelope."""
        raise NotImplementedError


def _check(annotation: Any) -> Callable[[str, Any], Any] | None:
    return next((each.check for each in get_args(annotation) if isinstance(each, Check)), None)


class Write(Keyable, Operation):
    """An operation that is one commit, and may be sent again under an idempotency key.

    Attributes:
        shares: whether its plan may be carried out together with those of other requests.
    """

    writes: ClassVar[bool] = True
    has_body: ClassVar[bool] = True
    shares: ClassVar[bool] = False

    def plan(self, ctx: Context) -> Plan:
        """Check the fields, and return the plan: the ids to find, and the function that decides."""
        raise NotImplementedError

    def key(self, request: Mapping[str, Any]) -> Key | None:
        """Return the idempotency key with the hash of the request; None without a key.

        Args:
            request: the client's values with defaults, and without generated ids and times.
        """
        key = self.idempotency_key
        return None if key is None else checks.key_of(self.action, key, request)

    def run(self, ctx: Context) -> Done:
        """Carry out the operation in a commit of its own."""
        return ctx.carry_out(self.plan(ctx))

    def __call__(self, ctx: Context) -> Envelope:
        """Carry out the operation in a commit of its own, and return the API's envelope."""
        return envelopes.of_done(ctx, self.run(ctx))


class ChangeRow(Write):
    """A change of the resource of an id in the path.

    Attributes:
        row_type: what the id must name.
    """

    row_type: ClassVar[type[AnyRow]]

    def decide(self, ctx: Context, row: Any, sent: Mapping[str, Any], now: str) -> Sequence[Change]:
        """Return the changes of the stored row, or raise the API's error.

        Args:
            sent: the fields, checked.
        """
        raise NotImplementedError

    def plan(self, ctx: Context) -> Plan:
        """Check the fields, and return the plan to find the row and to decide its changes."""
        sent = self.checked()
        key = self.key(sent)
        id = getattr(self, self.ids[0])

        def decide(found: Found, now: str) -> Unit:
            row = expect(found, self.row_type, id)
            return Unit(tuple(self.decide(ctx, row, sent, now)), row.id, key)

        return Plan((id,), key, decide, instance_id=id if self.row_type is AgentInstanceRow else None)


class GetRow(Operation):
    """An operation that returns the resource of an id in the path.

    Attributes:
        row_type: what the id must name.
    """

    row_type: ClassVar[type[AnyRow]]

    def row(self, ctx: Context) -> Any:
        """Return the row of the resource."""
        return ctx.row(self.row_type, getattr(self, self.ids[0]))

    def __call__(self, ctx: Context) -> Envelope:
        """Return the envelope of the resource."""
        return envelopes.of_row(ctx, self.row(ctx))


class Listing(Operation):
    """An operation that returns a page of rows. Other fields than its own could be filters, so they are refused.

    Attributes:
        sortable: the columns by which it can be sorted.
        statuses: those that `status` may be; empty where there is no such field.
        ignored: fields that are accepted over HTTP, without effect.
    """

    scans: ClassVar[bool] = True
    envelope: ClassVar[str] = "Many"
    sortable: ClassVar[frozenset[str]]
    statuses: ClassVar[Sequence[str]] = ()
    ignored: ClassVar[Sequence[str]] = ()

    sorting: Any = None
    offset: int = 0
    page_size: int = PAGE_SIZE

    @property
    def shows_summaries(self) -> bool:
        """True if the items have their summaries. Lists of spans have a field to choose."""
        return bool(getattr(self, "include_summaries", True))

    @classmethod
    def of_json(cls, sent: Mapping[str, Any]) -> Self:
        """Return the operation of a request that has its page in `pagination`.

        Raises:
            InvalidValue: a field is unknown, or the page or its order is wrong.
        """
        names = [name for name in cls.fields if name not in {*PAGING, *ANY_LIST, *cls.ignored}]
        unknown = sent.keys() - ANY_LIST - {*names}
        if unknown:
            raise InvalidValue(one_line(min(unknown), 40), f"is no field of this list; it has {', '.join(names)}")
        page = sent.get("pagination")
        if page is not None and not isinstance(page, Mapping):
            raise InvalidValue("pagination", "must be an object with offset and page_size")
        offset, size = ((page or {}).get(name) for name in ("offset", "page_size"))
        offset = 0 if offset is None else checks.count("pagination.offset", offset, 0, checks.MAX_OFFSET)
        size = PAGE_SIZE if size is None else checks.count("pagination.page_size", size, 1, checks.MAX_PAGE)
        return cls({**sent, "offset": offset, "page_size": size, "sorting": checks.sorting(sent.get("sorting"))})

    def query(self, ctx: Context) -> Query:
        """Return the query for the rows of the list, without order and page."""
        raise NotImplementedError

    def rows(self, ctx: Context) -> Rows:
        """Return the rows of the page."""
        query = self.query(ctx)
        wanted = checks.page(
            query, self.sorting, self.offset, self.page_size, columns=self.sortable, most_bytes=ctx.piece_bytes
        )
        return ctx.storage.ask(wanted)

    def __call__(self, ctx: Context) -> Envelope:
        """Return the envelope of the page."""
        return envelopes.of_page(
            ctx,
            self.rows(ctx),
            sorting=self.sorting,
            offset=self.offset,
            page_size=self.page_size,
            summaries=self.shows_summaries,
        )


def filters(**values: Value | None) -> dict[str, Value]:
    """Return the filters of a list by column, without those that are None."""
    return {column: value for column, value in values.items() if value is not None}


PAGING = ("sorting", "offset", "page_size")
ANY_LIST = frozenset({"_type", KEY, "details", "pagination", "sorting", "include_summaries", "include_risk_level"})
"""The fields that any list of a bulk request may have."""
