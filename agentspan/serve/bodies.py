"""Reads the body, the query string and the headers of a request as the fields of an operation.

Pydantic models are made from the operation's declaration. They check a request, and describe its fields in the OpenAPI
document. The operation receives the parsed JSON, not a model.
"""

import json
import re
from collections.abc import Collection, Mapping, Sequence
from functools import reduce
from inspect import cleandoc, isclass
from operator import or_
from types import UnionType
from typing import Annotated, Any, NamedTuple, Union, get_args, get_origin
from urllib.parse import parse_qsl

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, TypeAdapter, ValidationError, create_model
from pydantic_core import from_json
from starlette.exceptions import HTTPException
from starlette.responses import Response

from agentspan.api import checks
from agentspan.api.operation import KEY, PAGING, Check, Fields, Keyable, Listing, Operation
from agentspan.errors import InvalidValue
from agentspan.jsontext import structure
from agentspan.serve.responses import refuse

MAX_PARTS = 300_000
"""The most texts (names of members, too), objects and lists in a body. Each takes some microseconds until it is stored,
and 50 bytes or more of memory, however short it is; the parser is one call, in which no other thread runs."""
ABSENT: Mapping[str, str] = {
    "team_id": "a file has no teams",
    "owner_person_id": "a file has no people",
    "risk_profile_id": "a file has no risk profiles",
}
"""Filters of the API that are refused, each with the reason: a file has nothing that they could match."""
SORTING = {"sorting": "sorting", "sorting_field": "sorting[field]", "sorting_direction": "sorting[direction]"}
PAGE: Mapping[str, Mapping[str, int]] = {
    "offset": {"ge": 0, "le": checks.MAX_OFFSET},
    "page_size": {"ge": 1, "le": checks.MAX_PAGE},
}


class Invalid(Exception):
    """A body or a query string whose form is wrong.

    Attributes:
        problems: the errors that pydantic has found.
        body: the parsed body; None for a query string, or if the body is no JSON.
    """

    def __init__(self, problems: Sequence[Any], body: Any = None, *, of_query: bool = False) -> None:
        super().__init__("the form of the request is wrong")
        self.problems = problems
        self.body = body
        self.of_query = of_query


# Models

MODELS: dict[str, type[BaseModel]] = {}
"""The models that were made so far, by name."""


def model_of(declared: type[Fields]) -> type[BaseModel]:
    """Return the model of declared fields, such as `details` or another object in a body."""
    return _model(declared.__name__, declared, _declared(declared), _descriptions(declared))


def body_model(operation: type[Operation]) -> type[BaseModel]:
    """Return the model of an operation's body. Operations with the same `body_name` share it."""
    name = operation.body_name or operation.__name__
    source = next((each for each in operation.__mro__ if each.__name__ == name), operation)
    fields, descriptions = _declared(operation), _descriptions(operation)
    if operation.wraps is not None:
        fields = {"details": (operation.wraps, ...), KEY: fields[KEY]}
        if issubclass(operation.wraps, Keyable):
            descriptions[KEY] = "as in `details`; either place will do."
    elif operation.may_wrap:
        fields = {"details": (dict[str, Any] | None, None), **fields}
        descriptions["details"] = "these fields, as a creation has them; either place will do."
    return _model(name, source, fields, descriptions)


def _declared(declared: type[Fields]) -> dict[str, tuple[Any, Any]]:
    """Return the annotation and the default of each field that is not in a path."""
    required: Collection[str] = [name for name in declared.fields if not hasattr(declared, name)]
    ids: Collection[str] = ()
    if issubclass(declared, Operation):
        required, ids = declared.required, declared.ids
    return {
        name: (annotation, ... if name in required else getattr(declared, name))
        for name, annotation in declared.fields.items()
        if name not in ids
    }


def _model(
    name: str, declared: type[Fields], fields: Mapping[str, tuple[Any, Any]], descriptions: Mapping[str, str]
) -> type[BaseModel]:
    if name in MODELS:
        return MODELS[name]
    base = type("Body", (BaseModel,), {"model_config": ConfigDict(extra=declared.others, strict=True)})
    lines = "\n".join(f"    {each}: {text}" for each, text in descriptions.items() if each in fields)
    doc = f"{about(declared)}\n\nAttributes:\n{lines}"
    members = {_member(each): _made(each, annotation, default) for each, (annotation, default) in fields.items()}
    MODELS[name] = create_model(name, __base__=base, __doc__=doc, **members)  # type: ignore[call-overload]
    return MODELS[name]


def _member(name: str) -> str:
    """Return the name of a field in its model: pydantic reserves some names, and refuses a leading underscore."""
    return f"{name.strip('_')}_" if name.startswith("_") or hasattr(BaseModel, name) else name


def _made(name: str, annotation: Any, default: Any, **options: Any) -> tuple[Any, Any]:
    """Return the type of a model's field, and the pydantic field with its default, limits and alias."""
    options |= next((each.limits for each in get_args(annotation) if isinstance(each, Check)), {})
    if _member(name) != name:
        options["alias"] = name
    field = Field(default_factory=dict, **options) if default == {} else Field(default, **options)
    return _type(annotation), field


