"""The commit of the git checkout in which the program runs, and whether tracked files differ from it.

The commit is read from git's files. `git rev-parse HEAD` would be a process of 2 ms that may wait, and git may be
missing. For a repository with refs in the reftable format, no commit is found: the format would need its own parser.

Whether files differ is the answer of one `git status` process. The rules of git (filters, line ends, sparse checkouts)
are too long to repeat, and git takes 5 ms to seconds. So git is started when the first run of the process begins
(0.3 ms), and nothing waits for it: a run that begins before the answer gets the answer when it ends. No thread is used,
because it would have to be ended before a fork. AGENTSPAN_GIT_STATUS=0 starts no git, for programs that wait for any
child process (`os.wait`) and must not have another child.
"""

import os
import signal
import stat
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import NamedTuple

from agentspan import files
from agentspan.host import guard

SWITCH = "AGENTSPAN_GIT_STATUS"
STATUS = (
    *("-c", "core.fsmonitor=false", "status"),  # never starts a program from the checkout's configuration
    *("--porcelain", "--untracked-files=no", "--ignore-submodules=dirty"),
)
OTHERS = frozenset({"GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE", "GIT_COMMON_DIR", "GIT_OBJECT_DIRECTORY"})
"""Variables that would lead git to another checkout."""


class _Question(NamedTuple):
    """A started `git status` process.

    Attributes:
        pid: the id of the git process.
        output: the read end of the pipe with git's output.
        parent: the id of the process that started git.
        has_output: whether git listed a file that differs; None until it wrote something or closed its output.
    """

    pid: int
    output: int
    parent: int
    has_output: bool | None = None


_questions: list[_Question] = []
_answer: bool | None = None


@contextmanager
def answer_replaced(answer: bool | None) -> Iterator[None]:
    """Replace the answer of `git_dirty` for the length of a with-block; for tests."""
    global _answer, _questions
    before = _answer, _questions
    _answer, _questions = answer, []
    try:
        yield
    finally:
        _answer, _questions = before


@guard()  # there may be no git, or no further process may be started
def ask(folder: str) -> None:
    """Start `git status` in the checkout around a folder. Raises only exceptions of signal handlers."""
    if os.environ.get(SWITCH) == "0" or not hasattr(os, "posix_spawnp"):
        return
    _questions.append(_started(folder))


def git_dirty() -> bool | None:
    """Return whether tracked files differ from the commit; None if git has no answer yet. Does not wait."""
    global _answer
    if not _questions:
        return _answer
    with guard():  # another thread may have taken the question
        question = _questions.pop()  # so that two threads do not both read its output
        if question.parent != os.getpid():  # a forked child: the answer is its parent's
            if question.has_output is None:
                os.close(question.output)
            return None
        try:
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
    return _answer


