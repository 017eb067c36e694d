"""Why runs failed: groups of failures and of endings, on both storages, whatever the order in which they came."""

import random
from dataclasses import fields, replace
from math import inf
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import agentspan
from agentspan.analysis.differences import FieldChange
from agentspan.analysis.outcomes import OutcomeRule
from agentspan.analysis.periods import MOST_PERIODS, Periods, periods_of
from agentspan.analysis.why import Group, failed_share, why, why_run
from agentspan.answers import why as answers
from agentspan.answers import why_run as why_run_text
from agentspan.cli.rendering import bars
from agentspan.database import Database
from agentspan.errors import InvalidValue
from agentspan.model.changes import Move, Put, Unit
from agentspan.model.rows import AgentInstanceRow, ScoreRow
from agentspan.storage.memory import MemoryStorage
from agentspan.storage.questions import Find, RunFilter
from tests.tiers import longer


class Recorded:
    """Runs whose steps begin one after another."""

    def __init__(self, db: Database) -> None:
        self.db = db
        self.second = 0

    def run(self, version: str = "1", **about: Any) -> str:
        run = self.db.agent_instances.register("a", agent_version={"external_identifier": version}, **about)
        self.db.agent_instances.start(run.id)
        return run.id

    def step(self, run: str, kind: str, payload: Any, result: Any = None, parent: str | None = None) -> str:
        self.second += 1
        status: Any = "failed" if result is not None and "error" in result else "complete"
        begin, end = (f"2026-11-26T03:{self.second // 60:02}:{self.second % 60:02}.{part}00000Z" for part in (0, 5))
        times: Any = {"started_at": begin, "finished_at": end}
        return self.db.agent_spans.create(run, kind, status, payload, result, parent_span_id=parent, **times).id

    def tool(self, run: str, name: str, error: str | None = None, parent: str | None = None, **arguments: Any) -> str:
        result = {"output": "done"} if error is None else {"error": {"type": "app.ToolFailed", "message": error}}
        return self.step(run, "tool", {"name": name, "arguments": arguments}, result, parent)

    def ask(self, run: str, text: str, reason: str = "stop", parent: str | None = None, calls: Any = ()) -> str:
        result = {"text": text, "finish_reason": reason, "tool_calls": [{"id": call, "name": "x"} for call in calls]}
        return self.step(run, "llm", {"model": "m"}, result, parent)

    def end(self, run: str, status: Any = "failed", error: str | None = None) -> None:
        if error is None:
            self.db.agent_instances.finish(run, status)
            return
        values = {"status": status, "error": error, "updated_at": "2026-11-26T04:00:00.000000Z"}
        self.db.storage.apply([Unit((Move("agent_instance", run, frozenset({"active"}), values),), run)])


@pytest.fixture
def recorded(db: Database) -> Recorded:
    return Recorded(db)


def row(db: Database, run: str) -> AgentInstanceRow:
    found = db.storage.ask(Find(run)).rows[run][1]
    assert isinstance(found, AgentInstanceRow)
    return found


def facts(group: Group) -> tuple[Any, ...]:
    return group.kind, group.text, group.runs, group.spans


def test_failed_runs_are_grouped_by_what_failed_and_silent_ones_by_their_ending(
    db: Database, recorded: Recorded
) -> None:
    for version, totals in (("1", (375, 299)), ("2", (1203, 833)), ("2", (12, 7))):
        run = recorded.run(version)
        for total in totals:
            outer = recorded.step(
                run, "chain", {"name": "book"}, {"error": {"type": "E", "message": f"{total} is off"}}
            )
            recorded.tool(run, "pay", f"{total} is off", outer)
        recorded.end(run)
    handled = recorded.run()
    recorded.tool(handled, "pay", "3 is off")
    recorded.end(handled, "complete")
    died = recorded.run()
    recorded.tool(died, "look")
    recorded.end(died, error='{"type": "KeyError", "message": "\'ann\'"}')
    for _ in range(2):
        cut = recorded.run()
        recorded.tool(cut, "look")
        recorded.ask(cut, "and then", "length")
        recorded.end(cut)
    recorded.run()  # open: it has no outcome
    found = why(db.storage)
    assert (found.runs, found.failed, found.unknown, found.silent) == (7, 6, 1, 3)
    assert found.interval is not None
    assert found.interval.low < 6 / 7 < found.interval.high
    assert [facts(group) for group in found.groups] == [
        ("run", "Run: KeyError: <text>", 1, 0),
        ("step", "Tool pay: ToolFailed: <n> is off", 3, 6),  # the only run that passed had it, too
        ("ending", "failed: last tool look, last step LLM, the model stopped at length", 2, 0),
    ]
    assert [group.passed for group in found.groups] == [0, 1, 0]
    first = found.groups[1]
    assert (first.versions, first.share) == ({"1": 1, "2": 2}, 0.5)
    assert first.first_at == "2026-11-26T03:00:02.000000Z"
    assert (first.run_id, first.span_id) == (
        first.run_id,
        db.storage.ask(Find(first.span_id or "")).rows and first.span_id,
    )


