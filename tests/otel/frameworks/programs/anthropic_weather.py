"""A loop of tools, by hand: the client's calls are recorded by the instrumentor, the steps around them by agentspan."""

import agentspan

agentspan.instrument()

from anthropic import Anthropic

client = Anthropic()
CITY = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
TOOLS = [{"name": "weather", "description": "The weather in a city now.", "input_schema": CITY}]


@agentspan.span("tool")
def weather(city: str) -> str:
    if city != "Rome":
        raise LookupError(f"no station in {city}")
    return "18 °C, no rain"


def result_of(call) -> dict:
    try:
        return {"type": "tool_result", "tool_use_id": call.id, "content": weather(**call.input)}
    except LookupError as error:
        return {"type": "tool_result", "tool_use_id": call.id, "content": str(error), "is_error": True}


@agentspan.run("weatherman")
def ask(question: str) -> str:
    messages = [{"role": "user", "content": question}]
    while True:
        answer = client.messages.create(model="claude-haiku-4-5", max_tokens=500, messages=messages, tools=TOOLS)
        calls = [part for part in answer.content if part.type == "tool_use"]
        if not calls:
            return answer.content[0].text
        messages.append({"role": "assistant", "content": answer.content})
        messages.append({"role": "user", "content": [result_of(call) for call in calls]})


print(ask("Is it dry in Rome and in Oslo?"))
