"""Span types, and the values derived from a span's payloads by its type: summary, label, tokens … (see rows.Meaning).

A span type is a name, two schemas, a title and a template. A registry has the built-in types and those of a program.
`agentspan.span_type` registers types in the registry of the process, and recording reads it. Operations by id make a
registry from the schema version of a run. A client's schema or template never makes a registration fail: an unusable
one is stored, and reported with the reason. Payloads are then unchecked, and spans have no summary.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from typing import Any, NamedTuple

from agentspan.errors import InvalidValue, SchemaError, TemplateError
from agentspan.host import guard, let_through
from agentspan.model.changes import check_text, without_nul
from agentspan.model.registration import SpanTypeSchema
from agentspan.model.rows import Meaning, Side, Violation
from agentspan.schemas import aliases, prices
from agentspan.schemas.aliases import ERROR_TYPES, NAME_MEMBERS, USAGE_MEMBERS, count
from agentspan.schemas.builtin import BUILT_IN, BuiltIn, built_in_part, has_own_tokens, is_aggregate
from agentspan.schemas.conformance import Conformance, JSONSchema, problem_of
from agentspan.schemas.templates import (
    MAX_SUMMARY,
    LiquidMissing,
    LiquidTemplate,
    Template,
    arguments_text,
    client_template,
)
from agentspan.text import duration_text, is_near, one_line

SIDES: Mapping[str, Side] = {"params_schema": "payload", "result_schema": "result_payload", "schema": "payload"}

TEMPLATES = ("template", "result_template")


class Unusable(NamedTuple):
    """A part of a registered type that is stored, but not used.

    Attributes:
        name: the type's schema_name, or the quality schema's name.
        field: `params_schema`, `result_schema`, `schema`, `template` or `result_template`.
        reason: the reason why the part cannot be used. Contains no value of a payload.
    """

    name: str
    field: str
    reason: str


def unusable_parts(item: Mapping[str, Any]) -> list[Unusable]:
    """Return the unusable schemas and template of a span type or quality schema, as the API writes it."""
    found: list[Unusable] = []
    name = item["name"]
    for field, side in SIDES.items():
        try:
            Conformance(item.get(field), side)
        except SchemaError as error:
            found.append(Unusable(name, field, problem_of(error)))
    for field in TEMPLATES:
        if item.get(field) is not None:
            try:
                client_template(item[field])
            except TemplateError as error:
                found.append(Unusable(name, field, problem_of(error)))
    return found


MAX_NAME = 200
"""The most characters of a schema_name, and of an agent's name and version in recording, which cuts them with `…`.
By id a longer one is an `InvalidValue`."""
MAX_QUALITY_SCHEMAS = 100
"""The most quality schemas of a schema version."""


class SpanType:
    """A span type: the compiled schemas, template and label of one kind of step.

    Attributes:
        name: the schema_name under which it is registered.
        title: a name for people; without one the payload schema's title, else the name.
        template: the source of its summaries, or None. Types of the program are Mustache, types of clients also Liquid.
        result_template: the source of the template that adds the result to a summary. Only clients send one; else None.
        fields: the names of the properties in its payload schema.
        ready: the compiled template; None until its first use.
        lacks_liquid: whether python-liquid is missing for the template or the result template.
        label_field: the payload field whose value is the span's label, or None.
        is_aggregate: 1 if its spans are aggregates (see builtin), else 0. Also for names that fall back to it.
    """

    __slots__ = (
        "_result_ready",
        "fields",
        "is_aggregate",
        "item",
        "label_field",
        "lacks_liquid",
        "name",
        "payload",
        "ready",
        "result",
        "result_template",
        "template",
        "title",
    )

    def __init__(self, item: SpanTypeSchema, *, label_field: str | None = None, trusted: bool = False) -> None:
        self.item = item
        self.name: str = item["name"]
        payload_schema: Any = item.get("params_schema")
        named = payload_schema.get("title") if isinstance(payload_schema, Mapping) else None
        title: str = item.get("title") or (named if isinstance(named, str) and named else self.name)
        self.title = without_nul(title)
        self.template: str | None = item.get("template")
        self.result_template: str | None = item.get("result_template")
        self.lacks_liquid = False
        self.label_field = label_field
        self.is_aggregate = int(is_aggregate(self.name))
        self.fields: frozenset[str] = _property_names(payload_schema)
        self.payload = Conformance(payload_schema, "payload", trusted=trusted)
        self.result = Conformance(item.get("result_schema"), "result_payload", trusted=trusted)
        self.ready: Template | LiquidTemplate | None = None
        self._result_ready: Template | LiquidTemplate | None = None
        if self.template is not None and not trusted:
            self.ready = Template(self.template)

    def compiled(self) -> Template | LiquidTemplate | None:
        """Return the template, compiled at its first use; None without one, or if a client's template is not usable."""
        if self.ready is None and self.template is not None:
            self.ready = self._client_template(self.template)
            if self.ready is None:
                self.template = None
        return self.ready

    def result_compiled(self) -> Template | LiquidTemplate | None:
        """Return the result template, compiled at its first use; None without one, or if it is not usable."""
        if self._result_ready is None and self.result_template is not None:
            self._result_ready = self._client_template(self.result_template)
            if self._result_ready is None:
                self.result_template = None
        return self._result_ready

    def _client_template(self, source: str) -> Template | LiquidTemplate | None:
        try:
            return client_template(source)
        except LiquidMissing:
            self.lacks_liquid = True
        except TemplateError:
            pass
        return None


