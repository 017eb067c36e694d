"""`agentspan check`: budgets and calls are facts, a drop of passed runs is a sample."""

import json
import random
import re
from collections.abc import Sequence
from pathlib import Path
from xml.etree import ElementTree

import pytest

import agentspan
from agentspan.analysis.check import Config, check, config_of, load
from agentspan.analysis.drift import PASSED, group_sizes
from agentspan.analysis.drift_metrics import Gathered, Metric, RunFacts
from agentspan.errors import InvalidValue
from tests.cli.calling import call, process
from tests.tiers import longer


def judged(chance: random.Random, shares: list[float], *, with_tasks: bool = True) -> Gathered:
    """One run of each task, which passes with that task's probability."""
    runs = [
        RunFacts(str(place), str(place) if with_tasks else None, {PASSED: (float(chance.random() < share), 1.0)})
        for place, share in enumerate(shares)
    ]
    return Gathered(runs, 0, 0)


@pytest.mark.full
@pytest.mark.parametrize("with_tasks", [True, False])
def test_an_agent_against_itself_seldom_fails_and_a_broken_one_nearly_always_does(with_tasks: bool) -> None:
    chance = random.Random(1)
    shares = [chance.choice((0.1, 0.5, 0.95)) for _ in range(50)]
    alarms = found = 0
    sets = longer("AGENTSPAN_TEST_SIMULATED_SETS", 5, 8, 400)
    for _ in range(sets):
        before, after = (judged(chance, shares, with_tasks=with_tasks) for _ in range(2))
        broken = judged(chance, [share / 5 for share in shares], with_tasks=with_tasks)
        alarms += check(after, Config({}), before).verdict == "fail"
        found += check(broken, Config({}), before).verdict == "fail"
    assert alarms <= max(1, 0.1 * sets)
    assert found >= 0.9 * sets


def test_too_few_runs_are_inconclusive_and_it_says_how_many_are_missing() -> None:
    chance = random.Random(2)
    few, many = ([judged(chance, [0.5] * number, with_tasks=False) for _ in range(2)] for number in (8, 400))
    found = check(few[0], Config({}), few[1])
    assert found.verdict == "inconclusive"
    assert found.detectable is not None
    assert found.detectable > 0.25
    sizes = group_sizes(few[1].runs, few[0].runs)
    assert sizes is not None
    more = sizes.more_for(0.25)
    assert more is not None
    fewest = "(about the fewest in all) would show a drop of 25 points"
    assert f"{more.head} more runs and {more.base} more of the baseline {fewest}" in found.findings[-1].text
    assert "no drop would show" in found.findings[-1].text
    assert (found.missing, more.pairs) == (more.head, 0)
    assert sizes._replace(base=8 + more.base, head=8 + more.head).finds(0.25)
    tiny = check(few[0], Config({}, drop=0.0005), few[1]).findings[-1].text
    assert tiny.endswith("not even 1,000 times the runs would show a drop of 0.05 points")
    assert check(many[0], Config({}), many[1]).verdict == "pass"
    nothing = check(Gathered([], 0, 0), Config({}))
    assert (nothing.verdict, nothing.findings[0].text) == ("inconclusive", "no run was found")
    open_too = check(Gathered([RunFacts("1", None)], 1, 0), Config({"steps": 3}))
    assert (open_too.verdict, open_too.findings[1].text[:14]) == ("inconclusive", "1 of 2 runs di")


@pytest.mark.parametrize(
    "document",
    [
        {"budgets": {}}, {"budget": {"dollars": 1}}, {"budget": {"steps": "many"}}, {"budget": 3},
        {"calls": {"required": "a"}}, {"baseline": {"drop": 2}}, {"outcome": 1},
    ],
)  # fmt: skip
def test_a_wrong_configuration_is_an_error(document: dict[str, object]) -> None:
    with pytest.raises(InvalidValue, match="config"):
        config_of(document)


