"""What runs cost, by model, day, tool …, and what caches saved."""

from datetime import UTC, timedelta, timezone, tzinfo
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import agentspan
from agentspan import clock
from agentspan.analysis.by_name import find_span
from agentspan.analysis.costs import BY_STEPS, BYS, Costs, chapters_of, costs, prompts_of
from agentspan.analysis.filter_words import parse
from agentspan.analysis.runs import find_runs
from agentspan.database import Database
from agentspan.errors import InvalidValue
from agentspan.ids import IdSource
from agentspan.model.changes import Put, Unit
from agentspan.model.rows import AgentInstanceRow, Row
from agentspan.storage.memory import MemoryStorage
from agentspan.storage.questions import CachedCalls, Question, RunSums, RunsWhere, SpansOf, TimedSums
from agentspan.storage.sqlite.index import INDEXED
from agentspan.testing.contract import Rows
from tests.tiers import longer

SONNET = "claude-sonnet-4-5"


def called(tracer: agentspan.Tracer, model: str, sent: int, made: int, **more: Any) -> None:
    with tracer.span("llm", {"model": model}) as span:
        span.set_result({"input_tokens": sent, "output_tokens": made, **more})


@pytest.fixture
def recorded(db: Database) -> Database:
    """Two runs, one with a sub-agent whose aggregate repeats the sums of its call."""
    tracer = agentspan.Tracer(db.storage, raise_errors=True)
    with tracer.run("shop", version="1", session="s", metadata={"cwd": "/work/shop"}):
        called(tracer, SONNET, 100_000, 0)
        with tracer.span("tool", {"name": "Task"}), tracer.span("agent", {"name": "sub"}) as sub:
            with tracer.span("tool", {"name": "Bash"}):
                pass
            called(tracer, "gpt-4.1", 1000, 10, cost_usd=0.5)
            sub.set_result({"input_tokens": 1000, "output_tokens": 10, "cost_usd": 0.5})
    with tracer.run("blog", version="2"):
        called(tracer, "unheard-of", 70, 7)
        called(tracer, SONNET, 0, 0)
        with tracer.span("agent", {"name": "alone", "own_tokens": True}) as sub:
            sub.set_result({"input_tokens": 30, "output_tokens": 3, "cost_usd": 0.25})
    assert tracer.flush()
    return db


def by_name(found: Costs) -> dict[str | None, float | None]:
    costs = {row.name: row.spent.cost_usd for row in found.rows}
    return {name: None if cost is None else round(cost, 9) for name, cost in costs.items()}


def test_costs_by_model_count_sub_agents_once_and_name_models_without_a_price(recorded: Database) -> None:
    found = recorded.costs()
    assert by_name(found) == {SONNET: 0.3, "gpt-4.1": 0.5, None: 0.25, "unheard-of": None}
    assert [row.name for row in found.rows] == ["gpt-4.1", SONNET, None, "unheard-of"]
    total = found.total
    assert (total.runs, total.calls, total.cost_usd) == (2, 4, 1.05)
    assert (total.input_tokens, total.output_tokens) == (101_100, 20)
    assert [(each.model, each.calls, each.tokens) for each in found.unpriced] == [("unheard-of", 1, 77)]
    assert (total.unpriced_calls, total.unpriced_tokens) == (1, 77)


@pytest.mark.parametrize("by", BYS)
def test_the_rows_add_up_to_the_total_and_their_filters_find_their_runs(recorded: Database, by: Any) -> None:
    found = recorded.costs(by)
    assert sum(row.spent.cost_usd or 0 for row in found.rows) == pytest.approx(found.total.cost_usd)
    assert sum(row.spent.input_tokens or 0 for row in found.rows) == found.total.input_tokens
    assert sum(cost or 0 for cost in found.costs) == pytest.approx(found.total.cost_usd)
    for row in found.rows:
        assert sum(cost or 0 for cost in row.costs) == pytest.approx(row.spent.cost_usd or 0)
        if row.filter is not None:
            words = parse(" ".join(f"{name}={value}" for name, value in row.filter.items()))
            assert find_runs(recorded.storage, words).total == row.spent.runs