def _property_names(schema: Any) -> frozenset[str]:
    properties = schema.get("properties") if isinstance(schema, Mapping) else None
    return frozenset(properties) if isinstance(properties, Mapping) else frozenset()


def _from_built_in(built_in: BuiltIn) -> SpanType:
    # A span that falls back to `custom` has its own name as title: see title_of.
    item = {
        "name": built_in.name,
        "title": built_in.title,
        "params_schema": built_in.payload,
        "result_schema": built_in.result,
        "template": built_in.template,
    }
    return SpanType(item, label_field=built_in.label, trusted=True)


BUILT_IN_TYPES: Mapping[str, SpanType] = {b.name: _from_built_in(b) for b in BUILT_IN}


def fallback(name: str) -> SpanType:
    """Return the built-in type for an unregistered name, by the name or its part in `prefix:type…`; else `custom`."""
    return BUILT_IN_TYPES.get(built_in_part(name), BUILT_IN_TYPES["custom"])


def title_of(span_type: SpanType, schema_name: str) -> str:
    """Return the schema_title of a span: the title of its type, or its own name if it fell back to `custom`."""
    return schema_name if span_type.name == "custom" != schema_name else span_type.title


def check_name(name: object) -> str:
    """Return a usable schema_name.

    Raises:
        InvalidValue: not text, empty, longer than 200 characters, or with characters that cannot be printed.
    """
    if not isinstance(name, str) or not name or len(name) > MAX_NAME or not name.isprintable():
        raise InvalidValue("schema_name", f"must be 1 to {MAX_NAME} printable characters")
    return name


def usable_name(name: Any, otherwise: str) -> str:
    """Return any object as a usable schema_name, cut if it is too long. For recording, which refuses no name.

    Args:
        name: the object, usually a text.
        otherwise: returned if the object has no usable text.
    """
    if type(name) is str and name and len(name) <= MAX_NAME and name.isprintable():
        return name
    with guard():
        text = str(name)
        return one_line(str.__getitem__(text, slice(None)), MAX_NAME) or otherwise  # of a subclass the plain text
    return otherwise


