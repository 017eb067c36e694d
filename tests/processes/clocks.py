"""Programs on hosts whose clocks differ: `python -m tests.processes.clocks URL FOLDER HOSTS LEASE_S`.

One process forks as many programs as there are hosts. Each has the name of a host, and state and a clock of its own,
between an hour behind and an hour ahead, and records until FOLDER/stop exists. It writes to FOLDER/HOST.jsonl what a
call has acknowledged, once the call has returned. Each also records into a run of the host before it.
"""

import json
import os
import pickle
import platform
import sys
import time
import warnings
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import freezegun

import agentspan
import agentspan.storage.postgres.storage
from agentspan.recording.span_and_run import state_of
from agentspan.tuning import STANDARD

warnings.simplefilter("ignore")  # freezegun's, of modules that it looks through

HOUR_S = 3600.0
PAUSE_S = 0.05


class Acknowledged:
    """Writes down what calls have acknowledged."""

    def __init__(self, path: Path) -> None:
        self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)

    def say(self, what: str, id: str, **more: Any) -> None:
        """Write one line, by one call of the system."""
        os.write(self._file, (json.dumps({"what": what, "id": id, **more}) + "\n").encode())


def steps(said: Acknowledged, number: int) -> None:
    """Record two spans, one in the other."""
    with agentspan.span("tool", {"name": "outer", "arguments": {"n": number}}) as outer:
        said.say("started", outer.id)
        with agentspan.span("tool", {"name": "inner"}) as inner:
            said.say("started", inner.id)
            inner.set_result({"output": number})
        said.say("finished", inner.id, output=number)
        outer.set_result({"output": -number})
    said.say("finished", outer.id, output=-number)


def visit(path: str, number: int) -> None:
    """Record into the run of another host, which this function was carried from."""
    steps(Acknowledged(Path(path)), number)


def host(url: str, folder: Path, number: int, clock: Any, offset_s: float, lease_s: float) -> None:
    """Record as the program of one host; its long run has an open span all the time."""
    name = f"host-{number}"
    platform.node = lambda: name  # as recovery.writers reads it
    os.environ["XDG_STATE_HOME"] = str(folder / name)
    (folder / name).mkdir()
    clock.move_to(datetime.now(UTC) + timedelta(seconds=offset_s))
    said = Acknowledged(folder / f"{name}.jsonl")
    agentspan.configure(url, tuning=STANDARD._replace(lease_s=lease_s))
    with agentspan.run("long", version="1") as long:
        row = state_of(long).registered_row
        assert row is not None
        said.say("writer", row.writer_id or "")
        said.say("begun", long.id)
        aside = folder / f"{name}.carried.new"
        aside.write_bytes(pickle.dumps(agentspan.propagate(visit)))
        aside.rename(folder / f"{name}.carried")
        with agentspan.span("tool", {"name": "open"}) as span:
            said.say("started", span.id)
            _rounds(folder, number, said)
            span.set_result({"output": "open"})
        said.say("finished", span.id, output="open")
    said.say("ended", long.id)
    flushed = agentspan.flush(60)
    health = agentspan.health()
    said.say("over", "", flushed=flushed, failed=health.failed, waiting=health.waiting, refused=health.refused)


def _rounds(folder: Path, number: int, said: Acknowledged) -> None:
    before = folder / f"host-{number - 1}.carried"
    count = 0
    while not (folder / "stop").exists():
        count += 1
        with agentspan.run("short", version="1") as run:
            said.say("begun", run.id)
            steps(said, count)
        said.say("ended", run.id)
        if before.exists() and count % 3 == 0:
            pickle.loads(before.read_bytes())(str(folder / f"host-{number}.jsonl"), count)
        time.sleep(PAUSE_S)


def main(url: str, folder: Path, hosts: int, lease_s: float) -> None:
    """Fork the programs, and wait for them."""
    clock = freezegun.freeze_time(datetime.now(UTC), tick=True).start()  # once: it looks through all modules
    pids = []
    for number in range(hosts):
        pid = os.fork()
        if pid == 0:
            host(url, folder, number, clock, HOUR_S * (2 * number / (hosts - 1) - 1), lease_s)
            sys.exit()
        pids.append(pid)
    sys.stdout.write(" ".join(map(str, pids)) + "\n")
    sys.stdout.flush()
    for pid in pids:
        os.waitpid(pid, 0)


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), int(sys.argv[3]), float(sys.argv[4]))
