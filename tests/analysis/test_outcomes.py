"""Outcomes of runs: the grammar of rules, which score decides, and the status where no rule is given."""

from collections import Counter
from pathlib import Path
from typing import Any, Literal

import pytest

import agentspan
from agentspan.analysis import causes
from agentspan.analysis.outcomes import OutcomeRule, missed_rule, outcomes, pair_of, parse
from agentspan.analysis.runs import find_runs
from agentspan.analysis.versions import versions
from agentspan.errors import InvalidValue
from agentspan.model.changes import Put, Unit
from agentspan.model.rows import AgentInstanceRow, ScoreRow
from agentspan.storage.access import scan
from agentspan.storage.protocol import Storage
from agentspan.storage.questions import RunFilter
from agentspan.storage.sums import RunBrief
from tests.cli.calling import call, lines


@pytest.mark.parametrize(
    ("text", "rule"),
    [
        ("reward>=1", ("reward", None, ">=", 1.0)),
        ("reward@human<0.5", ("reward", "human", "<", 0.5)),
        ("mark==good", ("mark", None, "==", "good")),
        ("a b.c-d@model != so so ", ("a b.c-d", "model", "!=", "so so")),
        ("level==2", ("level", None, "==", 2.0)),
        ("loss > -1e-3", ("loss", None, ">", -0.001)),
        ("user@example@code<=3", ("user@example", "code", "<=", 3.0)),
    ],
)
def test_a_rule_names_a_score_and_what_it_is_compared_with(text: str, rule: tuple[Any, ...]) -> None:
    assert parse(text) == OutcomeRule(*rule)
    assert parse(str(parse(text))) == parse(text)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("reward", "is not a rule"),
        ("", "is not a rule"),
        (">=1", "is not a rule"),
        ("reward=1", "is not a rule"),
        ("reward>=", "is not a rule"),
        ("reward>>1", "is not a rule"),
        ("reward@robot>1", "names no source"),
        ("@human>1", "no name"),
        ("reward>good", "label can be compared by == and != only"),
        ("reward>nan", "label can be compared by == and != only"),
    ],
)
def test_what_is_no_rule_is_refused_with_the_reason(text: str, said: str) -> None:
    with pytest.raises(InvalidValue, match=said):
        parse(text)


@pytest.fixture(params=["memory", "sqlite"])
def storage(request: pytest.FixtureRequest, tmp_path: Any) -> Any:
    with agentspan.open(":memory:" if request.param == "memory" else tmp_path / "runs.db") as db:
        yield db.storage


def registered(storage: Storage, number: int) -> list[AgentInstanceRow]:
    db = agentspan.open(storage)
    for _ in range(number):
        run = db.agent_instances.register("planner")
        db.agent_instances.start(run.id)
        db.agent_instances.finish(run.id, "complete")
    return [*scan(storage, AgentInstanceRow)]


def score(storage: Storage, run: AgentInstanceRow, at: int, **values: Any) -> None:
    id = f"{at:032d}"
    row = ScoreRow(id, run.id, "agent_instance", run.id, "reward", None, None, "code", None, f"{at:027d}", None)
    storage.apply([Unit((Put(row._replace(**values)),))])


def test_the_newest_score_of_the_name_decides_and_a_run_without_one_is_unknown(storage: Storage) -> None:
    better, worse, other, none = runs = registered(storage, 4)
    score(storage, better, 1, value=0.0)
    score(storage, better, 9, value=1.0)
    score(storage, worse, 3, value=1.0)
    score(storage, worse, 5, value=0.0, source="human", identifier="mia")
    score(storage, worse, 4, value=1.0, identifier="judge-2")
    score(storage, other, 6, name="accuracy", value=1.0)
    score(storage, other, 7, value=1.0, target_type="agent_span", target_id="some-span")
    assert outcomes(storage, runs, parse("reward>=1")) == {
        better.id: True,
        worse.id: False,
        other.id: None,
        none.id: None,
    }
    by_human = outcomes(storage, runs, parse("reward@human>=1"))
    assert by_human == {better.id: None, worse.id: False, other.id: None, none.id: None}


def test_a_score_that_was_withdrawn_leaves_the_run_unknown_or_to_another_judge(storage: Storage) -> None:
    alone, judged = runs = registered(storage, 2)
    score(storage, alone, 1, value=1.0)
    score(storage, alone, 2)
    score(storage, judged, 3, value=1.0, identifier="a")
    score(storage, judged, 4, value=0.0, identifier="b")
    score(storage, judged, 5, identifier="b")
    assert outcomes(storage, runs, parse("reward>=1")) == {alone.id: None, judged.id: True}


def test_a_label_is_compared_as_text_and_a_number_with_the_value(storage: Storage) -> None:
    good, bad = runs = registered(storage, 2)
    score(storage, good, 1, label="good")
    score(storage, bad, 2, label="bad", value=2.0)
    assert outcomes(storage, runs, parse("reward==good")) == {good.id: True, bad.id: False}
    assert outcomes(storage, runs, parse("reward!=good")) == {good.id: False, bad.id: True}
    assert outcomes(storage, runs, parse("reward==2")) == {good.id: None, bad.id: True}


