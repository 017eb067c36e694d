"""Make a file with many runs, to see what reading costs when there is much to read: made up, but of realistic size.

Most runs have 10 to 60 spans, some have 10,000, a few fail, the last one is still open. The same seed makes the same
runs, but for the ids. Rows are put by the storage in large transactions, 40 times as fast as recording them.

    python benchmarks/make_runs.py made.db [--spans 1000000] [--large 5] [--seed 1] [--verdicts]

With `--verdicts` there is something to compare: each agent has two versions, one of 20 spans fails, half of them with a
message of its own and half with one of a few, and each run has a score `reward`, 0 or 1.
"""

import argparse
import json
import os
import random
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import agentspan
from agentspan import clock, ids
from agentspan.model.changes import Put, Unit
from agentspan.model.rows import AgentInstanceRow, AgentSpanRow, Row, ScoreRow
from agentspan.schemas.span_types import describe, fallback
from agentspan.storage.protocol import Storage
from agentspan.storage.questions import Account

BATCH = 5000
LARGE = 10_000
MODELS = ("gpt-4.1", "claude-sonnet-4", "small-local")
TOOLS = ("get_reservation_details", "search_direct_flight", "book_reservation", "calculate", "think", "fetch_page")
TEXT = (
    "flight booking reservation customer passenger baggage economy business morning airport payment certificate "
    "refund policy cancel change insurance member status weather delay departure arrival seat upgrade voucher agent "
    "question answer details please confirm available total price travel dates origin destination"
)
WORDS = tuple(TEXT.split())
YEAR_NS = 365 * 86_400 * 10**9


