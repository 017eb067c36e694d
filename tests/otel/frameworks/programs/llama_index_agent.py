"""An agent with a tool, which runs twice."""

import asyncio
import os

from llama_index.core.agent.workflow import FunctionAgent
from llama_index.llms.openai_like import OpenAILike


def weather(city: str) -> str:
    """The weather in a city."""
    return "rain"


async def main():
    model = OpenAILike("m", api_base=f"{os.environ['MODEL']}/v1", api_key="x", is_function_calling_model=True)
    model.is_chat_model = True
    agent = FunctionAgent(name="weatherman", tools=[weather], llm=model)
    for _ in range(2):
        await agent.run("Rome?")


asyncio.run(main())