def test_without_a_rule_the_status_decides(storage: Storage) -> None:
    runs = [
        run._replace(status=status)
        for run, status in zip(
            registered(storage, 6),
            ("complete", "failed", "terminated", "cancelled", "active", "pending"),
            strict=True,
        )
    ]
    assert [*outcomes(storage, runs).values()] == [True, False, None, None, None, None]
    assert outcomes(storage, [], parse("reward>=1")) == {}


def test_a_score_with_two_values_says_what_failed_means(storage: Storage) -> None:
    """Not one with one value, or with many: which of them is good enough, nobody has said."""
    runs = registered(storage, 4)
    for number, run in enumerate(runs):
        score(storage, run, 10 * number, name="cost", value=float(number))
        score(storage, run, 10 * number + 1, name="done", value=1.0)
        score(storage, run, 10 * number + 2, name="step", value=0.0, target_type="agent_span", target_id="some-span")
        if number:
            score(storage, run, 10 * number + 3, value=0.5 * (number % 2))
    assert missed_rule(storage, runs) == (parse("reward>=0.5"), 1, 3)
    assert missed_rule(storage, runs[:1]) is None
    assert missed_rule(storage, []) is None


@pytest.fixture
def judged(tmp_path: Path) -> Path:
    path = tmp_path / "judged.db"
    tracer = agentspan.Tracer(path, raise_errors=True)
    for good in (True, True, False):
        with tracer.run("planner") as run:
            run.score("quality", good)
            run.score("stars", label="many" if good else "few")
    tracer.shutdown()
    return path


def test_a_score_that_is_true_or_false_is_compared_with_those_words(judged: Path) -> None:
    assert lines(judged, "why", "--outcome", "quality==true")[0].startswith("1 of 3 runs failed quality==true")
    assert lines(judged, "why", "--outcome", "quality!=False")[0].startswith("1 of 3 runs failed quality!=False")
    assert lines(judged, "runs", "--score", "quality==false")[-1].startswith("1 of 1 run ")


@pytest.mark.parametrize("rule", ["quality==good", "stars>=1"])
def test_a_label_is_not_compared_with_numbers_nor_a_number_with_labels(judged: Path, tmp_path: Path, rule: str) -> None:
    config = tmp_path / "check.toml"
    config.write_text('[baseline]\nfilter = "all"\n')
    for words in (
        ("why", "--outcome", rule),
        ("diff", "--base", "all", "--head", "all", "--outcome", rule),
        ("check", "--config", str(config), "--outcome", rule),
        ("runs", "--score", rule),
    ):
        result = call(judged, *words, columns=200)
        said = "stars is a label (few, many): write stars==many"
        if rule == "quality==good":
            said = "quality is a number (0, 1): write quality==1"
        assert (result.exit_code, said in result.output) == (2, True), (words, result.output)


def test_a_failed_run_is_paired_with_the_latest_of_its_task_that_passed() -> None:
    def brief(id: str, task: str | None = None, agent: str = "a") -> RunBrief:
        return RunBrief(id, agent, agent, "1", "complete", task, "", None, 0, 0, None, None)

    runs = [brief("f3", "z"), brief("f2", "t"), brief("p2", "t"), brief("p1", "t"), brief("f1"), brief("x", agent="b")]
    passed = {run.id: run.id.startswith("p") for run in runs}
    assert pair_of(runs, passed) == ("p2", "f2")
    assert pair_of(runs[:1] + runs[2:5], passed) == ("p2", "f3")
    assert pair_of(runs[-1:], passed) is None
    assert pair_of(runs, {}) is None


def test_agents_in_one_file_are_judged_by_their_own_scores() -> None:
    """One fails by its status, one misses a reward of 0 or 1, and one has three values of the same score: no rule."""
    rows: list[tuple[str, Literal["complete", "failed"], list[float | None]]] = [
        ("crashes", "failed", [None, None]),
        ("misses", "complete", [0, 1, 0]),
        ("grades", "complete", [0, 0.5, 1]),
    ]
    with agentspan.open(":memory:") as db:
        for agent, status, values in rows:
            for value in values:
                run = db.agent_instances.register(agent)
                db.agent_instances.start(run.id)
                db.agent_instances.finish(run.id, status)
                if value is not None:
                    db.scores.record(run.id, "reward", value=value, by="code")
        still_open = db.agent_instances.register("misses")
        db.agent_instances.start(still_open.id)
        db.scores.record(still_open.id, "reward", value=0, by="code")
        why = db.why()
        assert (why.runs, why.failed, why.open, why.outcome) == (8, 4, 1, None)
        assert why.by_agent == "reward>=1 or by status"
        assert why.missed is None
        counted = db.overview(since="2000-01-01")
        assert (counted.failed, counted.missed, counted.open, counted.rule) == (2, 2, 1, "reward>=1")
        listed = causes.page_of(db.storage, find_runs(db.storage, RunFilter(), limit=None).runs).verdicts.values()
        assert Counter(each.kind for each in listed) == {"passed": 4, "missed": 2, "failed": 2, "running": 1}
        assert (versions(db.storage, "misses").versions[0].known, db.why(agent="misses").open) == (3, 1)
