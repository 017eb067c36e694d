"""An agent with a tool that raises: the framework tells the model so."""

import asyncio

import agentspan

agentspan.instrument()

from llama_index.core.agent.workflow import FunctionAgent
from llama_index.llms.openai import OpenAI


def weather(city: str) -> str:
    """The weather in a city now."""
    if city != "Rome":
        raise LookupError(f"no station in {city}")
    return "18 °C, no rain"


async def main():
    agent = FunctionAgent(name="weatherman", tools=[weather], llm=OpenAI("gpt-4.1-mini"))
    print(await agent.run("Is it dry in Rome and in Oslo?"))


asyncio.run(main())
