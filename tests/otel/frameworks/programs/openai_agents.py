"""An agent with a tool."""

import os

from agents import Agent, Runner, function_tool, set_default_openai_client, set_tracing_export_api_key
from openai import AsyncOpenAI

set_tracing_export_api_key("x")
set_default_openai_client(AsyncOpenAI(base_url=f"{os.environ['MODEL']}/v1", api_key="x"), use_for_tracing=False)


@function_tool
def weather(city: str) -> str:
    """The weather in a city."""
    return "rain"


Runner.run_sync(Agent(name="weatherman", model="m", tools=[weather]), "Rome?")
