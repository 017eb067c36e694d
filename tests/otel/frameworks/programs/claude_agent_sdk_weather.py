"""A query of the Claude Agent SDK with a tool of the program that fails."""

import asyncio

import agentspan

agentspan.instrument()

from claude_agent_sdk import ClaudeAgentOptions, ResultMessage, create_sdk_mcp_server, query, tool


@tool("weather", "The weather in a city now.", {"city": str})
async def weather(arguments):
    if arguments["city"] != "Rome":
        raise LookupError(f"no station in {arguments['city']}")
    return {"content": [{"type": "text", "text": "18 °C, no rain"}]}


async def main():
    options = ClaudeAgentOptions(
        model="claude-haiku-4-5",
        mcp_servers={"station": create_sdk_mcp_server("station", tools=[weather])},
        tools=[],
        allowed_tools=["mcp__station__weather"],
    )
    async for message in query(prompt="Is it dry in Rome and in Oslo?", options=options):
        if isinstance(message, ResultMessage):
            print(message.result)


asyncio.run(main())