def _type(annotation: Any) -> Any:
    """Return the type of a field, with a model instead of each declared class."""
    arguments = get_args(annotation)
    if get_origin(annotation) is Annotated:
        return _type(arguments[0])
    if get_origin(annotation) in (Union, UnionType):
        return reduce(or_, map(_type, arguments))
    if get_origin(annotation) is list:
        return list[_type(arguments[0])]  # type: ignore[misc]
    if annotation is int:
        return Annotated[int, BeforeValidator(checks.whole)]
    return model_of(annotation) if isclass(annotation) and issubclass(annotation, Fields) else annotation


def _descriptions(declared: type[Fields]) -> dict[str, str]:
    """Return the descriptions of fields by name, from the docstrings of a class and of its bases."""
    found: dict[str, str] = {}
    for each in reversed(declared.__mro__):
        found |= attributes(each)
    if issubclass(declared, Keyable):
        found[KEY] = f"the same request with the same key again {declared.again}."
    return found


_ATTRIBUTE = re.compile(r"    (\w+): (.*(?:\n        \s*.*)*)")


def about(documented: type) -> str:
    """Return the text of a docstring before its Attributes."""
    text, _, _ = cleandoc(documented.__doc__ or "").partition("Attributes:\n")
    return " ".join(text.split())


def attributes(documented: type) -> dict[str, str]:
    """Return the descriptions in the Attributes of a docstring, by name."""
    _, _, text = cleandoc(documented.__doc__ or "").partition("Attributes:\n")
    return {name: " ".join(description.split()) for name, description in _ATTRIBUTE.findall(text)}


# Bodies


class Sent(NamedTuple):
    """The fields of a request, and the names of the fields that the request had in `details`."""

    fields: dict[str, Any]
    details: Collection[str]


class BodyReader:
    """Reads the bodies of an operation. If a field occurs twice, both values must be equal.

    Args:
        operation: the operation that the bodies are sent to.
    """

    def __init__(self, operation: type[Operation]) -> None:
        model: Any = dict[str, Any] if operation.checks_body else body_model(operation)
        self._may_be_empty = operation.may_be_empty
        self._adapter: TypeAdapter[Any] = TypeAdapter(model | None if self._may_be_empty else model)
        wraps = operation.wraps is not None
        self._has_details = wraps or operation.may_wrap
        self._fields = frozenset({KEY} if wraps else operation.fields)
        self._is_keyable = issubclass(operation, Keyable)

    def checked(self, body: bytes) -> Any:
        """Parse and check a small body; return its JSON.

        Raises:
            Invalid, HTTPException: the body has the wrong form, or is no JSON.
        """
        if not body and self._may_be_empty:
            return None
        try:
            value = from_json(body)
            self._adapter.validate_python(value)
        except ValueError:
            return self.explained(body)
        return value

    def explained(self, body: bytes) -> Any:
        """Parse and check a body of any size; return its JSON, or raise with all that is wrong in it.

        Raises:
            Invalid, HTTPException: the body has the wrong form or too many parts, or is no JSON.
        """
        if _has_too_many_parts(body):
            raise HTTPException(
                413, f"the body has more than {MAX_PARTS:,} texts, objects and lists; send fewer at once"
            )
        try:
            value = from_json(body)
        except ValueError:  # half a character, which JSON can escape
            try:
                value = json.loads(body)
            except json.JSONDecodeError:
                raise Invalid([{"type": "json_invalid", "loc": (), "msg": "JSON decode error"}]) from None
            except (ValueError, RecursionError) as error:  # no UTF-8, or too deep
                raise HTTPException(400) from error
        try:
            self._adapter.validate_python(value, from_attributes=True)  # it changes the messages
        except ValidationError as error:
            raise Invalid(error.errors(include_url=False), value) from None
        return value

    def fields(self, value: Any, ids: Mapping[str, str], keys: Sequence[bytes]) -> Sent:
        """Return the fields of a request.

        Args:
            value: the checked body.
            ids: the ids in the path, by name.
            keys: the values of the Idempotency-Key headers.

        Raises:
            InvalidValue: a field, or the idempotency key, occurs twice with different values.
        """
        body: Mapping[str, Any] = value or {}
        known = {name: each for name, each in body.items() if name in self._fields and name not in ids}
        details = (body.get("details") or {}) if self._has_details else {}
        key, inner = known.pop(KEY, None), details.get(KEY)
        if key is not None and inner is not None and key != inner:
            raise InvalidValue(KEY, f"differs from details.{KEY}")
        for name in details.keys() & known.keys():
            if details[name] != known[name]:
                raise InvalidValue(name, f"differs from details.{name}")
        fields = {**details, **known, **ids}
        if key is not None:
            fields[KEY] = key
        if keys and self._is_keyable:
            fields[KEY] = _header(keys, fields.get(KEY))
        outer = known if key is None and not keys else {*known, KEY}
        return Sent(fields, details.keys() - outer)


