"""The one grammar of filters: words, times, agents and versions."""

import time
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest

import agentspan
from agentspan import clock
from agentspan.analysis import by_name, filter_words
from agentspan.analysis.by_name import resolved
from agentspan.analysis.filter_words import NAMES, filter_of, parse, parse_time
from agentspan.analysis.runs import find_runs, ids_of
from agentspan.database import Database
from agentspan.errors import InvalidValue, NotFound
from agentspan.ids import IdSource
from agentspan.model.changes import Put, Unit
from agentspan.model.rows import ScoreRow
from agentspan.storage.questions import RunFilter
from tests.cli.calling import named

IDS = IdSource(7)
BERLIN = timezone(timedelta(hours=1))


@pytest.mark.parametrize("wrong", [{"version": 1.9}, {"task": 3}, {"agent": ["a"]}, {"tag": 5}, {"sort": "size"}])
def test_a_value_of_another_type_is_refused_and_does_not_match_all_runs(wrong: Any) -> None:
    with agentspan.open(":memory:") as db, pytest.raises(InvalidValue, match=next(iter(wrong))):
        db.runs(**wrong)


def test_a_day_without_midnight_begins_with_its_first_hour(monkeypatch: pytest.MonkeyPatch) -> None:
    try:
        monkeypatch.setenv("TZ", "CLT4CLST,M9.1.0/0,M4.1.0/0")  # as in Chile
        time.tzset()
        assert parse_time("2026-09-06", zone=None) == "2026-09-06T04:00:00.000000Z"
    finally:
        monkeypatch.undo()
        time.tzset()


def test_a_filter_in_one_text_has_the_names_of_the_grammar() -> None:
    assert parse("all") == RunFilter()
    found = parse("agent='my agent' status=failed since=2026-11-24 failed --git-commit=ab meta=a=b meta=c.d=1=2")
    assert found == RunFilter(
        "my agent", "failed", "2026-11-24T00:00:00.000000Z", True, git_commit="ab", meta=(("a", "b"), ("c.d", "1=2"))
    )
    assert parse("researcher@1.0 session=s") == RunFilter("researcher@1.0", session="s")
    assert parse("my shop@v 1") == parse("agent='my shop@v 1'") == RunFilter("my shop@v 1")
    assert parse("my shop@v") == RunFilter("my shop@v")
    for wrong in ("my shop", "my shop@1 task=t", "all my 'shop@1'"):
        with pytest.raises(InvalidValue, match=r"must be all, AGENT@VERSION, .* a name with blanks needs quotes"):
            parse(wrong)
    assert parse("tag=a tag=b score=reward>=1 mark=bad task=t") == RunFilter(
        tags=("a", "b"), scores=("reward>=1",), mark="bad", task="t"
    )
    words = {"since": "1d", "until": "1d", "status": "complete", "purpose": "eval", "score": "a>1", "meta": "a=b"}
    assert filter_of({name: words.get(name, "x") for name in NAMES}) != RunFilter()


def test_a_tool_or_a_model_selects_the_runs_that_called_it(db: Database) -> None:
    tracer = agentspan.Tracer(db.storage, raise_errors=True)
    ids = []
    for tool, model in (("mcp__git__log", "claude-a-1"), ("Bash", "claude-a-2"), ("bash", "gpt-a")):
        with tracer.run("a") as run, tracer.span("x:tool", {"name": tool}), tracer.span("llm", {"model": model}):
            tracer.span("agent", {"name": "Agent"}).__enter__()  # it stays open, and is no tool
        ids.append(run.id)
    assert tracer.flush()

    def found(text: str) -> list[int]:
        assert {run.run.id for run in db.runs(**_keywords(text)).runs} == {*ids_of(db.storage, parse(text))}
        return sorted(map(ids.index, ids_of(db.storage, parse(text))))

    assert found("tool=Bash") == [1]
    assert found("tool=mcp__*") == [0]
    assert found("model=claude-*") == [0, 1]
    assert found("model=claude-* tool=Bash") == [1]
    assert found("tool=Agent") == found("tool=claude-a-1") == found("model=Bash") == found("tool=bas") == []


def _keywords(text: str) -> Any:
    return dict(word.split("=") for word in text.split())