def test_if_no_run_failed_the_failed_steps_of_all_runs_are_grouped(db: Database, recorded: Recorded) -> None:
    for _ in range(2):
        run = recorded.run()
        recorded.tool(run, "pay", "off")
        recorded.end(run, "complete")
    found = why(db.storage)
    assert (found.failed, [facts(group) for group in found.groups]) == (
        0,
        [("step", "Tool pay: ToolFailed: off", 2, 2)],
    )
    assert why(agentspan.open(":memory:").storage).groups == ()


def test_a_score_decides_what_failed(db: Database, recorded: Recorded) -> None:
    runs = [recorded.run(task="t") for _ in range(3)]
    for number, run in enumerate(runs):
        recorded.end(run, "complete")
        if number < 2:
            values = dict.fromkeys(ScoreRow._fields) | {"id": f"score{number}", "agent_instance_id": run}
            values |= {"target_type": "agent_instance", "target_id": run, "name": "reward", "value": float(number)}
            score: Any = values | {"source": "code", "inserted_at": "2026-11-26T00:00:00.000000Z"}
            db.storage.apply([Unit((Put(ScoreRow(**score)),))])
    found = why(db.storage, judge=OutcomeRule("reward", None, ">=", 1.0))
    assert (found.outcome, found.runs, found.failed, found.unknown) == ("reward>=1", 2, 1, 1)
    assert [(group.kind, group.run_id) for group in found.groups] == [("ending", runs[0])]


def test_runs_are_found_by_the_signature_of_their_failure_or_ending(db: Database, recorded: Recorded) -> None:
    runs = [recorded.run() for _ in range(4)]
    for run in runs[:2]:
        recorded.tool(run, "pay", "off")
        recorded.end(run)
    recorded.end(runs[2], error='{"type": "E", "message": "m"}')
    recorded.end(runs[3])
    with agentspan.open(db.storage) as reading:
        groups = reading.why().groups
        assert [group.kind for group in groups] == ["step", "run", "ending"]
        for group, wanted in zip(groups, (runs[1::-1], runs[2:3], runs[3:]), strict=True):
            for name in (group.signature, group.signature[:6].upper()):
                assert [run.run.id for run in reading.runs(signature=name).runs] == wanted
        assert reading.runs(signature="0" * 12).total == 0
        assert reading.runs(signature=groups[0].signature, status="complete").total == 0
        with pytest.raises(InvalidValue, match="such as 302c"):
            reading.runs(signature="pay")


def test_groups_do_not_depend_on_the_order_of_arrival(recorded: Recorded) -> None:
    kinds: list[tuple[str, str | None]] = [("pay", f"{number} is off") for number in range(4)]
    kinds += [("look", f"no 'x{number}'") for number in range(3)]
    kinds += [("look", "gone"), ("pay", None), ("pay", None)]
    answers = set()
    for seed in range(20):
        with agentspan.open(":memory:") as db:
            each = Recorded(db)
            shuffled = random.Random(seed).sample(kinds, len(kinds))
            for name, error in shuffled:
                run = each.run()
                each.tool(run, name, error)
                each.end(run)
            answers.add(frozenset((group.signature, *facts(group)) for group in why(db.storage).groups))
    assert len(answers) == 1
    assert len(next(iter(answers))) == 4


