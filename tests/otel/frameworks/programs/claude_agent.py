"""An agent that uses a tool, in the command that the SDK runs: here one that stands for it."""

import asyncio
from pathlib import Path

from claude_agent_sdk import ClaudeAgentOptions, query


async def main():
    options = ClaudeAgentOptions(cli_path=Path(__file__).with_name("claude_cli.py"))
    async for _ in query(prompt="Rome?", options=options):
        pass


asyncio.run(main())