def test_other_rows(recorded: Database) -> None:
    assert by_name(recorded.costs("agent")) == {"shop": 0.8, "blog": 0.25}
    assert by_name(recorded.costs("version")) == {"shop@1": 0.8, "blog@2": 0.25}
    assert by_name(recorded.costs("session")) == {"s": 0.8, None: 0.25}
    assert by_name(recorded.costs("project")) == {"/work/shop": 0.8, None: 0.25}
    assert by_name(recorded.costs("tool")) == {"Task": 0.5, "Bash": None, None: 0.55}
    assert by_name(recorded.costs("model", agent="blog")) == {None: 0.25, "unheard-of": None, SONNET: 0.0}
    with pytest.raises(InvalidValue, match="must be one of model, day"):
        recorded.costs("nothing")  # type: ignore[arg-type]


def asked(tracer: agentspan.Tracer, text: str, role: str = "user") -> None:
    tracer.span("message", {"role": role, "content": text}).__enter__().__exit__(None, None, None)


def test_a_prompt_has_all_steps_until_the_next_one_with_those_of_sub_agents(db: Database) -> None:
    tracer = agentspan.Tracer(db.storage, raise_errors=True)
    with tracer.run("a") as run:
        called(tracer, "m", 1, 0, cost_usd=0.5)
        asked(tracer, "You are an agent", "system")
        asked(tracer, "fix it\nand more")
        called(tracer, "m", 1, 0, cost_usd=1.0)
        with tracer.span("tool", {"name": "Task"}), tracer.span("agent", {"name": "sub"}) as sub:
            asked(tracer, "look into it")
            called(tracer, "m", 1, 0, cost_usd=2.0)
            called(tracer, "unheard-of", 7, 0)
            sub.set_result({"cost_usd": 2.0})
        asked(tracer, "never mind")
        with tracer.span("event", {"name": "command", "content": "/init"}):
            pass
        called(tracer, "m", 1, 0, cost_usd=4.0)
    with tracer.run("a"), tracer.span("chain", {"name": "init"}):
        asked(tracer, "in a program")
        called(tracer, "m", 1, 0, cost_usd=8.0)
    with tracer.run("without prompts"):
        called(tracer, "m", 1, 0, cost_usd=16.0)
    assert tracer.flush()
    found = db.costs("prompt")
    assert [(row.name, row.spent.runs, row.spent.calls, row.spent.cost_usd) for row in found.rows] == [
        (None, 2, 2, 16.5), ("in a program", 1, 1, 8.0), ("/init", 1, 1, 4.0), ("fix it and more", 1, 3, 3.0),
    ]  # fmt: skip
    assert found.rows[3].spent.unpriced_calls == 1
    assert [row.step for row in found.rows] == [None, 2, 11, 3]
    for row in found.rows[1:]:
        assert find_span(db.storage, f"{row.run_id}#{row.step}").id == row.span_id
    of_run = [(row.name, row.spent.cost_usd) for row in prompts_of(db.storage, run.id)]
    assert of_run == [(None, 0.5), ("fix it and more", 3.0), ("/init", 4.0)]
    chapters = chapters_of(db.storage.ask(SpansOf(run.id)))
    assert [(each.name, each.step, each.cost_usd, each.tokens) for each in chapters] == [
        ("fix it and more", 3, 3.0, 9), ("never mind", 10, None, None), ("/init", 11, 4.0, 1),
    ]  # fmt: skip
    assert [*prompts_of(db.storage, db.runs(agent="without prompts").runs[0].run.id)] == []
    assert costs(db.storage, by="prompt", most_spans=1).read_runs == 1