def test_scores_marks_tasks_and_tags_select_runs(db: Database) -> None:
    tracer = agentspan.Tracer(db.storage, raise_errors=True)
    ids = []
    for number, reward in enumerate((0.0, 1.0, None)):
        with tracer.run("a", task=f"t{number}", tags=["eval", f"n{number}"]) as run:
            pass
        ids.append(run.id)
        assert tracer.flush()  # a score is put only where its run is stored
        scores = [] if reward is None else [("reward", reward, None)]
        for name, value, label in [*scores, ("mark", None, ("bad", "good", "bad")[number])]:
            row = ScoreRow(
                IDS.new(), run.id, "agent_instance", run.id, name, value, label, "code", None, clock.now(), None
            )
            db.storage.apply([Unit((Put(row),))])

    def found(text: str) -> list[int]:
        return sorted(ids.index(run.run.id) for run in find_runs(db.storage, parse(text)).runs)

    assert found("task=t1") == found("tag=n1 tag=eval") == found("score=reward>=1") == [1]
    assert found("mark=bad") == [0, 2]
    assert found("mark=* tag=eval") == found("status=complete") == [0, 1, 2]
    assert found("mark=bad score=reward<1") == [0]
    assert found("tag=n1 tag=n2") == []
    with pytest.raises(InvalidValue, match="is not a rule"):
        parse("score=reward")


@pytest.mark.parametrize(
    "text", ["", "status=odd", "failed=1", "agent=", "since=never", "n=1", '"', "meta=x", "words", "outcome=a>1"]
)
def test_what_is_no_filter_is_an_error_that_names_its_field(text: str) -> None:
    with pytest.raises(InvalidValue, match=r"^head"):
        parse(text, "head")


@pytest.mark.parametrize(
    ("text", "utc", "berlin"),
    [
        ("today", "2026-03-02T00:00", "2026-03-01T23:00"),
        ("yesterday", "2026-03-01T00:00", "2026-02-28T23:00"),
        ("02:00", "2026-03-02T02:00", "2026-03-02T01:00"),
        ("22:45", "2026-03-01T22:45", "2026-03-01T21:45"),  # the last time it was that late
        ("yesterday 22:45", "2026-03-01T22:45", "2026-03-01T21:45"),
        ("2026-02-01", "2026-02-01T00:00", "2026-01-31T23:00"),
        ("2026-02-01 03:04", "2026-02-01T03:04", "2026-02-01T02:04"),
        ("2026-02-01T03:04:00Z", "2026-02-01T03:04", "2026-02-01T03:04"),
        ("3d", "2026-02-27T20:30", "2026-02-27T20:30"),
    ],
)
def test_times_are_of_a_zone(monkeypatch: pytest.MonkeyPatch, text: str, utc: str, berlin: str) -> None:
    monkeypatch.setattr(clock, "now", lambda: "2026-03-02T20:30:00.000000Z")
    assert filter_words.parse_time(text, zone=UTC)[:16] == utc
    assert filter_words.parse_time(text, zone=BERLIN)[:16] == berlin
    local = datetime.fromisoformat(filter_words.parse_time("2026-02-01 03:04", zone=None)).astimezone()
    assert (local.day, local.hour, local.minute) == (1, 3, 4)


def test_agent_at_version_is_that_version_unless_an_agent_is_named_so(db: Database) -> None:
    ids = {
        name: db.agent_instances.register(agent, agent_version={"external_identifier": version}).id
        for name, agent, version in [("a1", "a", "1"), ("a2", "a", "2"), ("a3", "a", "2"), ("me", "me@home", "1")]
    }

    def found(text: str) -> list[str]:
        return [run.run.id for run in find_runs(db.storage, resolved(db.storage, parse(text))).runs]

    assert found("a@1") == [ids["a1"]]
    assert found("a@2") == [ids["a3"], ids["a2"]]
    assert found("agent=me@home") == found("me@home@1") == [ids["me"]]
    assert found("a@3") == []
    assert by_name.find_run(db.storage, "a@2").id == ids["a3"]
    with pytest.raises(NotFound, match="no run of 'a' has the version '3'; versions: '2', '1'"):
        by_name.find_run(db.storage, "a@3")
    with pytest.raises(NotFound, match="no agent is named 'me@hone'; is 'me@home' meant"):
        found("agent=me@hone@1")
    with pytest.raises(NotFound, match="no agent is named 'zzz'; agents: 'a', 'me@home'"):
        by_name.find_run(db.storage, "zzz@1")


def test_an_outcome_says_what_passed_means_and_selects_no_runs(db: Database) -> None:
    with pytest.raises(TypeError, match=r"runs are not selected by 'outcome'; there are .*score"):
        db.runs(outcome="reward>=1")  # type: ignore[call-arg]
    assert db.why(outcome="status").outcome is None
    for command in ("runs", "stats", "search", "export", "prune"):
        assert "--outcome" not in [each for option in named(command).params for each in option.opts]
    for command in ("why", "diff", "check"):
        (option,) = [each for each in named(command).params if "--outcome" in each.opts]
        assert option.name == "outcome"
