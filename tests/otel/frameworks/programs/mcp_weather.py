"""A client that calls a tool of a server, which is a program of its own, twice: the second call fails."""

import asyncio
import sys

import agentspan

agentspan.instrument()

from mcp import ClientSession, StdioServerParameters
from mcp.client.stdio import stdio_client


async def main():
    server = StdioServerParameters(command=sys.executable, args=["weather_server.py"])
    async with stdio_client(server) as streams, ClientSession(*streams) as session:
        await session.initialize()
        for city in ("Rome", "Oslo"):
            result = await session.call_tool("weather", {"city": city})
            print(city, result.content[0].text)


asyncio.run(main())
