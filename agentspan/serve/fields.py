"""The fields of a write request: of its body, of `details` in it, of its path, and its idempotency key."""

from collections.abc import Collection, Mapping, Sequence
from typing import Any

from agentspan.errors import InvalidValue
from agentspan.operations.request import check_key
from agentspan.serve import bodies
from agentspan.serve.direct_route import keys


def fields_of(body: bodies.Body | None, more: Mapping[str, Any]) -> tuple[dict[str, Any], Collection[str]]:
    """Return the fields of a request, and the names of those that came in `details`.

    Args:
        more: fields of the path.

    Raises:
        InvalidValue: it has a field twice, with values that differ, or two such idempotency keys.
    """
    said = {} if body is None else body.said()
    details = said.pop("details", None) or {}
    key, inner = said.pop("idempotency_key", None), details.get("idempotency_key")
    if key is not None and inner is not None and key != inner:
        raise InvalidValue("idempotency_key", "differs from details.idempotency_key")
    for name in details.keys() & said.keys():
        if details[name] != said[name]:
            raise InvalidValue(name, f"differs from details.{name}")
    fields = {**details, **said, **more}
    if key is not None:
        fields["idempotency_key"] = key
    headers = keys.get()
    if headers:
        fields["idempotency_key"] = _header(headers, fields.get("idempotency_key"))
    outer = said if key is None and not headers else {*said, "idempotency_key"}
    return fields, details.keys() - outer


def _header(headers: Sequence[bytes], given: str | None) -> str:
    if len(set(headers)) > 1:
        raise InvalidValue("Idempotency-Key", "the request has several, and they differ")
    try:
        key = headers[0].decode()
    except UnicodeDecodeError:
        key = headers[0].decode("latin-1")
    if given is not None and given != key:
        raise InvalidValue("Idempotency-Key", "differs from idempotency_key in the body")
    return check_key("Idempotency-Key", key)
