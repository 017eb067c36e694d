"""Finds the parts of an agent at the start of a session that its file lacks: instructions, skills, settings.

Claude Code's session files hold neither skills, nor settings, nor the commit, and before 2.1.332 no CLAUDE.md. A newer
file has the text of CLAUDE.md as it was sent, without the file's white space: this is a part of its own,
`sent_instructions`. For a session that starts now, the files are read as they are. For an older one, they are read from
git's commit of that time, if the folder is still there: only tracked files, without changes that were never committed.
A part that can be read in neither way is unknown, and is left out. `none` means that there was no such file. Files that
CLAUDE.md imports do not count.

Files are only hashed. Git only reads: it runs no hook, no filter and no program that the repository names, takes no
lock, and fetches nothing.
"""

import os
import subprocess
from collections.abc import Callable, Iterator, Mapping, Sequence
from hashlib import sha1, sha256
from pathlib import Path
from typing import NamedTuple

from agentspan.arriving import Session
from agentspan.ground import clock
from agentspan.sessions.formats import open_regular

FORMATS = frozenset({"claude"})
"""The formats whose files lack these parts."""
NOW_S = 60.0
"""The seconds after its start for which a session counts as one that starts now."""
INSTRUCTIONS = "instructions"
"""The part without which the surroundings of a session are searched."""
PARTS: Mapping[str, tuple[str, ...]] = {
    INSTRUCTIONS: ("CLAUDE.md", ".claude/CLAUDE.md", ".claude/rules"),
    "project_skills": (".claude/skills",),
    "settings": (".claude/settings.json",),
}
"""The files and folders of each part, in the project's folder and in each folder below it down to the session's."""
LOCAL: Mapping[str, tuple[str, ...]] = {
    "local_instructions": ("CLAUDE.local.md",),
    "local_settings": (".claude/settings.local.json",),
}
"""The parts that stand there, too, but usually not in git."""
USER: Mapping[str, tuple[str, ...]] = {
    "user_instructions": ("CLAUDE.md",),
    "user_skills": ("skills",),
    "user_settings": ("settings.json",),
}
"""The parts in the folder of the user's own configuration."""
OUTER = "outer_instructions"
"""The part for CLAUDE.md in folders above the project's."""
NONE = "none"
MOST_FILES = 2000
"""The most files of one part; a part with more is unknown."""
MOST_BYTES = 4 * 2**20
"""The largest file that is read; a part with a larger one is unknown."""
MOST_COMMITS = 20_000
"""The most commits of a branch in which the one at a time is searched."""
TIMEOUT_S = 5.0
"""The seconds that git may take for one question."""

Parts = dict[str, str]


class Surroundings:
    """Finds the surroundings of sessions; each session's once.

    Args:
        now: returns the time in nanoseconds since the epoch.
        environment: the environment variables, for the folder of the user's configuration.
    """

    def __init__(self, now: Callable[[], int] = clock.wall_ns, environment: Mapping[str, str] | None = None) -> None:
        self._now = now
        self._environment = os.environ if environment is None else environment
        self._known: dict[str, tuple[Parts, str | None]] = {}
        self._checkouts: dict[str, _Git] = {}

    def of(self, format: str, session: Session) -> tuple[Parts, str | None]:
        """Return the parts that a session's file lacks, and the commit; nothing for formats whose files have them."""
        cwd = session.metadata.get("cwd")
        if format not in FORMATS or INSTRUCTIONS in session.fingerprint or type(cwd) is not str:
            return {}, None
        if session.id not in self._known:
            branch = session.metadata.get("git_branch")
            folder = Path(cwd)
            if cwd not in self._checkouts and folder.is_absolute() and folder.is_dir():
                self._checkouts[cwd] = _Git(folder)
            self._known[session.id] = surroundings(
                cwd,
                session.started_ns,
                now_ns=self._now(),
                branch=branch if type(branch) is str else None,
                environment=self._environment,
                git=self._checkouts.get(cwd),
            )
        return self._known[session.id]


