"""Programs that are killed while they record: `python -m tests.processes.recorders NAME ARGS…`.

Each acknowledges a transition, with one write to stdout, once its call has returned. What is written by then is whole:
a pipe takes so little at once or not at all.
"""

import os
import sys
import threading
import time
import warnings

import agentspan

warnings.simplefilter("ignore")  # Python 3.12 and later warn of forks among threads


def say(*words: str) -> None:
    """Acknowledge."""
    os.write(1, (" ".join(words) + "\n").encode())


def work() -> None:
    """Record until somebody puts an end to it."""
    with agentspan.run("a") as run:
        say("run", run.id)
        for number in range(sys.maxsize):
            with agentspan.span("tool", {"name": "x"}) as span:
                say("started", span.id)
                if number % 3 == 0:
                    span.update_payload({"arguments": {"n": number}})
                    say("updated", span.id)
                span.set_result({"output": "y" * 200})
            say("finished", span.id)


def threads(db: str, number: str) -> None:
    """Record from several threads."""
    agentspan.configure(db)
    for _ in range(int(number)):
        threading.Thread(target=work, daemon=True).start()
    time.sleep(60)


def family(db: str, parent_dies: str) -> None:
    """Record in a parent and two children; after a while one child ends at once, and perhaps the parent is killed."""
    agentspan.configure(db)
    with agentspan.run("before"), agentspan.span("tool", {"name": "before"}) as span:
        say("started", span.id)
    say("finished", span.id)
    for number in range(2):
        if os.fork() == 0:
            say("pid", str(os.getpid()))
            if number == 0:
                threading.Timer(0.05, os._exit, (0,)).start()
            work()
    say("pid", str(os.getpid()))
    if parent_dies == "yes":
        threading.Timer(0.05, os.kill, (os.getpid(), 9)).start()
    work()


def burst(db: str, spans: str) -> None:
    """Record many spans in a hurry, and die inside another one."""
    agentspan.configure(db)
    with agentspan.run("burst"):
        for number in range(int(spans)):
            with agentspan.span("tool", {"name": str(number)}):
                pass
        with agentspan.span("tool", {"name": "open"}):
            os.kill(os.getpid(), 9)


if __name__ == "__main__":
    globals()[sys.argv[1]](*sys.argv[2:])
