"""Make sets of runs with a planted cause of failure, to count how often `why` finds it, and what it finds by chance.

Tasks differ in difficulty, normal with a standard deviation of 1 in logits; 31 % of the runs fail. The cause is in
20 % of the runs, and multiplies the odds of failing. A harmless error of the same tool is in 25 %. A run has about
thirteen spans, with arguments, numbers of calls and durations that mean nothing.
"""

import json
import random
from collections import defaultdict
from collections.abc import Iterator
from functools import lru_cache
from math import exp, log
from typing import Any

import agentspan
from agentspan import clock, ids
from agentspan.analysis.associations import find
from agentspan.analysis.features import run_features
from agentspan.analysis.runs import run_briefs
from agentspan.analysis.why import why
from agentspan.model.changes import Put, Unit
from agentspan.model.rows import AgentInstanceRow, AgentSpanRow, Row
from agentspan.schemas.span_types import describe, fallback
from agentspan.storage.memory import MemoryStorage
from agentspan.storage.protocol import Storage
from agentspan.storage.questions import Account
from agentspan.storage.sums import RunBrief

CAUSES = {
    "argument": "Tool pay with currency=EUR",
    "version": "version 2",
    "missing step": "Tool check not used",
    "repeat": "Tool search repeated with the same arguments",
    "failing tool": "Tool quote failed",
    "error text": "error Tool pay: ToolFailed: card declined",
    "order": "Tool pay before Tool check",
    "empty result": "Tool search with an empty result",
    "empty retrieval": "Retrieval with an empty result",
    "MCP argument": "MCP post with channel=sms",
    "nested argument": "Tool pay with card.kind=prepaid",
    "list argument": "Tool search with tags[]=late",
    "number": "Tool pay with total above ",
    "result's value": "Tool quote returning state=stale",
    "finish reason": "LLM returning finish_reason=length",
    "prompt": 'prompt with "Answer in one line."',
}
"""The causes that can be planted, each with the finding that names it."""
LESS = {("number", 100): 0.20}
"""A share that is smaller than in TABLE: `why` does not know the limit."""
LIMIT = 0.8
"""The total above which a run fails more often, if that is the cause."""
WORDS = ("busy", "closed", "away", "too late", "too many")
TABLE = ((100, 0.45), (300, 0.90))
"""Numbers of runs, and in which share of the sets each cause must be found."""
MOST_ALARMS = 0.03
"""The share of shuffled sets in which anything may be found."""
EXPOSED, HARMLESS, FAILING = 0.20, 0.25, 0.31
BEGAN_NS = 1_780_000_000 * 10**9


@lru_cache
def base_logit(odds: float) -> float:
    """Return the logit without difficulty and cause at which FAILING of the runs fail."""
    dice = random.Random(0)
    difficulties = [dice.gauss(0, 1) for _ in range(4000)]
    low, high = -6.0, 6.0
    for _ in range(40):
        middle = (low + high) / 2
        share = sum(
            (1 - EXPOSED) * _chance(middle + each) + EXPOSED * _chance(middle + each + log(odds))
            for each in difficulties
        ) / len(difficulties)
        low, high = (middle, high) if share < FAILING else (low, middle)
    return low


