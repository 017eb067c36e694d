"""An agent with a tool."""

import os

from langchain_core.tools import tool
from langchain_openai import ChatOpenAI
from langgraph.prebuilt import create_react_agent


@tool
def weather(city: str) -> str:
    """The weather in a city."""
    return "rain"


model = ChatOpenAI(model="m", base_url=f"{os.environ['MODEL']}/v1", api_key="x")
create_react_agent(model, [weather], name="weatherman").invoke({"messages": [("user", "Rome?")]})
