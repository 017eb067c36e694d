"""Whether tracked files of the git checkout differ from its commit: `git status` runs once, beside the program.

The rules of git (filters, line ends, sparse checkouts) cannot be repeated here in few lines, and git takes 5 ms to
seconds. So it is started when the first run of the process begins (0.6 ms), and nothing waits for it: a run that begins
before the answer gets it when it ends. No thread: before a fork, it would have to be ended. AGENTSPAN_GIT_STATUS=0
starts no git, for programs that wait for any child process (`os.wait`) and must not see another one.
"""

import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

from agentspan.interrupts import let_through

SWITCH = "AGENTSPAN_GIT_STATUS"
GIVE_UP_S = 30.0
"""How long an answer is waited for."""
STATUS = (
    *("-c", "core.fsmonitor=false", "status"),  # no program that the checkout's configuration names
    *("--porcelain", "--untracked-files=no", "--ignore-submodules=dirty"),
)
OTHERS = frozenset({"GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE", "GIT_COMMON_DIR", "GIT_OBJECT_DIRECTORY"})
"""Variables that would lead git to another checkout."""


class _Question(NamedTuple):
    """A git that was started: its pid, where its output comes from, the process that started it, and when."""

    pid: int
    output: int
    parent: int
    asked_s: float


_questions: list[_Question] = []
_answer: bool | None = None


@contextmanager
def answer_replaced(answer: bool | None) -> Iterator[None]:
    """Give this answer, for the length of a block; for tests."""
    global _answer, _questions
    before = _answer, _questions
    _answer, _questions = answer, []
    try:
        yield
    finally:
        _answer, _questions = before


def ask(folder: str) -> None:
    """Start `git status` in the checkout around a folder. Never raises but for signal handlers."""
    if os.environ.get(SWITCH) == "0" or not hasattr(os, "posix_spawnp"):
        return
    try:
        _questions.append(_started(folder))
    except Exception as raised:  # there is no git, or no process more may be started
        let_through(raised)


def git_dirty() -> bool | None:
    """Return whether tracked files differ from the commit; None where git has not answered (yet). Waits for nothing."""
    global _answer
    try:
        question = _questions.pop()  # so that two threads do not both read its output
    except IndexError:
        return _answer
    try:
        if question.parent != os.getpid():  # a forked child: the answer is its parent's
            os.close(question.output)
            return None
        try:
            is_dirty = bool(os.read(question.output, 1))
        except BlockingIOError:
            if time.monotonic() - question.asked_s < GIVE_UP_S:
                _questions.append(question)
                return None
            os.kill(question.pid, signal.SIGTERM)
            is_dirty = False
        os.close(question.output)  # ends a git that has more to say
        _, status = os.waitpid(question.pid, 0)
        _answer = is_dirty if is_dirty or status == 0 else None
    except Exception as raised:  # such as a program that has waited for any child, and so for this one
        let_through(raised)
    return _answer


def _started(folder: str) -> _Question:
    output, given = os.pipe()
    try:
        os.set_blocking(output, False)
        environment = {name: value for name, value in os.environ.items() if name not in OTHERS}
        pid = os.posix_spawnp(
            "git",
            ["git", "-C", folder, *STATUS],
            {**environment, "GIT_OPTIONAL_LOCKS": "0"},
            file_actions=[
                (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
                (os.POSIX_SPAWN_DUP2, given, 1),
                (os.POSIX_SPAWN_OPEN, 2, os.devnull, os.O_WRONLY, 0),
            ],
            setsigdef=[signal.SIGPIPE],
        )
    except BaseException:
        os.close(output)
        raise
    finally:
        os.close(given)
    return _Question(pid, output, os.getpid(), time.monotonic())
