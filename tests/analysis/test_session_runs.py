"""The runs of a session in order, with what was asked first, on all storages."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from agentspan.analysis.outcomes import parse
from agentspan.analysis.session_runs import MAX_PROMPT, first_prompt, session_runs, totals_text
from agentspan.database import Database
from agentspan.errors import InvalidValue, NotFound
from agentspan.model.rows import AgentInstanceRow
from agentspan.storage.questions import Find, RunFilter

ODD = "conv/1 ü?#&%2F../\"'<b>"


def recorded(db: Database, number: int, session: str = ODD, **about: Any) -> str:
    """Record a run of an hour of its own, with a step that was asked a question."""
    run = db.agent_instances.register("a", session=session, user=f"user {number % 2}", **about)
    at = datetime(2026, 11, 26, number, tzinfo=UTC)
    db.agent_instances.start(run.id, timestamp=at)
    payload = {"model": "m", "messages": [{"role": "user", "content": f"question {number}"}]}
    result = {"text": "yes", "input_tokens": 100, "output_tokens": 10, "cost_usd": 0.5}
    times: Any = {"started_at": at, "finished_at": at + timedelta(seconds=1)}
    db.agent_spans.create(run.id, "llm", "complete", payload, result, **times)
    db.agent_instances.finish(run.id, "failed" if number == 2 else "complete", timestamp=at + timedelta(seconds=2))
    return run.id


def prompt(db: Database, run: str) -> str:
    row = db.storage.ask(Find(run)).rows[run][1]
    assert isinstance(row, AgentInstanceRow)
    return first_prompt(db.storage, row)


def test_runs_are_in_order_with_their_sums(db: Database) -> None:
    runs = [recorded(db, number) for number in range(1, 6)]
    recorded(db, 7, session="conv/1")
    found = session_runs(db.storage, ODD)
    assert [each.run.run.id for each in found.runs] == runs
    assert [each.prompt for each in found.runs] == [f"question {number}" for number in range(1, 6)]
    assert [each.verdict.kind for each in found.runs] == ["passed", "failed", "passed", "passed", "passed"]
    assert (found.total, found.session, found.title, found.users) == (5, ODD, None, ("user 1", "user 0"))
    assert totals_text("5 runs", found.totals) == "5 runs · 5 steps · 550 tok · $2.5000 · 10.0 s"
    assert found.first_at < found.last_at
    pages = [session_runs(db.storage, ODD, limit=2, offset=offset) for offset in (0, 2, 4, 6)]
    assert [each.run.run.id for page in pages for each in page.runs] == runs
    assert {page.total for page in pages} == {5}


def test_filters_and_a_rule_hold(db: Database) -> None:
    runs = [recorded(db, number) for number in range(1, 4)]
    found = session_runs(db.storage, ODD, RunFilter(status="failed"))
    assert [each.run.run.id for each in found.runs] == [runs[1]]
    assert session_runs(db.storage, ODD, RunFilter(agent="nobody")).runs == ()
    db.scores.record(runs[0], "reward", 0)
    judged = session_runs(db.storage, ODD, judge=parse("reward>=1"))
    assert (judged.outcome, judged.runs[0].verdict.kind) == ("reward>=1", "missed")
    with pytest.raises(InvalidValue, match="a score that no run has"):
        session_runs(db.storage, ODD, judge=parse("taste>=1"))


@pytest.mark.parametrize("session", ["nobody", "", "x" * 5000, "%00", "../../etc", "' or 1=1 --"])
def test_an_unknown_session_is_refused(db: Database, session: str) -> None:
    recorded(db, 1)
    with pytest.raises(NotFound, match="no run has the session"):
        session_runs(db.storage, session)


def test_a_prompt_is_what_was_asked_first(db: Database) -> None:
    def run(metadata: Any = None, *steps: tuple[str, Any], task: str | None = None) -> str:
        run = db.agent_instances.register("a", metadata=metadata, task=task)
        for kind, payload in steps:
            db.agent_spans.create(run.id, kind, "complete", payload)
        return prompt(db, run.id)

    said = ("message", {"role": "user", "content": "from the\nuser " + "x" * 2000})
    answer = ("message", {"role": "assistant", "content": "how can I help?"})
    history = [
        {"role": "system", "content": "be kind"},
        {"role": "user", "content": "an earlier turn"},
        {"role": "assistant", "content": "done"},
        {"role": "user", "content": [{"type": "text", "text": "the latest turn"}]},
    ]
    called = ("llm", {"model": "m", "messages": history})
    assert run({"question": "why?"}, said) == "why?"
    assert run({"input": {"a": 1}}, said) == '{"a":1}'
    assert run({"ticket": 3}, answer, said, called).startswith("from the user xxx")
    assert len(run(None, said)) == MAX_PROMPT
    assert run(None, called) == "the latest turn"
    assert run(None, ("tool", {"name": "look"}), task="t7") == "t7"
    assert run(None, ("tool", {"name": "look", "arguments": {"a": 1}})) == "Tool look(a=1)"
    assert run() == ""
