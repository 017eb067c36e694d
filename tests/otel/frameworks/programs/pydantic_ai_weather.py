"""An agent with a tool that asks the model to try again."""

import agentspan

agentspan.instrument()

from pydantic_ai import Agent, ModelRetry

agent = Agent("openai:gpt-4.1-mini", name="weatherman")


@agent.tool_plain
def weather(city: str) -> str:
    """The weather in a city now."""
    if city != "Rome":
        raise ModelRetry(f"no station in {city}")
    return "18 °C, no rain"


print(agent.run_sync("Is it dry in Rome and in Oslo?").output)
