"""A LangGraph graph with the callback handler of prefactor-langchain: nodes, a model, a tool, and a tool that fails."""

import asyncio
from typing import Annotated, TypedDict

from fake_chat_model import FakeChatModel, says
from langchain_core.messages import AnyMessage
from langchain_core.tools import tool
from langgraph.graph import END, START, StateGraph
from langgraph.graph.message import add_messages
from prefactor_core import PrefactorCoreClient, PrefactorCoreConfig, PrefactorTerminatedError, SchemaRegistry
from prefactor_http.config import HttpClientConfig
from prefactor_langchain import PrefactorCallbackHandler, register_langchain_schemas
from program import API_TOKEN, API_URL, until_terminated, until_told


class State(TypedDict):
    """What the nodes share."""

    messages: Annotated[list[AnyMessage], add_messages]
    sky: str


@tool
async def weather(city: str) -> str:
    """The weather in a city."""
    return f"rain in {city} 🌧"


@tool
async def book(city: str) -> str:
    """Book a seat."""
    raise LookupError("no seats left")


model = FakeChatModel(answers=[says("Rain.", 21, 8), says("Go by train.", 13, 5)])


async def look(state: State) -> dict:
    sky = await weather.ainvoke({"city": "Oslo"})
    return {"sky": sky, "messages": [await model.ainvoke(state["messages"])]}


async def decide(state: State) -> dict:
    return {"messages": [await model.ainvoke(state["messages"])]}


def graph(client: PrefactorCoreClient):
    async def reserve(state: State) -> dict:
        try:
            await book.ainvoke({"city": "Oslo"})
        except LookupError as error:
            print(f"failed: {error}")
        await until_terminated()
        sky = await weather.ainvoke({"city": "Bergen"})
        await until_told(client)
        return {"sky": sky}

    built = StateGraph(State)
    for node in (look, reserve, decide):
        built.add_node(node.__name__, node)
    built.add_edge(START, "look")
    built.add_edge("look", "reserve")
    built.add_edge("reserve", "decide")
    built.add_edge("decide", END)
    return built.compile()


async def main() -> None:
    registry = SchemaRegistry()
    tool_span_types = register_langchain_schemas(registry)
    http = HttpClientConfig(api_url=API_URL, api_token=API_TOKEN)
    client = PrefactorCallbackHandler.create_client(PrefactorCoreConfig(http_config=http, schema_registry=registry))
    await client.initialize()
    instance = await client.create_agent_instance(
        agent_id="langgraph-py", agent_version={"name": "My Graph", "external_identifier": "my-graph-v1"}
    )
    await instance.start()
    handler = PrefactorCallbackHandler(instance=instance, tool_span_types=tool_span_types)
    try:
        await graph(client).ainvoke({"messages": [("user", "Oslo?")]}, config={"callbacks": [handler]})
    except PrefactorTerminatedError as error:
        print(f"terminated: {error.reason}")
    await instance.finish()
    await client.close()
    print("ended")


asyncio.run(main())
