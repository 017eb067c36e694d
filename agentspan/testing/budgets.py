"""Checks the runs of a test against its marker `agentspan`: budgets and calls, as `agentspan check` does."""

from collections.abc import Mapping
from typing import Any, NamedTuple

from agentspan.analysis.check import BUDGETS, KEYS, Config, check, config_of
from agentspan.analysis.drift_metrics import Gathered, gather
from agentspan.analysis.outcomes import outcomes
from agentspan.errors import InvalidValue
from agentspan.recording.run_state import MOST
from agentspan.testing.kept_runs import runs_after

CALLS = KEYS["calls"] or frozenset()


def config_of_marker(unnamed: tuple[Any, ...], named: Mapping[str, Any]) -> Config:
    """Return the checks that the arguments of a marker configure.

    Raises:
        InvalidValue: an argument has no name, an unknown name or a wrong type; or there are no arguments.
    """
    known = ", ".join((*BUDGETS, *sorted(CALLS, reverse=True)))
    if unnamed or not named:
        raise InvalidValue("pytest.mark.agentspan", f"takes arguments with names: {known}")
    for name in named:
        if name not in BUDGETS and name not in CALLS:
            raise InvalidValue("pytest.mark.agentspan", f"has no argument {name!r}; there are {known}")
    budget = {name: value for name, value in named.items() if name in BUDGETS}
    calls = {name: [*value] if isinstance(value, tuple) else value for name, value in named.items() if name in CALLS}
    return config_of({"budget": budget, "calls": calls})


class Broken(NamedTuple):
    """A budget that a test broke.

    Attributes:
        reason: a line for each finding.
        run_id: the run of the first finding; None if the test recorded no run.
    """

    reason: str
    run_id: str | None = None


def broken(after: int, config: Config) -> Broken | None:
    """Return why the runs of a test break a budget; None if they do not.

    An open run is checked with the values that it has so far.

    Args:
        after: the number of the latest run before the test, as `runs_after` takes it.
    """
    groups = runs_after(after)
    number = sum(len(group.rows) for group in groups)
    if not number:
        return Broken("pytest.mark.agentspan: the test recorded no run in this process, or recording is turned off")
    if number >= MOST:
        return Broken(f"pytest.mark.agentspan: the test recorded {MOST:,} runs or more, too many to check")
    runs = []
    for group in groups:
        with group.opened() as storage:
            runs += gather(storage, group.rows, outcomes(storage, group.rows), with_open=True).runs
    found = check(Gathered(runs, 0, 0), config)
    failed = [each for each in found.findings if each.verdict == "fail"]
    if not failed:
        return None
    lines = [f"{each.name}: {each.text} · run {each.run_id}" for each in failed]
    return Broken("\n".join(["the runs of the test break its budget", *lines]), failed[0].run_id)