def plant(
    storage: Storage, cause: str | None, *, runs: int, seed: int, each: int = 5, odds: float = 10, tasks: bool = True
) -> None:
    """Fill a storage with a set of runs.

    Args:
        cause: one of CAUSES; None for none.
        each: runs of each task; all tasks are run once, then all a second time …
        tasks: whether the runs say of which task they are.
    """
    maker = _Maker(storage, seed, cause)
    units = []
    difficulties = [maker.dice.gauss(0, 1) for _ in range(max(1, runs // each))]
    for number in range(runs):
        place = number % len(difficulties)
        exposed = maker.dice.random() < EXPOSED
        logit = base_logit(odds if cause else 1.0) + difficulties[place] + (log(odds) if exposed and cause else 0)
        failed = maker.dice.random() < _chance(logit)
        task = f"task {place}" if tasks else None
        units += [Unit((Put(row, minted=True),)) for row in maker.run(task, exposed=exposed, failed=failed)]
    storage.apply(units)


def _chance(logit: float) -> float:
    return 1 / (1 + exp(-logit))


class _Maker:
    def __init__(self, storage: Storage, seed: int, cause: str | None) -> None:
        self.dice = random.Random(seed)
        self.cause = cause
        self.ids = ids.IdSource(storage.ask(Account()).partition)
        agents = agentspan.open(storage).agent_instances
        self.agents = [agents.register("shop", agent_version={"external_identifier": version}) for version in "12"]
        self.now_ns = BEGAN_NS

    def run(self, task: str | None, *, exposed: bool, failed: bool) -> Iterator[Row]:
        """Yield the rows of a run."""
        agent = self.agents[exposed if self.cause == "version" else self.dice.random() < 0.5]
        began, run = self.now_ns, self.ids.new()
        values = dict.fromkeys(AgentInstanceRow._fields)
        steps = [step._replace(agent_id=agent.agent_id, agent_instance_id=run) for step in self.steps(exposed)]
        values |= {name: getattr(agent, name) for name in ("agent_id", "agent_version_id", "agent_schema_version_id")}
        values |= {"id": run, "status": "failed" if failed else "complete", "purpose": "live", "task": task}
        values |= {"started_at": clock.to_text(began), "finished_at": clock.to_text(self.now_ns)}
        values |= {"inserted_at": clock.to_text(began), "updated_at": clock.to_text(self.now_ns)}
        values |= {"duration_ms": (self.now_ns - began) / 1e6}
        values |= {"metadata": json.dumps({"region": self.dice.choice(["north", "south"]), "ticket": run})}
        yield AgentInstanceRow(**values)  # type: ignore[arg-type]
        yield from steps
        self.now_ns += 10**9

    def steps(self, exposed: bool) -> Iterator[AgentSpanRow]:
        """Yield the steps of a run."""
        dice, cause = self.dice, self.cause if exposed else None
        harmless = dice.random() < HARMLESS
        city = dice.choice(["Rome", "Oslo", "Lima"])
        tags = [dice.choice(["new", "old"]), *(["late"] if cause == "list argument" else [])]
        yield self.span("retrieval", {"query": city}, {"documents": [] if cause == "empty retrieval" else [city]})
        for _ in range(dice.choice([1, 1, 2])):
            yield self.model()
            yield self.tool(
                "search",
                [] if cause == "empty result" else [dice.randrange(99)],
                city=city,
                page=dice.random(),
                tags=tags,
            )
        if cause == "repeat":
            page = dice.random()
            yield self.tool("search", [1], city=city, page=page)
            yield self.tool("search", [1], city=city, page=page)
        yield self.model()
        fails = cause == "failing tool"
        state = "stale" if cause == "result's value" else "fresh"
        quoted = dice.choice(WORDS) if fails else {"price": 7, "state": state}
        yield self.tool("quote", quoted, fails, seats=dice.choice([1, 2, 3]))
        channel = "sms" if cause == "MCP argument" else "mail"
        called = {"method": "tools/call", "server": "crm", "target": "post", "arguments": {"channel": channel}}
        yield self.span("mcp", called, {"result": {"sent": True}})
        for part in (self.pay, self.check) if cause == "order" else (self.check, self.pay):
            yield from part(cause, harmless)
        yield self.model(cause)

    def pay(self, cause: str | None, harmless: bool) -> Iterator[AgentSpanRow]:
        """Yield the calls that pay."""
        currency = "EUR" if cause == "argument" else "USD"
        card = {"kind": "prepaid" if cause == "nested argument" else "credit", "limit": {"day": 500}}
        low, high = (LIMIT, 1.0) if cause == "number" else (0.0, LIMIT) if self.cause == "number" else (0.0, 1.0)
        total = self.dice.uniform(low, high)
        yield self.model()
        if harmless:
            yield self.tool("pay", "try again", True, currency=currency, total=total, card=card)
        if cause == "error text":
            yield self.tool("pay", "card declined", True, currency=currency, total=total, card=card)
        yield self.tool("pay", "paid", currency=currency, total=total, card=card)

    def check(self, cause: str | None, _: bool) -> Iterator[AgentSpanRow]:
        """Yield the call that checks."""
        if cause != "missing step":
            yield self.tool("check", self.dice.random(), strict=self.dice.random() < 0.5)

    def model(self, cause: str | None = None) -> AgentSpanRow:
        """Make a call of a model."""
        system = "You sell tickets. Be kind." + (" Answer in one line." if cause == "prompt" else "")
        asked = {"model": self.dice.choice(["small", "large"]), "messages": [{"role": "system", "content": system}]}
        reason = "length" if cause == "finish reason" else "stop"
        return self.span("llm", asked, {"text": f"step {self.dice.random()}", "finish_reason": reason})

    def tool(self, name: str, output: Any, fails: bool = False, **arguments: Any) -> AgentSpanRow:
        """Make a call of a tool; of one that fails, `output` is the message."""
        error = {"error": {"type": "ToolFailed", "message": output}}
        return self.span("tool", {"name": name, "arguments": arguments}, error if fails else {"output": output})

    def span(self, kind: str, payload: dict[str, Any], result: dict[str, Any]) -> AgentSpanRow:
        """Make a finished span."""
        took = int(self.dice.lognormvariate(4, 1) * 1e6)
        began = clock.to_text(self.now_ns)
        self.now_ns += took
        status = "failed" if "error" in result else "complete"
        meaning = describe(fallback(kind), kind, status, payload, result, took / 1e6)
        finished = clock.to_text(self.now_ns)
        return AgentSpanRow(
            self.ids.new(), "", "", None, kind, fallback(kind).title, status, json.dumps(payload), json.dumps(result),
            began, finished, took / 1e6, began, finished, None, None, **meaning.by_column(),
        )  # fmt: skip


def found(cause: str, *, runs: int, seed: int) -> bool:
    """Return whether `why` finds a cause within tasks in a set of runs."""
    storage = MemoryStorage()
    plant(storage, cause, runs=runs, seed=seed)
    answer = why(storage).findings
    return answer.stratified and any(each.feature.startswith(CAUSES[cause]) for each in answer.findings)


def false_alarms(cause: str, *, runs: int, seed: int, shuffles: int) -> int:
    """Return in how many shuffles of the outcomes within tasks something is found."""
    storage = MemoryStorage()
    plant(storage, cause, runs=runs, seed=seed)
    known = [run for run in run_briefs(storage) if run.status in ("complete", "failed")]
    features = run_features(storage, known)
    tasks: dict[str | None, list[RunBrief]] = defaultdict(list)
    for run in known:
        tasks[run.task].append(run)
    dice = random.Random(seed)
    alarms = 0
    for _ in range(shuffles):
        failed: dict[str, bool] = {}
        for task in tasks.values():
            outcomes = dice.sample([run.status == "failed" for run in task], len(task))
            failed |= {run.id: outcome for run, outcome in zip(task, outcomes, strict=True)}
        answer = find(features, failed, {run.id: (run.agent_id, run.task) for run in known})
        alarms += bool(answer.findings)
    return alarms
