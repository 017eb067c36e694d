"""Steps of invented sessions, as decoders yield them, and their arrival in a storage."""

from collections.abc import Iterable, Sequence
from typing import Any

from agentspan.api.context import Context
from agentspan.arriving.arrival import Arrival, Place
from agentspan.arriving.records import Record, Session, Step
from agentspan.database import Database
from agentspan.model.rows import AgentInstanceRow, AgentSpanRow
from agentspan.storage.access import scan
from agentspan.storage.questions import SpansOf

SECOND = 1_000_000_000
START = 1_700_000_000 * SECOND
AGENT = "coder"


class Told:
    """Makes the steps of one session, one second after the other."""

    def __init__(self, id: str = "s1", **facts: Any) -> None:
        self.session = Session(id, AGENT, facts.pop("started_ns", START), "1.0", **facts)
        self.steps: list[Step] = []
        self._at = self.session.started_ns

    def step(self, type: str, payload: dict[str, Any], result: dict[str, Any] | None = None, **how: Any) -> Step:
        """Add a step; `key`, `parent`, `status` and `took` (seconds) may be given."""
        self._at += SECOND
        key = how.get("key", f"k{len(self.steps)}")
        ended = self._at + int(how.get("took", 0.5) * SECOND)
        status = how.get("status", "complete")
        made = Step(self.session.id, key, how.get("parent"), type, self._at, ended, status, payload, result)
        self.steps.append(made)
        return made

    def ask(self, text: str, **how: Any) -> Step:
        return self.step("message", {"role": "user", "content": text, **how.pop("also", {})}, **how)

    def call(self, text: str = "", tokens: int = 100, **how: Any) -> Step:
        result = {"text": text, "input_tokens": tokens, "output_tokens": 5, "tool_calls": how.pop("calls", None)}
        return self.step("llm", {"model": "m-1"}, {k: v for k, v in result.items() if v is not None}, **how)

    def tool(self, name: str, arguments: Any, output: Any, **how: Any) -> Step:
        return self.step(
            "tool", {"name": name, "arguments": arguments}, {"output": output, **how.pop("also", {})}, **how
        )

    def compact(self, summary: str) -> Step:
        return self.step(
            "compaction", {"trigger": "auto", "tokens_before": 900}, {"tokens_after": 90, "summary": summary}
        )

    def records(self) -> list[Record]:
        return [self.session, *self.steps, self.session._replace(ended_ns=self._at + SECOND)]


def arrive(database: Database, *sessions: Told | Sequence[Record], format: str = "toy") -> list[str]:
    """Store sessions, and return the ids of their runs."""
    arrival = Arrival(Context(database.storage))
    ids = []
    for each in sessions:
        records: Iterable[Record] = each.records() if isinstance(each, Told) else each
        records = [*records]
        arrival.take(format, records)
        arrival.finish(live=False)
        first = records[0]
        assert isinstance(first, Session)
        place = arrival.place(format, first.id)
        assert isinstance(place, Place)
        ids.append(place.run)
        arrival.forget()
    return ids


def spans_of(database: Database, run: str, type: str = "") -> list[AgentSpanRow]:
    """Return the spans of a run, or those of one type, in order of their start."""
    spans = sorted(database.storage.ask(SpansOf(run)), key=lambda span: (span.started_at or "", span.id))
    return [span for span in spans if type in ("", span.schema_name)]


def runs_of(database: Database) -> list[AgentInstanceRow]:
    """Return all runs in order of their start."""
    return sorted(scan(database.storage, AgentInstanceRow), key=lambda run: run.started_at or "")