def test_the_configuration_is_of_pyproject_or_of_a_file(tmp_path: Path) -> None:
    text = 'outcome = "reward>=1"\n[X.budget]\nsteps = 3\n[X.baseline]\nfile = "base.db"\ndrop = 0.5\n'
    (tmp_path / "c.toml").write_text(text.replace("X.", ""))
    (tmp_path / "pyproject.toml").write_text("[tool.agentspan.check]\n" + text.replace("X.", "tool.agentspan.check."))
    expected = Config({"steps": 3}, outcome="reward>=1", baseline_file="base.db", drop=0.5)
    assert load(tmp_path / "c.toml") == load(tmp_path / "pyproject.toml") == expected


@pytest.fixture
def db(tmp_path: Path) -> Path:
    path = tmp_path / "runs.db"
    tracer = agentspan.Tracer(path, raise_errors=True)
    for version, steps in (("1", 2), ("2", 4)):
        for number in range(8):
            with tracer.run("shop", version=version, task=f"t{number}"):
                for _ in range(steps):
                    with tracer.span("tool", {"name": "lookup"}) as span:
                        span.set_result({"cost_usd": 0.01})
    tracer.shutdown()
    return path


def test_a_check_has_an_exit_code_and_names_each_run_that_broke_a_budget(db: Path, tmp_path: Path) -> None:
    config = tmp_path / "check.toml"
    config.write_text(
        "[budget]\nsteps = 3\ncost_usd = 1\nduration_s = 60\nerror_rate = 0\n"
        "[calls]\nrequired = ['lookup']\nforbidden = ['delete']\n"
    )
    good = call(db, "check", "shop@1", "--config", str(config))
    assert (good.exit_code, good.output.splitlines()[0]) == (0, "✓ pass: 8 runs")
    bad = call(db, "check", "shop@2", "--config", str(config), "--json", "--junit", str(tmp_path / "junit.xml"))
    document = json.loads(bad.output)
    assert (bad.exit_code, document["verdict"], document["runs"]) == (1, "fail", 8)
    (broken,) = [finding for finding in document["findings"] if finding["verdict"] == "fail"]
    assert len(set(broken["runs"])) == 8
    assert (broken["run_id"], broken["text"]) == (broken["runs"][0], "over 3 in 8 of 8 runs, most 4")
    suite = ElementTree.parse(tmp_path / "junit.xml").getroot()
    assert (suite.get("failures"), len(suite.findall("testcase/failure"))) == ("1", 1)
    names = [case.get("name") for case in suite.iter("testcase")]
    assert names[:2] == ["budget steps", "budget cost_usd"]
    assert names[-2:] == ["calls required lookup", "calls forbidden delete"]
    assert (suite.findtext("testcase/failure") or "").splitlines() == broken["runs"]
    markdown = call(db, "check", "--version", "2", "--config", str(config), "--markdown").output
    assert markdown.startswith("**agentspan check: fail: 8 runs**")


def test_the_exit_code_is_the_verdict_although_nobody_reads_the_answer(db: Path, tmp_path: Path) -> None:
    config = tmp_path / "check.toml"
    config.write_text("[budget]\nsteps = 3\n")
    started = process(db, "check", "shop@2", "--config", str(config))
    assert started.stdout is not None
    started.stdout.close()  # as `check | head -1` does, under `set -o pipefail`
    _, errors = started.communicate()
    assert (started.returncode, errors) == (1, "")


def test_a_check_against_a_baseline_is_inconclusive_with_few_runs(db: Path, tmp_path: Path) -> None:
    config = tmp_path / "check.toml"
    config.write_text('outcome = "status"\n[baseline]\nfilter = "shop@1"\n')
    result = call(db, "check", "shop@2", "--config", str(config))
    assert (result.exit_code, result.output.splitlines()[0]) == (3, "? inconclusive: 8 runs")
    config.write_text('[baseline]\nfile = "runs.db"\nfilter = "version=1"\ndrop = 1.0\n')
    assert call(db, "check", "shop@2", "--config", str(config)).exit_code == 0
    config.write_text('[baseline]\nfile = "none.db"\n')
    assert "does not exist" in call(db, "check", "--config", str(config)).output


