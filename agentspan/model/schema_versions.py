"""Schema versions, identified by content: the same span types and quality schemas are one version of an agent."""

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

SpanTypeSchema = Mapping[str, Any]
"""A span type in the form of the API: a mapping with the keys of FIELDS."""

FIELDS = (
    "name",
    "title",
    "description",
    "params_schema",
    "result_schema",
    "template",
    "result_template",
    "data_risk",
)


class SchemaFields(NamedTuple):
    """The fields of a schema version before it is stored, in the order of its row. Schemas are canonical JSON text."""

    external_identifier: str | None
    content_hash: str
    span_type_schemas: str
    quality_schemas: str | None


def fields_of(
    span_type_schemas: Sequence[SpanTypeSchema],
    quality_schemas: "Sequence[QualitySchema]" = (),
    external_identifier: str | None = None,
) -> SchemaFields:
    """Return the fields of a schema version with this content."""
    text, quality = canonical(span_type_schemas), canonical_quality(quality_schemas)
    return SchemaFields(external_identifier, content_hash(text, quality), text, quality)


def canonical(span_type_schemas: Sequence[SpanTypeSchema]) -> str:
    """Return JSON text that is equal for equal content: sorted by name, nulls and unknown fields dropped."""
    return _canonical(span_type_schemas, FIELDS)


def _canonical(schemas: Sequence[Mapping[str, Any]], fields: tuple[str, ...]) -> str:
    items = [{field: item[field] for field in fields if item.get(field) is not None} for item in schemas]
    items.sort(key=lambda item: str(item["name"]))
    return json.dumps(items, sort_keys=True, separators=(",", ":"), ensure_ascii=False)


_FOR_PEOPLE = frozenset({"name", "title", "description", "$comment", "default", "examples", "example"})
_FOR_CHECKS = frozenset({"const", "enum", "pattern", "template", "result_template"})


def admitted(schemas: Sequence[SpanTypeSchema], admit: Callable[[str], str]) -> list[SpanTypeSchema]:
    """Return span types or quality schemas in which `admit` has replaced each text for people.

    Texts for people are names, titles, descriptions, comments, defaults and examples. Texts that a check or a template
    needs stay.
    """
    return [_admitted(each, admit, is_for_people=False) for each in schemas]


def _admitted(value: Any, admit: Callable[[str], str], *, is_for_people: bool) -> Any:
    if isinstance(value, str):
        return admit(value) if is_for_people else value
    if isinstance(value, list):
        return [_admitted(item, admit, is_for_people=is_for_people) for item in value]
    if not isinstance(value, Mapping):
        return value
    return {
        key: item if key in _FOR_CHECKS else _admitted(item, admit, is_for_people=is_for_people or key in _FOR_PEOPLE)
        for key, item in value.items()
    }


QualitySchema = Mapping[str, Any]
"""A quality schema in the form of the API: a mapping with the keys of QUALITY_FIELDS."""

UNNAMED = ""
"""The name under which the one unnamed quality schema and its payload are stored. No other schema has this name."""
QUALITY_FIELDS = ("name", "title", "description", "schema", "template", "data_risk")


def canonical_quality(quality_schemas: Sequence[QualitySchema]) -> str | None:
    """Return canonical JSON text of quality schemas; None if there are none."""
    if not quality_schemas:
        return None
    items = [
        {field: item[field] for field in QUALITY_FIELDS if item.get(field) is not None} for item in quality_schemas
    ]
    items.sort(key=lambda item: str(item["name"]))
    return json.dumps(items, sort_keys=True, separators=(",", ":"), ensure_ascii=False)


def content_hash(text: str, quality: str | None = None) -> str:
    """Return the SHA-256 of canonical texts, as hex."""
    return hashlib.sha256((text + (quality or "")).encode("utf-8", "surrogatepass")).hexdigest()