def _started(folder: str) -> _Question:
    output, written_to = os.pipe()
    pid = 0
    try:
        os.set_blocking(output, False)
        environment = {name: value for name, value in os.environ.items() if name not in OTHERS}
        pid = os.posix_spawnp(
            "git",
            ["git", "-C", folder, *STATUS],
            {**environment, "GIT_OPTIONAL_LOCKS": "0"},
            file_actions=[
                (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
                (os.POSIX_SPAWN_DUP2, written_to, 1),
                (os.POSIX_SPAWN_OPEN, 2, os.devnull, os.O_WRONLY, 0),
            ],
            setsigdef=[signal.SIGPIPE],
        )
    finally:
        os.close(written_to)
        if not pid:
            os.close(output)
    return _Question(pid, output, os.getpid())


MAX_FOLDERS = 64
"""The number of folders that are searched for `.git`, from the program's folder upwards."""
MAX_LINKS = 5
"""The number of symbolic refs that are followed from HEAD, as in git."""
MAX_TEXT = 4096
"""The largest size of HEAD, of a ref and of other one-line files, in bytes; a longer file is not git's."""
MAX_PACKED = 4 << 20
"""The number of bytes of `packed-refs` that are searched: some 60,000 refs, 3 ms. Branches come first in the file."""

_INSTALLED = frozenset({"site-packages", "dist-packages"})
_FLAGS = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_NOCTTY", 0)
_HEX = frozenset(b"0123456789abcdef")

_commit: str | None = None
_is_known = False


def git_commit() -> str | None:
    """Return the commit of the checkout around the program's script, else around the working directory, else None.

    A script that an installer wrote into an environment, such as pytest's, does not count as the program's script.

    The first call of the process searches (0.3 ms), and later calls return its result: the program keeps running the
    loaded code, even if another commit is checked out meanwhile. A forked child inherits the result. Raises only
    exceptions of signal handlers, and waits for no pipe or device.
    """
    global _commit, _is_known
    if not _is_known:
        found = checkout_around(_folders())
        _commit = None if found is None else found[1]
        _is_known = True
        if found is not None and _commit is not None:
            ask(found[0])
    return _commit


@contextmanager
def commit_replaced(commit: str | None, *, is_dirty: bool | None = None) -> Iterator[None]:
    """Replace the commit, and whether files differ from it, for the length of a with-block; for tests."""
    global _commit, _is_known
    before = _commit, _is_known
    _commit, _is_known = commit, True
    try:
        with answer_replaced(is_dirty):
            yield
    finally:
        _commit, _is_known = before


@guard()  # a path may have a zero byte, or the working directory may be removed
def checkout_around(folders: Iterable[str]) -> tuple[str, str | None] | None:
    """Return the first of these folders that is in a checkout, and the commit of the checkout; else None."""
    for folder in folders:
        git_dir = _git_dir(os.fsencode(folder))
        if git_dir is not None:
            return folder, _head(git_dir)
    return None


def _folders() -> Iterator[str]:
    # Not sys.argv: its path is relative to the folder in which the program began, which may have changed since.
    script = getattr(sys.modules.get("__main__"), "__file__", None)
    if isinstance(script, str) and script:
        folder = os.path.dirname(os.path.realpath(script))
        if not _is_installed(folder):
            yield folder
    yield os.getcwd()


def _is_installed(folder: str) -> bool:
    """Return whether a folder belongs to Python itself, or to installed packages or their commands."""
    python = os.path.dirname(os.path.realpath(os.__file__))
    return (
        not _INSTALLED.isdisjoint(folder.split(os.sep))
        or folder == os.path.realpath(os.path.dirname(sys.executable))
        or f"{folder}{os.sep}".startswith(f"{python}{os.sep}")
    )


def _git_dir(folder: bytes) -> bytes | None:
    """Return the git directory of the checkout that a folder belongs to. The search stays in one file system, as git's.

    So an automounter gets no request for `.git` beside the folders that it mounts.
    """
    device = _device(folder)
    for _ in range(MAX_FOLDERS):
        path = os.path.join(folder, b".git")
        mode = _mode(path)
        if stat.S_ISREG(mode):
            content = _read(path) or b""
            return os.path.join(folder, content[7:].strip(b" \r\n")) if content.startswith(b"gitdir:") else path
        if stat.S_ISDIR(mode) and stat.S_ISREG(_mode(os.path.join(path, b"HEAD"))):
            return path
        above = os.path.dirname(folder)
        if above == folder or _device(above) != device:
            return None
        folder = above
    return None


def _head(git_dir: bytes) -> str | None:
    common = os.path.join(git_dir, (_read(os.path.join(git_dir, b"commondir")) or b"").strip(b"\r\n"))
    text = _read(os.path.join(git_dir, b"HEAD"))
    for _ in range(MAX_LINKS):
        if text is None or not text.startswith(b"ref:"):
            break
        ref = text[4:].strip()
        if not ref.startswith(b"refs/") or b".." in ref or min(ref) <= 0x20:
            return None
        text = _read(os.path.join(common, ref)) or _packed(common, ref)
    commit = (text or b"").strip()
    return commit.decode() if len(commit) in (40, 64) and _HEX.issuperset(commit) else None


def _packed(common: bytes, ref: bytes) -> bytes | None:
    refs = _read(os.path.join(common, b"packed-refs"), MAX_PACKED, is_cut=True) or b""
    end = refs.find(b" " + ref + b"\n")
    return None if end < 0 else refs[refs.rfind(b"\n", 0, end) + 1 : end]


def _read(path: bytes, limit: int = MAX_TEXT, *, is_cut: bool = False) -> bytes | None:
    """Return the bytes of a regular file; None if there is none, or it is over the limit and `is_cut` is False."""
    if not stat.S_ISREG(_mode(path)):
        return None
    with guard(OSError):
        file = os.open(path, _FLAGS)
        try:
            found = os.read(file, limit + 1)
        finally:
            os.close(file)
        return found if is_cut or len(found) <= limit else None
    return None


def _mode(path: bytes) -> int:
    found = files.stat_of(path)
    return 0 if found is None else found.st_mode


def _device(folder: bytes) -> int:
    found = files.stat_of(folder)
    return -1 if found is None else found.st_dev
