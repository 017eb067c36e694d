"""LiteLLM's own callback beside an instrumentor: calls, async ones, a stream; by themselves and in a step."""

import asyncio
import os
import time

import litellm

import agentspan

litellm.callbacks = ["otel"]
call = {
    "model": "openai/gpt-4.1-mini",
    "api_base": f"{os.environ['MODEL']}/v1",
    "api_key": "x",
    "messages": [{"role": "user", "content": "hi"}],
}


async def ask():
    await asyncio.gather(*(litellm.acompletion(**call) for _ in range(2)))
    await asyncio.sleep(0.5)  # the callback runs after the call


litellm.completion(**call)
asyncio.run(ask())
for _ in litellm.completion(**call, stream=True, stream_options={"include_usage": True}):
    pass
with agentspan.run("mine"), agentspan.span("chain", name="step"):
    litellm.completion(**call)
    asyncio.run(ask())
time.sleep(1)
