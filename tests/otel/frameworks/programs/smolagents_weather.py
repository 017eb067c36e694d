"""An agent with a tool that raises: the framework tells the model so."""

import agentspan

agentspan.instrument()

from smolagents import OpenAIModel, ToolCallingAgent, tool


@tool
def weather(city: str) -> str:
    """The weather in a city now.

    Args:
        city: the name of the city
    """
    if city != "Rome":
        raise LookupError(f"no station in {city}")
    return "18 °C, no rain"


agent = ToolCallingAgent(
    name="weatherman",
    description="tells the weather",
    tools=[weather],
    model=OpenAIModel("gpt-4.1-mini"),
    verbosity_level=0,
)
print(agent.run("Is it dry in Rome and in Oslo?"))
