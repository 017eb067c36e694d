"""Compares what a client sent with what the server has stored, field by field."""

from collections.abc import Iterator
from datetime import datetime
from typing import Any, NamedTuple

from tests.serve.clients.recording_proxy import Exchange, RecordingProxy
from tests.serve.servers import Api, details

TIMES = ("started_at", "finished_at", "timestamp")
KEYS = ("agent_instance_id", "idempotency_key", "update_current_version")
"""Fields of requests that are no fields of a resource."""
NOTHING = "(nothing)"


class Row(NamedTuple):
    """One field: what was sent, and what arrived. Members of payloads are rows of their own."""

    of: str
    field: str
    sent: Any
    arrived: Any

    @property
    def is_lost(self) -> bool:
        """Whether what arrived is something else than what was sent."""
        if self.sent == self.arrived:
            return False
        return not (self.field in TIMES and isinstance(self.arrived, str) and _time(self.sent) == _time(self.arrived))


def rows(proxy: RecordingProxy, api: Api) -> Iterator[Row]:
    """Compare all that a client sent through a proxy with what the API of the server answers now."""
    yield from _registrations(proxy, api)
    for action, field in (("start", "started_at"), ("finish", "finished_at")):
        for exchange in proxy.to("POST", f"/agent_instance/*/{action}"):
            if "timestamp" in (exchange.sent or {}):
                stored = details(api.get(f"/agent_instance/{_id(exchange)}"))
                yield Row(f"instance {action}", "timestamp", exchange.sent["timestamp"], stored[field])
    for exchange in proxy.to("POST", "/agent_instance/*/record_quality"):
        name, payload = exchange.sent["name"], exchange.sent["payload"]
        stored = details(api.get(f"/agent_instance/{_id(exchange)}"))
        yield from _leaves("quality", name, payload, stored["quality_payloads"].get(name))
    ends = {_id(each): each.sent for each in proxy.to("POST", "/agent_spans/*/finish")}
    for number, exchange in enumerate(proxy.to("POST", "/agent_spans")):
        sent, id = dict(exchange.sent["details"]), exchange.answer["details"]["id"]
        end = {"finished_at" if name == "timestamp" else name: value for name, value in ends.get(id, {}).items()}
        stored = details(api.get(f"/agent_spans/{id}"))
        if stored["closed_by"] and not stored["ended_late"]:
            del sent["status"]  # nobody but the termination has ended it
        for field, value in {**sent, **end}.items():
            if field not in KEYS:
                yield from _leaves(f"span {number} {sent['schema_name']}", field, value, stored.get(field, NOTHING))


def _registrations(proxy: RecordingProxy, api: Api) -> Iterator[Row]:
    for exchange in proxy.to("POST", "/agent_instance/register"):
        sent = dict(exchange.sent)
        instance = details(api.get(f"/agent_instance/{exchange.answer['details']['id']}"))
        agent = details(api.get(f"/agent/{instance['agent_id']}"))
        versions = api.get("/agent_version", agent_id=instance["agent_id"]).json()["summaries"]
        version = next(each for each in versions if each["id"] == instance["agent_version_id"])
        schema = details(api.get(f"/agent_schema_version/{instance['agent_schema_version_id']}"))
        yield Row("instance", "agent_id", sent.pop("agent_id"), agent["external_identifier"])
        yield from _leaves("instance", "agent_version", sent.pop("agent_version"), version)
        yield from _span_types(sent.pop("agent_schema_version"), schema)
        for field, value in sent.items():
            if field not in KEYS:
                yield from _leaves("instance", field, value, instance.get(field, NOTHING))


def _span_types(sent: dict[str, Any], stored: dict[str, Any]) -> Iterator[Row]:
    by_name = {each["name"]: each for each in stored["span_type_schemas"]}
    for field, value in sent.items():
        if field == "span_type_schemas":
            for item in value:
                for name, part in item.items():
                    arrived = by_name.get(item["name"], {}).get(name)
                    yield Row(f"span type {item['name']}", name, part, arrived)
        elif field in ("span_schemas", "span_result_schemas"):
            part = "params_schema" if field == "span_schemas" else "result_schema"
            for name, schema in value.items():
                yield Row(f"span type {name}", part, schema, by_name.get(name, {}).get(part))
        else:
            yield Row("schema version", field, value, stored.get(field, NOTHING))


def _leaves(of: str, field: str, sent: Any, arrived: Any) -> Iterator[Row]:
    if isinstance(sent, dict) and sent and isinstance(arrived, dict):
        for name, value in sent.items():
            yield from _leaves(of, f"{field}.{name}", value, arrived.get(name, NOTHING))
    else:
        yield Row(of, field, sent, arrived)


def _id(exchange: Exchange) -> str:
    """Return the id in a path such as `/agent_spans/ID/finish`."""
    return exchange.path.split("/")[-2]


def _time(text: Any) -> Any:
    return datetime.fromisoformat(text) if isinstance(text, str) else text


def table(found: list[Row]) -> str:
    """Write rows as text: one line each, lost ones marked."""
    lines = []
    for row in found:
        mark = "LOST" if row.is_lost else "ok  "
        lines.append(f"{mark} {row.of:32} {row.field:44} {_short(row.sent):60} {_short(row.arrived)}")
    return "\n".join(lines)


def _short(value: Any, length: int = 58) -> str:
    text = repr(value)
    return text if len(text) <= length else text[: length - 1] + "…"
