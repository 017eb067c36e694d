"""A call, and an async one."""

import asyncio
import os

import litellm

call = {
    "model": "openai/m",
    "api_base": f"{os.environ['MODEL']}/v1",
    "api_key": "x",
    "messages": [{"role": "user", "content": "hi"}],
}
litellm.completion(**call)
asyncio.run(litellm.acompletion(**call))