def _header(headers: Sequence[bytes], name: str | None) -> str:
    if len(set(headers)) > 1:
        raise InvalidValue("Idempotency-Key", "the request has several, and they differ")
    try:
        key = headers[0].decode()
    except UnicodeDecodeError:
        key = headers[0].decode("latin-1")
    if name is not None and name != key:
        raise InvalidValue("Idempotency-Key", f"differs from {KEY} in the body")
    return checks.check_key("Idempotency-Key", key)


def _has_too_many_parts(body: bytes) -> bool:
    """Return whether a body has more than MAX_PARTS parts. Stops counting there; each step takes a few ms."""
    if body.count(b'"') // 2 + body.count(b"{") + body.count(b"[") <= MAX_PARTS:  # with braces within texts
        return False
    count = 0
    for texts, outside in structure(body):
        count += texts + outside.count(b"{") + outside.count(b"[")
        if count > MAX_PARTS:
            return True
    return False


# Query strings


def query_model(operation: type[Operation]) -> type[BaseModel] | None:
    """Return the model of an operation's query string, with the parameters of pages last; None without parameters."""
    fields = _declared(operation)
    members = {name: _made(name, *fields[name]) for name in fields if name not in PAGING}
    if issubclass(operation, Listing):
        for name, alias in SORTING.items():
            members[name] = (str | None, Field(None, alias=alias))
    elif "sorting" in fields:
        members["sorting"] = _made("sorting", *fields["sorting"])
    for name, limits in PAGE.items():
        if name in fields:
            members[name] = _made(name, int, fields[name][1], alias=f"pagination[{name}]", **limits)
    if not members:
        return None
    model: type[BaseModel] = create_model("Query", **members)  # type: ignore[call-overload]
    return model


class QueryReader:
    """Reads the query strings of an operation. Parameters with other names are refused by name."""

    def __init__(self, operation: type[Operation], model: type[BaseModel]) -> None:
        self._model = model
        self._known = frozenset(field.alias or name for name, field in model.model_fields.items())
        self._sorts = issubclass(operation, Listing)

    def fields(self, query_string: bytes) -> dict[str, Any]:
        """Return the fields of a request.

        Raises:
            InvalidValue: a parameter is unknown or occurs twice, or the order is given in two forms.
            Invalid: a value does not have the form of its parameter.
        """
        try:
            values = dict(self._model.model_validate(self._parsed(query_string)))
        except ValidationError as error:
            raise Invalid(error.errors(include_url=False), of_query=True) from None
        if self._sorts:
            sorting, *parts = (values.pop(name) for name in SORTING)
            if any(part is not None for part in parts):
                if sorting is not None:
                    raise InvalidValue("sorting", "give either sorting, or sorting[field] and sorting[direction]")
                sorting = dict(zip(("field", "direction"), parts, strict=True))
            values["sorting"] = checks.sorting(sorting)
        return values

    def _parsed(self, query_string: bytes) -> dict[str, str]:
        seen: dict[str, str] = {}
        for name, value in parse_qsl(query_string.decode("latin-1"), keep_blank_values=True):
            if name not in self._known:
                shown = name if name.isprintable() and len(name) <= 40 else f"{name[:40]!r}"
                known = ", ".join(sorted(self._known))
                why = ABSENT.get(name, f"this operation has no such parameter; it has {known}")
                raise InvalidValue(shown, why)
            if name in seen:
                raise InvalidValue(name, "is given twice")
            seen[name] = value
        return seen


# Refusals


def refuse_invalid(error: Invalid) -> Response:
    """Return the response to a request whose form is wrong: it names each field as it was sent, without its value."""
    problems = [(problem, problem["loc"]) for problem in error.problems]
    if error.of_query:
        names = ", ".join(sorted({str(place[0]) for _, place in problems}))
        return refuse("bad_request", f"query parameters without the right form: {names}")
    if any(not place for _, place in problems):
        return refuse("bad_request", "the body must be a JSON object")
    errors: dict[str, dict[str, str]] = {}
    for problem, place in problems:
        name = _name(place, error.body)
        if name in errors:  # a field that may have several types has a problem with each
            errors[name]["message"] += f"; {problem['msg']}"
        else:
            code = "required_value" if problem["type"] == "missing" else "invalid_value"
            is_unknown = problem["type"] == "extra_forbidden"
            errors[name] = {"code": code, "message": "there is no such field" if is_unknown else problem["msg"]}
    return refuse("validation_errors", f"these fields are missing or wrong: {', '.join(errors)}", errors=errors)


def _name(place: Sequence[int | str], body: Any) -> str:
    """Return the name of a field in a body, such as `details.items[0].name`.

    If a field may have several types, pydantic's place continues with the name of a type, which is in no body.
    """
    name = ""
    for number, part in enumerate(place):
        if isinstance(body, list) and isinstance(part, int) and part < len(body):
            name, body = f"{name}[{part}]", body[part]
        elif isinstance(body, dict) and (part in body or number == len(place) - 1):
            name, body = f"{name}.{part}" if name else str(part), body.get(part)
        else:
            break
    return name