def test_the_cause_of_one_failure(db: Database, recorded: Recorded) -> None:
    """The leaf, what it was given, what the model had said, attempts before it, the same elsewhere, a passing run."""
    runs = []
    for passes in (True, True, False, False):
        run = recorded.run(task="7")
        runs.append(run)
        recorded.ask(run, "I will look first")
        if len(runs) == 2:
            recorded.tool(run, "think")
        recorded.tool(run, "look", city="Rome")
        if not passes:
            agent = recorded.step(
                run, "agent", {"name": "payer"}, {"error": {"type": "E", "message": "gave up: 5 off"}}
            )
            recorded.ask(run, "Now I pay", parent=agent)
            recorded.tool(run, "pay", "4 off", agent, amount=4)
            recorded.tool(run, "pay", "5 off", agent, amount=5)
            recorded.tool(run, "pay", "5 off", agent, amount=5)
        recorded.end(run, "complete" if passes else "failed", None if passes else '{"message": "5 off"}')
    found = why_run(db.storage, row(db, runs[3]))
    assert (found.status, found.task, found.passed, found.spans, found.failed) == ("failed", "7", False, 7, 4)
    assert found.error is None
    step = found.step
    assert step is not None
    assert (step.number, step.error, step.payload, step.model_text) == (
        6,
        "ToolFailed: 5 off",
        '{"amount":5}',
        "Now I pay",
    )
    assert (step.failed_before, step.same_before, step.failed_after, step.same_after) == (1, 0, 1, 1)
    assert (len(step.within), step.recovered_by) == (1, None)
    assert found.signature.text == "Tool pay: ToolFailed: <n> off"
    assert found.elsewhere is not None
    assert (found.elsewhere.spans, found.elsewhere.runs) == (3, 1)
    nearest = found.nearest
    assert nearest is not None
    assert (nearest.run_id, nearest.same_task, nearest.compared) == (runs[0], True, 2)
    assert nearest.divergence is not None
    assert (nearest.divergence.same, nearest.divergence.a) == (2, None)


def test_one_run_without_a_failed_step(db: Database, recorded: Recorded) -> None:
    run, other = recorded.run(), recorded.run()
    recorded.end(other, "complete")
    recorded.end(run, error='{"type": "E", "message": "no key 3"}')
    found = why_run(db.storage, row(db, run))
    assert (found.step, found.elsewhere, found.error) == (None, None, "E: no key 3")
    assert found.signature.text == "Run: E: no key <n>"
    assert found.nearest is not None
    assert (found.nearest.run_id, found.nearest.same_task) == (other, False)
    assert found.nearest.divergence is None
    assert why_run(db.storage, row(db, other)).signature.text == "complete: no tool called, no steps"


def said_in(db: Database, run: str) -> str | None:
    step = why_run(db.storage, row(db, run)).step
    assert step is not None
    return step.model_text


def test_the_words_are_of_the_call_that_asked_for_the_step(db: Database, recorded: Recorded) -> None:
    """Three researchers run beside each other: their steps come in any order, and two give the same ids to calls."""
    run = recorded.run()
    recorded.ask(run, "The planner plans")
    agents = [recorded.step(run, "agent", {"name": f"researcher-{number}"}) for number in range(3)]
    for number in (2, 0, 1):
        recorded.ask(run, f"{number} looks", parent=agents[number], calls=["call_1"])
        recorded.ask(run, f"{number} writes", parent=agents[number])
    error = {"error": {"type": "E", "message": "off"}}
    recorded.step(run, "tool", {"name": "fetch", "call_id": "call_1"}, error, agents[2])
    recorded.end(run)
    assert said_in(db, run) == "2 looks"


def test_without_an_id_the_words_are_of_the_same_agent_or_there_are_none(db: Database, recorded: Recorded) -> None:
    for kind, own in (("agent", True), ("agent", False), ("chain", True), ("chain", False)):
        run = recorded.run()
        recorded.ask(run, "The planner plans")
        within, other = (recorded.step(run, kind, {"name": name}) for name in ("researcher", "other"))
        if own:
            recorded.ask(run, "I fetch", parent=within)
        recorded.ask(run, "I am another one", parent=other)
        recorded.tool(run, "fetch", "off", within)
        recorded.end(run)
        assert said_in(db, run) == ("I fetch" if own else None if kind == "agent" else "The planner plans")


