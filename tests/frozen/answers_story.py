"""Makes `answers/story.jsonl.gz`, of which the frozen answers speak: `python -m tests.frozen.answers_story`.

Two agents. Of `shop`, version 1.1 fails more often than 1.0, because a tool fails for orders with several parts; each
task has two runs of each version, its runs belong to customers' conversations, and half of them have a reward. `clerk`
has one version and a coding session's folder. The ids are made once, so the file is written anew only if its runs
should be others.
"""

import gzip
import tempfile
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import agentspan
from agentspan.database import Database
from tests.cli.calling import call

FILE = Path(__file__).parent / "answers" / "story.jsonl.gz"
BEGAN = datetime(2026, 11, 20, 9, tzinfo=UTC)
TASKS = 12
MODELS = ("gpt-4o", "gpt-4o-mini")


class Story:
    """Runs that begin one after another, half an hour between them."""

    def __init__(self, db: Database) -> None:
        self.db = db
        self.number = 0

    def run(self, agent: str, version: str, task: str, *, fails: bool, parts: int, **about: Any) -> None:
        """Record a run: a call of a model, a retrieval, a tool that may fail, and an answer."""
        self.number += 1
        start = BEGAN + timedelta(minutes=30 * self.number)
        run = self.db.agent_instances.register(
            agent, agent_version={"external_identifier": version}, agent_schema_version={}, task=task, **about
        )
        self.db.agent_instances.start(run.id, timestamp=start)
        model = MODELS[self.number % 2]
        sent = {"model": model, "messages": [{"role": "user", "content": f"where is order {task}?"}]}
        usage = {"input_tokens": 700 + 13 * self.number, "output_tokens": 40 + self.number, "cached_tokens": 256}
        self.span(run.id, start, 1, "llm", sent, {"text": f"I look for {task}", **usage})
        found = [{"id": f"d{place}", "text": "parcels"} for place in range(parts)]
        self.span(run.id, start, 2, "retrieval", {"query": task}, {"documents": found})
        arguments = {"order": task, "parts": parts}
        error = {"error": {"type": "KeyError", "message": f"no parcel {self.number}"}}
        ended = error if fails else {"output": {"state": "sent"}}
        status: Any = "failed" if fails else "complete"
        self.span(run.id, start, 4, "tool", {"name": "track", "arguments": arguments}, ended, status)
        if not fails:
            self.span(run.id, start, 5, "llm", sent, {"text": "it was sent", **usage})
        self.db.agent_instances.finish(run.id, status, timestamp=start + timedelta(seconds=7 + parts))
        if self.number % 2:
            self.db.scores.record(run.id, "reward", int(not fails))

    def span(
        self, run: str, start: datetime, second: int, name: str, payload: Any, result: Any, status: Any = "complete"
    ) -> None:
        """Record a step of a second."""
        at = start + timedelta(seconds=second)
        times: Any = {"started_at": at, "finished_at": at + timedelta(seconds=1)}
        self.db.agent_spans.create(run, name, status, payload, result, **times)


def tell(db: Database) -> None:
    """Record all runs."""
    story = Story(db)
    for version, failing in (("1.0", 2), ("1.1", 9)):
        for place in range(2 * TASKS):
            parts = place % 5
            about = {
                "session": f"conversation-{place % 6}",
                "metadata": {"cwd": f"/home/ana/{('web', 'app')[place % 2]}"},
            }
            story.run(
                "shop", version, f"t{place % TASKS}", fails=place % TASKS < failing and parts > 1, parts=parts, **about
            )
    for place in range(4):
        story.run("clerk", "3", f"letter {place}", fails=place == 3, parts=1)


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "story.db")
        with agentspan.open(path) as db:
            tell(db)
        FILE.parent.mkdir(exist_ok=True)
        FILE.write_bytes(gzip.compress(call(path, "export", "all").output.encode(), mtime=0))