class Registry:
    """The registered span types, which take precedence over the built-in ones.

    Args:
        warns: whether a name that is nearly that of a type is logged, once.

    Attributes:
        version: the number of registrations. It changes whenever the set of types changes.
    """

    def __init__(self, types: Mapping[str, SpanType] | None = None, *, warns: bool = False) -> None:
        self._warns = warns
        self._types: dict[str, SpanType] = dict(types or {})
        self._resolved: dict[str, SpanType] = {}
        self.version = 0

    def register(self, span_type: SpanType) -> None:
        """Add a span type, and replace one of the same name (a notebook cell may run again)."""
        self._types[span_type.name] = span_type
        self._resolved = {}
        self.version += 1

    def resolve(self, schema_name: str) -> SpanType:
        """Return the type of a name; for an unregistered name see `fallback`."""
        resolved = self._resolved  # a registration in another thread replaces the attribute
        found = resolved.get(schema_name)
        if found is None:
            found = self._types.get(schema_name) or fallback(schema_name)
            if self._warns and found is BUILT_IN_TYPES["custom"]:
                self._warn(schema_name)
            if len(resolved) < 10_000:  # names can come from data
                resolved[schema_name] = found
        return found

    def _warn(self, schema_name: str) -> None:
        meant = next((name for name in (*self._types, *BUILT_IN_TYPES) if is_near(schema_name, name)), None)
        if meant is not None:
            import logging  # takes 10 ms, and nearly no program needs it here

            logging.getLogger("agentspan").warning("there is no span type %r: is %r meant?", schema_name, meant)

    def items(self) -> list[SpanTypeSchema]:
        """Return all types, built-in and registered, in the form of the API."""
        return [span_type.item for span_type in {**BUILT_IN_TYPES, **self._types}.values()]


def from_schemas(span_type_schemas: str) -> Registry:
    """Return the registry of a stored schema version. Skips unusable entries; never raises."""
    types: dict[str, SpanType] = {}
    try:
        items = json.loads(span_type_schemas)
    except (RecursionError, ValueError):
        items = []
    for item in items if isinstance(items, list) else []:
        try:
            types[item["name"]] = _stored(item)
        except (AttributeError, LookupError, RecursionError, TypeError):
            continue  # it was valid when it was stored, so another program has edited it
    return Registry(types)


def _stored(item: SpanTypeSchema) -> SpanType:
    built_in = BUILT_IN_TYPES.get(item["name"])
    if built_in is not None and built_in.item == item:
        return built_in
    return SpanType(item, label_field=_label_field(item["name"]), trusted=True)


def make(
    name: str,
    *,
    payload: JSONSchema | type | None = None,
    result: JSONSchema | type | None = None,
    title: str | None = None,
    template: str | None = None,
) -> SpanType:
    """Return a span type, after checking its name, title, schemas and template.

    Raises:
        InvalidValue: an unusable name or title.
        SchemaError: a schema is not valid, too large, or refers to another document.
        TemplateError: a template is not Mustache, too large, or uses a feature that is not allowed.
    """
    check_name(name)
    if title is not None and (not isinstance(title, str) or not title.isprintable()):
        raise InvalidValue("title", "must be printable text")
    item: dict[str, Any] = {"name": name}
    if title:
        item["title"] = title
    for field, schema in (("params_schema", payload), ("result_schema", result)):
        if schema is not None:
            item[field] = _json_schema(schema)
    if template is not None:
        item["template"] = template
    return SpanType(item, label_field=_label_field(name))


def _label_field(name: str) -> str | None:
    """Return the label field of a registered type: the one of the built-in type that its name falls back to."""
    return fallback(name).label_field


def _json_schema(schema: JSONSchema | type) -> Any:
    if isinstance(schema, type):
        to_schema = getattr(schema, "model_json_schema", None)
        if not callable(to_schema):
            raise SchemaError("schema", f"{schema.__name__} is no pydantic model; give one, or a JSON Schema")
        try:
            return to_schema()
        except Exception as error:
            let_through(error)
            raise SchemaError("schema", f"{schema.__name__} has a field without a JSON Schema: {error}") from error
    return dict(schema) if isinstance(schema, Mapping) else schema