def configured(folder: Path, text: str) -> list[str]:
    """Return the options for a configuration of this text."""
    (folder / "check.toml").write_text(text)
    return ["--config", str(folder / "check.toml")]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "has nothing to check: write [budget], [calls] or [baseline]"),
        ("[budget]\n", "has nothing to check"),
        ('outcome = "reward>=1"\n', "has nothing to check"),
        ('outcome = "reward>=1"\n[budget]\nsteps = 9\n', "needs a [baseline]"),
        (
            "[tool.agentspan.check.budget]\nsteps = 9\n",
            "write [budget]; [tool.agentspan.check.budget] is for pyproject",
        ),
        ("[budget]\nerror_rate = 2\n", "budget error_rate must be a share from 0 to 1"),
        ("[budget]\nsteps = 60.5\n", "budget steps must be a whole number"),
        ("[baseline]\nfilter = 'all'\ndrop = 0\n", "baseline drop must be a share above 0, at most 1"),
        ('[baseline]\nfilter = "trial=9"\n', "did you mean meta=trial=9?"),
        ("[baseline]\ndrop = 0.1\n", "[baseline] must name a filter or a file"),
        ('[baseline]\nfilter = "version=9"\n', "the baseline version=9 matches none of the 16 runs"),
        ('[baseline]\nfilter = "verson=1"\n', "baseline: must be all"),
        ('[baseline]\nfile = "none.db"\n', "none.db does not exist"),
        ('[baseline]\nfile = "check.toml"\n', "check.toml"),
        ('outcome = "rewrd>=1"\n[baseline]\nfilter = "shop@1"\n', "no run has; the scores are: reward"),
        ('outcome = "reward@human>=1"\n[baseline]\nfilter = "shop@1"\n', "no run has; the scores are: reward@code"),
        ("[budget\n", "is not TOML"),
        ("[budget]\nsteps = nan\n", "budget steps must be a number from 0 on"),
        ("[baseline]\nfilter = 'all'\ndrop = true\n", "baseline drop must be a share"),
    ],
)
def test_a_check_that_cannot_be_made_is_an_error_with_the_exit_code_2(
    db: Path, tmp_path: Path, text: str, said: str
) -> None:
    with agentspan.open(db) as opened:
        opened.scores.record(opened.agent_instances.list()[0].id, "reward", 1)
    result = call(db, "check", "shop@2", *configured(tmp_path, text))
    assert (result.exit_code, said in " ".join(result.output.split())) == (2, True), result.output


