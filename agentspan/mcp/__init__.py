"""Answers coding agents: an MCP server with tools that only read, two skills, and their setup.

The tools print what the commands print: they are made from the commands' declarations, and nothing here formats a run.
`server` needs the extra: `pip install "agentspan-sqlite[mcp]"`. All other modules need no package.
"""
