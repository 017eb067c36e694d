"""A crew of one agent, which is called twice."""

import os

from crewai import LLM, Agent, Crew, Task

model = LLM(model="openai/m", base_url=f"{os.environ['MODEL']}/v1", api_key="x")
agent = Agent(role="weatherman", goal="tell the weather", backstory="a career on television", llm=model)
task = Task(description="Rome?", expected_output="a word", agent=agent)
for name in ("weather", "forecast"):
    Crew(agents=[agent], tasks=[task], name=name).kickoff()
