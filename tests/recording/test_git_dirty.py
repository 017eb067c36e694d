"""Whether files of the checkout differed from the commit: git says so beside the program, or the column stays null."""

import os
import shutil
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

import agentspan
from agentspan.recording import git_commit
from agentspan.recording.git_commit import commit_replaced
from tests.recording.checkouts import checkout, git
from tests.recording.conftest import Program

needs_git = pytest.mark.skipif(shutil.which("git") is None, reason="needs git")
SCRIPT = """
import sys, time, agentspan
from agentspan.recording.git_commit import git_dirty
tracer = agentspan.Tracer(sys.argv[1], raise_errors=True)
with tracer.run("first"):
    for _ in range(1000):
        if git_dirty() is not None or len(sys.argv) > 2:
            break
        time.sleep(0.01)
with tracer.run("second"):
    pass
tracer.shutdown()
with agentspan.open(sys.argv[1], read_only=True) as db:
    print(*[run.git_dirty for run in db.agent_instances.list(sorting="id")])
"""


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """A checkout with one committed file."""
    folder = tmp_path / "code"
    folder.mkdir()
    git(folder, "init", "-q")
    (folder / "agent.py").write_text(SCRIPT)
    git(folder, "add", "agent.py")
    git(folder, "commit", "-q", "-m", "one")
    return folder


@pytest.fixture
def asked() -> Iterator[None]:
    """Begin without an answer, and forget it afterwards."""
    with git_commit.answer_replaced(None):
        yield


def answer() -> bool | None:
    """Wait until git has answered, or nothing is asked any more."""
    deadline = time.monotonic() + 20
    while git_commit.git_dirty() is None and git_commit._questions and time.monotonic() < deadline:
        time.sleep(0.005)
    return git_commit.git_dirty()


@pytest.mark.full
@needs_git
def test_a_run_has_what_git_said_from_its_begin_or_its_end_on(program: Program, repository: Path) -> None:
    assert program("agent.py", repository / "1.db", cwd=repository).split() == ["False", "False"]  # 1.db is new to git
    with (repository / "agent.py").open("a") as file:
        file.write("\n# changed\n")
    assert program("agent.py", repository / "2.db", cwd=repository).split() == ["True", "True"]
    git(repository, "add", "agent.py")  # a change that is staged is one, too
    assert program("agent.py", repository / "3.db", cwd=repository).split() == ["True", "True"]


@pytest.mark.full
@needs_git
def test_a_program_that_wants_no_git_has_none(
    program: Program, repository: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AGENTSPAN_GIT_STATUS", "0")
    assert program("agent.py", repository / "runs.db", "at once", cwd=repository).split() == ["None", "None"]


@needs_git
@pytest.mark.usefixtures("asked")
def test_a_git_that_fails_has_said_nothing(tmp_path: Path) -> None:
    git_commit.ask(str(checkout(tmp_path, main="ab" * 20)))  # files that look like a checkout, without objects
    assert answer() is None


@pytest.mark.usefixtures("asked")
def test_without_git_nothing_is_known(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    git_commit.ask(str(tmp_path))
    assert git_commit.git_dirty() is None


@needs_git
@pytest.mark.usefixtures("asked")
def test_a_program_that_has_waited_for_any_child_loses_only_what_a_clean_git_said(repository: Path) -> None:
    git_commit.ask(str(repository))
    os.waitpid(git_commit._questions[0].pid, 0)
    assert answer() is None
    (repository / "agent.py").write_text("changed")
    git_commit.ask(str(repository))
    assert answer() is True


def children() -> set[int]:
    """Return the child processes of this one, dead ones that nobody has waited for, too."""
    threads = Path("/proc/self/task").iterdir()
    return {int(pid) for thread in threads for pid in (thread / "children").read_text().split()}


@needs_git
@pytest.mark.usefixtures("asked")
def test_what_was_asked_leaves_neither_a_file_nor_a_process(repository: Path) -> None:
    before = len(os.listdir("/proc/self/fd")), children()
    git_commit.ask(str(repository))
    assert answer() is False
    assert (len(os.listdir("/proc/self/fd")), children()) == before


def test_every_storage_keeps_it_and_what_a_run_said_of_itself(tracer: agentspan.Tracer) -> None:
    with (
        commit_replaced("ab" * 20, is_dirty=True),
        tracer.run("a", task="book", tags=["nightly", "eval", "nightly"]) as run,
    ):
        pass
    with commit_replaced(None), tracer.run("b", tags="alone") as other:
        pass
    tracer.flush()
    db = agentspan.open(tracer.storage)
    first, second = db.agent_instances.get(run.id), db.agent_instances.get(other.id)
    assert (first.task, first.tags, first.git_dirty) == ("book", ["eval", "nightly"], True)
    assert (second.task, second.tags, second.git_dirty) == (None, ["alone"], None)
    assert [each.tags for each in db.agent_instances.list()] == [["eval", "nightly"], ["alone"]]


def test_a_run_that_began_before_the_answer_gets_it_at_its_end(tracer: agentspan.Tracer) -> None:
    with commit_replaced("ab" * 20), tracer.run("a") as run, commit_replaced("ab" * 20, is_dirty=False):
        run.finish()
    tracer.flush()
    assert agentspan.open(tracer.storage).agent_instances.get(run.id).git_dirty is False
