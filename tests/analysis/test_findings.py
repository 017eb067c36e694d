"""What goes with failure: planted causes are found, chance is not, and tasks do not pass for a cause."""

import random
from math import inf
from typing import Any

import pytest

import agentspan
from agentspan.analysis.associations import Findings, find
from agentspan.analysis.features import Feature, distinct, run_features, span_features
from agentspan.analysis.runs import run_briefs

FEATURES = 40


def planted(seed: int, *, shuffled: bool = False) -> Findings:
    """Two runs of each of 200 tasks, with 40 features; the first one triples the probability of failing."""
    chance = random.Random(seed)
    having: list[set[str]] = [set() for _ in range(FEATURES)]
    usual = [chance.uniform(0.15, 0.85) for _ in range(FEATURES)]
    failed, strata = {}, {}
    for number in range(400):
        id = str(number)
        for runs, share in zip(having, usual, strict=True):
            if chance.random() < share:
                runs.add(id)
        failed[id] = chance.random() < (0.75 if id in having[0] else 0.25)
        strata[id] = ("agent", str(number // 2))
    if shuffled:
        failed = dict(zip(failed, chance.sample([*failed.values()], 400), strict=True))
    features = [Feature(f"feature {number}", frozenset(runs)) for number, runs in enumerate(having)]
    return find(chance.sample(features, FEATURES), failed, strata)


def test_a_planted_cause_comes_first() -> None:
    """100 of 100 seeds."""
    first = [found.findings[0] if (found := planted(seed)).findings else None for seed in range(10)]
    assert [each and each.feature for each in first] == ["feature 0"] * 10
    assert all(each is not None and each.stratified and each.low > 1 for each in first)


def test_chance_is_no_finding() -> None:
    """4 of 100 seeds."""
    assert sum(bool(planted(seed, shuffled=True).findings) for seed in range(10)) <= 2


def test_a_feature_of_hard_tasks_is_no_cause() -> None:
    """Hard tasks need the tool and fail often; within a task it makes no difference."""
    chance = random.Random(1)
    failed, strata, runs = {}, {}, set()
    for number in range(600):
        id, task = str(number), number // 6
        hard = task % 2 == 0
        if chance.random() < (0.9 if hard else 0.1):
            runs.add(id)
        failed[id] = chance.random() < (0.8 if hard else 0.2)
        strata[id] = ("agent", str(task))
    features = [Feature("Tool pay used", frozenset(runs))]
    found = find(features, failed, strata)
    assert found.stratified
    assert found.findings == ()
    assert [each.feature for each in found.pooled] == ["Tool pay used"]
    no_tasks = find(features, failed, dict.fromkeys(strata, ("agent", None)))
    assert not no_tasks.stratified
    assert [each.stratified for each in no_tasks.findings] == [False]
    (finding,) = no_tasks.findings
    assert finding.failed == sum(failed.values())
    assert finding.failed_with == sum(failed[id] for id in runs)
    assert 1 < finding.low < finding.odds_ratio < finding.high


def test_the_counts_are_of_the_tasks_that_carry_the_odds_and_may_point_the_other_way() -> None:
    """A version that fails more often on each kind of task; it ran the easy ones most, and no task of others counts."""
    failed, strata, runs = {}, {}, set()
    for task in range(24):
        is_easy = task < 10
        for is_old in (True, False):
            number = 8 if is_easy == is_old else 2
            fails = {(True, True): 2, (True, False): 0, (False, True): 2, (False, False): 5}[is_easy, is_old]
            for place in range(number if task < 20 else 1):
                id = f"{task} {is_old} {place}"
                failed[id] = task >= 20 or place < fails  # the last four tasks never pass
                strata[id] = ("agent", str(task))
                if is_old:
                    runs.add(id)
    (finding,) = find([Feature("version 1", frozenset(runs))], failed, strata).findings
    assert (finding.odds_ratio, finding.tasks) == (inf, 20)
    counts = finding.failed_with, finding.failed, finding.passed_with, finding.passed
    assert counts == (40, 90, 60, 110)
    assert finding.is_turned  # 40 % of its runs failed, and half of the others


@pytest.mark.parametrize(
    ("repeated", "runs_of_each", "unique", "stratified"),
    [(1, 3, 60, False), (4, 20, 0, False), (5, 6, 30, True), (5, 6, 31, False), (0, 0, 60, False)],
)
def test_runs_are_compared_within_five_tasks_that_have_half_of_them(
    repeated: int, runs_of_each: int, unique: int, stratified: bool
) -> None:
    """One task that was run three times among unique ones would leave all others out."""
    tasks = [f"r{number % repeated}" for number in range(repeated * runs_of_each)]
    tasks += [f"u{number}" for number in range(unique)]
    chance = random.Random(2)
    having = {str(number) for number in range(len(tasks)) if chance.random() < 0.5}
    failed = {str(number): chance.random() < (0.9 if str(number) in having else 0.1) for number in range(len(tasks))}
    strata = {str(number): ("agent", task) for number, task in enumerate(tasks)}
    found = find([Feature("cause", frozenset(having))], failed, strata)
    assert found.stratified == stratified
    assert [each.feature for each in found.findings] == ["cause"]


def test_what_is_pooled_is_corrected_for_all_things_that_the_runs_together_can_decide() -> None:
    """Within tasks that never differ nothing can be decided; the q of what is pooled is of more tests than that."""
    failed = {str(number): number % 12 < 6 for number in range(60)}
    strata = {str(number): ("agent", f"t{number % 12}") for number in range(60)}
    causes = [frozenset(id for id in failed if int(id) % 12 in tasks) for tasks in ((0, 1, 2, 3), (4, 5, 7), (3, 8, 9))]
    found = find([Feature(f"of {n}", runs) for n, runs in enumerate(causes)], failed, strata)
    assert (found.stratified, found.tested, found.tested_pooled) == (True, 0, 3)
    assert [each.feature for each in found.pooled][:1] == ["of 0"]
    alone = find([Feature("of 0", causes[0])], failed, strata)
    assert found.pooled[0].q == pytest.approx(3 * alone.pooled[0].q)
    assert (found.pooled[0].low, found.pooled[0].high) == (alone.pooled[0].low, alone.pooled[0].high)


@pytest.fixture
def made() -> Any:
    """Eight runs: four used pay, three of these twice with the same arguments; four are of version 2."""
    db = agentspan.open(":memory:")
    for number in range(8):
        run = db.agent_instances.register("a", agent_version={"external_identifier": str(1 + number % 2)})
        db.agent_instances.start(run.id)
        for times in range(1 + (number < 3) if number < 4 else 0):
            arguments = {"cabin": "economy" if number < 3 else "first", "code": f"x{number}", "seats": [1]}
            payload = {"name": "pay", "arguments": arguments, "call_id": str(times)}
            db.agent_spans.create(run.id, "tool", "complete", payload, {"output": 1})
        used = {"model": "big" if number > 4 else "small", "input_tokens": 100 * number}
        db.agent_spans.create(run.id, "llm", "complete", used, {})
        db.agent_instances.finish(run.id, "complete")
    return db


def test_features_of_runs(made: Any) -> None:
    runs = run_briefs(made.storage)
    number = {run.id: 7 - place for place, run in enumerate(runs)}
    tags = {id: ["night"] for id, each in number.items() if each in (1, 4, 6)}
    found = {each.text: {number[id] for id in each.runs} for each in run_features(made.storage, runs, tags)}
    assert found == {
        "version 1": {0, 2, 4, 6},
        "tag night": {1, 4, 6},
        "LLM big used": {5, 6, 7},
        "Tool pay used": {0, 1, 2, 3},  # as are those with more than one step, and all but those with many tokens
        "Tool pay repeated with the same arguments": {0, 1, 2},  # as are those with cabin=economy
    }


def test_a_feature_of_passing_is_named_from_the_side_that_fails() -> None:
    failed = {str(number): number % 2 == 0 for number in range(20)}
    strata = dict.fromkeys(failed, ("agent", None))
    usd = frozenset(id for id in failed if not failed[id])
    for lacking, text in (("Tool pay with currency=EUR", "Tool pay with currency=EUR"), ("", "no currency=USD")):
        (found,) = find([Feature("currency=USD", usd, None, lacking)], failed, strata).findings
        assert (found.feature, found.failed_with, found.passed_with) == (text, 10, 0)
        assert found.odds_ratio == found.high == inf
        assert found.low > 1


def test_of_two_values_that_all_runs_have_each_names_the_lack_of_the_other(made: Any) -> None:
    runs = run_briefs(made.storage)
    found = {each.text: each.opposite for each in run_features(made.storage, runs)}
    assert found["version 1"] == "version 2"
    assert found["Tool pay used"] == "Tool pay not used"
    assert found["LLM big used"] == "LLM big not used"


def test_only_features_known_of_the_same_runs_name_each_other() -> None:
    """`a before b` is known of the first six runs only: it is not what all runs but the first three have in common."""
    runs = [*map(str, range(9))]
    north = Feature("north", frozenset(runs[:3]))
    order = Feature("a before b", frozenset(runs[3:6]), frozenset(runs[:6]))
    south = Feature("south", frozenset(runs[3:]))
    found = distinct([north, order, south, Feature("again", north.runs)], frozenset(runs))
    assert [(each.text, each.opposite) for each in found] == [("north", "south"), ("a before b", "no a before b")]


def test_a_failure_says_more_than_that_the_tool_was_used_twice() -> None:
    with agentspan.open(":memory:") as db:
        for number in range(8):
            run = db.agent_instances.register("a")
            db.agent_instances.start(run.id)
            for times in range(2 if number % 2 else 1):
                is_error = {"is_error": True} if times else {}
                payload = {"name": "pay", "arguments": {"total": f"{number}{times}"}}
                db.agent_spans.create(run.id, "tool", "complete", payload, {"output": f"{number}", **is_error})
            db.agent_instances.finish(run.id, "complete")
        texts = [each.text for each in run_features(db.storage, run_briefs(db.storage))]
    assert texts == ["error Tool pay: <n>"]


def test_nothing_says_what_could_have_been_found() -> None:
    chance = random.Random(5)
    for number, wanted in ((12, 150), (100, 4.9), (1000, 1.64)):
        failed = {str(each): each % 2 == 0 for each in range(number)}
        strata = dict.fromkeys(failed, ("agent", None))
        features = [Feature(f"f{each}", frozenset(id for id in failed if chance.random() < 0.5)) for each in range(10)]
        found = find(features, failed, strata)
        assert found.findings == ()
        assert found.detectable == pytest.approx(wanted, rel=0.2)


def test_features_that_only_spans_and_metadata_tell() -> None:
    """The first three of twelve runs find nothing, take long for it, and pay before they check."""
    with agentspan.open(":memory:") as db:
        number = {}
        for each in range(12):
            region = "north" if each % 2 else "south"
            run = db.agent_instances.register("a", metadata={"region": region, "parts": [1], "ticket": each})
            number[run.id] = each
            db.agent_instances.start(run.id)
            for place, name in enumerate(("find", "pay", "check") if each < 3 else ("find", "check", "pay")):
                rows: Any = {"rows": [] if each < 3 and name == "find" else [each], "total": 0}
                began, ended = (f"2026-11-26T03:0{place}:0{second}.000000Z" for second in (0, 9 if each < 3 else 1))
                times: Any = {"started_at": began, "finished_at": ended}
                payload = {"name": name, "arguments": {"n": f"{each}"}}
                db.agent_spans.create(run.id, "tool", "complete", payload, {"output": rows}, **times)
            db.agent_instances.finish(run.id, "complete")
        found = {each.text: {number[id] for id in each.runs} for each in span_features(db.storage, [*number])}
    assert found == {
        "Tool find with an empty result": {0, 1, 2},
        "metadata region=north": {1, 3, 5, 7, 9, 11},
        "metadata region=south": {0, 2, 4, 6, 8, 10},
        "Tool check before Tool pay": {*range(3, 12)},
        **{f"Tool {name} longer than 1.0 s": {0, 1, 2} for name in ("check", "find", "pay")},
    }


def test_all_that_a_step_was_given_and_returned_is_read() -> None:
    """The first three of twelve runs differ in one value of each kind."""
    with agentspan.open(":memory:") as db:
        number = {}
        for each in range(12):
            odd = each < 3
            run = db.agent_instances.register("a", metadata={"evaluation": {"outcome": "reward>=1"}, "trial": each % 2})
            number[run.id] = each
            db.agent_instances.start(run.id)
            card = {"kind": "prepaid" if odd else "credit"}
            arguments = {"card": card, "tags": ["new", "late"] if odd else ["new"], "total": each / 7}
            state = "stale" if odd else "fresh"
            for name, payload, result in (
                ("tool", {"name": "pay", "arguments": arguments}, {"output": {"state": state}}),
                ("mcp", {"method": "post", "arguments": {"to": "sms" if odd else "mail"}}, {"result": each / 7}),
                ("retrieval", {"query": "q"}, {"documents": [] if odd else [{"id": "d"}]}),
                (
                    "llm",
                    {"model": "m", "system": "Be kind." + " Answer in one line." * odd, "messages": []},
                    {"text": "a long answer", "finish_reason": "length" if odd else "stop", "output_tokens": each},
                ),
            ):
                times: Any = {"started_at": "2026-11-26T03:00:00.000000Z", "finished_at": "2026-11-26T03:00:00.000000Z"}
                db.agent_spans.create(run.id, name, "complete", payload, result, **times)
            db.agent_instances.finish(run.id, "complete")
        found = {each.text: {number[id] for id in each.runs} for each in span_features(db.storage, [*number])}
    first = {
        "Tool pay with card.kind=prepaid",
        "Tool pay with tags[]=late",
        "Tool pay returning state=stale",
        "MCP post with to=sms",
        "Retrieval with an empty result",
        "LLM returning finish_reason=length",
        'prompt with "Answer in one line."',
        'prompt with "answer"',
        'prompt with "line"',
        'prompt with "one"',
    }
    assert {text for text, runs in found.items() if runs == {0, 1, 2}} == first
    assert not any(text.startswith("metadata") for text in found)


def test_one_fact_is_said_once_and_a_second_cause_stays() -> None:
    """Slow runs are mostly those that take the wrong way; a full disk is a cause of its own."""
    chance = random.Random(3)
    wrong, slow, full, failed = set(), set(), set(), {}
    for number in range(400):
        id = str(number)
        if chance.random() < 0.3:
            wrong.add(id)
        if (id in wrong) == (chance.random() < 0.93):
            slow.add(id)
        if chance.random() < 0.3:
            full.add(id)
        failed[id] = chance.random() < 0.1 + 0.4 * (id in wrong) + 0.4 * (id in full)
    features = [Feature(name, frozenset(runs)) for name, runs in (("wrong", wrong), ("full", full), ("slow", slow))]
    for order in (features, features[::-1]):
        found = find(order, failed, dict.fromkeys(failed, ("agent", None)))
        assert {each.feature: each.also for each in found.findings} == {"wrong": ("slow",), "full": ()}