class Maker:
    """Makes the rows of runs, one after another in time."""

    def __init__(self, storage: Storage, seed: int, *, verdicts: bool = False) -> None:
        self.random = random.Random(seed)
        self.verdicts = verdicts
        self.ids = ids.IdSource(storage.ask(Account()).partition)
        with_agents = agentspan.open(storage)
        self.agents = [
            with_agents.agent_instances.register(name, agent_version={"external_identifier": version})
            for name in ("airline", "researcher", "triage")
            for version in ("1", "2")[: 1 + verdicts]
        ]
        self.now_ns = time.time_ns() - YEAR_NS
        self.made = 0

    def text(self, words: int) -> str:
        """Some words, and now and then a code that stands nowhere else."""
        found = self.random.choices(WORDS, k=words)
        if self.random.random() < 0.05:
            found.append(f"R{self.made:07d}")
        return " ".join(found)

    def run(self, spans: int, *, is_open: bool = False) -> Iterator[Row]:
        """Yield the rows of a run."""
        agent = self.random.choice(self.agents)
        began = self.now_ns
        steps = list(self.steps(spans))
        values = dict.fromkeys(AgentInstanceRow._fields)
        failed = self.random.random() < 0.04
        run_id = self.ids.new()
        status = "active" if is_open else "failed" if failed else "complete"
        ended = None if is_open else clock.to_text(self.now_ns)
        values |= {name: getattr(agent, name) for name in ("agent_id", "agent_version_id", "agent_schema_version_id")}
        values |= {
            "id": run_id,
            "status": status,
            "purpose": "live",
            "metadata": json.dumps({"ticket": self.made}),
            "error": json.dumps({"type": "TimeoutError", "message": "the model did not answer"}) if failed else None,
            "started_at": clock.to_text(began),
            "finished_at": ended,
            "duration_ms": None if is_open else (self.now_ns - began) / 1e6,
            "inserted_at": clock.to_text(began),
            "updated_at": ended or clock.to_text(began),
        }
        yield AgentInstanceRow(**values)  # type: ignore[arg-type]
        for step in steps:
            yield step._replace(agent_id=agent.agent_id, agent_instance_id=run_id)
        if self.verdicts:
            yield self.score(run_id)
        self.now_ns += self.random.randrange(10**9, 10**11)

    def score(self, run_id: str) -> ScoreRow:
        """Make the score of a run."""
        values = dict.fromkeys(ScoreRow._fields)
        values |= {"id": self.ids.new(), "agent_instance_id": run_id, "target_id": run_id}
        values |= {"target_type": "agent_instance", "name": "reward", "source": "code"}
        values |= {"value": float(self.random.random() < 0.6), "inserted_at": clock.to_text(self.now_ns)}
        return ScoreRow(**values)  # type: ignore[arg-type]

    def has_failed(self, tool: str) -> bool:
        """Decide whether a call of a tool fails: 2.5 % of all spans, or 5 % where there are verdicts."""
        times = 1 + self.verdicts
        return self.random.random() < times * (0.2 if tool == "book_reservation" else 0.01)

    def steps(self, count: int) -> Iterator[AgentSpanRow]:
        """Yield steps: a loop of chains, each of which asks a model and calls a few tools."""
        parent = None
        payload: dict[str, Any]
        result: dict[str, Any]
        for number in range(count):
            if number % 5 == 0:
                kind, payload, result = "chain", {"name": "turn"}, {"output": self.text(5)}
            elif number % 5 == 1:
                kind = "llm"
                message = {"role": "user", "content": self.text(60)}
                payload = {"model": self.random.choice(MODELS), "messages": [message]}
                used = {
                    "input_tokens": self.random.randrange(200, 4000),
                    "output_tokens": self.random.randrange(9, 500),
                }
                result = {"text": self.text(50), "cost_usd": round(self.random.random() / 50, 6), **used}
            else:
                kind = "tool"
                payload = {"name": self.random.choice(TOOLS), "arguments": {"query": self.text(6)}}
                result = {"output": self.text(70)}
            span = self.span(kind, payload, result, None if kind == "chain" else parent)
            if kind == "chain":
                parent = span.id
            yield span

    def span(self, kind: str, payload: dict, result: dict, parent: str | None) -> AgentSpanRow:  # type: ignore[type-arg]
        """Make one finished span."""
        self.made += 1
        began, took = self.now_ns, int(self.random.lognormvariate(4, 1.5) * 1e6)
        self.now_ns += took
        failed = kind == "tool" and self.has_failed(payload["name"])
        if failed:
            is_usual = self.verdicts and self.random.random() < 0.5
            message = f"the {self.random.choice(WORDS)} is missing" if is_usual else self.text(8)
            result = {"error": {"type": "ToolFailed", "message": message}}
        status = "failed" if failed else "complete"
        meaning = describe(fallback(kind), kind, status, payload, result, took / 1e6)
        started, finished = clock.to_text(began), clock.to_text(self.now_ns)
        return AgentSpanRow(
            self.ids.new(), "", "", parent, kind, fallback(kind).title, status, json.dumps(payload), json.dumps(result),
            started, finished, took / 1e6, started, finished, None, None, **meaning.by_column(),
        )  # fmt: skip


def make(storage: Storage, spans: int, *, large: int = 5, seed: int = 1, verdicts: bool = False) -> int:
    """Fill a storage with about so many spans; return how many there are.

    Args:
        verdicts: whether there are two versions, more failures, and scores.
    """
    maker = Maker(storage, seed, verdicts=verdicts)
    sizes = [LARGE] * min(large, spans // (2 * LARGE))
    while sum(sizes) < spans:
        sizes.append(maker.random.randrange(10, 60))
    maker.random.shuffle(sizes)
    waiting: list[Unit] = []
    for number, size in enumerate(sizes):
        rows = maker.run(size, is_open=number == len(sizes) - 1)
        waiting += (Unit((Put(row, minted=True),)) for row in rows)
        if len(waiting) >= BATCH or number == len(sizes) - 1:
            storage.apply(waiting)
            waiting.clear()
    return maker.made


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file", type=Path)
    parser.add_argument("--spans", type=int, default=1_000_000)
    parser.add_argument("--large", type=int, default=5, help=f"how many runs of {LARGE:,} spans")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--verdicts", action="store_true")
    options = parser.parse_args()
    began = time.perf_counter()
    with agentspan.open(options.file) as db:
        made = make(db.storage, options.spans, large=options.large, seed=options.seed, verdicts=options.verdicts)
    seconds = time.perf_counter() - began
    print(f"{made:,} spans in {seconds:.1f} s, {os.path.getsize(options.file) / 2**20:,.0f} MiB")


if __name__ == "__main__":
    main()
