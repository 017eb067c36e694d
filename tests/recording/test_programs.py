"""Whole programs: pools of processes, forks, threads at the end of the interpreter, signals, notebooks, one-liners."""

import multiprocessing
import signal
import sqlite3
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import agentspan
from agentspan.testing import CapturedRuns, load
from agentspan.tuning import STANDARD
from tests.recording.conftest import Program

pytestmark = pytest.mark.skipif("fork" not in multiprocessing.get_all_start_methods(), reason="needs POSIX")

Recorded = Callable[..., Path]
METHODS = ["fork", "spawn", "forkserver"]


@pytest.mark.full
@pytest.mark.parametrize("method", METHODS)
def test_calls_in_a_pool_of_processes_nest_where_they_were_propagated(
    recorded: Recorded, tmp_path: Path, method: str
) -> None:
    with load(recorded("pool", method)) as runs:
        by_name = {run.name: run for run in runs}
        (boss,) = by_name["main"].roots
        assert sorted((child.name, child.status) for child in boss.children) == [
            ("failing", "failed"),
            *[("step", "complete")] * 6,
        ]
        names = sorted(child.arguments["name"] for child in boss.children if child.name == "step")
        assert names == ["0", "1", "2", "3", "4", "late"]
        assert by_name["second"].tree() == "\n".join(["tool step"] * 50)
        assert {run.status for run in runs} == {"complete"}
        others = [run.tree() for run in runs if run.name not in ("main", "second")]
    if method != "fork":  # nobody told the worker yet where to record
        with load(tmp_path / "default.db") as runs:
            others = [run.tree() for run in runs]
    assert others == ["tool step"]


@pytest.mark.full
@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_pools_and_processes_of_multiprocessing_do_too(recorded: Recorded, method: str) -> None:
    with load(recorded("old_pool", method)) as runs:
        spans = runs.one().spans
        assert Counter(span.arguments["name"] for span in spans) == {"map": 20, "apply": 1, "async": 1, "process": 1}
        assert {(span.parent, span.status) for span in spans} == {(None, "complete")}


@pytest.mark.full
def test_workers_that_record_elsewhere_go_on_doing_so(recorded: Recorded, tmp_path: Path) -> None:
    with load(recorded("configured_otherwise", tmp_path / "other.db")) as runs:
        assert runs.one().tree() == ""
    with load(tmp_path / "other.db") as runs:
        assert runs.one().tree() == "tool step"


@pytest.mark.full
def test_a_function_that_is_propagated_from_memory_runs_in_another_process(recorded: Recorded) -> None:
    with load(recorded("in_memory")) as runs:
        assert runs.one().tree() == "tool step"  # as if it had not been propagated


@pytest.mark.full
def test_forked_children_nest_below_the_block_they_were_forked_in_and_end_none_of_it(recorded: Recorded) -> None:
    with load(recorded("forks")) as runs:
        by_name = {run.name: run for run in runs}
        assert {run.status for run in runs} == {"complete"}
        by_name["main"].assert_tree("""
            agent outer
              agent inner
                tool step
                tool step
            chain coroutine
              tool step
            chain items
              tool step
              tool step
            tool step
            tool step
        """)
        assert [span.arguments["name"] for span in by_name["main"].find("step")] == [
            "child",
            "parent",
            "child of the coroutine",
            "of the generator",
            "child of a consumer",
            "of the generator",
            "child of a consumer",
        ]
        assert by_name["run of the child"].tree() == "tool step"
        assert by_name["main"].find("items")[0].result == {"output": ["of the generator"] * 2}


@pytest.mark.full
def test_workers_that_are_forked_after_loading_serve_in_threads(recorded: Recorded) -> None:
    path = recorded("preload")
    with load(path) as runs:
        served = [run for run in runs if run.name == "request"]
        assert [(run.status, run.tree()) for run in served] == [("complete", "tool step")] * 60
        assert len({run.spans[0].arguments["name"] for run in served}) == 60
    connection = sqlite3.connect(path)
    assert connection.execute("select count(*), count(distinct pid) from writers").fetchone() == (4, 4)
    assert connection.execute("pragma integrity_check").fetchone() == ("ok",)
    connection.close()


