"""A program that forks while its threads record: a child must not inherit a lock of SQLite's."""

import os
import signal
import sys
import threading
import warnings

import agentspan

warnings.simplefilter("ignore")  # Python 3.12 and later warn of forks among threads


def main(path: str, forks: int) -> None:
    """Fork so often, and exit with the number of children that did not end well."""
    agentspan.configure(path)
    stop = threading.Event()

    def work() -> None:
        while not stop.is_set():
            with agentspan.run("thread"), agentspan.span("tool", {"name": "x"}):
                pass

    threads = [threading.Thread(target=work) for _ in range(3)]
    for thread in threads:
        thread.start()
    bad = 0
    for _ in range(forks):
        child = os.fork()
        if child == 0:
            signal.alarm(20)
            with agentspan.run("child"), agentspan.span("tool", {"name": "child"}):
                pass
            os._exit(agentspan.health().failed)
        bad += os.waitpid(child, 0)[1] != 0
    stop.set()
    for thread in threads:
        thread.join()
    sys.exit(bad)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