def test_words_of_an_earlier_call_are_not_those_of_a_call_without_words(db: Database, recorded: Recorded) -> None:
    run = recorded.run()
    recorded.ask(run, "Hello, who are you?")
    recorded.ask(run, "", calls=["c7"])
    recorded.step(run, "tool", {"name": "x", "call_id": "c7"}, {"error": "off"})
    recorded.end(run)
    step = why_run(db.storage, row(db, run)).step
    assert step is not None
    assert (step.asked_by, step.model_text) == (2, None)


def failing_step(db: Database, run: str) -> tuple[int, int | None]:
    step = why_run(db.storage, row(db, run)).step
    assert step is not None
    return step.number, step.recovered_by


def test_the_first_failure_that_nothing_recovered_from_is_the_cause(db: Database, recorded: Recorded) -> None:
    run = recorded.run()
    recorded.tool(run, "look", "busy", city="Rome")
    recorded.tool(run, "look", city="Rome")  # tried again
    recorded.ask(run, "")
    recorded.step(run, "llm", {"model": "m"}, {"error": "overloaded"})
    recorded.ask(run, "other words")  # the model answered after all
    inner = recorded.step(run, "tool", {"name": "search"}, {"output": "from the cache"})
    recorded.tool(run, "fetch", "away", inner)  # the tool around it had another way
    recorded.tool(run, "fetch", "gone", url="a")
    recorded.tool(run, "fetch", url="b")  # another call
    for number in range(5):
        recorded.tool(run, "save", f"nothing to save {number}")
    recorded.end(run)
    assert failing_step(db, run) == (8, None)


def test_a_success_with_other_arguments_is_told_and_is_no_recovery(db: Database, recorded: Recorded) -> None:
    """The upgrade failed. That the customer took economy in the end is no upgrade."""
    run = recorded.run()
    recorded.tool(run, "update", "no seats", cabin="business", flight="A1", who={"name": "ann"})
    recorded.tool(run, "update", "no seats", cabin="business", flight="B2", who={"name": "ann"})
    recorded.tool(run, "update", cabin="economy", flight="A1", who={"name": "bob"})
    recorded.tool(run, "update", cabin="first", flight="A1")
    recorded.end(run)
    step = why_run(db.storage, row(db, run)).step
    assert step is not None
    assert (step.number, step.recovered_by, step.passed_later, step.passed_after) == (1, None, 3, 2)
    assert [(each.path, each.a, each.b) for each in step.changes] == [
        ("cabin", "business", "economy"),
        ("who.name", "ann", "bob"),
    ]


ARGUMENTS = st.fixed_dictionaries({"x": st.integers(0, 1)}, optional={"y": st.sampled_from(("a", "b"))})
CALLS = st.lists(st.tuples(st.sampled_from(("look", "pay")), ARGUMENTS, st.booleans()), min_size=1, max_size=8)


@settings(max_examples=longer("AGENTSPAN_TEST_EXAMPLES", 25, 60, 2000), deadline=None)
@given(CALLS)
def test_a_failure_is_recovered_from_where_the_same_call_passes_later(calls: list[tuple[str, Any, bool]]) -> None:
    with agentspan.open(MemoryStorage()) as db:
        recorded = Recorded(db)
        run = recorded.run()
        for name, arguments, passes in calls:
            recorded.tool(run, name, None if passes else "off", **arguments)
        recorded.end(run)
        step = why_run(db.storage, row(db, run)).step
    failed = [number for number, (_, _, passes) in enumerate(calls) if not passes]
    lasting = [n for n in failed if (*calls[n][:2], True) not in calls[n:]]
    if not failed:
        assert step is None
        return
    assert step is not None
    assert step.number - 1 == (lasting or failed[-1:])[0]
    name, arguments, _ = calls[step.number - 1]
    later = [n for n in range(step.number, len(calls)) if calls[n][0] == name and calls[n][2]]
    same = [n + 1 for n in later if calls[n][1] == arguments]
    assert step.recovered_by == (same[-1] if same else None)
    assert step.passed_later == (None if same or not later else later[0] + 1)
    assert bool(step.changes) == (step.passed_later is not None)
    assert step.passed_after == len(later)


