"""`agentspan check`: budgets and calls are facts, a drop of passed runs is a sample."""

import json
import random
from pathlib import Path
from xml.etree import ElementTree

import pytest

import agentspan
from agentspan.analysis.check import check
from agentspan.analysis.check_config import Config, config_of, load
from agentspan.analysis.drift import PASSED, blindness
from agentspan.analysis.drift_metrics import Gathered, RunFacts
from agentspan.errors import InvalidValue
from tests.cli.calling import call


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
    for _ in range(40):
        before, after = (judged(chance, shares, with_tasks=with_tasks) for _ in range(2))
        broken = judged(chance, [share / 5 for share in shares], with_tasks=with_tasks)
        alarms += check(after, Config({}), before).verdict == "fail"
        found += check(broken, Config({}), before).verdict == "fail"
    assert alarms <= 5
    assert found >= 37


def test_too_few_runs_are_inconclusive_and_it_says_how_many_are_missing() -> None:
    chance = random.Random(2)
    few, many = ([judged(chance, [0.5] * number, with_tasks=False) for _ in range(2)] for number in (8, 400))
    found = check(few[0], Config({}), few[1])
    assert found.verdict == "inconclusive"
    assert found.detectable is not None
    assert found.detectable > 0.25
    assert found.missing > 8
    more = f"{found.missing} more runs, and {found.missing} more of the baseline, would show one of 25"
    assert more in found.findings[-1].text
    assert "no drop would show" in found.findings[-1].text
    sizes = blindness(few[1].runs, few[0].runs)
    assert sizes is not None
    enough = 8 + found.missing
    assert sizes._replace(base=enough, head=enough).drop(one_sided=True) <= 0.25 + 1e-3
    tiny = check(few[0], Config({}, drop=0.0005), few[1]).findings[-1].text
    assert tiny.endswith("not even 1,000 times the runs would show one of 0.05")
    assert check(many[0], Config({}), many[1]).verdict == "pass"
    assert check(Gathered([], 0, 0), Config({})).verdict == "inconclusive"


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
    broken = [finding for finding in document["findings"] if finding["verdict"] == "fail"]
    assert len(broken) == len({finding["run_id"] for finding in broken}) == 8
    assert broken[0]["text"] == "4, 3 at most"
    suite = ElementTree.parse(tmp_path / "junit.xml").getroot()
    assert (suite.get("failures"), len(suite.findall("testcase/failure"))) == ("8", 8)
    markdown = call(db, "check", "--version", "2", "--config", str(config), "--markdown").output
    assert markdown.startswith("**agentspan check: fail: 8 runs**")


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
        ('outcome = "reward>=1"\n[budget]\nsteps = 9\n', "outcome is for [baseline], and there is none"),
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
    assert (result.exit_code, "outcome is for [baseline]" in result.output) == (2, True)


def test_a_baseline_of_the_checked_runs_themselves_says_so(db: Path, tmp_path: Path) -> None:
    result = call(db, "check", "shop@1", *configured(tmp_path, "[baseline]\nfilter = 'shop@1'\n"))
    assert result.exit_code == 3
    assert "all 8 runs of the baseline are checked ones" in " ".join(result.output.split())


def test_a_p_that_is_small_is_never_zero_and_unknown_outcomes_are_counted() -> None:
    chance = random.Random(5)
    before, after = (judged(chance, [share] * 300, with_tasks=False) for share in (0.9, 0.2))
    assert check(after, Config({}), before).findings[-1].text.endswith("more than chance, p < 0.001")
    unknown = after._replace(unknown=7)
    assert check(unknown, Config({}), before).findings[-1].text.endswith("; 7 runs have no outcome")


def test_one_failed_run_of_four_is_no_drop() -> None:
    passes, fails = ({PASSED: (value, 1.0)} for value in (1.0, 0.0))
    before = Gathered([RunFacts(str(n), None, fails if n < 4 else passes) for n in range(200)], 0, 0)
    after = Gathered([RunFacts(str(n), None, fails if n < 1 else passes) for n in range(4)], 0, 0)
    assert check(after, Config({}), before).verdict == "inconclusive"  # p is 0.095
