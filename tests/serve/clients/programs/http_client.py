"""An agent that uses prefactor-http by hand: a model, a tool, a tool that fails; each end has a key."""

import asyncio
import uuid
from datetime import UTC, datetime

from prefactor_http.client import PrefactorHttpClient
from prefactor_http.config import HttpClientConfig
from program import API_TOKEN, API_URL, until_terminated

SCHEMA = {
    "external_identifier": "forecaster-schema",
    "span_type_schemas": [
        {
            "name": "forecaster:llm",
            "title": "Model call",
            "description": "Asks a model",
            "params_schema": {"type": "object", "required": ["model"]},
            "result_schema": {"type": "object"},
            "template": "{{model}}: {{text}}",
            "data_risk": {"action_profile": {}, "params_data_categories": {}, "result_data_categories": {}},
        },
        {"name": "forecaster:tool", "title": "Tool", "params_schema": {"type": "object"}, "template": "{{name}}"},
    ],
    "quality_schemas": [
        {"name": "verdict", "schema": {"type": "object"}, "title": "Verdict", "template": "score {{score}}"}
    ],
}


async def main() -> None:
    heard: list[str | None] = []
    async with PrefactorHttpClient(HttpClientConfig(API_URL, API_TOKEN)) as client:
        spans, instances = client.agent_spans, client.agent_instances
        version = {"name": "Forecaster", "external_identifier": "1.0", "description": "Says whether it will rain"}
        run = await instances.register(version, SCHEMA, agent_id="forecaster-http", purpose="smoke_test")
        await instances.start(run.id, datetime.now(UTC), str(uuid.uuid4()))

        async def begin(schema_name: str, payload: dict, parent: str | None = None) -> str:
            span = await spans.create(
                run.id, schema_name, "active", payload, parent_span_id=parent, started_at=datetime.now(UTC),
                idempotency_key=str(uuid.uuid4()), control_signal_callback=heard.append,
            )  # fmt: skip
            return span.id

        async def end(id: str, status: str, result: dict) -> None:
            now, key = datetime.now(UTC), str(uuid.uuid4())
            await spans.finish(id, status, result, now, key, control_signal_callback=heard.append)

        plan = await begin("forecaster:llm", {"model": "fake-large-1", "messages": [{"role": "user"}]})
        weather = await begin("forecaster:tool", {"name": "weather", "arguments": {"city": "Oslo"}}, plan)
        await end(weather, "complete", {"output": "rain 🌧"})
        book = await begin("forecaster:tool", {"name": "book", "arguments": {"city": "Oslo"}}, plan)
        await end(book, "failed", {"error": {"type": "builtins.LookupError", "message": "no seats left"}})
        unwanted = await spans.create(run.id, "forecaster:tool", "pending", {"name": "pay"}, parent_span_id=plan)
        await spans.finish(unwanted.id, "cancelled")
        await instances.record_quality(run.id, "verdict", {"score": 0.5})
        await until_terminated()
        await end(plan, "complete", {"text": "By train.", "input_tokens": 21, "output_tokens": 8, "cost_usd": 0.25})
        late = await begin("forecaster:tool", {"name": "late"})
        await end(late, "complete", {"output": None})
        ended = await instances.finish(run.id, "complete", datetime.now(UTC), str(uuid.uuid4()))
    print(f"terminated: {ended.termination_reason}, heard {len(heard)} times: {set(heard)}")
    print("ended")


asyncio.run(main())
