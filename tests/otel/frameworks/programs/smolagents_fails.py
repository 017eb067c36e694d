"""An agent whose model does not answer, and one that works after it."""

import os
from contextlib import suppress

from smolagents import OpenAIServerModel, ToolCallingAgent, tool
from smolagents.utils import AgentError


@tool
def weather(city: str) -> str:
    """The weather.

    Args:
        city: where
    """
    return "rain"


away = OpenAIServerModel("m", api_base="http://127.0.0.1:9/v1", api_key="x", client_kwargs={"max_retries": 0})
with suppress(AgentError):
    ToolCallingAgent(tools=[weather], model=away, max_steps=2).run("Rome?")
model = OpenAIServerModel("m", api_base=f"{os.environ['MODEL']}/v1", api_key="x")
ToolCallingAgent(tools=[weather], model=model, max_steps=2).run("Rome?")