def surroundings(
    cwd: str,
    started_ns: int,
    *,
    now_ns: int,
    branch: str | None = None,
    environment: Mapping[str, str] = os.environ,
    git: "_Git | None" = None,
) -> tuple[Parts, str | None]:
    """Return the parts of the fingerprint that the folder of a session gives, and the commit.

    Args:
        cwd: the folder in which the session started.
        started_ns, now_ns: nanoseconds since the epoch.
        branch: the branch of the session; the checked-out one if it is None.
        environment: the environment variables, for the folder of the user's configuration.
        git: the checkout around the folder, if it was asked about before.
    """
    folder = Path(cwd)
    if not folder.is_absolute() or not folder.is_dir():
        return {}, None
    git = git or _Git(folder)
    if 0 <= now_ns - started_ns <= NOW_S * 1e9:
        return _parts_now(folder, git.top, environment), git.head()
    commit = git.commit_at(started_ns // 1_000_000_000, branch, now_ns // 1_000_000_000)
    return ({}, None) if commit is None or git.top is None else (_parts_of(git, folder, git.top, commit), commit)


def _folders(top: Path, folder: Path) -> list[Path]:
    """Return the folders from the project's to the session's."""
    below = [each for each in folder.parents if each.is_relative_to(top)]
    return [*reversed(below), folder]


def _parts_now(folder: Path, top: Path | None, environment: Mapping[str, str]) -> Parts:
    folder = folder.resolve()
    project = folder if top is None else top
    found: dict[str, str | None] = {}
    for part, names in {**PARTS, **LOCAL}.items():
        found[part] = _hash_of(_files(_folders(project, folder), names), project)
    own = Path(
        environment.get("CLAUDE_CONFIG_DIR") or Path(environment.get("HOME") or os.path.expanduser("~"), ".claude")
    )
    for part, names in USER.items():
        found[part] = _hash_of(_files([own], names), own)
    found[OUTER] = _hash_of(_files([*project.parents], ("CLAUDE.md",)), Path(project.anchor))
    return {part: value for part, value in found.items() if value is not None}


def _files(folders: Sequence[Path], names: Sequence[str]) -> Iterator[Path]:
    for folder in folders:
        for name in names:
            path = folder / name
            if path.is_file():
                yield path
            elif path.is_dir():
                for at, below, files in os.walk(path):
                    below.sort()
                    yield from (Path(at, file) for file in sorted(files))


def _hash_of(files: Iterator[Path], root: Path) -> str | None:
    """Return the hash of files by path and content; None if one cannot be read, or they are too many or too large."""
    found: list[tuple[str, str]] = []
    for path in files:
        try:
            with open_regular(path) as file:  # a folder may have a pipe, or a link to a device
                content = file.read(MOST_BYTES + 1)
        except OSError:
            return None
        if len(found) == MOST_FILES or len(content) > MOST_BYTES:
            return None
        # The name that git gives to the content, so that a part has one value, however it was found.
        name = sha1(b"blob %d\0" % len(content) + content, usedforsecurity=False).hexdigest()
        found.append((path.relative_to(root).as_posix(), name))
    return _part(found)


def _part(files: Sequence[tuple[str, str]]) -> str:
    return sha256(repr(sorted(files)).encode("utf-8", "surrogateescape")).hexdigest()[:12] if files else NONE


def _parts_of(git: "_Git", folder: Path, top: Path, commit: str) -> Parts:
    """Return the parts that a commit has; a part that git has never had, but the folder has, is unknown."""
    folders = [each.relative_to(top).as_posix() for each in _folders(top, folder.resolve())]
    paths = {
        part: [name if each == "." else f"{each}/{name}" for each in folders for name in names]
        for part, names in PARTS.items()
    }
    every = [path for own in paths.values() for path in own]
    listed, now = git.files(commit, every), git.files("HEAD", every)
    parts: Parts = {}
    for part, own in paths.items():
        if listed is None or (found := _within(listed, own)) is None:
            continue
        is_untracked = not found and not _within(now or [], own) and any((top / path).exists() for path in own)
        if not is_untracked and len(found) <= MOST_FILES:
            parts[part] = _part([(each.path, each.content) for each in found])
    return parts


def _within(entries: "Sequence[_Entry]", paths: Sequence[str]) -> "list[_Entry] | None":
    """Return the entries that are, or are below, these paths; None if one is a link, or git uses SHA-256."""
    found = [each for each in entries if any(each.path == path or each.path.startswith(f"{path}/") for path in paths)]
    return None if any(each.is_link or len(each.content) != 40 for each in found) else found


class _Entry(NamedTuple):
    """A file of a commit: its path from the project's folder on, the name of its content, and whether it is a link."""

    path: str
    content: str
    is_link: bool


class _Git:
    """Asks git about the checkout around a folder. Every answer is None if git fails, is missing, or takes too long."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._history: dict[str, tuple[int, list[tuple[int, str]]]] = {}
        self._files: dict[str, list[_Entry] | None] = {}
        top = self._ask("rev-parse", "--show-toplevel")
        self.top = None if not top else Path(top.rstrip("\n")).resolve()
        if self.top is not None and not folder.resolve().is_relative_to(self.top):
            self.top = None  # core.worktree of the repository names another folder

    def head(self) -> str | None:
        """Return the commit that is checked out."""
        return None if self.top is None else _commit(self._ask("rev-parse", "--verify", "--quiet", "HEAD^{commit}"))

    def commit_at(self, seconds: int, branch: str | None, now: int) -> str | None:
        """Return the last commit of a branch before a time; times are in seconds since the epoch.

        The commits of a branch are listed once, unless they are asked for at a time after that.
        """
        if self.top is None:
            return None
        of = f"refs/heads/{branch}" if branch and branch != "HEAD" else "HEAD"
        read_at, commits = self._history.get(of, (-1, []))
        if read_at < seconds:
            listed = self._ask("rev-list", "--first-parent", "--timestamp", f"--max-count={MOST_COMMITS}", of, "--")
            commits = [(int(at), id) for at, _, id in (line.partition(" ") for line in (listed or "").splitlines())]
            self._history[of] = now, commits
        return next((_commit(id) for at, id in commits if at <= seconds), None)

    def files(self, commit: str, paths: Sequence[str]) -> list[_Entry] | None:
        """Return the files of a commit that are, or are below, these paths."""
        if commit not in self._files:
            listed = self._ask("ls-tree", "-r", "-z", "--full-tree", commit, "--", *paths)
            self._files[commit] = None if listed is None else [*map(_entry, listed.split("\0")[:-1])]
        return self._files[commit]

    def _ask(self, *words: str) -> str | None:
        command = ["git", "-C", str(self._folder), "--no-pager", *_SAFE, *words]
        environment = {name: value for name in ("PATH", "SYSTEMROOT") if (value := os.environ.get(name)) is not None}
        try:
            done = subprocess.run(
                command,
                env=environment | _QUIET,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                timeout=TIMEOUT_S,
                check=False,
            )
        except (OSError, ValueError, subprocess.TimeoutExpired):
            return None
        return done.stdout.decode("utf-8", "surrogateescape") if done.returncode == 0 else None


_SAFE = ("-c", "core.fsmonitor=false", "-c", "core.hooksPath=/dev/null", "-c", "protocol.allow=never")
_QUIET = {
    "GIT_OPTIONAL_LOCKS": "0",
    "GIT_TERMINAL_PROMPT": "0",
    "GIT_CONFIG_NOSYSTEM": "1",
    "GIT_CONFIG_GLOBAL": os.devnull,
    "GIT_NO_LAZY_FETCH": "1",
    "GIT_NO_REPLACE_OBJECTS": "1",
    "GIT_ALLOW_PROTOCOL": "",
    "GIT_LITERAL_PATHSPECS": "1",
    "LC_ALL": "C",
}


def _entry(line: str) -> _Entry:
    facts, _, path = line.partition("\t")
    mode, _, content = facts.split(" ")
    return _Entry(path, content, mode == "120000")


def _commit(text: str | None) -> str | None:
    found = (text or "").strip()
    return found if len(found) in (40, 64) else None
