"""An agent that uses prefactor-core by hand: nested spans, a tool that fails, a span that is cancelled, quality."""

import asyncio

from prefactor_core import PrefactorCoreClient, PrefactorCoreConfig, QueueConfig, SchemaRegistry
from prefactor_http.config import HttpClientConfig
from program import API_TOKEN, API_URL, until_terminated

ANY = {"type": "object"}


async def main() -> None:
    registry = SchemaRegistry()
    for name, template in (("agent:llm", "{{model}} → {{text}}"), ("agent:tool", "{{name}}({{city}})")):
        registry.register_type(name=name, params_schema=ANY, result_schema=ANY, title=name, template=template)
    registry.register_quality_schema(name="verdict", schema=ANY)
    one_worker = QueueConfig(num_workers=1)  # several may send the end of the run before the end of its last span
    http = HttpClientConfig(API_URL, API_TOKEN)
    config = PrefactorCoreConfig(http_config=http, queue_config=one_worker, schema_registry=registry)
    async with PrefactorCoreClient(config) as client:
        run = await client.create_agent_instance(
            agent_id="forecaster-core",
            agent_version={"name": "Forecaster", "external_identifier": "1.0", "description": "Says whether it rains"},
            purpose="eval",
        )
        await run.start()
        async with run.span("agent:llm") as plan:
            await plan.start({"model": "fake-large-1", "goal": "Oslo in the rain"})
            async with run.span("agent:tool") as weather:
                await weather.start({"name": "weather", "city": "Oslo"})
                await weather.complete({"output": "rain 🌧"})
            async with run.span("agent:tool") as book:
                await book.start({"name": "book", "city": "Oslo"})
                await book.fail({"error": {"error_type": "LookupError", "message": "no seats left"}})
            async with run.span("agent:tool") as unwanted:
                await unwanted.cancel()
            await run.record_quality("verdict", {"score": 0.5})
            await until_terminated()
            async with run.span("agent:tool", payload={"name": "late", "city": "Bergen"}) as late:
                late.set_result({"output": None})
            usage = {"prompt_tokens": 21, "completion_tokens": 8, "total_tokens": 29}
            await plan.complete({"text": "By train.", "token_usage": usage})
        await run.finish()
    print("ended")


asyncio.run(main())
