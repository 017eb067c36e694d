"""Three tiers of tests, by what a failure would tell, and the last lines of a run, which name what did not run.

quick    A behaviour is broken: each one once, every backend by the contract, one short form of each crash, kill, fork
         and race. Tests without a marker.
full     A rare case is broken: long forms, all ways through a browser, all backends, requests of every kind.
nightly  A law has a hole that few meet: very long forms, the real programs of other packages.

`--tier` chooses; a tier contains those before it. Without it a run is quick, but files that are named run whole (full).
"""

import importlib
import os
import random
import re
from collections import Counter
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeVar

import pytest

TIERS = ("quick", "full", "nightly")
ENVIRONMENT = "AGENTSPAN_TEST_TIER"
"""The tier of the run: for modules of tests while they are imported, and for the programs that they start."""
FOLDERS = (
    "leaves", "schemas", "api", "storage", "journal", "recording", "maintenance",
    "analysis", "otel", "testing", "cli", "serve", "viewer", "project", "processes", "browser",
)  # fmt: skip
"""In the order of the layers: a quick run names the lowest fault first. A longer run begins at the other end, with the
files that take longest: the other processes would wait for one that begins last."""
COMMANDS = {"full": "`python -m tasks full` and `.ci/run` run them", "nightly": "`.ci/nightly` runs them"}
OPT_IN = "opt-in: "
"""What the reason of a test's `skipif` begins with, where the test needs a variable of the environment."""
_WANTED = re.compile(r"Skipped: needs (.+)")

Count = TypeVar("Count", int, float)


def longer(variable: str, quick: Count, full: Count, nightly: Count) -> Count:
    """Return the length of a test that has several: its rounds, spans or seconds in this run.

    Args:
        variable: of the environment; sets any other length.
    """
    if variable in os.environ:
        return type(quick)(os.environ[variable])
    return (quick, full, nightly)[TIERS.index(_tier())]


def every(step: int, values: Iterable[Any]) -> list[Any]:
    """Return the parameters of a test: all in the full tier, each `step`-th in the quick one."""
    return [
        value if number % step == 0 else pytest.param(value, marks=pytest.mark.full)
        for number, value in enumerate(values)
    ]


