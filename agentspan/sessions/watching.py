"""Follows session files as they grow, and stores each step within two seconds.

Changes are reported by inotify where the system has it, and looked for from time to time anyway: on a network share no
change is reported. Older sessions are imported in between, so that they do not delay those that go on now.
"""

import os
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Literal, NamedTuple

from agentspan.arriving import ParentMissing
from agentspan.ground import clock, errors
from agentspan.sessions.formats import Format, Source
from agentspan.sessions.importing import LIVE_S, Importer, Stamp, import_all, inode_of, stamps_of
from agentspan.sessions.inotify import Changes, Inotify
from agentspan.sessions.machine import Choice, Place, in_order, is_chosen, sources_at

TICK_S = 0.5
"""The seconds that a watcher waits for changes at most before it looks whether it should end."""
GATHER_S = 0.2
"""The seconds for which changes are gathered, so that a burst of lines is one commit."""
POLL_S = 1.0
"""The seconds between two looks at all files without inotify."""
CHECK_S = 30.0
"""The seconds between two looks at all files with inotify."""
PARENT_S = 30.0
"""The seconds for which a sub-agent's file waits for the session that started it."""
COARSE_NS = 2_000_000_000
"""The nanoseconds in which two changes of a folder may have one time: 2 s on FAT, some milliseconds on Linux."""
AGAIN_S = 1.0
"""The seconds until the next attempt after a fault of the storage."""
_LOGS = ("-wal", "-journal", "-shm")
"""The endings of the files beside an SQLite database."""


class Event(NamedTuple):
    """A change of a session.

    Attributes:
        kind: `began`: its run is new; `grew`: its run has new steps; `ended`: its run is no longer live.
        source: its files.
        run: the id of its run; None for a file of many sessions.
        steps: how many steps are new.
    """

    kind: Literal["began", "grew", "ended"]
    source: Source
    run: str | None
    steps: int


