"""An MCP server with one tool."""

from mcp.server.mcpserver import MCPServer
from mcp.server.mcpserver.exceptions import ToolError

server = MCPServer("weather")


@server.tool()
def weather(city: str) -> str:
    """The weather in a city now."""
    if city != "Rome":
        raise ToolError(f"no station in {city}")
    return "18 °C, no rain"


server.run()
