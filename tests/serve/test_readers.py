"""Readers of the service, pointed at a file: the requests that they make, and, on request, the readers themselves.

Two public repositories read the service's API: `prefactordev/prefactor-evals-no-llm-required` (checks over runs, in
Python and TypeScript) and `prefactordev/prefactor-open-dashboard`. AGENTSPAN_TEST_READERS names a folder with clones of
both; docs/http.md says how to build them. Without it only the requests that they make are tested.
"""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.serve.filling import CALLS, MODELS, RUNS, SCHEMA, fill
from tests.serve.servers import Api, Server, details, serving
from tests.waiting import until

FOLDER = os.environ.get("AGENTSPAN_TEST_READERS", "")
EVALS = Path(FOLDER) / "prefactor-evals-no-llm-required/packages"
DASHBOARD = Path(FOLDER) / "prefactor-open-dashboard"
ON_REQUEST = pytest.mark.skipif(not FOLDER, reason="opt-in: AGENTSPAN_TEST_READERS names a folder with the readers")
NEWEST = {"sorting[field]": "id", "sorting[direction]": "desc"}
SPANS = CALLS + 3
"""Spans of a run."""
WAIT_S = 60


pytestmark = pytest.mark.full


@pytest.fixture(scope="module")
def filled(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Server, Api, str]]:
    """A server with the runs of one agent."""
    with serving(tmp_path_factory.mktemp("readers") / "runs.db") as server, server.client() as client:
        api = Api(client)
        yield server, api, fill(api, "support")


def walk(api: Api, path: str, size: int, **params: Any) -> list[dict[str, Any]]:
    """All items of a list, page by page, as both readers walk."""
    found: list[dict[str, Any]] = []
    offset: int | None = 0
    while offset is not None:
        page = {"pagination[offset]": offset, "pagination[page_size]": size}
        answer = api.get(path, **params, **page).json()
        found += answer["summaries"]
        offset = answer["pagination"]["next_page_offset"]
    return found


# the requests


def test_checks_read_runs_with_spans_and_costs(filled: tuple[Server, Api, str]) -> None:
    _, api, agent = filled
    assert [(each["id"], each["name"], each["status"]) for each in walk(api, "/agent", 100)] == [
        (agent, "support", "active")
    ]
    runs = walk(api, "/agent_instance", 4, agent_id=agent)
    assert len(runs) == RUNS
    assert [run["status"] for run in runs] == ["complete", "failed", "terminated", *["complete"] * 3]
    assert {run["purpose"] for run in runs} == {"live"}
    for run in runs:
        spans = walk(api, "/agent_spans", 4, agent_instance_id=run["id"])
        assert len(spans) == SPANS
        assert {span["payload"]["token_usage"]["total_tokens"] for span in spans[:CALLS]} == {1100}
        assert [span["sensitive_encoding"] for span in spans] == [False] * CALLS + [True, False, False]
        found = details(api.get(f"/agent_instance/{run['id']}"))
        assert found["cost_breakdown"]["total_cost"] == 0.25 * CALLS
        assert found["span_counts"]["total"] == SPANS
        assert found["span_schema_counts"]["ai-sdk:llm"] == CALLS
        assert {"risk_score", "quality_payload", "quality_summary"} <= set(found)


def test_checks_publish_scores_by_get_merge_and_put(filled: tuple[Server, Api, str]) -> None:
    _, api, agent = filled
    for number, run in enumerate(walk(api, "/agent_instance", 100, agent_id=agent)):
        for block in ({"report": "2 of 3 passed", "mine": 1}, {"report": "3 of 3 passed"}):
            payload = details(api.get(f"/agent_instance/{run['id']}"))["quality_payload"] or {}
            body = {"details": {"quality_payload": {**payload, **block}}}
            details(api.client.put(f"/agent_instance/{run['id']}", json=body))
        found = details(api.get(f"/agent_instance/{run['id']}"))
        assert found["quality_payload"] == {"report": "3 of 3 passed", "mine": 1}
        assert found["quality_summary"] == ("3 of 3 passed" if number % 2 else None)