def test_a_success_elsewhere_is_no_recovery(db: Database, recorded: Recorded) -> None:
    run = recorded.run()
    agents = [recorded.step(run, "agent", {"name": "a"}) for _ in range(2)]
    recorded.tool(run, "look", "busy", agents[0])
    recorded.tool(run, "look", parent=agents[1])
    recorded.tool(run, "pay", "off")
    recorded.end(run)
    assert failing_step(db, run) == (2, None)


def test_a_node_that_runs_again_recovers_and_one_beside_it_does_not(db: Database, recorded: Recorded) -> None:
    for in_turn in (True, False):
        run = recorded.run()
        nodes = [recorded.step(run, "chain", {"name": "tools"}) for _ in range(1 if in_turn else 2)]
        recorded.tool(run, "look", "busy", nodes[0])
        if in_turn:
            nodes.append(recorded.step(run, "chain", {"name": "tools"}))
        recorded.tool(run, "look", parent=nodes[1])
        recorded.end(run)
        assert failing_step(db, run) == (2, 4 if in_turn else None)


def test_the_error_that_the_run_passes_on_is_the_cause(db: Database, recorded: Recorded) -> None:
    run = recorded.run()
    recorded.tool(run, "look", "no weather")  # which did not matter
    recorded.tool(run, "pay", "off")
    recorded.end(run, error='{"type": "ToolFailed", "message": "off"}')
    assert failing_step(db, run) == (2, None)


def test_if_all_failures_were_recovered_from_the_last_one_is_shown_with_its_recovery(
    db: Database, recorded: Recorded
) -> None:
    run = recorded.run()
    for name in ("look", "pay"):
        recorded.tool(run, name, "busy")
        recorded.tool(run, name)
    recorded.end(run)
    assert failing_step(db, run) == (3, 4)


def test_groups_are_ordered_by_how_much_failed_and_passed_runs_differ(db: Database, recorded: Recorded) -> None:
    """A harmless error of the same tool is in more of the failed runs than the fatal one."""
    for number in range(40):
        run = recorded.run(task=f"t{number // 4}")
        fails = number % 2 == 0
        if number % 8 < 5:
            recorded.tool(run, "pay", "a warning")
        if fails and number % 4 == 0:
            recorded.tool(run, "pay", "card declined", by="card")
        if number == 2:
            recorded.tool(run, "pay", "seen once")
        recorded.tool(run, "look")
        recorded.end(run, "failed" if fails else "complete")
    found = why(db.storage)
    assert [(group.text, group.runs, group.passed) for group in found.groups] == [
        ("Tool pay: ToolFailed: card declined", 10, 0),
        ("Tool pay: ToolFailed: a warning", 15, 10),
        ("Tool pay: ToolFailed: seen once", 1, 0),
        ("failed: last tool look, last step Tool", 5, 0),
    ]
    assert ("error Tool pay: ToolFailed: card declined", True) in [
        (each.feature, each.stratified) for each in found.findings.findings
    ]


def test_periods_are_the_least_that_cover_the_times() -> None:
    def at(day: int, hour: int = 0, minute: int = 0) -> str:
        return f"2026-11-{day:02}T{hour:02}:{minute:02}:00.000000Z"

    assert periods_of([]) is None
    assert periods_of([at(26, 3, 7)]) == (at(26, 3, 7), 60, 1)
    assert periods_of([at(26, 3, 59), at(26, 3, 7)]) == (at(26, 3, 5), 300, 11)
    days = periods_of([at(2, 5), at(26, 3)])
    assert days == (at(2), 86_400, 25)
    assert days.counted([at(2, 5), at(2, 23), at(26, 3), at(27)]) == (2, *[0] * 23, 2)
    weeks = periods_of([at(4), "2027-02-03T00:00:00.000000Z"])
    assert weeks == (at(2), 604_800, 14)  # a Monday
    long = periods_of(["1990-01-01T00:00:00.000000Z", at(4)])
    assert long is not None
    assert long.number <= MOST_PERIODS


