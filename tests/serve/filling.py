"""Runs as a program of the TypeScript SDK sends them, with everything that readers of the service look for."""

from datetime import UTC, datetime, timedelta
from typing import Any

from tests.serve.servers import Api, details

SCHEMA = {
    "title": "Checks",
    "schema": {"type": "object", "properties": {"report": {"type": "string"}}, "required": ["report"]},
    "template": "{{ report }}",
}
MODELS = ("claude-sonnet-5", "gpt-4o-mini")
RUNS = 6
"""Of each agent. Of these one fails and one is terminated; every other one has a quality schema."""
CALLS = 3
"""LLM calls of a run."""


def fill(api: Api, agent: str) -> str:
    """Make the runs of an agent, one a day, and return the agent's id."""
    now = datetime.now(UTC)
    agent_id = ""
    for number in range(RUNS):
        run = _run(api, agent, number, now - timedelta(hours=2 + 24 * number))
        agent_id = run["agent_id"]
    return agent_id


def _run(api: Api, agent: str, number: int, at: datetime) -> dict[str, Any]:
    version = {
        "external_identifier": str(number % 2),
        "span_type_schemas": [{"name": "ai-sdk:llm", "title": "LLM call"}],
    }
    body = {
        "agent_id": agent,
        "agent_version": {"name": "1"},
        "agent_schema_version": {**version, "quality_schema": SCHEMA} if number % 2 else version,
    }
    run = details(api.post("/agent_instance/register", body))
    details(api.post(f"/agent_instance/{run['id']}/start", {"timestamp": _text(at)}))
    failed = number == 1
    for call in range(CALLS):
        at += timedelta(seconds=5)
        is_last = call == CALLS - 1
        payload = {
            "name": "generate",
            "inputs": {"ai": {"model": {"id": MODELS[call % 2]}}, "prompt": f"question {number}.{call}"},
            "outputs": {"ai": {"finishReason": "stop"}, "text": "an answer"},
            "token_usage": {"prompt_tokens": 1000, "completion_tokens": 100, "total_tokens": 1100},
        }
        if failed and is_last:
            payload["error"] = {"error_type": "RateLimitError", "message": "slow down", "stacktrace": ""}
        _span(api, run["id"], "ai-sdk:llm", payload, at, "failed" if failed and is_last else "complete", cost_usd=0.25)
    email = {"$sensitive": "string", "labels": ["email"], "value": "a@example.com"}
    _span(api, run["id"], "ai-sdk:tool:lookup", {"name": "lookup", "inputs": {"customer": email}}, at)
    _span(api, run["id"], "prefactor:quality", {"inputs": {"feedback": {"rating": ("up", "down")[number % 2]}}}, at)
    _span(api, run["id"], "hitl:human-approval", {"inputs": {"decision": "approved"}}, at)
    if number == 2:
        details(api.post(f"/agent_instance/{run['id']}/terminate", {"reason": "policy breach"}))
    else:
        end = {"status": "failed" if failed else "complete", "timestamp": _text(at + timedelta(seconds=9))}
        details(api.post(f"/agent_instance/{run['id']}/finish", end))
    return run


def _span(
    api: Api, run: str, type_: str, payload: dict[str, Any], at: datetime, status: str = "complete", **result: Any
) -> None:
    times = {"started_at": _text(at), "finished_at": _text(at + timedelta(seconds=2))}
    api.span(run, status, schema_name=type_, payload=payload, result_payload=result or None, **times)


def _text(at: datetime) -> str:
    return at.isoformat().replace("+00:00", "Z")
