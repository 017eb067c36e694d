"""`python -m agentspan` is the `agentspan` command."""

from agentspan.cli import main

main(prog_name="agentspan")
