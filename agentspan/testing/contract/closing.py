"""Contract tests: a closed storage answers no question and does no task; opened again, it has all rows."""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest

from agentspan.errors import NotPermitted, StorageError
from agentspan.model.changes import Applied, Key, Put, PutSpans, Remove, Replayed, Unit
from agentspan.storage.answers import KeyRow
from agentspan.storage.protocol import Storage
from agentspan.storage.questions import (
    BASIC,
    Account,
    BackUp,
    BriefsWhere,
    CachedCalls,
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
    RunFilter,
    RunSums,
    RunsWhere,
    Search,
    Select,
    SpanMarks,
    SpansOf,
    SpanStats,
    SpanSums,
    SpansWith,
    StepUses,
    StoredKeys,
    TablesState,
    Tags,
    TimedSums,
    Touched,
    Used,
    UsedBytes,
    Violations,
    WaitAtMost,
)
from agentspan.storage.registry import open_direct
from agentspan.testing.contract.base import T0, T1, Base, finish, spans_of, violation


def asked(run: str, path: Path) -> Sequence[Question[Any]]:
    """Return one question of each kind.

    Args:
        run: the id of a run.
        path: a path at which no file exists.
    """
    return (
        Account(), Find(run), Query("agent_span"), SpansOf(run), Counts([run]), Violations([run]), Outlines(run),
        SpanSums(run), NewestScores([run]), LatestScores("reward"), Tags([run]), RunsWhere(RunFilter(), limit=1),
        BriefsWhere(RunFilter()), SpanStats(), RunSums([run]), TimedSums([run]), Search(["a"], limit=1),
        FailureSums([run]), StepUses([run]), Touched("a"), Used(frozenset({"tool"}), "a"), CachedCalls([run]),
        SpanMarks([run]), StoredKeys(), ChangedSpans(run, ""), SpansWith(run, ["a"]), Damage(),
        Select("select 1"), BackUp(path), UsedBytes(), FileBytes(), Notes("a"), NotesCount("a"), Partitions(),
        TablesState(), MissingPartitions(), RemoveRuns([run], 1.0), RemoveKeys("2", 1.0),
        RemoveKeys("2", 1.0, dry_run=True),
        PutKeys([KeyRow("a", "b", "c", run, "2")], 1.0), Compact(1.0), WaitAtMost(1.0), PutNote("a", "b"),
        ForgetNotes("a"), MakePartitions(), DropPartitions("2", lambda writer: False, 1.0),
    )  # fmt: skip


class Closing(Base):
    """Contract tests: a closed storage refuses each question."""

    def test_a_closed_storage_answers_no_question(self, storage: Storage) -> None:
        """Each raises StorageError, whose message says so; so does a change, or a group. A backup leaves no file.

        Closing twice is fine; capabilities stay.
        """
        before, run = storage.capabilities(), self.instance(storage)
        storage.close()
        storage.close()
        assert storage.capabilities() == before
        with TemporaryDirectory() as folder:
            answers = BASIC | before.answers
            questions = [each for each in asked(run.id, Path(folder) / "copy") if type(each) in answers]
            answers_of = {repr(each): _refusal(partial(_read, storage, each)) for each in questions}
            answers_of["apply"] = _refusal(lambda: storage.apply([Unit((finish("x"),))]))
            answers_of["group"] = _refusal(lambda: storage.group(lambda group: None, 1.0))
            assert {what: text for what, text in answers_of.items() if "open it again" not in text} == {}
            assert not list(Path(folder).iterdir())


def _read(storage: Storage, question: Question[Any]) -> None:
    answer = storage.ask(question)
    if isinstance(answer, Iterator):
        next(answer, None)


def _refusal(call: Callable[[], object]) -> str:
    """Return the message of the StorageError that a call raises; empty if it raises none."""
    try:
        call()
    except StorageError as error:
        return str(error)
    return ""


