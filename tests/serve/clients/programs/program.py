"""Lets a program wait, in its middle, for its run to be terminated by somebody else."""

import asyncio
import os
import sys

from prefactor_core import PrefactorCoreClient

API_URL = os.environ["PREFACTOR_API_URL"]
API_TOKEN = os.environ["PREFACTOR_API_TOKEN"]


async def until_terminated() -> None:
    """Say that the middle is reached, and wait for a line."""
    print("waiting", flush=True)
    await asyncio.to_thread(sys.stdin.readline)


async def until_told(client: PrefactorCoreClient) -> None:
    """Wait until the client was told of the termination, in the response to the end of a span from its queue."""
    monitor = client._termination_monitor
    assert monitor is not None
    await asyncio.wait_for(monitor.get_termination_event().wait(), 60)
