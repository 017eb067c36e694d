"""Lists over HTTP and in bulk: filters, both forms of sorting, pages beyond the end; no parameter is ignored."""

from typing import Any

import pytest

from agentspan import ids
from tests.serve.servers import Api, details, refusal

NOBODY = ids.IdSource(1).new()


def listed(api: Api, path: str, **params: Any) -> list[str]:
    """The ids of a list's items."""
    answer = api.get(path, **params).json()
    assert answer["status"] == "success", answer
    return [item["id"] for item in answer["summaries"]]


def agent_of(api: Api, run: str) -> str:
    found: str = details(api.get(f"/agent_instance/{run}"))["agent_id"]
    return found


def test_spans_of_an_agent_are_listed_over_all_its_runs(api: Api, agent: str) -> None:
    first, second, other = api.instance(agent), api.instance(agent), api.instance(f"{agent}-other")
    spans = [api.span(run) for run in (first, second, first, second)]
    api.span(other)
    agent_id = agent_of(api, first)
    assert listed(api, "/agent_spans", agent_id=agent_id) == spans
    newest = {"sorting[field]": "id", "sorting[direction]": "desc", "pagination[page_size]": 3}
    assert listed(api, "/agent_spans", agent_id=agent_id, include_risk_level="true", **newest) == spans[:0:-1]
    assert listed(api, "/agent_spans", agent_id=agent_id, agent_instance_id=first) == [spans[0], spans[2]]
    assert listed(api, "/agent_spans", agent_id=agent_id, agent_instance_id=other) == []
    assert refusal(api.get("/agent_spans", agent_id=NOBODY)) == (404, "not_found")
    assert refusal(api.get("/agent_spans", agent_id=first)) == (422, "unexpected_ref_type")
    assert refusal(api.get("/agent_spans")) == (422, "required_value")


def test_spans_of_an_agent_are_listed_by_time_range(api: Api, agent: str) -> None:
    runs = [api.instance(agent) for _ in range(2)]
    times = [f"2026-01-01T00:00:0{n}Z" for n in range(6)]
    spans = [api.span(runs[n % 2], started_at=time) for n, time in enumerate(times)]
    pending = api.span(runs[0], "pending")
    agent_id = agent_of(api, runs[0])
    assert listed(api, "/agent_spans", agent_id=agent_id, start_time=times[1], end_time=times[4]) == spans[1:4]
    assert listed(api, "/agent_spans", agent_id=agent_id, start_time=times[4]) == [*spans[4:], pending]


def test_spans_are_filtered_by_status_type_and_environment(api: Api, agent: str) -> None:
    run = api.instance(agent)
    spans = {name: api.span(run, schema_name=name) for name in ("llm", "tool")}
    details(api.finish(spans["llm"]))
    environment = details(api.get(f"/agent_instance/{run}"))["environment_id"]
    for where in ({"agent_instance_id": run}, {"agent_id": agent_of(api, run)}):
        assert listed(api, "/agent_spans", status="complete", **where) == [spans["llm"]]
        assert listed(api, "/agent_spans", schema_name="tool", **where) == [spans["tool"]]
        assert listed(api, "/agent_spans", schema_name="tool", status="complete", **where) == []
        assert len(listed(api, "/agent_spans", environment_id=environment, **where)) == 2
        assert refusal(api.get("/agent_spans", status="done", **where)) == (422, "invalid_value")
        assert refusal(api.get("/agent_spans", environment_id=NOBODY, **where)) == (404, "not_found")


def test_instances_are_filtered_by_status_purpose_and_environment(api: Api, agent: str) -> None:
    runs = {purpose: api.instance(agent, purpose=purpose) for purpose in ("live", "eval")}
    agent_id = agent_of(api, runs["live"])
    details(api.post(f"/agent_instance/{runs['live']}/finish"))
    environment = details(api.get(f"/agent_instance/{runs['live']}"))["environment_id"]
    assert listed(api, "/agent_instance", agent_id=agent_id, status="active") == [runs["eval"]]
    assert listed(api, "/agent_instance", agent_id=agent_id, purpose="live") == [runs["live"]]
    assert listed(api, "/agent_instance", agent_id=agent_id, purpose="live", status="active") == []
    assert len(listed(api, "/agent_instance", agent_id=agent_id, environment_id=environment)) == 2
    for wrong in ({"status": "terminal"}, {"purpose": "fun"}):
        assert refusal(api.get("/agent_instance", agent_id=agent_id, **wrong)) == (422, "invalid_value")


def test_agents_are_filtered_by_status(api: Api, agent: str) -> None:
    id = details(api.post("/agent", {"details": {"name": agent}}))["id"]
    newest = {"sorting": "-id", "pagination[page_size]": 100}
    assert id in listed(api, "/agent", status="pending", **newest)
    assert id not in listed(api, "/agent", status="active", **newest)


@pytest.mark.parametrize("filter", ["team_id", "risk_profile_id", "owner_person_id"])
def test_a_filter_over_what_a_file_does_not_have_is_refused_with_the_reason(api: Api, filter: str) -> None:
    response = api.get("/agent", **{filter: NOBODY})
    assert refusal(response) == (422, "invalid_value")
    assert response.json()["message"].startswith(f"{filter}: a file has no ")