OPENS = """
import json, sys
from agentspan.storage.authoring import Location, Move, Unit
from agentspan.storage.questions import Account, SpansOf
from agentspan.storage.registry import open_direct

asked = json.load(sys.stdin)
storage = open_direct(Location(asked["scheme"], asked["text"]))
spans = [span.id for span in storage.ask(SpansOf(asked["run"]))]
move = Move("agent_span", asked["span"], frozenset({"active"}), {"status": "complete", "updated_at": asked["at"]})
outcome = type(storage.apply([Unit((move,))])[0]).__name__
print(json.dumps([storage.ask(Account()).id, spans, outcome]))
"""


class Reopening(Base):
    """Contract tests: a storage that is opened again at its location."""

    def test_what_was_applied_is_there_in_another_instance_and_after_reopening(self, storage: Storage) -> None:
        """A second storage at the location, and one opened after closing, have the same rows, account and keys."""
        instance = self.instance(storage)
        span, key = self.rows.span(instance), Key("create", "k", "h", T0)
        create = Unit((Put(span, violations=(violation(),)),), span.id, key)
        more = [self.rows.span(instance, summary="a\U0001f600", cost_usd=0.5) for _ in range(3)]
        agents = [self.rows.agent("stays"), self.rows.agent("goes")]
        account = storage.ask(Account())
        with self.opened_again(storage) as other:
            assert storage.apply([create, Unit((PutSpans(more),))]) == [Applied(span), Applied()]
            self.put(storage, *agents)
            assert storage.apply([Unit((Remove("agent", agents[1].id),))]) == [Applied()]
            assert other.ask(Account()) == account
            assert other.apply([create, Unit((finish(span.id),))]) == [Replayed(span), Applied()]
            done = span._replace(status="complete", updated_at=T1)
            assert self.stored(storage, span.id) == done
        storage.close()
        with self.opened_again(storage) as again:
            assert again.ask(Account()) == account
            assert list(again.ask(SpansOf(instance.id))) == [done, *more]
            assert spans_of(again, Query("agent_span", descending=True)) == [*more[::-1], done]
            assert again.ask(Counts([instance.id]))[instance.id][:4] == (4, 0, 3, 1)
            assert again.ask(Violations([span.id]))[span.id] == [violation()]
            assert again.ask(Find(key=key)).key == ("h", span.id)
            found = again.ask(Find(*(agent.id for agent in agents))).rows
            assert found == {agents[0].id: ("agent", agents[0])}

    def test_opened_to_be_read_only_it_writes_nothing(self, storage: Storage) -> None:
        """A read-only storage reads stored rows and later changes. Its `apply` raises NotPermitted."""
        location = self.claimed(storage, "location")
        span = self.rows.span(self.instance(storage))
        self.put(storage, span)
        reader = open_direct(location, read_only=True)
        try:
            assert self.stored(reader, span.id) == span
            with pytest.raises(NotPermitted):
                reader.apply([Unit((finish(span.id),))])
            assert self.stored(storage, span.id) == span
            self.move(storage, finish(span.id))
            assert self.stored(reader, span.id) == span._replace(status="complete", updated_at=T1)
        finally:
            reader.close()

    def test_another_process_opens_its_location(self, storage: Storage) -> None:
        """Each of the two processes reads the rows that the other one applied."""
        location = self.claimed(storage, "location")
        instance = self.instance(storage)
        span = self.rows.span(instance)
        self.put(storage, span)
        asked = {"scheme": location.scheme, "text": location.text, "run": instance.id, "span": span.id, "at": T1}
        done = subprocess.run(
            [sys.executable, "-c", OPENS],
            input=json.dumps(asked),
            env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert done.returncode == 0, done.stderr
        assert json.loads(done.stdout) == [storage.ask(Account()).id, [span.id], "Applied"]
        assert self.stored(storage, span.id) == span._replace(status="complete", updated_at=T1)
