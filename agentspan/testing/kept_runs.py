"""Finds the runs of a test in any storage, shows them below its failure, and removes old runs."""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path

import click

from agentspan.analysis import tree
from agentspan.analysis.tree import build, walk
from agentspan.cli.output import argument, width
from agentspan.cli.show import Picture
from agentspan.database import open
from agentspan.errors import AgentspanError
from agentspan.journal.opening import open_storage
from agentspan.model.rows import AgentInstanceRow
from agentspan.recording.recorder import Recorder
from agentspan.recording.run_state import Began, began_after
from agentspan.storage.location import Location
from agentspan.storage.protocol import Storage
from agentspan.storage.questions import Find, SpansOf
from agentspan.text import noun

TREE_LINES = 12
FLUSH_S = 2.0


@dataclass(frozen=True, slots=True)
class RunsOfStorage:
    """The runs of a test that are in the same storage.

    Attributes:
        recorder: the recorder of the runs.
        rows: the current rows of the runs.
    """

    recorder: Recorder
    rows: list[AgentInstanceRow]

    def opened(self) -> AbstractContextManager[Storage]:
        """Return a with-block of the storage; a file that the program has closed is opened again, for reading."""
        return _opened(self.recorder)


def runs_after(number: int) -> list[RunsOfStorage]:
    """Return the runs that this process began after run `number`, by storage, the earliest first.

    Runs of a tracer that the program dropped, and of a storage that cannot be read any more, are left out.

    Args:
        number: the number of a run of this process, in the order in which its runs began.
    """
    by_recorder: dict[int, tuple[Recorder, list[Began]]] = {}
    for began in began_after(number):
        recorder = began.recorder()
        if recorder is not None and recorder.is_open:
            by_recorder.setdefault(id(recorder), (recorder, []))[1].append(began)
    found = []
    for recorder, group in by_recorder.values():
        if recorder.is_usable:
            recorder.flush(FLUSH_S)
        ids = [began.run_id for began in group]
        try:
            with _opened(recorder) as storage:
                rows = storage.ask(Find(*ids)).rows
        except AgentspanError:  # the test has removed the file
            continue
        known = [row for id in ids if id in rows and isinstance(row := rows[id][1], AgentInstanceRow)]
        if known:
            found.append(RunsOfStorage(recorder, known))
    return found


@contextmanager
def _opened(recorder: Recorder) -> Iterator[Storage]:
    location = _file_of(recorder)
    if location is None or recorder.is_usable:
        yield recorder.destination.storage
        return
    storage = open_storage(location, read_only=True)
    try:
        yield storage
    finally:
        storage.close()


def _file_of(recorder: Recorder) -> Location | None:
    """Return the location that another process can open; None for a storage in memory."""
    location = recorder.location
    return None if location is None or location.scheme == "memory" else location


def section(after: int, run_id: str | None = None) -> list[str]:
    """Return the lines about the runs of a failed test; none if it recorded nothing. Never raises.

    One run is drawn: its head, and the last 12 lines of its tree.

    Args:
        after: the number of the latest run before the test, as `runs_after` takes it.
        run_id: the run to draw; when left out, the last one that failed, else the last one.
    """
    try:
        return [click.unstyle(line) for line in _section(after, run_id)]
    except Exception as error:
        return [f"the runs of this test cannot be shown: {type(error).__name__}"]


def _section(after: int, run_id: str | None) -> Iterator[str]:
    runs = [(group, row) for group in runs_after(after) for row in group.rows]
    if not runs:
        return
    wanted = [each for each in runs if each[1].id == run_id] or [each for each in runs if each[1].status == "failed"]
    group, run = (wanted or runs)[-1]
    with group.opened() as storage:
        yield from _drawn(storage, run)
    if len(runs) > 1:
        yield f"{noun(len(runs) - 1, 'other run')} of this test"
    location = _file_of(group.recorder)
    if location is not None:
        place = str(location) if location.path is None else short(location.path)
        yield f"agentspan show {run.id} --db {argument(place)}"


def _drawn(storage: Storage, run: AgentInstanceRow) -> Iterator[str]:
    picture = Picture(run, [*storage.ask(SpansOf(run.id))], width())
    yield from picture.head(storage)
    lines = [line for node, lasts in walk(tree.fold(build(picture.spans))) for line in picture.span(node, lasts)]
    if len(lines) > TREE_LINES:
        yield f"… {noun(len(lines) - TREE_LINES, 'line')} above"
    yield from lines[-TREE_LINES:]


def short(path: Path) -> str:
    """Return a path as text; one below the current directory is relative."""
    try:
        return str(path.relative_to(Path.cwd()))
    except ValueError:
        return str(path)


def rotate(path: Path, max_bytes: int) -> None:
    """Remove the oldest finished runs of a file until no more than `max_bytes` are in use.

    Runs that a killed process left open are closed first, so that they can be removed.

    Raises:
        StorageError: the file is in use, or cannot be used.
    """
    with open(path) as database:
        database.doctor()
        database.prune(max_bytes=max_bytes)