@pytest.mark.full
def test_threads_that_record_while_the_interpreter_ends_lose_nothing_acknowledged(
    recorded: Recorded, tmp_path: Path
) -> None:
    acknowledged = tmp_path / "acknowledged"
    path = recorded("daemons", acknowledged)
    # What they recorded at the very end is in journals, which a busy machine does not recover in the time of a read.
    agentspan.open(path, tuning=STANDARD._replace(read_adopts_s=60.0)).close()
    connection = sqlite3.connect(path)
    statuses = dict(connection.execute("select id, status from agent_spans").fetchall())
    connection.close()
    said = [line.split() for line in acknowledged.read_text().splitlines()]
    assert len(said) >= 80
    for status, id in said:
        assert statuses[id] in ((status,) if status == "complete" else ("active", "complete"))


@pytest.mark.full
def test_exit_handlers_and_finalizers_of_the_last_moment_record(recorded: Recorded) -> None:
    with load(recorded("at_the_end")) as runs:
        assert {run.status for run in runs} == {"complete"}
        spans = [span for run in runs for span in run.spans]
        assert Counter(span.name for span in spans) == {
            "items": 1,
            "async_items": 1,
            "step": 1,
            "in this module": 1,
            "in agentspan": 1,
            "in builtins": 1,
        }
        assert {span.status for span in spans} == {"complete"}


@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="needs POSIX signals")
@pytest.mark.parametrize("durability", ["journal", pytest.param("commit", marks=pytest.mark.full)])
def test_signal_handlers_that_interrupt_recording_to_record_lose_nothing(recorded: Recorded, durability: str) -> None:
    with load(recorded("signals", durability)) as runs:
        spans = runs.one().spans
        assert {span.status for span in spans} == {"complete"}
        assert len([span for span in spans if span.arguments == {"name": "handler"}]) >= 10


SCRIPT = """
import agentspan

@agentspan.span
def search(query):
    return [query]

search("x")
"""


@pytest.mark.full
@pytest.mark.parametrize(
    ("args", "stdin", "name"),
    [
        (["-c", SCRIPT], None, "python"),
        (["-"], SCRIPT, "python"),
        (["script.py"], None, "script"),
        (["-m", "script"], None, "script"),
        (["package"], None, "package"),
        (["-m", "package"], None, "package"),
    ],
)
def test_a_span_outside_any_run_is_a_run_named_after_the_program(
    program: Program, tmp_path: Path, args: list[str], stdin: str | None, name: str
) -> None:
    (tmp_path / "script.py").write_text(SCRIPT)
    (tmp_path / "package").mkdir()
    (tmp_path / "package" / "__main__.py").write_text(SCRIPT)
    program(*args, stdin=stdin, cwd=tmp_path)
    with load(tmp_path / "agentspan.db") as runs:
        run = runs.one()
        assert (run.name, run.status, run.tree()) == (name, "complete", "tool search")


NOTEBOOK = [
    "import agentspan",
    "agentspan.configure(path, raise_errors=True)",
    "agentspan.span_type('refund', template='Refund {{cents}}')",
    """
@agentspan.span("refund")
def refund(cents):
    return {"paid": cents}
""",
    """
@agentspan.run("notebook")
def main():
    refund(450)
""",
    "main()",
]


def test_the_cells_of_a_notebook_may_be_run_again_and_in_any_order(tmp_path: Path) -> None:
    path = tmp_path / "runs.db"
    namespace: dict[str, Any] = {"path": path, "__name__": "__main__"}
    order = [*range(6), *range(6), 5, 3, 5, 1, 2, 4, 5]
    tracers = set()
    for cell in order:
        exec(compile(NOTEBOOK[cell], f"cell {cell}", "exec"), namespace)
        tracers.add(agentspan.get_tracer() if cell else None)
    runs = CapturedRuns(agentspan.get_tracer().storage)
    assert len(tracers - {None}) == 1
    assert [(run.name, run.status, run.tree()) for run in runs] == [("notebook", "complete", "refund")] * 5
    assert {span.summary for run in runs for span in run.spans} == {"Refund 450"}
    assert agentspan.health()[1:5] == (0, 0, 0, 0)
    connection = sqlite3.connect(path)
    assert connection.execute("select count(*) from agents").fetchone() == (1,)
    assert connection.execute("select count(distinct pid) from writers").fetchone() == (1,)
    connection.close()