@given(st.lists(st.tuples(st.integers(-1, 12), st.sampled_from(["user", "llm", "agent", "command"])), max_size=14))
@settings(max_examples=longer("AGENTSPAN_TEST_EXAMPLES", 20, 200, 2000), deadline=None)
def test_prompts_add_up_to_the_total_in_any_tree(steps: list[tuple[int, str]]) -> None:
    with Database(MemoryStorage()) as db:
        run = db.agent_instances.register("a", agent_version={}, agent_schema_version={}).id
        db.agent_instances.start(run)
        ids: list[str | None] = [None]
        for above, kind in steps:
            payload = {"name": "command", "content": "/x", "role": "user", "model": "m"}
            type_ = {"user": "message", "command": "event"}.get(kind, kind)
            result = {"input_tokens": 3, "output_tokens": 1, "cost_usd": 1.0} if kind == "llm" else {}
            parent = ids[above + 1] if above + 1 < len(ids) else None
            ids.append(db.agent_spans.create(run, type_, "complete", payload, result, parent_span_id=parent).id)
        found = db.costs("prompt")
        for name in ("calls", "input_tokens", "output_tokens", "cost_usd"):
            assert sum(getattr(row.spent, name) or 0 for row in found.rows) == (getattr(found.total, name) or 0)


@pytest.mark.parametrize("by", [by for by in BYS if by not in BY_STEPS])
def test_costs_are_taken_from_the_index_by_as_many_questions_for_any_number_of_runs(
    recorded: Database, monkeypatch: pytest.MonkeyPatch, by: Any
) -> None:
    asked, ask = list[type[Question[Any]]](), recorded.storage.ask

    def noted(question: Question[Any]) -> Any:
        asked.append(type(question))
        with monkeypatch.context() as meanwhile:
            meanwhile.setattr(recorded.storage, "ask", ask)  # the memory answers by questions about rows
            return ask(question)

    monkeypatch.setattr(recorded.storage, "ask", noted)
    assert costs(recorded.storage, by=by).total.runs == 2
    assert {*asked} == {RunsWhere, TimedSums, RunSums, CachedCalls} <= INDEXED
    assert len(asked) == 4


def test_by_tool_reads_only_the_latest_runs(recorded: Database) -> None:
    found = costs(recorded.storage, by="tool", most_spans=3)
    assert found.read_runs == 1
    assert by_name(found) == {None: 0.25}


def test_what_a_cache_saved_is_the_price_of_input_less_that_of_the_cache(db: Database) -> None:
    tracer = agentspan.Tracer(db.storage, raise_errors=True)
    with tracer.run("a"):
        called(tracer, SONNET, 10, 0, cached_tokens=100_000, cache_write_tokens=20_000, cache_write_1h_tokens=5_000)
        called(tracer, SONNET, 300_000, 0, cached_tokens=300_000)  # above 200,000 tokens all prices are others
        called(tracer, "unheard-of", 10, 0, cached_tokens=5)
        called(tracer, SONNET, 10, 0, cached_tokens=0)
    assert tracer.flush()
    every, *rows = db.costs().cache
    assert [row.name for row in rows] == [SONNET, "unheard-of"]
    first, unknown = rows
    assert (first.calls, first.read, first.written, first.written_1h) == (2, 400_000, 20_000, 5_000)
    # Dollars for a million tokens: input 3, read 0.3, written 3.75, for an hour 6; above 200,000: input 6, read 0.6.
    assert first.saved_usd == pytest.approx(0.1 * 2.7 + 0.3 * 5.4)
    assert first.extra_usd == pytest.approx(0.015 * 0.75 + 0.005 * 3)
    assert (unknown.saved_usd, unknown.net_usd, unknown.unpriced_calls) == (None, None, 1)
    assert (every.read, every.unpriced_calls) == (400_005, 1)
    assert every.net_usd == pytest.approx(first.net_usd)
    assert costs(db.storage, cache=False).cache == ()
    assert db.costs(tool="none").cache == ()


ROWS = Rows()


