"""A loop of tools, by hand: the client's calls are recorded by the instrumentor, the steps around them by agentspan."""

import json

import agentspan

agentspan.instrument()

from openai import OpenAI

client = OpenAI()
CITY = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
WEATHER = {"name": "weather", "description": "The weather in a city now.", "parameters": CITY}
TOOLS = [{"type": "function", "function": WEATHER}]


@agentspan.span("tool")
def weather(city: str) -> str:
    if city != "Rome":
        raise LookupError(f"no station in {city}")
    return "18 °C, no rain"


@agentspan.run("weatherman")
def ask(question: str) -> str:
    messages = [{"role": "user", "content": question}]
    while True:
        answer = client.chat.completions.create(model="gpt-4.1-mini", messages=messages, tools=TOOLS).choices[0].message
        if not answer.tool_calls:
            return answer.content
        messages.append(answer)
        for call in answer.tool_calls:
            try:
                result = weather(**json.loads(call.function.arguments))
            except LookupError as error:
                result = str(error)
            messages.append({"role": "tool", "tool_call_id": call.id, "content": result})


print(ask("Is it dry in Rome and in Oslo?"))