def check_span_type_schemas(items: Sequence[Any]) -> tuple[list[dict[str, Any]], list[Unusable]]:
    """Check the span types that a client registers. Schemas and templates that cannot be used are accepted.

    Returns:
        The span types, and their unusable parts.

    Raises:
        InvalidValue: an entry is not an object, has no usable name, or has a field of a wrong type.
    """
    texts = ("title", "description", *TEMPLATES)
    checked, unusable = _checked(items, "span_type_schemas", "a name", texts, ("params_schema", "result_schema"))
    for item in checked:
        check_text("title", item.get("title") or "")
    return checked, unusable


def check_quality_schemas(items: Sequence[Any]) -> tuple[list[dict[str, Any]], list[Unusable]]:
    """Check the quality schemas that a client registers: name, schema, title, description and template of each.

    Schemas and templates that cannot be used are accepted.

    Returns:
        The quality schemas, and their unusable parts.

    Raises:
        InvalidValue: an entry is not an object, has no usable name, or has a field of a wrong type.
    """
    if len(items) > MAX_QUALITY_SCHEMAS:
        raise InvalidValue("quality_schemas", f"at most {MAX_QUALITY_SCHEMAS} are allowed")
    return _checked(items, "quality_schemas", "a name and a schema", ("title", "description", "template"), ("schema",))


def _checked(
    items: Sequence[Any], noun: str, members: str, texts: Sequence[str], schemas: Sequence[str]
) -> tuple[list[dict[str, Any]], list[Unusable]]:
    checked: list[dict[str, Any]] = []
    unusable: list[Unusable] = []
    for item in items:
        if not isinstance(item, Mapping):
            raise InvalidValue(noun, f"each entry must be an object with {members}")
        name = check_name(item.get("name"))
        for field in texts:
            if not isinstance(item.get(field), (str, type(None))):
                raise InvalidValue(noun, f"{field} of {name!r} must be text")
        for field in schemas:
            if not isinstance(item.get(field), (dict, bool, type(None))):
                raise InvalidValue(noun, f"{field} of {name!r} must be a JSON object or a boolean")
        unusable += unusable_parts(item)
        checked.append(dict(item))
    if len({item["name"] for item in checked}) < len(checked):
        raise InvalidValue(noun, "two entries have the same name")
    return checked, unusable


REGISTRY = Registry(warns=True)
"""The span types of this process: the built-in ones and those that `agentspan.span_type` registered."""


_no_usage = (USAGE_MEMBERS | {"input_tokens", "output_tokens", "cost_usd", "response_id"}).isdisjoint
_REASONS = ("finish_reason", "stop_reason", "stopReason")
_no_reason = frozenset(_REASONS).isdisjoint
_no_other_name = NAME_MEMBERS.isdisjoint
_new = tuple.__new__  # see model.spans
MCP_CALL = "tools/call"
"""The method of MCP that calls a tool."""
MAX_LABEL = 200
"""The most characters of a label; more are cut with `…`."""
_WITH_OUTPUT = frozenset({BUILT_IN_TYPES["tool"], BUILT_IN_TYPES["chain"]})
"""The built-in types whose summaries end with the result's `output`."""


