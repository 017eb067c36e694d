"""Finds out whether tracked files of the git checkout differ from its commit, by one `git status` beside the program.

The rules of git (filters, line ends, sparse checkouts) cannot be repeated here in few lines, and git takes 5 ms to
seconds. So it is started when the first run of the process begins (0.3 ms), and nothing waits for it: a run that begins
before the answer gets it when it ends. No thread: before a fork, it would have to be ended. AGENTSPAN_GIT_STATUS=0
starts no git, for programs that wait for any child process (`os.wait`) and must not see another one.
"""

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

from agentspan.interrupts import let_through

SWITCH = "AGENTSPAN_GIT_STATUS"
STATUS = (
    *("-c", "core.fsmonitor=false", "status"),  # no program that the checkout's configuration names
    *("--porcelain", "--untracked-files=no", "--ignore-submodules=dirty"),
)
OTHERS = frozenset({"GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE", "GIT_COMMON_DIR", "GIT_OBJECT_DIRECTORY"})
"""Variables that would lead git to another checkout."""


class _Question(NamedTuple):
    """A git that was started.

    Attributes:
        pid: its own.
        output: the end of a pipe from which its output is read.
        parent: the process that started it.
        has_output: whether it listed a file that differs; None until it did, or closed its output.
    """

    pid: int
    output: int
    parent: int
    has_output: bool | None = None


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
    if not _questions:
        return _answer
    try:
        question = _questions.pop()  # so that two threads do not both read its output
        if question.parent != os.getpid():  # a forked child: the answer is its parent's
            if question.has_output is None:
                os.close(question.output)
            return None
        if question.has_output is None:
            has_output = bool(os.read(question.output, 1))
            os.close(question.output)  # ends a git that has more to say
            question = question._replace(has_output=has_output)
        pid, status = os.waitpid(question.pid, os.WNOHANG)
        if pid == 0:  # it is about to end
            _questions.append(question)
        else:
            _answer = True if question.has_output else False if status == 0 else None
    except BlockingIOError:
        _questions.append(question)
    except ChildProcessError:  # the program has waited for any child, and so for this one
        _answer = True if question.has_output else None
    except Exception as raised:  # such as another thread that took the question
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
    return _Question(pid, output, os.getpid())