def test_checks_declare_their_schema_with_a_run_that_is_cancelled(filled: tuple[Server, Api, str]) -> None:
    _, api, agent = filled
    version = {"external_identifier": "quality-v1", "span_type_schemas": [], "quality_schema": SCHEMA}
    body = {"agent_id": agent, "agent_version": {"external_identifier": "e"}, "agent_schema_version": version}
    probe = details(api.post("/agent_instance/register", {**body, "purpose": "smoke_test"}))["id"]
    assert details(api.post(f"/agent_instance/{probe}/finish", {"status": "cancelled"}))["status"] == "cancelled"


def test_a_watcher_terminates_a_run_and_its_agent_learns_of_it(filled: tuple[Server, Api, str]) -> None:
    _, api, _ = filled
    run = api.instance("looper")
    agent = details(api.get(f"/agent_instance/{run}"))["agent_id"]
    assert [each["status"] for each in walk(api, "/agent_instance", 100, agent_id=agent)] == ["active"]
    step = api.span(run, schema_name="ai-sdk:tool:search")
    details(api.post(f"/agent_instance/{run}/terminate", {"reason": "loops"}))
    for answer in (api.finish(step), api.create(run)):
        assert answer.json()["control"] == {"terminate": True, "reason": "loops"}


def test_the_dashboard_reads_the_account_and_everything_newest_first(filled: tuple[Server, Api, str]) -> None:
    _, api, agent = filled
    account = details(api.get("/account"))["id"]
    assert api.get("/alerts/count").json()["count"] == 0
    assert walk(api, "/risk_profile", 100, account_id=account) == []
    assert agent in [each["id"] for each in walk(api, "/agent", 100, **NEWEST)]
    runs = walk(api, "/agent_instance", 4, agent_id=agent, **NEWEST)
    assert [run["id"] for run in runs] == sorted((run["id"] for run in runs), reverse=True)
    assert "policy breach" in [run["termination_reason"] for run in runs]
    spans = walk(api, "/agent_spans", 4, agent_id=agent, include_risk_level="true", **NEWEST)
    assert len(spans) == RUNS * SPANS
    assert [span["id"] for span in spans] == sorted((span["id"] for span in spans), reverse=True)
    assert {(span["risk_level"], span["risk_score"], span["purpose"]) for span in spans} == {(None, None, "live")}
    beyond = {"pagination[offset]": 20 * len(spans), "pagination[page_size]": 100}
    answer = api.get("/agent_spans", agent_id=agent, include_risk_level="true", **NEWEST, **beyond).json()
    assert (answer["summaries"], answer["pagination"]["next_page_offset"]) == ([], None)


# the readers themselves


def evals(language: str, server: Server, *args: str) -> Sequence[str]:
    return ["node", str((EVALS / "typescript/dist/cli.js").resolve()), *args] if language == "typescript" else [
        sys.executable, "-c", "import sys; from prefactor_evals_no_llm.cli import main; sys.exit(main())", *args,
    ]  # fmt: skip


def environment(server: Server) -> dict[str, str]:
    return {
        **os.environ,
        "PREFACTOR_API_URL": server.url,
        "PREFACTOR_API_HOST": server.url,
        "PREFACTOR_API_TOKEN": "any",
        "PYTHONPATH": str(EVALS / "python/src"),
        "PYTHONUNBUFFERED": "1",
    }


