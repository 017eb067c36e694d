"""Scores over HTTP: given to runs and spans, read as they count or with their history, and what is refused."""

from typing import Any

import pytest

from tests.serve.servers import Api, details, refusal


def listed(api: Api, path: str, **params: Any) -> list[Any]:
    found: list[Any] = api.get(path, **params).json()["summaries"]
    return found


def test_runs_and_spans_are_judged_and_the_newest_score_counts(api: Api, agent: str) -> None:
    run = api.instance(agent)
    span = api.span(run)
    of_run, of_span = f"/agent_instance/{run}/scores", f"/agent_spans/{span}/scores"
    first = details(api.post(of_run, {"name": "reward", "value": 1}))
    assert {name: first[name] for name in ("target_type", "target_id", "value", "source", "identifier")} == {
        "target_type": "agent_instance",
        "target_id": run,
        "value": 1.0,
        "source": "code",
        "identifier": None,
    }
    body = {"name": "reward", "value": 0.25, "label": "low", "explanation": "slow", "source": "human"}
    second = details(api.post(of_run, body))
    correct = details(api.post(of_span, {"name": "correct", "value": True, "identifier": "mia"}))
    assert (correct["target_type"], correct["target_id"], correct["agent_instance_id"]) == ("agent_span", span, run)
    assert listed(api, of_run) == [second]
    assert listed(api, of_run, include_history=True) == [first, second]
    assert listed(api, of_span) == [correct]
    found = details(api.get(f"/agent_instance/{run}"))
    assert found["scores"] == [second]
    assert [each["scores"] for each in listed(api, "/agent_instance", agent_id=found["agent_id"])] == [[second]]
    details(api.post(of_run, {"name": "reward", "withdraw": True}))
    assert (listed(api, of_run), len(listed(api, of_run, include_history=True))) == ([], 3)


def test_the_same_request_with_the_same_key_adds_one_score(api: Api, agent: str) -> None:
    path = f"/agent_instance/{api.instance(agent)}/scores"
    body = {"name": "reward", "value": 1, "idempotency_key": "score-1"}
    assert details(api.post(path, body)) == details(api.post(path, body))
    assert refusal(api.post(path, {**body, "value": 2})) == (409, "idempotency_key_already_used")
    assert len(listed(api, path, include_history=True)) == 1


@pytest.mark.parametrize(
    ("body", "refused"),
    [
        ({}, (422, "validation_errors")),
        ({"name": "reward"}, (422, "required_value")),
        ({"name": "", "value": 1}, (422, "required_value")),
        ({"name": "reward", "value": "1"}, (422, "validation_errors")),
        ({"name": "reward", "value": 1, "source": "robot"}, (422, "validation_errors")),
        ({"name": "reward", "value": 1, "withdraw": True}, (422, "invalid_value")),
        ({"name": "n" * 201, "value": 1}, (422, "validation_errors")),
        ({"name": "reward", "value": 1, "by": "human"}, (422, "validation_errors")),
        ({"name": "reward", "value": 1, "details": 5}, (422, "validation_errors")),
    ],
)
def test_what_is_no_score_is_refused(api: Api, agent: str, body: Any, refused: tuple[int, str]) -> None:
    path = f"/agent_instance/{api.instance(agent)}/scores"
    assert refusal(api.post(path, body)) == refused
    assert listed(api, path, include_history=True) == []


def test_an_id_of_something_else_is_refused(api: Api, agent: str) -> None:
    run = api.instance(agent)
    body = {"name": "reward", "value": 1}
    assert refusal(api.post(f"/agent_spans/{run}/scores", body)) == (422, "unexpected_ref_type")
    assert refusal(api.get(f"/agent_instance/{api.span(run)}/scores")) == (422, "unexpected_ref_type")
    nothing = f"{run[:-8]}{'1' if run.endswith('0') else '0'}{'0' * 7}"  # the ids of one moment follow each other
    assert refusal(api.post(f"/agent_instance/{nothing}/scores", body)) == (404, "not_found")


def test_scores_are_items_of_a_bulk_request(api: Api, agent: str) -> None:
    run = api.instance(agent)
    key = {"idempotency_key": "score-of-run"}, {"idempotency_key": "score-of-span"}
    items = [
        {"_type": "agent_instances/score", "agent_instance_id": run, "name": "reward", "value": 1, **key[0]},
        {"_type": "agent_spans/score", "agent_span_id": api.span(run), "name": "correct", "label": "yes", **key[1]},
    ]
    outputs = api.post("/bulk", {"items": items}).json()["outputs"]
    assert [output["details"]["name"] for output in outputs.values()] == ["reward", "correct"]
    assert api.post("/bulk", {"items": items}).json()["outputs"] == outputs


def test_an_unknown_field_of_a_score_is_refused_by_its_name(api: Api, agent: str) -> None:
    run = api.instance(agent)
    said = {"name": "reward", "value": 1, "by": "human"}
    alone = api.post(f"/agent_instance/{run}/scores", said).json()
    assert alone["errors"] == {"by": {"code": "invalid_value", "message": "there is no such field"}}
    key = "score-of-run"
    for fields in (said, {"details": said}):
        item = {"_type": "agent_instances/score", "agent_instance_id": run, "idempotency_key": key, **fields}
        output = api.post("/bulk", {"items": [item]}).json()["outputs"][key]
        assert (output["code"], "by: is no field of a score; there are name, value" in output["message"]) == (
            "invalid_value",
            True,
        )
    assert listed(api, f"/agent_instance/{run}/scores", include_history=True) == []


def test_an_update_says_it_later(api: Api, agent: str) -> None:
    path = f"/agent_instance/{api.instance(agent)}"
    changed = details(api.client.put(path, json={"details": {"task": "book", "tags": ["a"], "metadata": {"n": 1}}}))
    assert (changed["task"], changed["tags"], changed["metadata"]) == ("book", ["a"], {"n": 1})
    changed = details(api.client.put(path, json={"details": {"metadata": {"task": "sell"}}}))
    assert (changed["task"], changed["tags"]) == ("sell", ["a"])
    assert refusal(api.client.put(path, json={"details": {}})) == (422, "required_value")
    assert refusal(api.client.put(path, json={"details": {"task": 7}})) == (422, "validation_errors")


def test_a_registration_says_task_and_tags_as_fields_or_in_its_metadata(api: Api, agent: str) -> None:
    body = {"agent_id": agent, "agent_version": {"name": "1"}, "task": "book", "tags": ["b", "a"]}
    made = details(api.post("/agent_instance/register", body))
    assert (made["task"], made["tags"], made["git_dirty"]) == ("book", ["a", "b"], None)
    body = {"agent_id": agent, "agent_version": {"name": "1"}, "metadata": {"task": "sell", "tags": ["c"]}}
    made = details(api.post("/agent_instance/register", body))
    assert (made["task"], made["tags"]) == ("sell", ["c"])
    assert refusal(api.post("/agent_instance/register", {**body, "tags": "c"}))[0] == 422
