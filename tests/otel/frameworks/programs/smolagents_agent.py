"""An agent with a tool."""

import os

from smolagents import OpenAIServerModel, ToolCallingAgent, tool


@tool
def weather(city: str) -> str:
    """The weather.

    Args:
        city: where
    """
    return "rain"


model = OpenAIServerModel("m", api_base=f"{os.environ['MODEL']}/v1", api_key="x")
ToolCallingAgent(tools=[weather], model=model, max_steps=2).run("Rome?")
