"""Span types: a name, two schemas, a title and a template. A registry has the built-in types and those of a program.

`agentspan.span_type` registers types in the registry of the process, and recording reads it. Operations by id make a
registry from the schema version of a run.
"""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from agentspan.errors import InvalidValue, SchemaError, TemplateError
from agentspan.host import guard, let_through
from agentspan.model.schema_versions import SpanTypeSchema
from agentspan.model.status import check_text, without_nul
from agentspan.schemas.aggregates import built_in_part, is_aggregate
from agentspan.schemas.builtin import BUILT_IN, BuiltIn
from agentspan.schemas.conformance import Conformance, JSONSchema
from agentspan.schemas.liquid import LiquidMissing, LiquidTemplate, client_template
from agentspan.schemas.templates import Template
from agentspan.schemas.unusable import Unusable, unusable_parts
from agentspan.text import is_near, one_line

MAX_NAME = 200
MAX_QUALITY_SCHEMAS = 100


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
        is_aggregate: 1 if its spans are aggregates (see aggregates), else 0. Also for names that fall back to it.
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
    checked: list[dict[str, Any]] = []
    unusable: list[Unusable] = []
    for item in items:
        if not isinstance(item, Mapping):
            raise InvalidValue("span_type_schemas", "each entry must be an object with a name")
        name = check_name(item.get("name"))
        for field in ("title", "description", "template", "result_template"):
            if not isinstance(item.get(field), (str, type(None))):
                raise InvalidValue("span_type_schemas", f"{field} of {name!r} must be text")
        for field in ("params_schema", "result_schema"):
            if not isinstance(item.get(field), (dict, bool, type(None))):
                raise InvalidValue("span_type_schemas", f"{field} of {name!r} must be a JSON object or a boolean")
        check_text("title", item.get("title") or "")
        unusable += unusable_parts(item)
        checked.append(dict(item))
    names = [item["name"] for item in checked]
    if len(set(names)) < len(names):
        raise InvalidValue("span_type_schemas", "two entries have the same name")
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
    checked: list[dict[str, Any]] = []
    unusable: list[Unusable] = []
    for item in items:
        if not isinstance(item, Mapping):
            raise InvalidValue("quality_schemas", "each entry must be an object with a name and a schema")
        name = check_name(item.get("name"))
        for field in ("title", "description", "template"):
            if not isinstance(item.get(field), (str, type(None))):
                raise InvalidValue("quality_schemas", f"{field} of {name!r} must be text")
        for field in ("schema",):
            if not isinstance(item.get(field), (dict, bool, type(None))):
                raise InvalidValue("quality_schemas", f"{field} of {name!r} must be a JSON object or a boolean")
        unusable += unusable_parts(item)
        checked.append(dict(item))
    if len({item["name"] for item in checked}) < len(checked):
        raise InvalidValue("quality_schemas", "two entries have the same name")
    return checked, unusable


REGISTRY = Registry(warns=True)
"""The span types of this process: the built-in ones and those that `agentspan.span_type` registered."""
