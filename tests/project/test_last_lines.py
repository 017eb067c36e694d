"""The last lines of a run of the tests."""

from types import SimpleNamespace
from typing import Any, cast

import pytest

from tests.tiers import _LastLines


@pytest.mark.parametrize(
    ("tier", "seed", "again"), [("quick", None, ""), ("nightly", "7", " --tier nightly --hypothesis-seed=7")]
)
def test_each_test_that_failed_has_a_command_that_runs_it_again(tier: str, seed: str | None, again: str) -> None:
    lines: list[str] = []
    config = SimpleNamespace(option=SimpleNamespace(tier=tier, hypothesis_seed=seed), stash={})
    failed = [SimpleNamespace(nodeid=f"tests/test_a.py::test_it[{number}]") for number in range(2)]
    stats = {"failed": failed[:1], "error": failed[1:]}
    reporter = SimpleNamespace(stats=stats, write_line=lambda line, **_: lines.append(line))
    _LastLines(cast(Any, config)).pytest_terminal_summary(reporter)
    assert [line for line in lines if line.startswith("to run it again: ")] == [
        f"to run it again: python -m pytest 'tests/test_a.py::test_it[{number}]'{again}" for number in range(2)
    ]
