"""Real runs in a file as objects to make assertions on."""

import gc
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import agentspan
from agentspan.testing import load


def test_a_file_of_real_runs_is_loaded(tmp_path: Path, agent: Callable[[], Any]) -> None:
    agentspan.configure(tmp_path / "runs.db")
    agent()
    agentspan.shutdown()
    agentspan.configure(tmp_path / "others.db")
    with load(tmp_path / "runs.db") as runs:
        run = runs.one()
        assert (run.name, run.tokens, run.cost_usd) == ("researcher", 42, 0.25)
        assert run.duration_ms is not None
        assert run.duration_ms > 0
        run.assert_order("plan", "search", "llm")
        run.assert_called("search", times=1, query="flights")


def test_the_file_is_only_read_also_while_somebody_writes(tmp_path: Path) -> None:
    tracer = agentspan.Tracer(tmp_path / "runs.db", raise_errors=True)
    with load(str(tmp_path / "runs.db")) as runs:
        assert len(runs) == 0
        with tracer.run("a"):
            assert runs.one().status == "active"
        assert runs.one().status == "complete"
        with pytest.raises(agentspan.NotPermitted):
            agentspan.open(runs.storage).agent_instances.register("b")
    tracer.shutdown()
    with pytest.raises(agentspan.StorageError, match="closed"):
        runs.one()


def test_a_file_that_nobody_closes_closes_itself(tmp_path: Path) -> None:
    agentspan.Tracer(tmp_path / "runs.db").shutdown()
    gc.collect()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        assert len(load(tmp_path / "runs.db")) == 0
        gc.collect()
    assert caught == []


def test_what_is_loaded_lives_as_long_as_a_run_of_it(tmp_path: Path) -> None:
    tracer = agentspan.Tracer(tmp_path / "runs.db")
    with tracer.run("a"):
        pass
    tracer.shutdown()
    run = load(tmp_path / "runs.db").last
    gc.collect()
    assert run.name == "a"


def test_a_file_that_is_not_there_is_not_made(tmp_path: Path) -> None:
    with pytest.raises(agentspan.DatabaseUnusable):
        load(tmp_path / "nothing.db")
    assert list(tmp_path.iterdir()) == []
