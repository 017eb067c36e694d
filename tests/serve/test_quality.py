"""The evaluation of an instance that has no name: readers declare its schema, read it, and replace it by PUT."""

from typing import Any

from agentspan import ids
from tests.serve.servers import Api, details, refusal

SCHEMA = {
    "title": "Checks",
    "schema": {"type": "object", "properties": {"report": {"type": "string"}}, "required": ["report"]},
    "template": "{{ report }}",
}


def put(api: Api, run: str, body: Any) -> Any:
    return api.client.put(f"/agent_instance/{run}", json=body)


def published(api: Api, run: str, payload: Any) -> tuple[Any, Any]:
    """The evaluation and its summary, after it was replaced."""
    found = details(put(api, run, {"details": {"quality_payload": payload}}))
    assert details(api.get(f"/agent_instance/{run}")) == found
    return found["quality_payload"], found["quality_summary"]


def test_an_evaluation_needs_no_schema_and_is_replaced_as_a_whole(api: Api, agent: str) -> None:
    run = api.instance(agent)
    found = details(api.get(f"/agent_instance/{run}"))
    assert (found["quality_payload"], found["quality_summary"]) == (None, None)
    assert published(api, run, {"report": "fine", "checks": [1]}) == ({"report": "fine", "checks": [1]}, None)
    assert published(api, run, {"report": "bad"}) == ({"report": "bad"}, None)
    assert published(api, run, {}) == ({}, None)
    assert published(api, run, None) == (None, None)


def test_a_declared_schema_is_stored_and_its_template_is_rendered(api: Api, agent: str) -> None:
    version = {"external_identifier": "1", "span_type_schemas": [], "quality_schema": SCHEMA}
    body = {"agent_id": agent, "agent_version": {"name": "1"}, "agent_schema_version": version}
    registered = api.post("/agent_instance/register", body).json()
    assert registered["agent_schema_version"]["quality_schema"] == SCHEMA
    assert registered["agent_schema_version"]["quality_schemas"] == []
    run = registered["details"]["id"]
    assert published(api, run, {"report": "3 of 4 passed", "more": 1})[1] == "3 of 4 passed"
    assert published(api, run, {"more": 1})[0] == {"more": 1}  # a mismatch with the schema never refuses
    assert published(api, run, None) == (None, None)
    stored = details(api.get(f"/agent_schema_version/{registered['details']['agent_schema_version_id']}"))
    assert stored["quality_schema"] == SCHEMA
    agent_id = registered["details"]["agent_id"]
    created = api.post("/agent_schema_version", {"details": {"agent_id": agent_id, **version}})
    assert details(created)["id"] == stored["id"]


def test_an_evaluation_is_replaced_in_any_status(api: Api, agent: str) -> None:
    version = {"name": "1"}
    pending = details(api.post("/agent_instance/register", {"agent_id": agent, "agent_version": version}))["id"]
    runs = {"pending": pending, **{status: api.instance(agent) for status in ("active", "complete", "terminated")}}
    details(api.post(f"/agent_instance/{runs['complete']}/finish"))
    details(api.post(f"/agent_instance/{runs['terminated']}/terminate", {"reason": "loops"}))
    for status, run in runs.items():
        assert published(api, run, {"report": status}) == ({"report": status}, None)
        assert details(api.get(f"/agent_instance/{run}"))["status"] == status


def test_named_and_unnamed_evaluations_do_not_touch_each_other(api: Api, agent: str) -> None:
    named = [{"name": "verdict", "schema": {}, "template": "score {{score}}"}]
    run = api.instance(agent, agent_schema_version={"quality_schemas": named, "quality_schema": SCHEMA})
    details(api.post(f"/agent_instance/{run}/record_quality", {"name": "verdict", "payload": {"score": 1}}))
    published(api, run, {"report": "fine"})
    details(api.post(f"/agent_instance/{run}/record_quality", {"name": "verdict", "payload": {"score": 2}}))
    found = details(api.get(f"/agent_instance/{run}"))
    assert (found["quality_payloads"], found["quality_summaries"]) == (
        {"verdict": {"score": 2}},
        {"verdict": "score 2"},
    )
    assert (found["quality_payload"], found["quality_summary"]) == ({"report": "fine"}, "fine")
    assert refusal(api.post(f"/agent_instance/{run}/record_quality", {"name": "", "payload": {}})) == (
        422,
        "required_value",
    )


def test_a_replacement_is_refused_by_name(api: Api, agent: str) -> None:
    run = api.instance(agent)
    bodies: list[Any] = [
        {},
        {"details": {"quality_payload": 1}},
        {"details": {"quality_payload": [1]}},
    ]
    for wrong in bodies:
        assert refusal(put(api, run, wrong)) == (422, "validation_errors")
    assert refusal(put(api, run, {"details": {}})) == (422, "required_value")
    payload: Any = {"details": {"quality_payload": {}}}
    assert refusal(put(api, ids.IdSource(1).new(), payload)) == (404, "not_found")
    assert refusal(put(api, api.span(run), payload)) == (422, "unexpected_ref_type")
    for schema in (1, {"schema": 1}, {"template": 1}):
        body = {"agent_id": agent, "agent_version": {"name": "1"}, "agent_schema_version": {"quality_schema": schema}}
        assert api.post("/agent_instance/register", body).status_code == 422


def test_a_replacement_with_a_key_is_made_once(api: Api, agent: str) -> None:
    run = api.instance(agent)
    first = {"details": {"quality_payload": {"n": 1}}, "idempotency_key": f"put-{agent[:40]}"}
    assert details(put(api, run, first))["quality_payload"] == {"n": 1}
    published(api, run, {"n": 2})
    assert details(put(api, run, first))["quality_payload"] == {"n": 2}
    other = {**first, "details": {"quality_payload": {"n": 3}}}
    assert refusal(put(api, run, other)) == (409, "idempotency_key_already_used")


def test_an_evaluation_is_redacted_like_a_payload(api: Api, agent: str) -> None:
    run = api.instance(agent)
    payload, _ = published(api, run, {"note": "Authorization: Bearer abcdefghijklmnop0123456789", "n": 1})
    assert "abcdefghijklmnop0123456789" not in str(payload)
    assert payload["n"] == 1
