"""A loop of tools, one of which raises: the framework tells the model so."""

import agentspan

agentspan.instrument()

import dspy


def weather(city: str) -> str:
    """The weather in a city now."""
    if city != "Rome":
        raise LookupError(f"no station in {city}")
    return "18 °C, no rain"


dspy.configure(lm=dspy.LM("openai/gpt-4.1-mini", cache=False))
print(dspy.ReAct("question -> answer", tools=[weather])(question="Is it dry in Rome and in Oslo?").answer)