def test_groups_count_their_runs_by_period(db: Database, recorded: Recorded) -> None:
    for error in ("one", "one", "two", None):
        run = recorded.run()
        recorded.tool(run, "pay", error)
        recorded.end(run, "failed" if error else "complete")
    found = why(db.storage)
    assert found.periods is not None
    assert sum(found.histogram) == found.runs == 4
    assert [sum(group.histogram) for group in found.groups] == [group.runs for group in found.groups] == [2, 1]
    assert all(len(group.histogram) == found.periods.number for group in found.groups)


def test_a_signature_selects_a_group_of_all_runs_and_what_goes_with_it(db: Database, recorded: Recorded) -> None:
    for number in range(60):
        run = recorded.run()
        kind = number % 3
        recorded.tool(run, "look", currency="EUR" if kind == 0 else "USD")
        recorded.tool(run, "pay", {0: "no euros", 1: None, 2: "closed"}[kind])
        recorded.end(run, "complete" if kind == 1 else "failed")
    every = why(db.storage)
    wanted = next(group for group in every.groups if "no euros" in group.text)
    found = why(db.storage, RunFilter(signature=wanted.signature[:6]))
    assert found.groups == (wanted,)
    assert (found.runs, found.failed, found.comparable) == (every.runs, every.failed, 40) == (60, 40, 40)
    assert [each.feature for each in found.findings.findings] == ["Tool look with currency=EUR"]
    (finding,) = found.findings.findings
    assert (finding.failed_with, finding.failed, finding.passed_with, finding.passed) == (20, 20, 0, 20)
    assert why(db.storage, RunFilter(signature="0" * 12)).groups == ()


def test_the_share_of_failed_runs_is_that_of_why(db: Database, recorded: Recorded) -> None:
    for status in ("failed", "complete", "complete"):
        recorded.end(recorded.run(), status)
    recorded.run()
    share, found = failed_share(db.storage), why(db.storage)
    assert (share.runs, share.failed, share.unknown, share.open) == (3, 1, 1, 1)
    for field in fields(share):
        assert getattr(share, field.name) == getattr(found, field.name)
    assert answers.head(share) == "1 of 3 runs failed (33%, 6–79%) · 1 more is still open"
    assert failed_share(db.storage, RunFilter(signature="abcd")) == share


def test_bars_are_as_high_as_their_counts() -> None:
    assert bars([0, 1, 4, 8]) == " ▁▄█"
    assert bars([]) == ""
    lengths = [answers.length_text(Periods("", seconds, 1)) for seconds in (60, 900, 3600, 86_400, 2_419_200)]
    assert lengths == ["minute", "15 minutes", "hour", "day", "4 weeks"]


def test_of_what_differs_a_member_that_one_side_lacks_comes_first_and_ids_last() -> None:
    changes = [
        FieldChange("result.usage.input_tokens", "1", "2", ()),
        FieldChange("result.tool_calls.0.id", "c1", "c2", ()),
        FieldChange("payload.messages.2.content", "a", "b", ()),
        FieldChange("result.tool_calls.0.arguments.amount", "797", "283", ()),
        FieldChange("result.tool_calls.0.arguments.currency", "EUR", None, ()),
        FieldChange("result.tool_calls.0.name", "pay", "refund", ()),
    ]
    shown = [each.path.rpartition(".")[2] for each in sorted(changes, key=why_run_text.interest)]
    assert shown == ["name", "currency", "amount", "content", "id", "input_tokens"]


def test_where_something_was_found_it_is_not_said_that_nothing_could_be() -> None:
    storage = MemoryStorage()
    with Database(storage) as db:
        for number in range(24):
            run = db.agent_instances.register("a", agent_version={"external_identifier": "1"}, task=f"t{number % 8}").id
            db.agent_instances.start(run)
            if number < 8:
                db.agent_spans.create(run, "tool", "complete", {"name": "odd"}, {"output": 1})
            db.agent_instances.finish(run, "failed" if number < 8 else "complete")
        found = why(storage).findings
    assert found.findings
    assert "too few to find another cause reliably" in answers.missable(replace(found, detectable=inf))
    assert "too few to find a cause reliably" in answers.missable(replace(found, findings=(), detectable=inf))
