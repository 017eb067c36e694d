"""Whichever way a program is recorded, whenever its journal is drained, however often it is replayed: the same rows."""

import shutil
import tempfile
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

import agentspan
from agentspan.journal.records import End
from agentspan.recording.span_and_run import state_of
from agentspan.storage.questions import Violations
from agentspan.tuning import STANDARD
from tests.journal.recorded import (
    Program,
    Untrimmed,
    by_commits,
    journaled,
    perform,
    programs,
    refused,
    register_own_type,
    rows,
)
from tests.journal.segment_files import segments_of


@pytest.fixture(autouse=True)
def _own_type(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("ERROR", "agentspan")  # programs do what they may not, too
    register_own_type()


UNCOUNTED: Program = [
    ("create", 0, "own", {"amount": 1, "input_tokens": -3}, False, 0),
    ("finish", 0, None, {"output": 5, "input_tokens": 3}),
    ("create", 0, "own", {"input_tokens": -3}, False, 0),
    ("finish", 1, None, {"output": 5, "input_tokens": "many"}),
]
"""Violations of schemas and of usage in both payloads; and usage of a payload that the result's takes the place of."""


@given(program=programs, at_once=st.integers(1, 3))
@example(program=[("nested", 0, "llm", {}, False)], at_once=1)
@example(program=UNCOUNTED, at_once=1)
def test_a_journal_leaves_what_commits_leave(template: Path, program: Program, at_once: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "runs.db"
        expected = by_commits(template, Path(folder) / "commits.db", program)
        with journaled(template, path, STANDARD._replace(derived_spans=at_once)) as tracer:
            perform(tracer, program, tracer.flush)
            assert tracer.flush()
            health = tracer.health()
            assert (health.waiting, health.refused) == (0, 0)
        assert rows(path) == expected
        assert refused(path) == []


@given(program=programs, batch=st.integers(1, 9), at_once=st.integers(1, 3), trims=st.booleans())
@example(program=[("create", 0, "llm", {}, False, 0), ("flush",), ("update", 0, {})], batch=2, at_once=50, trims=False)
@example(
    program=[("create", 0, "llm", {}, False, 0), ("update", 0, {"model": None}), ("learn", 0, "tool", {}, False)],
    batch=1,
    at_once=1,
    trims=False,
)
@example(program=[("create", 0, "llm", {}, True, 0), ("update", 0, {}), ("start", 0)], batch=1, at_once=50, trims=False)
@example(
    program=[
        *[("run", "a")] * 4,
        *[("rename", 0, "b"), ("end", 0), ("rename", 0, "a"), ("flush",), ("create", 0, "llm", {}, False, 0)],
    ],
    batch=3,
    at_once=1,
    trims=False,
)
@example(program=UNCOUNTED, batch=1, at_once=1, trims=False)
@example(
    program=[("create", 0, "llm", {}, False, 0), ("flush",), ("create", 0, "llm", {}, False, 0), ("rename", 0, "a")],
    batch=5,
    at_once=1,
    trims=False,
)
def test_what_a_killed_process_leaves_is_brought_in_as_if_it_had_been_committed(
    template: Path, program: Program, batch: int, at_once: int, trims: bool
) -> None:
    tuning = STANDARD._replace(recovery_batch_records=batch, derived_spans=at_once)
    with tempfile.TemporaryDirectory() as folder:
        path, aside = Path(folder) / "runs.db", Path(folder) / "aside"
        expected = by_commits(template, Path(folder) / "commits.db", program)
        with nullcontext() if trims else Untrimmed(), journaled(template, path, tuning) as tracer:
            perform(tracer, program, tracer.flush)
        spool = path.with_name("runs.db.spool")
        if not spool.exists():  # nothing was said that needs a journal
            return
        shutil.copytree(spool, aside)
        for _ in range(3):  # the first brings it in; the others find what is there already
            agentspan.open(path, tuning=tuning).close()
            assert segments_of(path) == []
            assert rows(path) == expected
            assert refused(path) == []
            shutil.copytree(aside, spool)


@pytest.mark.parametrize("durability", ["journal", "commit"])
@pytest.mark.parametrize("is_apart", [True, False], ids=["its begin is stored", "its begin is not stored"])
def test_of_a_span_that_ends_as_another_type_both_payloads_are_checked(
    tmp_path: Path, durability: Any, is_apart: bool
) -> None:
    """Against the type that was learnt; of one that keeps its type, only the result is new at its end."""
    path = tmp_path / "runs.db"
    tracer = agentspan.Tracer(path, durability=durability)
    with tracer.run("a") as run:
        moved = run.create_span("llm", {}, status="active")
        kept = run.create_span("own", {"amount": "x"}, status="active")
        assert not is_apart or tracer.flush()
        end = End("own", "complete", '{"amount":"x"}', '{"output":1}')
        state_of(moved).end_as(end, state_of(moved).started_ns + 1)
        kept.finish("complete", {"output": 1})
    tracer.shutdown()
    with agentspan.open(path) as db:
        found = db.storage.ask(Violations([moved.id, kept.id]))
    both = [("payload", "$.amount"), ("result_payload", "$.output")]
    assert {id: [each[:2] for each in some] for id, some in found.items()} == {moved.id: both, kept.id: both}
