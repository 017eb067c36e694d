"""`agentspan check`: budgets and calls are facts, a drop of passed runs is a sample."""

import json
import random
from pathlib import Path
from xml.etree import ElementTree

import pytest

import agentspan
from agentspan.analysis.check import PASSED, check
from agentspan.analysis.check_config import Config, config_of, load
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
    assert f"{found.missing} more runs would show one of 25" in found.findings[-1].text
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
    config.write_text('outcome = "reward>=1"\n[baseline]\nfilter = "shop@1"\n')
    result = call(db, "check", "shop@2", "--config", str(config))
    assert (result.exit_code, result.output.splitlines()[0]) == (3, "? inconclusive: 8 runs")
    config.write_text('[baseline]\nfile = "runs.db"\nfilter = "version=1"\ndrop = 1.0\n')
    assert call(db, "check", "shop@2", "--config", str(config)).exit_code == 0
    config.write_text('[baseline]\nfile = "none.db"\n')
    assert "does not exist" in call(db, "check", "--config", str(config)).output
