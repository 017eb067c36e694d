"""Schema versions are known by their content: the same span types are the same version, whoever registers them."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Any

SpanTypeSchema = Mapping[str, Any]
"""A span type as the API writes it: name, title, description, params_schema, result_schema, template."""

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


def canonical(span_type_schemas: Sequence[SpanTypeSchema]) -> str:
    """Return JSON text that is equal for equal content: sorted by name, nulls and unknown fields dropped."""
    items = [{field: item[field] for field in FIELDS if item.get(field) is not None} for item in span_type_schemas]
    items.sort(key=lambda item: str(item["name"]))
    return json.dumps(items, sort_keys=True, separators=(",", ":"), ensure_ascii=False)


def content_hash(text: str) -> str:
    """Return the SHA-256 of canonical text, as hex."""
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()
