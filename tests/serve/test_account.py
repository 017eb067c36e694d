"""What a file has of an account, and that published operations which it has no use for are answered as such."""

from typing import Any

import pytest

from agentspan import ids
from agentspan.api.account import NOT_IMPLEMENTED
from tests.serve.servers import Api, details, refusal

NOBODY = ids.IdSource(1).new()


def test_the_account_its_environment_and_its_deployment_are_those_of_runs(api: Api, agent: str) -> None:
    run = details(api.get(f"/agent_instance/{api.instance(agent)}"))
    account = details(api.get("/account"))
    assert (account["type"], account["id"], account["name"]) == ("account", run["account_id"], "local")
    assert details(api.get(f"/account/{account['id']}")) == account
    (environment,) = api.get("/environment", account_id=account["id"]).json()["summaries"]
    assert (environment["id"], environment["account_id"]) == (run["environment_id"], account["id"])
    assert details(api.get(f"/environment/{environment['id']}")) == environment
    assert details(api.get("/environment/show", environment_id=environment["id"])) == environment
    (deployment,) = api.get("/agent_deployment", agent_id=run["agent_id"]).json()["summaries"]
    assert (deployment["id"], deployment["agent_id"]) == (run["agent_deployment_id"], run["agent_id"])
    assert deployment["environment_id"] == environment["id"]
    assert details(api.get(f"/agent_deployment/{deployment['id']}"))["id"] == deployment["id"]
    for path in ("account", "environment", "agent_deployment"):
        assert refusal(api.get(f"/{path}/{NOBODY}")) == (404, "not_found")
    assert refusal(api.get("/environment", account_id=NOBODY)) == (404, "not_found")
    assert refusal(api.get("/environment/show")) == (422, "required_value")


@pytest.mark.parametrize("path", ["/risk_profile", "/api_token", "/admin_user"])
def test_lists_of_what_a_file_does_not_have_are_empty(api: Api, path: str) -> None:
    answer = api.get(path, account_id=details(api.get("/account"))["id"], **{"pagination[page_size]": 100}).json()
    assert (answer["status"], answer["summaries"], answer["pagination"]["item_count"]) == ("success", [], 0)


def test_there_are_no_alerts(api: Api) -> None:
    assert api.get("/alerts/count", status="raised").json() == {"status": "success", "count": 0}


def test_an_instance_is_shown_by_a_query_parameter(api: Api, agent: str) -> None:
    run = api.instance(agent)
    shown = details(api.get("/agent_instance/show", agent_instance_id=run, include_counts="true", include_costs="true"))
    assert shown == details(api.get(f"/agent_instance/{run}"))
    assert refusal(api.get("/agent_instance/show")) == (422, "required_value")


@pytest.mark.parametrize(
    ("method", "path"), [(method, path) for path, methods in NOT_IMPLEMENTED.items() for method in methods]
)
def test_a_published_operation_without_a_use_is_not_implemented(api: Api, method: str, path: str) -> None:
    body: Any = None if method in ("GET", "DELETE") else {"details": {}}
    response = api.client.request(method, path.format(id=NOBODY, action="create_something"), json=body)
    assert refusal(response) == (422, "not_implemented")
    assert "a local file" in response.json()["message"]


def test_an_operation_that_nobody_publishes_is_not_found(api: Api) -> None:
    assert refusal(api.get(f"/nothing/{NOBODY}")) == (404, "not_found")