def describe(
    span_type: SpanType,
    schema_name: str,
    status: str,
    payload: dict[str, Any],
    result: Any,
    duration_ms: float | None,
    check: tuple[bool, bool] = (True, True),
) -> Meaning:
    """Return the derived columns and the violations of a span: those of the payload first.

    Args:
        span_type: the type whose schemas and template are used.
        schema_name: the span's own name, for `{{_schema}}`.
        status: the span's status.
        payload: plain JSON, as a parser returns it.
        result: plain JSON of any type, or None.
        duration_ms: milliseconds, or None while it is open.
        check: whether the payload and the result are new. A new one is checked against its schema; the label is derived
            from a new payload only.
    """
    new_payload, new_result = check
    is_object = type(result) is dict
    violations: tuple[Violation, ...] = ()
    if new_payload and not span_type.payload.quick(payload):
        violations = span_type.payload.check(payload)
    if type(payload) is not dict:  # all of it was marked as sensitive, and the value is no object
        payload = {}
    if result is None:
        context = payload
    else:
        if new_result and not span_type.result.quick(result) and not (is_object and _has_error(result, status)):
            # The result of an exception has only the error: no type's schema describes it.
            violations += span_type.result.check(result)
        context = {**payload, **result} if is_object else payload
    summary = label = None
    template = span_type.ready or span_type.compiled()
    if template is not None:
        if status == "failed" or template.asks:
            summary = template.render(context, _reserved(schema_name, status, result, duration_ms))
        else:  # the common case: the template uses no reserved name
            summary = template.render(context)
    if result is not None and span_type.result_template is not None:
        summary = _with_outcome(summary, span_type, context, result, status)
    elif is_object and span_type in _WITH_OUTPUT and result and "output" not in result:
        summary = _with_all_of(result, summary, status)
    if new_payload and span_type.label_field is not None:
        label = label_of(span_type, payload)
    aggregate = span_type.is_aggregate
    if aggregate and has_own_tokens(payload):
        aggregate = 0
    reason = None if not is_object or _no_reason(result) else _finish_reason(result)
    if _no_usage(context):  # the common case
        return _new(Meaning, (label, aggregate, summary, None, None, None, None, None, reason, violations))
    used = _used(context)
    if None in used or (new_payload and result is not None and not _no_usage(payload)):
        violations = tuple(_with_uncounted(violations, payload, result, used, check))
    if used == _NOTHING_USED and "response_id" not in context:
        return _new(Meaning, (label, aggregate, summary, None, None, None, None, None, reason, violations))
    tokens_in, tokens_out, dollars = used
    if dollars is None and new_result and not aggregate and _is_priced(span_type):
        dollars = prices.cost_of(context, tokens_in, tokens_out)
    get = context.get
    answer = _response_id(get("response_id")), count(get("cache_write_tokens"))
    return _new(Meaning, (label, aggregate, summary, tokens_in, tokens_out, dollars, *answer, reason, violations))


def _with_uncounted(
    known: Sequence[Violation], payload: Any, result: Any, used: "Usage", check: tuple[bool, bool]
) -> Iterator[Violation]:
    """Yield the violations of the payload, then of the result, also of each new usage that is not counted.

    The usage of the payload is checked without the result, as it is if the payload is written before there is a result.
    """
    marked = {(each.side, each.path) for each in known}
    used_before = _NOTHING_USED if _no_usage(payload) else _used(payload)
    sides: tuple[tuple[Side, Any, Usage], ...] = ("payload", payload, used_before), ("result_payload", result, used)
    for (side, sent, counted), is_new in zip(sides, check, strict=True):
        yield from (each for each in known if each.side == side)
        for path in aliases.refused(sent, counted) if is_new and type(sent) is dict else ():
            if (side, path) not in marked:
                yield Violation(side, path, "usage", "is not counted: no finite number, negative or absurdly large")


class Usage(NamedTuple):
    """The usage that the payloads of a span report; None for what they do not report.

    Attributes:
        cost_usd: in US dollars: as reported, else of the tokens by the price of the model.
    """

    input_tokens: int | None
    output_tokens: int | None
    cost_usd: float | None


_NOTHING_USED = Usage(None, None, None)


def usage_of(span_type: SpanType, payload: Any, result: Any) -> Usage:
    """Return the usage of a span that ended, as `describe` derives it, without the rest; none for an aggregate."""
    payload = payload if type(payload) is dict else {}
    context = {**payload, **result} if type(result) is dict else payload
    if _no_usage(context) or (span_type.is_aggregate and not has_own_tokens(payload)):
        return _NOTHING_USED
    used = _used(context)
    if used.cost_usd is None and _is_priced(span_type):
        return _new(Usage, (*used[:2], prices.cost_of(context, *used[:2])))
    return used


def _is_priced(span_type: SpanType) -> bool:
    return span_type.label_field == "model" or bool(span_type.is_aggregate)


