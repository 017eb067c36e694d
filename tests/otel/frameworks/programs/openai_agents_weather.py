"""An agent with a tool that raises: the SDK tells the model so."""

import agentspan

agentspan.instrument()

from agents import Agent, Runner, function_tool


@function_tool(failure_error_function=lambda context, error: str(error))
def weather(city: str) -> str:
    """The weather in a city now."""
    if city != "Rome":
        raise LookupError(f"no station in {city}")
    return "18 °C, no rain"


agent = Agent(name="weatherman", model="gpt-4.1-mini", tools=[weather])
print(Runner.run_sync(agent, "Is it dry in Rome and in Oslo?").final_output)
