"""Calls at the same time, and a stream."""

import asyncio
import os

import openai


async def main():
    client = openai.AsyncOpenAI(base_url=f"{os.environ['MODEL']}/v1", api_key="x")
    asked = [{"role": "user", "content": "hi"}]
    calls = [client.chat.completions.create(model="m", messages=asked, temperature=number) for number in range(3)]
    await asyncio.gather(*calls)
    async for _ in await client.chat.completions.create(
        model="m", messages=asked, stream=True, stream_options={"include_usage": True}
    ):
        pass


asyncio.run(main())