@pytest.mark.parametrize(
    ("days", "unit", "number", "names"),
    [
        (1, "day", 2, ["2026-01-01", "2026-01-02"]),
        (30, "day", 31, ["2026-01-01", "2026-01-31"]),
        (31, "week", 5, ["2025-12-29", "2026-01-26"]),
        (400, "month", 14, ["2026-01", "2027-02"]),
    ],
)
def test_periods_are_days_weeks_or_months(db: Database, days: int, unit: str, number: int, names: list[str]) -> None:
    agent = ROWS.agent("a")
    version, schema, run = ROWS.family(agent)
    ids = IdSource(3)
    times = [f"2026-01-01T{hour}:00:00.000000Z" for hour in ("00", "23")]
    later = f"{clock.to_datetime(times[1]) + timedelta(days=days):%Y-%m-%dT%H:%M:%S.%fZ}"
    runs: list[AgentInstanceRow] = [run._replace(id=ids.new(), started_at=at) for at in (*times, later)]
    spans = [
        ROWS.span(each, schema_name="llm", cost_usd=1.0, input_tokens=1, label="m")._replace(
            status="complete", started_at=each.started_at
        )
        for each in runs
    ]
    rows: list[Row] = [agent, version, schema, *runs, *spans]
    db.storage.apply([Unit((Put(each),)) for each in rows])
    found = costs(db.storage)
    assert (found.unit, len(found.periods)) == (unit, number)
    assert [found.periods[0].name, found.periods[-1].name] == names
    assert found.costs[0] == 2.0
    for period, cost in zip(found.periods, found.costs, strict=True):
        assert find_runs(db.storage, parse(f"since={period.since} until={period.until}")).total == (cost or 0)
    berlin = costs(db.storage, by="day", zone=timezone(timedelta(hours=1)))
    assert [row.spent.runs for row in berlin.rows] == [1, 1, 1]
    assert costs(db.storage, by="day", zone=UTC).rows[-1].spent.runs == 2


def test_a_run_over_several_days_costs_on_each_day_what_its_calls_of_the_day_cost(db: Database) -> None:
    run = db.agent_instances.register("a")
    for at, model, cost in (
        ("2026-01-01T23:30:00Z", "unheard-of", None), ("2026-01-02T00:10:00Z", "m", 2.0),
        ("2026-01-04T12:00:00Z", "m", 3.0)
    ):  # fmt: skip
        used = {"input_tokens": 10, "output_tokens": 1, **({} if cost is None else {"cost_usd": cost})}
        db.agent_spans.create(run.id, "llm", "complete", {"model": model}, used, started_at=at, finished_at=at)
    expected: dict[tzinfo, list[tuple[str, int, float | None, int]]] = {
        UTC: [("2026-01-04", 1, 3.0, 0), ("2026-01-02", 1, 2.0, 0), ("2026-01-01", 1, None, 1)],
        timezone(timedelta(hours=1)): [("2026-01-04", 1, 3.0, 0), ("2026-01-02", 2, 2.0, 1)],
    }
    for zone, days in expected.items():
        found = costs(db.storage, by="day", zone=zone)
        rows = [(row.name, row.spent.calls, row.spent.cost_usd, row.spent.unpriced_calls) for row in found.rows]
        assert rows == days
        assert sum(row.spent.input_tokens or 0 for row in found.rows) == found.total.input_tokens == 30
        assert costs(db.storage, zone=zone).costs == found.costs


def test_a_run_of_the_first_or_last_year_has_a_day(db: Database) -> None:
    agent = ROWS.agent("a")
    version, schema, run = ROWS.family(agent)
    ids = IdSource(3)
    times = ("0001-01-01T00:00:00.000000Z", "9999-12-31T23:59:59.000000Z")
    rows: list[Row] = [agent, version, schema, *(run._replace(id=ids.new(), started_at=at) for at in times)]
    db.storage.apply([Unit((Put(each),)) for each in rows])
    for hours in (-9, 9):
        assert costs(db.storage, by="day", zone=timezone(timedelta(hours=hours))).total.runs == 2
    assert costs(db.storage, by="day").unit == "month"


def test_an_empty_storage_costs_nothing(db: Database) -> None:
    found = db.costs()
    assert (found.rows, found.periods, found.total.cost_usd) == ((), (), None)