def examples(most: int) -> int:
    """Return how many examples a property has in this run. The quick and the full tier have the same ones each time."""
    return {"quick": max(5, min(60, most // 4)), "full": max(5, min(100, most // 4)), "nightly": 10 * most}[_tier()]


def _tier() -> str:
    return os.environ.get(ENVIRONMENT, "quick")


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add `--tier`."""
    parser.addoption("--tier", choices=TIERS, help="which tests run: quick (without this option), full or nightly")


def pytest_xdist_auto_num_workers(config: pytest.Config) -> int:
    """Use a process for each processor, and one more: a quarter of the time, tests wait for disks and other programs.

    None beside pytest's own for the few tests that are named.
    """
    if _names_files(config):
        return 0
    count = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1  # macOS has none
    return count + 1


def settle(config: pytest.Config) -> None:
    """Settle the tier, for the processes of pytest-xdist too, and keep the order of the files there."""
    if config.option.tier is None:
        config.option.tier = os.environ.get(ENVIRONMENT) or ("full" if _names_files(config) else "quick")
    os.environ[ENVIRONMENT] = config.option.tier
    if config.option.tier == "nightly" and not config.option.hypothesis_seed:
        import hypothesis.core

        config.option.hypothesis_seed = str(random.getrandbits(32))  # the same in each process
        hypothesis.core.global_force_seed = int(config.option.hypothesis_seed)  # type: ignore[assignment]
    config.option.loadscopereorder = False  # pytest-xdist would start the files with the most tests first
    if not hasattr(config, "workerinput"):
        config.pluginmanager.register(_LastLines(config), "last-lines")


def pytest_collection(session: pytest.Session) -> None:
    """In a process of pytest-xdist: import a share of the modules of tests before the others.

    Each process imports all. In a new checkout pytest rewrites their asserts, which takes 20 s of a processor; so each
    process rewrites its share, and then finds what the others have rewritten in the cache.
    """
    worker = getattr(session.config, "workerinput", None)
    if worker is None:
        return
    root = session.config.rootpath
    files = sorted(file for arg in session.config.args for file in (root / arg).rglob("test_*.py"))
    for file in files[int(worker["workerid"].removeprefix("gw")) :: worker["workercount"]]:
        with suppress(Exception, pytest.skip.Exception):  # told when it is collected
            importlib.import_module(".".join(file.relative_to(root).with_suffix("").parts))


def _names_files(config: pytest.Config) -> bool:
    return bool(config.args) and all(arg.partition("::")[0].endswith(".py") for arg in config.args)


def keep(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Keep the tests of the tier, in the order of the layers."""
    most = TIERS.index(config.option.tier)
    kept: list[pytest.Item] = []
    left: list[pytest.Item] = []
    for item in items:
        (kept if TIERS.index(tier_of(item)) <= most else left).append(item)
    folder = Path(__file__).parent
    turns = {path: _turn(path.relative_to(folder), most) for path in {item.path for item in items}}
    items[:] = sorted(kept, key=lambda item: turns[item.path])
    if left:
        config.hook.pytest_deselected(items=left)
        config.stash[_LEFT] = Counter(tier_of(item) for item in left)


def tier_of(item: pytest.Item) -> str:
    """Return the lowest tier in which a test runs: that of its marker; nightly, if it needs a variable to be set."""
    if any(str(mark.kwargs.get("reason", "")).startswith(OPT_IN) for mark in item.iter_markers("skipif")):
        return "nightly"
    return next((tier for tier in reversed(TIERS) if item.get_closest_marker(tier)), "quick")


def _turn(path: Path, most: int) -> int:
    turn = FOLDERS.index(path.parts[0]) if path.parts[0] in FOLDERS else len(FOLDERS) // 2
    return turn if most == 0 else -turn


MOST_AGAIN = 20
_LEFT = pytest.StashKey[Counter[str]]()


def pytest_sessionfinish(session: pytest.Session) -> None:
    """In a process of pytest-xdist: tell the first one which tests were left."""
    if hasattr(session.config, "workeroutput"):
        session.config.workeroutput["left"] = dict(session.config.stash.get(_LEFT, {}))


class _LastLines:
    """Names a test the moment that it fails, and at the end how to run it again, what did not run, and why."""

    def __init__(self, config: pytest.Config) -> None:
        self._config = config
        self._left = Counter[str]()

    @pytest.hookimpl(optionalhook=True)
    def pytest_testnodedown(self, node: Any) -> None:
        self._left = Counter(getattr(node, "workeroutput", {}).get("left", {})) or self._left

    @pytest.hookimpl(trylast=True)
    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        reporter = self._config.pluginmanager.get_plugin("terminalreporter")
        if report.failed and reporter is not None:
            crash = getattr(report.longrepr, "reprcrash", None)
            message = str(crash.message if crash is not None else report.longrepr).strip().split("\n")[0]
            reporter.write_line(f"\nFAILED {report.nodeid} - {message[:100]}", red=True)

    @pytest.hookimpl(trylast=True)
    def pytest_terminal_summary(self, terminalreporter: Any) -> None:
        wanted, others = Counter[str](), 0
        for report in terminalreporter.stats.get("skipped", ()):
            reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
            found = _WANTED.match(reason)
            if found:
                wanted[found[1]] += 1
            else:
                others += 1
        line = terminalreporter.write_line
        line("")
        if wanted:
            line("skipped for want of " + ", ".join(f"{name} ({many})" for name, many in wanted.most_common()))
        if others:
            line(f"skipped where a test does not apply: {others} (-rs says why)")
        failed = [*terminalreporter.stats.get("failed", ()), *terminalreporter.stats.get("error", ())]
        # Without a seed, a property has the same examples each time.
        option = self._config.option
        again = f" --tier {option.tier} --hypothesis-seed={option.hypothesis_seed}" if option.hypothesis_seed else ""
        for report in failed[:MOST_AGAIN]:
            line(f"to run it again: python -m pytest '{report.nodeid}'{again}", red=True)
        left = self._left or self._config.stash.get(_LEFT, Counter())
        if left:
            parts = [f"{left[tier]} tests of the {tier} tier ({COMMANDS[tier]})" for tier in TIERS if left[tier]]
            line("not run: " + ", ".join(parts))
