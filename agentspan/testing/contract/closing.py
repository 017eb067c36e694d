"""Contract of a storage: after closing, it answers nothing, and does no task."""

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from agentspan.errors import StorageError
from agentspan.storage.answers import KeyRow
from agentspan.storage.protocol import Storage
from agentspan.storage.questions import (
    Account,
    BackUp,
    BriefsWhere,
    ChangedSpans,
    Compact,
    Counts,
    Damage,
    DropPartitions,
    FailureSums,
    FileBytes,
    Find,
    ForgetNotes,
    LatestScores,
    MakePartitions,
    MissingPartitions,
    NewestScores,
    Notes,
    NotesCount,
    Outlines,
    Partitions,
    PutKeys,
    PutNote,
    Query,
    Question,
    RemoveKeys,
    RemoveRuns,
    RunSums,
    RunsWhere,
    Search,
    Select,
    SpanMarks,
    SpansOf,
    SpanStats,
    SpanSums,
    StepUses,
    StoredKeys,
    TablesState,
    Tags,
    UsedBytes,
    Violations,
    WaitAtMost,
)
from agentspan.storage.run_filter import RunFilter
from agentspan.testing.contract.base import Base

ASKED: Sequence[Callable[[str, Path], Question[Any]]] = (
    lambda run, path: Account(),
    lambda run, path: Find(run),
    lambda run, path: Query("agent_span"),
    lambda run, path: SpansOf(run),
    lambda run, path: Counts([run]),
    lambda run, path: Violations([run]),
    lambda run, path: Outlines(run),
    lambda run, path: SpanSums(run),
    lambda run, path: NewestScores([run]),
    lambda run, path: LatestScores("reward"),
    lambda run, path: Tags([run]),
    lambda run, path: RunsWhere(RunFilter(), limit=1),
    lambda run, path: BriefsWhere(RunFilter()),
    lambda run, path: SpanStats(),
    lambda run, path: RunSums([run]),
    lambda run, path: Search(["a"], limit=1),
    lambda run, path: FailureSums([run]),
    lambda run, path: StepUses([run]),
    lambda run, path: SpanMarks([run]),
    lambda run, path: StoredKeys(),
    lambda run, path: ChangedSpans(run, ""),
    lambda run, path: Damage(),
    lambda run, path: Select("select 1"),
    lambda run, path: BackUp(path),
    lambda run, path: UsedBytes(),
    lambda run, path: FileBytes(),
    lambda run, path: Notes("a"),
    lambda run, path: NotesCount("a"),
    lambda run, path: Partitions(),
    lambda run, path: TablesState(),
    lambda run, path: MissingPartitions(),
    lambda run, path: RemoveRuns([run], 1.0),
    lambda run, path: RemoveKeys("2", 1.0),
    lambda run, path: RemoveKeys("2", 1.0, dry_run=True),
    lambda run, path: PutKeys([KeyRow("a", "b", "c", run, "2")], 1.0),
    lambda run, path: Compact(1.0),
    lambda run, path: WaitAtMost(1.0),
    lambda run, path: PutNote("a", "b"),
    lambda run, path: ForgetNotes("a"),
    lambda run, path: MakePartitions(),
    lambda run, path: DropPartitions("2", lambda writer: False, 1.0),
)
"""Each makes a question from the id of a run, and a path without a file."""


class Closing(Base):
    """Contract: each question, after closing."""

    def test_a_closed_storage_answers_no_question(self, storage: Storage) -> None:
        """Each raises StorageError, whose message says so; so does a group, and a backup leaves no file."""
        answers, run = storage.capabilities().answers, self.instance(storage)
        storage.close()
        with TemporaryDirectory() as folder:
            asked = [make(run.id, Path(folder) / "copy") for make in ASKED]
            said = {repr(each): _said(partial(_read, storage, each)) for each in asked if type(each) in answers}
            said["group"] = _said(lambda: storage.group(lambda group: None, 1.0))
            assert {what: text for what, text in said.items() if "open it again" not in text} == {}
            assert not list(Path(folder).iterdir())


def _read(storage: Storage, question: Question[Any]) -> None:
    answer = storage.ask(question)
    if isinstance(answer, Iterator):
        next(answer, None)


def _said(call: Callable[[], object]) -> str:
    """Return the message of the StorageError that a call raises; empty where it raises none."""
    try:
        call()
    except StorageError as error:
        return str(error)
    return ""
