"""A LangChain agent with prefactor-langchain's middleware: a tool, one that fails, a model that fails, an own span."""

import asyncio

from fake_chat_model import FakeChatModel, says
from langchain.agents import create_agent
from langchain_core.tools import tool
from prefactor_core import PrefactorTerminatedError
from prefactor_langchain import LangChainToolSchemaConfig, PrefactorMiddleware
from program import API_TOKEN, API_URL, until_terminated, until_told

CITY = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}


@tool
async def weather(city: str) -> str:
    """The weather in a city."""
    return f"rain in {city} 🌧"


@tool
async def book(city: str) -> str:
    """Book a seat."""
    raise LookupError("no seats left")


async def main() -> None:
    middleware = PrefactorMiddleware.from_config(
        api_url=API_URL,
        api_token=API_TOKEN,
        agent_id="langchain-py",
        agent_name="Traveller",
        tool_schemas={"book": LangChainToolSchemaConfig(span_type="book-seat", input_schema=CITY)},
    )

    @tool
    async def wait(city: str) -> str:
        """Wait until the run is terminated, and note it in a span of its own."""
        await until_terminated()
        instance = await middleware.ensure_initialized()
        async with instance.span("travel:note") as note:
            await note.start({"city": city})
        await until_told(middleware._client)
        return f"waited in {city}"

    async def ask(*answers: object) -> None:
        model = FakeChatModel(answers=list(answers))
        agent = create_agent(model, tools=[weather, book, wait], system_prompt="Be brief.", middleware=[middleware])
        await agent.ainvoke({"messages": [("user", "Will it rain in Oslo?")]})

    await ask(says("", 21, 8, "weather"), says("Yes.", 34, 2))
    for failing in (says("", 11, 3, "book"), TimeoutError("the model is overloaded")):
        try:
            await ask(failing)
        except (LookupError, TimeoutError) as error:
            print(f"failed: {error}")
    try:
        await ask(says("", 40, 4, "wait"))
    except PrefactorTerminatedError as error:
        print(f"terminated: {error.reason}")
    await middleware.close()
    print("ended")


asyncio.run(main())
