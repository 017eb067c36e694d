"""What the child processes of these tests do; run as `python -m tests.processes.workers NAME ARGS…`."""

import os
import sys
import threading
import time
from pathlib import Path
from typing import Literal

import agentspan


def wait_for(gate: str) -> None:
    """Begin together with the others: when the file `gate` appears."""
    while not os.path.exists(gate):
        time.sleep(0.0005)


def race(db: str, folder: str, name: str) -> None:
    """Finish each span that is named in a line of stdin, as soon as it is; say whether it worked."""
    with agentspan.open(db) as database:
        print("ready", flush=True)
        for line in sys.stdin:
            try:
                database.agent_spans.finish(line.strip(), result_payload={"output": name})
                print("won", flush=True)
            except agentspan.InvalidAction as error:
                print(error.code, flush=True)


def first_open(rounds: str, folder: str) -> None:
    """Open a new file in each round, at the same moment as the others."""
    for number in range(int(rounds)):
        wait_for(f"{folder}/go-{number}")
        with agentspan.open(f"{folder}/{number}.db") as database:
            database.agent_instances.register("an-agent")
        Path(f"{folder}/done-{number}-{os.getpid()}").touch()


def record(db: str, gate: str, threads: str, spans: str) -> None:
    """Record spans from several threads, each in a run of its own; say what the tracer counted."""
    agentspan.configure(db)

    def work() -> None:
        with agentspan.run("a"):
            for number in range(int(spans)):
                with agentspan.span("tool", {"name": str(number)}) as span:
                    span.set_result({"output": number})

    print("ready", flush=True)
    wait_for(gate)
    workers = [threading.Thread(target=work) for _ in range(int(threads))]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    agentspan.flush(60)
    print(*agentspan.health()[:5], flush=True)


def record_many(db: str, spans: str) -> None:
    """Record many spans in one run; say how much memory is resident after 10,000, and at the end (MiB)."""
    agentspan.configure(db, raise_errors=True)

    @agentspan.span
    def search(query: str) -> str:
        return query * 10

    def resident() -> float:
        return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20

    with agentspan.run("long"):
        for number in range(int(spans)):
            search(f"{number:030}")
            if number == 10_000:
                print(resident(), flush=True)
    print(resident(), flush=True)


def record_until_killed(db: str, threads: str, durability: Literal["journal", "commit"]) -> None:
    """Record for ever; acknowledge each transition on stdout once its call has returned."""
    agentspan.configure(db, durability=durability)
    lock = threading.Lock()

    def say(*words: str) -> None:
        with lock:
            os.write(1, (" ".join(words) + "\n").encode())

    def work() -> None:
        with agentspan.run("a") as run:
            say("run", run.id)
            while True:
                with agentspan.span("tool", {"name": "x"}) as span:
                    say("started", span.id)
                    span.set_result({"output": "y" * 200})
                say("finished", span.id)

    for _ in range(int(threads)):
        threading.Thread(target=work, daemon=True).start()
    time.sleep(60)


if __name__ == "__main__":
    globals()[sys.argv[1]](*sys.argv[2:])