@pytest.mark.full
@ON_REQUEST
@pytest.mark.parametrize("language", ["python", "typescript"])
def test_the_checks_themselves(filled: tuple[Server, Api, str], language: str, tmp_path: Path) -> None:
    server, api, _ = filled
    agent = fill(api, f"checked-{language}")

    def run(*args: str) -> str:
        command = evals(language, server, *args)
        done = subprocess.run(
            command, env=environment(server), cwd=tmp_path, capture_output=True, text=True, timeout=WAIT_S
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    assert f"checked-{language}" in run("agents")
    said = run("run", "--pack", "advanced", "--agent", agent, "--no-fail-exit", "--no-report")
    assert f"Instances evaluated: {RUNS}" in said
    assert 'First: "generate" (slow down)' in said
    assert "Quality schema declared" in run("declare-quality-schema", "--agent", agent)
    with_the_declaring = RUNS + 1
    assert f": {with_the_declaring} instances" in run(
        "run", "--agent", agent, "--publish", "--no-fail-exit", "--no-report"
    )
    for number, row in enumerate(walk(api, "/agent_instance", 100, agent_id=agent)[:RUNS]):
        found = details(api.get(f"/agent_instance/{row['id']}"))
        assert found["quality_payload"]["checks_passed"] > 0
        begins = found["quality_payload"]["report"][:100]  # a summary is cut where it is too long for a line
        assert (found["quality_summary"] or "").startswith(begins) == bool(number % 2)


@pytest.mark.full
@ON_REQUEST
@pytest.mark.parametrize("language", ["python", "typescript"])
def test_the_watcher_itself(filled: tuple[Server, Api, str], language: str, tmp_path: Path) -> None:
    server, api, _ = filled
    run = api.instance(f"looping-{language}")
    agent = details(api.get(f"/agent_instance/{run}"))["agent_id"]
    command = evals(language, server, "watch", "--agent", agent, "--terminate", "loops,errors", "--poll", "0.2")
    log = tmp_path / "watcher.log"
    with log.open("wb") as out:
        watcher = subprocess.Popen(command, env=environment(server), stdout=out, stderr=out)
    try:
        control: list[Any] = []

        def step() -> bool:
            span = api.create(
                run, schema_name="ai-sdk:tool:search", payload={"name": "search", "inputs": {"q": "same"}}
            )
            answers = (span.json(), api.finish(details(span)["id"], result_payload={"hits": []}).json())
            control.extend(answer["control"] for answer in answers if "control" in answer)
            time.sleep(0.1)  # a watcher reads all spans of a run again at each look
            return bool(control)

        until(step, WAIT_S)
    finally:
        watcher.send_signal(signal.SIGINT)
        watcher.wait(WAIT_S)
    assert control[0]["terminate"] is True
    assert "identical arguments" in control[0]["reason"]
    assert f"terminated {run}" in log.read_text()


TABS = {
    "risk": ("none scored",),
    "quality-prefactor": ("Success rate", "policy breach", "killswitch"),
    "quality-external": ("Runs with quality scores", "report"),
    "cost": ("Estimated cost", *MODELS, "Top runs by cost"),
}


@pytest.mark.full
@ON_REQUEST
def test_the_dashboard_itself_has_data_in_its_tabs(filled: tuple[Server, Api, str], tmp_path: Path) -> None:
    sync_playwright: Any = pytest.importorskip("playwright.sync_api", reason="needs Playwright").sync_playwright

    server, api, agent = filled
    run = walk(api, "/agent_instance", 1, agent_id=agent)[0]["id"]
    details(api.client.put(f"/agent_instance/{run}", json={"details": {"quality_payload": {"report": "fine", "n": 1}}}))
    port = "18788"
    env = {**environment(server), "PORT": port, "DATA_DIR": str(tmp_path), "SYNC_INTERVAL_MS": "1000"}
    dashboard = subprocess.Popen(["node", "server.mjs"], cwd=DASHBOARD, env=env, stdout=subprocess.DEVNULL)
    try:
        url = f"http://127.0.0.1:{port}"
        window = {"start": "2020-01-01T00:00:00Z", "end": "2100-01-01T00:00:00Z", "agent": agent}

        def is_read() -> bool:
            try:
                data = httpx.get(f"{url}/api/data", params=window).json()
            except (httpx.HTTPError, json.JSONDecodeError):
                return False
            checked = [each for each in data["instances"] if each["detail_checked"]]
            return len(data["spans"]) == RUNS * SPANS and len(checked) >= RUNS

        until(is_read, WAIT_S)
        with sync_playwright() as playwright:
            browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
            page = browser.new_page()
            for tab, texts in TABS.items():
                page.goto(f"{url}/?tab={tab}&range=30d")
                for text in texts:
                    page.get_by_text(text).first.wait_for(timeout=WAIT_S * 1000)
            browser.close()
    finally:
        dashboard.terminate()
        dashboard.wait(WAIT_S)