@pytest.mark.parametrize(
    "path", ["/agent", "/agent/show", "/agent_instance", "/agent_spans", "/agent_version", "/agent_schema_version"]
)
def test_no_query_parameter_of_a_list_is_ignored(api: Api, path: str) -> None:
    for query, name in (("unheard_of=1", "unheard_of"), ("%00=1", "'\\x00'"), (f"{'x' * 99}=", "x" * 40)):
        response = api.client.get(f"{path}?{query}")
        assert refusal(response) == (422, "invalid_value")
        assert name in response.json()["message"]
    if path != "/agent/show":
        response = api.client.get(f"{path}?sorting=id&sorting=-id")
        assert refusal(response) == (422, "invalid_value")
        assert response.json()["message"].startswith("sorting: ")


def test_a_list_is_sorted_in_either_form_and_not_in_both(api: Api, agent: str) -> None:
    run = api.instance(agent)
    spans = [api.span(run, schema_name=f"step-{9 - n}") for n in range(3)]

    def sorted_by(**params: Any) -> tuple[list[str], Any]:
        answer = api.get("/agent_spans", agent_instance_id=run, **params).json()
        return [span["id"] for span in answer["summaries"]], answer["sorting"]

    up, down = ({"field": "schema_name", "direction": direction} for direction in ("asc", "desc"))
    assert sorted_by(**{"sorting[field]": "schema_name"}) == (spans[::-1], up)
    assert sorted_by(**{"sorting[field]": "schema_name", "sorting[direction]": "asc"}) == (spans[::-1], up)
    assert sorted_by(**{"sorting[field]": "schema_name", "sorting[direction]": "desc"}) == (spans, down)
    for wrong in (
        {"sorting[field]": "payload"},
        {"sorting[field]": "-id"},
        {"sorting[direction]": "desc"},
        {"sorting[field]": "id", "sorting[direction]": "up"},
        {"sorting[field]": "id", "sorting": "id"},
    ):
        assert refusal(api.get("/agent_spans", agent_instance_id=run, **wrong)) == (422, "invalid_value")


def test_a_page_beyond_the_end_has_no_items_and_names_the_last_page(api: Api, agent: str) -> None:
    run = api.instance(agent)
    for _ in range(5):
        api.span(run)

    def pagination(offset: int) -> dict[str, Any]:
        params = {"pagination[offset]": offset, "pagination[page_size]": 2}
        answer = api.get("/agent_spans", agent_instance_id=run, **params).json()
        found: dict[str, Any] = answer["pagination"]
        items = found["item_end"] - found["item_start"] + 1 if found["item_end"] else 0
        assert items == len(answer["summaries"])
        return found

    told = {"item_count": 5, "page_count": 3, "page_size": 2, "next_page_offset": None}
    last = {"item_start": 5, "item_end": 5, "page_index": 3, "page_offset": 4, "previous_page_offset": 2}
    beyond = {"item_start": 0, "item_end": 0, "page_index": 51, "page_offset": 100, "previous_page_offset": 4}
    assert pagination(4) == told | last
    assert pagination(100) == told | beyond
    empty = api.get("/agent_instance", agent_id=agent_of(api, run), status="failed").json()["pagination"]
    assert (empty["item_start"], empty["item_end"], empty["page_count"], empty["page_index"]) == (0, 0, 0, 1)


def bulk(api: Api, type_: str, **fields: Any) -> dict[str, Any]:
    key = ids.IdSource(1).new()
    item = {"_type": type_, "idempotency_key": key, **fields}
    found: dict[str, Any] = api.post("/bulk", {"items": [item]}).json()["outputs"][key]
    return found


def test_false_as_text_in_bulk_is_false(api: Api, agent: str) -> None:
    schema = {"span_type_schemas": [{"name": "step", "template": "number {{n}}"}]}
    run = api.instance(agent, agent_schema_version=schema)
    api.span(run, payload={"n": 1})
    for said, summary in ((False, None), ("false", None), (True, "number 1"), ("true", "number 1"), (None, None)):
        output = bulk(api, "agent_spans/list", agent_instance_id=run, include_summaries=said)
        assert output["summaries"][0]["summary"] == summary
    assert bulk(api, "agent_spans/list", agent_instance_id=run, include_summaries="no")["code"] == "invalid_value"
    for said, name in (("false", "1"), ("true", "2")):
        fields = {"agent_id": agent, "agent_version": {"external_identifier": "1", "name": "2"}}
        output = bulk(api, "agent_instances/register", update_current_version=said, **fields)
        version = output["details"]["agent_version_id"]
        assert details(api.get(f"/agent_version/{version}"))["name"] == name


def test_lists_in_bulk_take_the_same_filters_and_ignore_none(api: Api, agent: str) -> None:
    run = api.instance(agent)
    span = api.span(run)
    sorting = {"field": "id", "direction": "desc"}
    output = bulk(api, "agent_spans/list", agent_id=agent_of(api, run), status="active", sorting=sorting)
    assert ([item["id"] for item in output["summaries"]], output["sorting"]) == ([span], sorting)
    for type_, fields in (
        ("agent_spans/list", {"agent_instance_id": run, "purpose": "live"}),
        ("agents/list", {"team_id": NOBODY}),
    ):
        output = bulk(api, type_, **fields)
        assert output["code"] == "invalid_value"
        assert list(fields)[-1] in output["message"]
