"""Functions that Langfuse observes, one of which fails, and a call of a model."""

from langfuse import observe
from langfuse.openai import OpenAI

client = OpenAI()


@observe(as_type="tool")
def weather(city: str) -> str:
    if city != "Rome":
        raise LookupError(f"no station in {city}")
    return "18 °C, no rain"


def report(city: str) -> str:
    try:
        return f"{city}: {weather(city)}"
    except LookupError as error:
        return f"{city}: {error}"


@observe(as_type="agent")
def weatherman(question: str) -> str:
    reports = "\n".join(report(city) for city in ("Rome", "Oslo"))
    asked = [{"role": "system", "content": reports}, {"role": "user", "content": question}]
    return client.chat.completions.create(model="gpt-4.1-mini", messages=asked).choices[0].message.content


print(weatherman("Is it dry in Rome and in Oslo?"))
