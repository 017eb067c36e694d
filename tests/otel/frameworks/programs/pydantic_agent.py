"""An agent with a tool."""

import os

from pydantic_ai import Agent
from pydantic_ai.models.openai import OpenAIChatModel
from pydantic_ai.providers.openai import OpenAIProvider

provider = OpenAIProvider(base_url=f"{os.environ['MODEL']}/v1", api_key="x")
agent = Agent(OpenAIChatModel("m", provider=provider), name="weatherman")


@agent.tool_plain
def weather(city: str) -> str:
    """The weather in a city."""
    return "rain"


agent.run_sync("Rome?")