class Watcher:
    """Follows the sessions at some places. For one thread.

    Args:
        importer: stores them; made with `follows=True`.
        formats: the formats by name.
        places: where sessions lie, or may lie later.
        choice: which of them are followed.
        report: called with each event.
        complain: called with a sentence about each new fault.
        stop: returns whether to end; it is called twice a second, and between two files.
        inotify: whether to use inotify where the system has it.
        now: returns the time in nanoseconds since the epoch, which tests set.
    """

    def __init__(
        self,
        importer: Importer,
        formats: Mapping[str, Format],
        places: Sequence[Place],
        choice: Choice,
        *,
        report: Callable[[Event], object],
        complain: Callable[[str], object],
        stop: Callable[[], bool],
        inotify: bool = True,
        now: Callable[[], int] = clock.wall_ns,
    ) -> None:
        self._importer, self._formats, self._places, self._choice = importer, formats, places, choice
        self._report, self._complain, self._stop, self._now = report, complain, stop, now
        self._inotify: Inotify | None = None
        if inotify:
            with suppress(OSError, AttributeError, ImportError):
                self._inotify = Inotify()
        self._poll_s = POLL_S if self._inotify is None else CHECK_S
        self._poll_at = 0.0
        self._sources: dict[Path, Source] = {}
        self._mains: dict[Path, Source] = {}
        self._stamps: dict[Path, dict[Path, Stamp]] = {}
        self._folders: dict[Path, int] = {}
        self._roots: list[int] = []
        self._foreign: set[Path] = set()
        self._suffixes: set[str] = set()
        self._chosen: set[Path] = set()
        self._unchosen: dict[Path, Source] = {}
        self._due: dict[Path, Source] = {}
        self._live: dict[Path, Source] = {}
        self._late: dict[Path, float] = {}
        self._backlog: Iterator[Source] = iter(())
        self._has_backlog = self._has_scanned = False
        self._retry_at = 0.0
        self._fault = ""

    @property
    def is_following(self) -> bool:
        """True when everything that was there at the start has been imported."""
        return self._has_scanned and not self._has_backlog

    def run(self) -> None:
        """Import what is new, then follow, until `stop` returns True."""
        try:
            self._scan()
            self._begin_backlog([*self._mains.values()])
            while not self._stop():
                self._turn()
        finally:
            if self._inotify is not None:
                self._inotify.close()

    def _begin_backlog(self, sources: Sequence[Source]) -> None:
        todo = in_order(sources, self._importer, self._formats)
        self._backlog = import_all(self._importer, todo, self._formats)
        self._has_backlog = bool(todo)
        for source in sources:
            self._note_live(source)

    def _turn(self) -> None:
        """Wait for changes, and import what has changed; of the older sessions, one."""
        changes = self._wait(0.0 if self._has_backlog else TICK_S)
        if changes.files or changes.is_unknown:
            if not self._has_backlog:
                time.sleep(GATHER_S)
                more = self._wait(0.0)
                changes = Changes(changes.files | more.files, changes.is_unknown or more.is_unknown)
            self._sort(changes)
        if self._roots != self._roots_now():  # one was made, or moved away and made anew
            self._scan()
        if time.monotonic() >= self._poll_at:
            self._poll()
        self._due.update(self._ending())
        if time.monotonic() >= self._retry_at:
            try:
                self._import_due()
                self._import_backlog()
                self._fault = ""
            except errors.StorageError as error:
                self._retry_at = time.monotonic() + AGAIN_S
                if self._has_backlog:  # the fault has ended its generator
                    self._begin_backlog([*self._mains.values()])
                self._complain_once(f"{error}; trying again")
        self._show_problems()

    def _wait(self, seconds: float) -> Changes:
        if self._inotify is not None:
            return self._inotify.wait(seconds)
        if seconds:
            time.sleep(min(seconds, max(0.0, self._poll_at - time.monotonic())))
        return Changes(frozenset(), is_unknown=False)

    def _complain_once(self, fault: str) -> None:
        if fault != self._fault:
            self._fault = fault
            self._complain(fault)

    def _show_problems(self) -> None:
        for problem in self._importer.problems:
            self._complain(f"not read: {problem}")
        self._importer.problems.clear()

    def _sort(self, changes: Changes) -> None:
        """Find the sources of changed files; look for new sources, if a file is not known."""
        is_unknown = changes.is_unknown
        for path in changes.files:
            source = self._sources.get(_main_path(path))
            if source is not None:
                self._due[source.path] = source
            elif path in self._unchosen:
                is_unknown |= self._takes(self._unchosen[path])  # its folder may be known now
            elif path not in self._foreign and any(place.path in path.parents for place in self._places):
                is_unknown = True
        if is_unknown:
            self._scan()
            self._foreign |= {path for path in changes.files if self._is_foreign(path)}

    def _is_foreign(self, path: Path) -> bool:
        """Return whether a changed file is no session's. One that could be was perhaps elsewhere during the look."""
        if _main_path(path) in self._sources:
            return False
        if self._suffixes and path.suffix not in self._suffixes:
            return True
        return path.exists() and self._folders.get(path.parent) == _changed_ns(path.parent)

    def _scan(self) -> None:
        """List all sources and folders anew. Sources that have changed since the last look are due."""
        self._roots = self._roots_now()  # before the look: one that comes meanwhile is looked at again
        self._watch_folders()
        mains = {source.path: source for place in self._places for source in self._chosen_at(place)}
        for path, source in mains.items():
            stamps = stamps_of(source, self._formats[source.format])
            if self._has_scanned and self._stamps.get(path) != stamps:
                self._due[path] = source
            self._stamps[path] = stamps
        for path in self._stamps.keys() - mains.keys():
            del self._stamps[path]
        self._mains, self._has_scanned = mains, True
        self._sources = {file: source for source in mains.values() for file in source.files}
        self._suffixes = {file.suffix for file in self._sources}
        self._poll_at = time.monotonic() + self._poll_s

    def _roots_now(self) -> list[int]:
        return [inode_of(place.path) for place in self._places]

    def _chosen_at(self, place: Place) -> Iterator[Source]:
        for source in sources_at(place, self._formats):
            if self._takes(source):
                yield source

    def _takes(self, source: Source) -> bool:
        """Return whether a source is chosen. What is chosen once stays so: its first lines do not change."""
        if source.path not in self._chosen:
            if not is_chosen(source, self._formats[source.format], self._choice):
                self._unchosen[source.path] = source
                return False
            self._chosen.add(source.path)
            self._unchosen.pop(source.path, None)
        return True

    def _watch_folders(self) -> None:
        """Watch all folders. They are listed until none is new: one may come after its folder was listed."""
        known: dict[Path, int] = {}
        while new := [each for place in self._places for each in _folders_at(place.path) if each not in known]:
            for folder in new:
                # The time is read before the folder: a file that comes later changes it again, if that is not now.
                changed_ns = _changed_ns(folder)
                known[folder] = changed_ns if abs(clock.wall_ns() - changed_ns) > COARSE_NS else -1
                if self._inotify is not None and not self._inotify.watch(folder):
                    self._poll_s = POLL_S
        self._folders = known

    def _poll(self) -> None:
        """Look for changed files, and for folders that have come or changed, without the help of inotify."""
        self._poll_at = time.monotonic() + self._poll_s
        is_new = any(_changed_ns(folder) != changed_ns for folder, changed_ns in self._folders.items())
        if is_new:
            self._scan()
            return
        for path, source in self._mains.items():
            stamps = stamps_of(source, self._formats[source.format])
            if stamps != self._stamps.get(path):
                self._stamps[path] = stamps
                self._due[path] = source

    def _ending(self) -> dict[Path, Source]:
        """Return the sources that have been idle for so long that their runs end."""
        return {path: source for path, source in self._live.items() if self._is_idle(source)}

    def _is_idle(self, source: Source) -> bool:
        stamps = stamps_of(source, self._formats[source.format])
        return abs(self._now() - max((stamp.changed_ns for stamp in stamps.values()), default=0)) >= LIVE_S * 1e9

    def _note_live(self, source: Source) -> bool:
        """Note whether a source goes on; return whether it has just ended."""
        if self._importer.is_live(source):
            self._live[source.path] = source
            return False
        return self._live.pop(source.path, None) is not None

    def _import_due(self) -> None:
        for path in [*self._due]:
            source = self._due[path]
            first = self._late.setdefault(path, time.monotonic())
            try:
                self._import(source, waits=time.monotonic() - first < PARENT_S)
                self._late.pop(path, None)
            except ParentMissing:
                continue  # it stays due
            del self._due[path]
            if self._stop():
                return

    def _import(self, source: Source, *, waits: bool) -> None:
        arrived = self._importer.arrived
        runs, steps = len(arrived.runs), arrived.spans
        self._importer.import_source(source, waits=waits)
        self._tell(source, is_new=len(arrived.runs) > runs, steps=arrived.spans - steps)

    def _import_backlog(self) -> None:
        if not self._has_backlog:
            return
        arrived = self._importer.arrived
        runs, steps = len(arrived.runs), arrived.spans
        source = next(self._backlog, None)
        if source is None:
            self._has_backlog = False
        else:
            self._tell(source, is_new=len(arrived.runs) > runs, steps=arrived.spans - steps)

    def _tell(self, source: Source, *, is_new: bool, steps: int) -> None:
        run, is_ended = self._importer.run_of(source), self._note_live(source)
        if is_new:
            self._report(Event("began", source, run, steps))
        elif steps:
            self._report(Event("grew", source, run, steps))
        if is_ended:
            self._report(Event("ended", source, run, 0))


def _main_path(path: Path) -> Path:
    """Return the path of the database of which a file is the log; other paths unchanged."""
    for ending in _LOGS:
        if path.name.endswith(ending):
            return path.with_name(path.name.removesuffix(ending))
    return path


def _folders_at(path: Path) -> Iterable[Path]:
    """Return the folders in which files at a path may come; links to folders are not followed."""
    if path.is_dir():
        return [Path(at) for at, _, _ in os.walk(path)]
    return [path.parent] if path.is_file() else []


def _changed_ns(folder: Path) -> int:
    try:
        return folder.stat().st_mtime_ns
    except OSError:
        return 0