def test_what_is_missing_for_a_check_is_named(db: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    result = call(db, "check")
    assert (result.exit_code, "no pyproject.toml" in result.output, "--config" in result.output) == (2, True, True)
    (tmp_path / "pyproject.toml").write_text("[project]\nname = 'x'\n")
    result = call(db, "check")
    assert (result.exit_code, "pyproject.toml has no [tool.agentspan.check]" in result.output) == (2, True)
    result = call(db, "check", "--config", "no.toml")
    assert (result.exit_code, result.output) == (2, "Error: config: no.toml does not exist\n")
    assert call(tmp_path / "no.db", "check").exit_code == 2
    assert call(db, "check", "--agent", "shpo").exit_code == 2
    broken = call(db, "check", *configured(tmp_path, "[budget]\nsteps = 1\n"), "--junit", "no/x.xml")
    assert (broken.exit_code, broken.output) == (2, "Error: cannot write no/x.xml: No such file or directory\n")


def test_the_outcome_of_a_check_is_of_its_option_its_configuration_or_the_project(
    db: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "below").mkdir()
    monkeypatch.chdir(tmp_path / "below")  # its project is the folder above it
    with agentspan.open(db) as opened:
        for run in opened.agent_instances.list():
            opened.scores.record(run.id, "reward", 0)
    project = tmp_path / "pyproject.toml"
    of_check = "[tool.agentspan.check.baseline]\nfilter = 'shop@1'\n"
    project.write_text(of_check)
    passed = {"by status": 1.0, "reward>=1": 0.0}

    def found(*options: str) -> float:
        share: float = json.loads(call(db, "check", "shop@2", "--json", *options).output)["passed"]
        return share

    assert found() == passed["by status"]
    assert found("--outcome", "reward>=1") == passed["reward>=1"]
    project.write_text("[tool.agentspan]\noutcome = 'reward>=1'\n" + of_check)
    assert found() == passed["reward>=1"]
    assert found("--outcome", "status") == passed["by status"]
    project.write_text(
        "[tool.agentspan]\noutcome = 'reward>=1'\n[tool.agentspan.check]\noutcome = 'status'\n" + of_check
    )
    assert found() == passed["by status"]
    options = configured(tmp_path, "[budget]\nsteps = 9\n")
    result = call(db, "check", "--outcome", "status", *options)
    assert (result.exit_code, "--outcome needs a [baseline]" in result.output) == (2, True)


def test_a_baseline_of_the_checked_runs_themselves_says_so(db: Path, tmp_path: Path) -> None:
    result = call(db, "check", "shop@1", *configured(tmp_path, "[baseline]\nfilter = 'shop@1'\n"))
    assert result.exit_code == 3
    assert "all 8 runs of the baseline are checked ones" in " ".join(result.output.split())


def scored(path: Path, agent: str, name: str, values: Sequence[float]) -> Path:
    tracer = agentspan.Tracer(path, raise_errors=True)
    for value in values:
        with tracer.run(agent) as run:
            run.score(name, value)
    tracer.shutdown()
    return path


def test_a_baseline_file_whose_runs_lack_the_score_is_named(tmp_path: Path) -> None:
    path = scored(tmp_path / "runs.db", "shop", "reward", [1, 0])
    scored(tmp_path / "old.db", "shop", "quality", [1, 0])
    baseline = configured(tmp_path, "[baseline]\nfile = 'old.db'\n")
    result = call(path, "check", "--outcome", "reward>=1", *baseline)
    said = f"Error: outcome: no run of the baseline {tmp_path / 'old.db'} has the score reward; it has: quality\n"
    assert (result.exit_code, result.stderr) == (2, said)


def test_runs_of_the_baseline_that_count_as_checked_are_told(tmp_path: Path) -> None:
    path = scored(tmp_path / "runs.db", "shop", "reward", [1, 0, 1, 0, 1, 0, 0, 0])
    baseline = configured(tmp_path, "outcome = 'reward>=1'\n[baseline]\nfilter = 'all'\n")
    text = call(path, "check", "--score", "reward<1", *baseline, columns=300).output
    assert "baseline: 0% passed, baseline 100% of 3 runs of shop: more than chance" in text
    assert text.endswith("; 5 in both count as checked\n")


def test_a_baseline_of_another_agent_is_told(tmp_path: Path) -> None:
    path = scored(tmp_path / "runs.db", "airline", "reward", [1, 1, 0])
    scored(tmp_path / "old.db", "shop", "reward", [1, 0])
    baseline = configured(tmp_path, "outcome = 'reward>=1'\n[baseline]\nfile = 'old.db'\ndrop = 1.0\n")
    text = call(path, "check", *baseline, columns=300).output
    assert "baseline: 67% passed, baseline 50% of 2 runs of shop: no drop; " in text
    assert text.endswith("; these are different agents: airline was checked against shop\n")
    scored(tmp_path / "old.db", "airline", "reward", [1, 0])
    text = call(path, "check", *baseline, columns=300).output
    assert "these are different agents: airline was checked against airline, shop" in text
    baseline = configured(tmp_path, "outcome = 'reward>=1'\n[baseline]\nfile = 'old.db'\nfilter = 'agent=airline'\n")
    assert "different agents" not in call(path, "check", *baseline, columns=300).output


def test_a_p_that_is_small_is_never_zero_and_unknown_outcomes_are_counted() -> None:
    chance = random.Random(5)
    before, after = (judged(chance, [share] * 300, with_tasks=False) for share in (0.9, 0.2))
    assert (
        check(after, Config({}), before)
        .findings[-1]
        .text.endswith("25% passed, baseline 87% of 300 runs: more than chance, one-sided p < 0.001")
    )
    unknown = after._replace(unknown=7)
    text = check(unknown, Config({}), before._replace(unknown=1)).findings[-1].text
    assert text.startswith("25% of 300 runs passed (7 more have no outcome), baseline 87% of 300 runs (1 more has ")


def test_runs_are_asked_for_where_they_are_lacking() -> None:
    """With 4 runs against 30 of the baseline, as many times both would be 27 and 201."""
    sizes = group_sizes(outcomes(25, 30).runs, outcomes(2, 4).runs)
    assert sizes is not None
    more = sizes.more_for(0.25)
    assert more is not None
    assert 95 <= 34 + more.head + more.base <= 101  # no 94 runs find it, in whatever groups
    assert sizes._replace(base=30 + more.base, head=4 + more.head).finds(0.25)
    many = outcomes(160, 200), outcomes(3, 4)
    sizes = group_sizes(*(each.runs for each in many))
    assert sizes is not None
    more = sizes.more_for(0.25)
    assert more is not None
    assert more.base == 0
    assert sizes._replace(head=4 + more.head).finds(0.25)
    for head, base, said in ((many[1], many[0], "runs"), (many[0], many[1], "of the baseline")):
        text = check(head, Config({}), base).findings[-1].text
        assert re.search(rf"; \d+ more {said} \(about the fewest in all\) would show a drop of 25 points$", text), text


def by_task(passed: Sequence[float], numbers: Sequence[int], side: str) -> Gathered:
    """Runs of tasks of which this share passes, and so many are of each."""
    return Gathered(
        [
            RunFacts(f"{side} {task} {n}", str(task), {PASSED: (float(n < share * number), 1.0)})
            for task, (share, number) in enumerate(zip(passed, numbers, strict=True))
            for n in range(number)
        ],
        0,
        0,
    )


EASY_FIRST, HARD_FIRST = [8] * 10 + [2] * 10, [2] * 10 + [8] * 10


def test_runs_of_the_same_tasks_are_told_by_the_shares_that_decide() -> None:
    worse = by_task([0.75] * 10 + [0.0] * 10, EASY_FIRST, "a")
    better = by_task([1.0] * 10 + [0.375] * 10, HARD_FIRST, "b")
    failed, passed = check(worse, Config({}), better), check(better, Config({}), worse)
    assert (failed.verdict, failed.tasks) == ("fail", 20)
    assert failed.by_task == pytest.approx((0.375, 0.6875))
    assert (failed.passed, failed.baseline) == pytest.approx((0.6, 0.5))
    assert failed.findings[-1].text == (
        "task by task 38% passed, baseline 69% (20 tasks): more than chance, one-sided p < 0.001; "
        "over all runs the opposite: 60% passed, baseline 50% of 100 runs"
    )
    assert (passed.verdict, passed.findings[-1].text) == (
        "pass",
        "task by task 69% passed, baseline 38% (20 tasks): no drop; "
        "over all runs the opposite: 50% passed, baseline 60% of 100 runs",
    )
    same = by_task([0.5] * 20, [2] * 20, "c")
    assert (
        check(same, Config({}), by_task([0.5] * 20, [2] * 20, "d"))
        .findings[-1]
        .text.startswith("50% passed, baseline 50% of 40 runs, task by task (20 tasks): no drop")
    )


def test_runs_that_are_paired_are_asked_for_by_task() -> None:
    few = [by_task([1.0] * 4 + [0.0] * 4, [2] * 8, side) for side in ("a", "b")]
    found = check(few[0], Config({}), few[1])
    assert found.verdict == "inconclusive"
    (more,) = re.findall(
        r"(\d+) more runs and (\d+) more of the baseline, of (\d+) more tasks, would show", found.findings[-1].text
    )
    assert int(more[0]) == int(more[1]) == 2 * int(more[2]) > 0


def test_one_failed_run_of_four_is_no_drop() -> None:
    passes, fails = ({PASSED: (value, 1.0)} for value in (1.0, 0.0))
    before = Gathered([RunFacts(str(n), None, fails if n < 4 else passes) for n in range(200)], 0, 0)
    after = Gathered([RunFacts(str(n), None, fails if n < 1 else passes) for n in range(4)], 0, 0)
    assert check(after, Config({}), before).verdict == "inconclusive"  # p is 0.095


def used(number: int, **values: tuple[float, float]) -> RunFacts:
    """Return a run that used so much: values of metrics by their measure, or by type for calls."""
    measures = {"steps": Metric("spans"), "tokens": Metric("tokens"), "duration": Metric("duration_ms")}
    rates = {name: measures.get(name, Metric("failure_rate", name)) for name in values}
    return RunFacts(f"run {number}", None, {rates[name]: value for name, value in values.items()})


def told(budget: dict[str, float], *runs: RunFacts) -> tuple[str, str]:
    """Return the verdict on a budget, and the text."""
    (finding,) = check(Gathered([*runs], 0, 0), Config(budget)).findings
    return finding.verdict, finding.text


def test_a_budget_of_what_no_run_recorded_is_inconclusive() -> None:
    lacking = used(1, steps=(3, 0))
    assert told({"tokens": 9}, lacking, lacking) == ("inconclusive", "none of 2 runs recorded tokens; not checked")
    assert told({"cost_usd": 9}, lacking) == ("inconclusive", "none of 1 run recorded a cost; not checked")
    assert told({"error_rate": 0.1}, lacking)[0] == "inconclusive"
    some = used(2, tokens=(7, 0))
    assert told({"tokens": 9}, lacking, some) == ("pass", "most 7, limit 9; 1 of 2 runs recorded none")


def test_the_error_rate_is_of_calls_and_says_how_many() -> None:
    run = used(1, message=(0, 50), agent=(1, 1), tool=(6, 12), llm=(0, 30))
    assert told({"error_rate": 0.1}, run) == ("fail", "14% of calls failed (6 of 42), limit 10%")
    assert told({"error_rate": 0.2}, run, run) == ("pass", "most 14% of calls failed (6 of 42), limit 20%")


def test_runs_over_a_budget_are_counted_the_worst_first_and_the_limit_is_told_apart() -> None:
    runs = [used(number, steps=(40 + number, 0)) for number in range(3)]
    assert told({"steps": 40}, *runs) == ("fail", "over 40 in 2 of 3 runs, most 42")
    assert check(Gathered(runs, 0, 0), Config({"steps": 40})).findings[0].runs == ("run 2", "run 1")
    assert told({"steps": 60}, *runs) == ("pass", "most 42, limit 60")
    assert told({"steps": 40}, runs[2]) == ("fail", "42, limit 40")
    assert told({"duration_s": 0.01}, used(1, duration=(10.04, 1))) == ("fail", "10.04 ms, limit 10 ms")


def outcomes(passed: int, of: int, first: int = 0) -> Gathered:
    return Gathered([RunFacts(str(first + n), None, {PASSED: (float(n < passed), 1.0)}) for n in range(of)], 0, 0)


def test_a_share_that_rose_is_no_drop_and_one_of_nothing_cannot_fall() -> None:
    rose = check(outcomes(90, 200), Config({}), outcomes(84, 200, 200)).findings[-1]
    assert (rose.verdict, rose.text) == ("pass", "45% passed, baseline 42% of 200 runs: no drop")
    fell = check(outcomes(82, 200), Config({}), outcomes(84, 200, 200)).findings[-1]
    assert fell.text == "41% passed, baseline 42% of 200 runs: no more than chance, one-sided p 0.460"
    better = check(outcomes(9, 9), Config({}), outcomes(0, 9, 20)).findings[-1]
    assert better.verdict == "inconclusive"
    assert "the base passed none of these cases, so that none could become worse" in better.text
    none = check(outcomes(0, 20), Config({}), outcomes(0, 20, 20), unmet="passed reward>1").findings[-1]
    assert (none.verdict, none.text) == ("inconclusive", "no run of the baseline passed reward>1; is the rule right?")
    few = check(outcomes(3, 20), Config({}, drop=0.3), outcomes(3, 20, 20)).findings[-1].text
    assert few.endswith("a drop of 30 points is impossible where 15% pass: name a smaller one in [baseline]")


def test_a_check_names_what_no_run_calls_what_runs_missed_and_a_rule_that_none_passed(db: Path, tmp_path: Path) -> None:
    with agentspan.open(db) as opened:
        for number, run in enumerate(opened.agent_instances.list()):
            opened.scores.record(run.id, "reward", number % 2)
    calls = configured(tmp_path, "[calls]\nrequired = ['lokup']\nforbidden = ['delete', 'lookup']\n")
    text = " ".join(call(db, "check", "shop@2", *calls, columns=200).output.split())
    assert "lokup is not called in 8 of 8 runs; no run of this file calls it; tools: 'lookup' · runs " in text
    assert "✓ calls forbidden: delete is not called; no run of this file calls it" in text
    assert "✗ calls forbidden: lookup is called in 8 of 8 runs · runs" in text
    (line,) = [
        line for line in call(db, "check", "shop@2", *calls, columns=300).output.splitlines() if "lookup is" in line
    ]
    ids = line.split(" · runs ")[1].split(", ")
    assert (len(ids), ids[5]) == (6, "…")
    assert {call(db, "show", id).exit_code for id in ids[:5]} == {0}
    baseline = configured(tmp_path, "[baseline]\nfilter = 'shop@1'\n")
    by_status = " ".join(call(db, "check", "shop@2", *baseline).output.split())
    assert "by status; 4 of 8 missed reward>=1: --outcome 'reward>=1'" in by_status
    wrong = call(db, "check", "shop@2", "--outcome", "reward>1", *baseline)
    assert wrong.exit_code == 3
    assert "no run of the baseline passed reward>1 (the highest reward is 1); is the rule right?" in " ".join(
        wrong.output.split()
    )


@pytest.mark.parametrize(
    ("filter", "said"),
    [
        (("--meta", "trial=9"), "no run matches meta=trial=9"),
        (("task=none",), "no run matches task=none; tasks: 't7', 't6', 't5', 't4', 't3' and 3 more"),
        (("shop@3",), "no run matches shop@3; versions: '2', '1'"),
        (("all", "--task", "t1"), "give either FILTER or --task, not both"),
    ],
)
def test_a_filter_that_matches_nothing_is_an_error(
    db: Path, tmp_path: Path, filter: tuple[str, ...], said: str
) -> None:
    result = call(db, "check", *filter, *configured(tmp_path, "[budget]\nsteps = 9\n"))
    assert (result.exit_code, result.output.splitlines()[-1]) == (2, f"Error: {said}")


def test_a_comment_for_a_pull_request_has_whole_sentences(tmp_path: Path) -> None:
    path = scored(tmp_path / "runs.db", "airline", "reward", [1, 1, 0])
    scored(tmp_path / "old.db", "shop", "reward", [1, 0])
    baseline = configured(tmp_path, "outcome = 'reward>=1'\n[baseline]\nfile = 'old.db'\n")
    line = call(path, "check", "--markdown", *baseline).output.splitlines()[-1]
    assert len(line) > 200
    assert line.endswith("; these are different agents: airline was checked against shop |  |")


def test_an_unknown_key_of_the_project_is_refused(db: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "pyproject.toml").write_text(
        "[tool.agentspan]\noutcom = 'a>1'\n[tool.agentspan.check.budget]\nsteps=9\n"
    )
    for command in (("check",), ("diff", "shop@1", "shop@2")):
        result = call(db, *command)
        assert result.exit_code != 0
        assert "'outcom' is not a key of [tool.agentspan]; there are check, outcome" in " ".join(result.output.split())
