"""A crew of one agent with a tool that raises: the framework tells the model so."""

import agentspan

agentspan.instrument()

from crewai import LLM, Agent, Crew, Task
from crewai.tools import tool


@tool
def weather(city: str) -> str:
    """The weather in a city now."""
    if city != "Rome":
        raise LookupError(f"no station in {city}")
    return "18 °C, no rain"


weatherman = Agent(
    role="weatherman",
    goal="tell the weather",
    backstory="a career on television",
    tools=[weather],
    llm=LLM(model="gpt-4.1-mini"),
)
task = Task(description="Is it dry in Rome and in Oslo?", expected_output="a sentence", agent=weatherman)
print(Crew(agents=[weatherman], tasks=[task], name="weather").kickoff())
