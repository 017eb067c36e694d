"""Slow threads of agentspan: `python -m pytest -p tests.slow_threads` finds what a test does not wait for.

A test that reads what a thread writes passes where the thread is fast enough, and fails now and then where it is not.
With this plugin each thread whose name has `agentspan` in it sleeps 20 ms at random calls of functions, and threads
take turns 50 times as often. `AGENTSPAN_TEST_SLOW_EVERY` says at how many calls one sleeps (200 where it is not set);
`AGENTSPAN_TEST_SEED` gives other places.
"""

import os
import random
import sys
import threading
import time
from types import FrameType
from typing import Any

EVERY = int(os.environ.get("AGENTSPAN_TEST_SLOW_EVERY", "200"))
SLEEP_S = 0.02
_random = random.Random(int(os.environ.get("AGENTSPAN_TEST_SEED", "1")))


def _slow(_frame: FrameType, event: str, _argument: Any) -> None:
    if event == "call" and _random.randrange(EVERY) == 0 and "agentspan" in threading.current_thread().name:
        time.sleep(SLEEP_S)


threading.setprofile(_slow)
sys.setswitchinterval(1e-4)
