"""An agent with a tool that raises: the run fails with it."""

import agentspan

agentspan.instrument()

from langchain.agents import create_agent


def weather(city: str) -> str:
    """The weather in a city now."""
    if city != "Rome":
        raise LookupError(f"no station in {city}")
    return "18 °C, no rain"


agent = create_agent("openai:gpt-4.1-mini", tools=[weather], name="weatherman")
print(agent.invoke({"messages": [("user", "Is it dry in Rome and in Oslo?")]})["messages"][-1].content)
