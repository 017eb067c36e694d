"""Threads that do the same at the same moment, and take turns as often as they can."""

import sys
import threading
from collections.abc import Callable


def at_once(threads: int, work: Callable[[int], object]) -> list[Exception]:
    """Call `work` with 0, 1, … in threads that begin together; return what they raised."""
    gate, raised = threading.Barrier(threads), list[Exception]()

    def run(number: int) -> None:
        gate.wait()
        try:
            work(number)
        except Exception as error:
            raised.append(error)

    running = [threading.Thread(target=run, args=(number,)) for number in range(threads)]
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        for each in running:
            each.start()
        for each in running:
            each.join()
    finally:
        sys.setswitchinterval(interval)
    return raised


def elsewhere(work: Callable[[], object]) -> None:
    """Call `work` in another thread, to its end."""
    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