def _used(context: dict[str, Any]) -> Usage:
    get = context.get
    input_tokens, output_tokens, cost = get("input_tokens"), get("output_tokens"), get("cost_usd")
    if input_tokens is None or output_tokens is None:
        input_tokens = aliases.tokens_of(context, "input_tokens") if input_tokens is None else input_tokens
        output_tokens = aliases.tokens_of(context, "output_tokens") if output_tokens is None else output_tokens
        cost = aliases.cost_of(context) if cost is None else cost
    return _new(Usage, (count(input_tokens), count(output_tokens), aliases.cost(cost)))


def _with_outcome(
    summary: str | None, span_type: SpanType, context: dict[str, Any], result: Any, status: str
) -> str | None:
    """Append the rendered result_template of a client, or the error of a failed span: `exec: ls → exit 0`.

    The service does not render that template today. The text stands where summaries of built-in types have the outcome.
    """
    if status == "failed":
        outcome = error_text(result)
    else:
        template = span_type.result_compiled()
        outcome = None if template is None else template.render(context)
    parts = [part for part in (summary, outcome) if part]
    return one_line(" → ".join(parts), MAX_SUMMARY) if parts else summary


def _with_all_of(result: dict[str, Any], summary: str | None, status: str) -> str | None:
    """Append the whole result of a function that returned a dict: `Tool f() → a=1, b=2`."""
    if summary is None or status != "complete":
        return summary
    line = f"{summary} → {arguments_text(result)}"  # both parts are clean lines
    return line if len(line) <= MAX_SUMMARY else one_line(line, MAX_SUMMARY)


def _reserved(schema_name: str, status: str, result: Any, duration_ms: float | None) -> dict[str, str | None]:
    return {
        "_status": status,
        "_schema": schema_name,
        "_error": error_text(result) if status == "failed" else None,
        "_duration": None if duration_ms is None else duration_text(duration_ms),
    }


def label_of(span_type: SpanType, payload: dict[str, Any]) -> str | None:
    """Return the label of a span, such as the model's or tool's name; None if its type has no label.

    A call over MCP has the name of the tool, `target`; other requests over MCP have their method.
    """
    field = span_type.label_field or ""
    value = payload.get(field)
    if field == "name" and not _no_other_name(payload):  # other packages name the span `name`, not the tool
        value = aliases.label_of(payload, field) or value
    elif type(value) is not str and field == "model":
        value = aliases.label_of(payload, field)
    elif value == MCP_CALL and field == "method":  # the tool says more than the method, which all calls have in common
        value = target if type(target := payload.get("target")) is str and target else value
    if type(value) is not str:
        return None
    return _label(value) if len(value) <= MAX_LABEL else one_line(value, MAX_LABEL)


@lru_cache(maxsize=1024)
def _label(value: str) -> str:
    """Return a short label on one line: most are one of a few names of models and tools."""
    return one_line(value, MAX_LABEL)


def _response_id(value: Any) -> str | None:
    return one_line(value, MAX_LABEL) if type(value) is str else None


def _finish_reason(result: dict[str, Any]) -> str | None:
    found = next((value for name in _REASONS if type(value := result.get(name)) is str), None)
    return None if found is None else one_line(found, MAX_LABEL)


def _has_error(result: dict[str, Any], status: str) -> bool:
    return "error" in result or (status == "failed" and "error_type" in result)


def error_in(result: Any) -> Any:
    """Return the error in a failed span's result: its `error`, or the result itself as @prefactor/core sends it."""
    if type(result) is not dict:
        return None
    error = result.get("error")
    return result if error is None and type(result.get("error_type")) is str else error


def error_type(error: Any) -> str | None:
    """Return the type of an error without its module, by each name that clients send it under; None without one."""
    if type(error) is not dict:
        return None
    found = next((name for key in ERROR_TYPES if type(name := error.get(key)) is str), None)
    return None if found is None else found.rpartition(".")[2]


def error_text(result: Any) -> str | None:
    """Return a failed span's error as `Type: message`, the type without its module."""
    error = error_in(result)
    if type(error) is dict:
        parts = [part for part in (error_type(error), error.get("message")) if type(part) is str and part]
        return ": ".join(parts) or None
    return error if type(error) is str and error else None
