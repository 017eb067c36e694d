"""Mutants that claim a capability, and do not do what it promises."""

import os
import sqlite3
from collections.abc import Sequence
from copy import copy
from dataclasses import replace
from math import inf
from pathlib import Path
from typing import Any, ClassVar

from agentspan.errors import InvalidValue, StorageError
from agentspan.host import undoing
from agentspan.model.changes import Outcome, PutSpans, Unit
from agentspan.model.rows import AgentSpanRow
from agentspan.storage import row_by_row
from agentspan.storage.access import Wrapper
from agentspan.storage.answers import SpanSum
from agentspan.storage.location import Location
from agentspan.storage.memory import MemoryStorage
from agentspan.storage.patience import Patience
from agentspan.storage.protocol import Capabilities, Storage, new_account
from agentspan.storage.questions import (
    Account,
    BackUp,
    BriefsWhere,
    CachedCalls,
    Compact,
    Damage,
    FailureSums,
    Outlines,
    Query,
    RunSums,
    RunsWhere,
    Search,
    Select,
    SpansOf,
    SpanStats,
    SpanSums,
    StepUses,
    Touched,
    Used,
    WaitAtMost,
)
from agentspan.storage.row_by_row import added_up, failures_of, summed, uses_of
from agentspan.storage.sqlite import SQLiteStorage
from agentspan.storage.sums import Answer, FoundSpan
from agentspan.storage.text_search import Matcher
from agentspan.testing.contract.answering import outlined
from tests.storage.json_storage import JsonStorage
from tests.storage.mutants.noting import Own, found_by
from tests.storage.mutants.scoring import AnswersAboutScores

ANSWERED = "test_answers_about_many_runs_are_those_of_reading_row_by_row"


@found_by("test_a_group_sees_what_it_wrote_and_is_whole_or_nothing")
class GroupsAreNotTakenBack(MemoryStorage):
    def group(self, work: Any, wait_s: float) -> Any:
        with self._writing(wait_s):
            return work(self)


@found_by("test_nobody_reads_what_a_group_takes_back")
class GroupsAreReadWhileTheyWrite(MemoryStorage):
    def group(self, work: Any, wait_s: float) -> Any:
        with undoing(self._restoring()):
            return work(self)


class RemovesMore(MemoryStorage):
    """Completes rows before it removes runs, which takes the guard away."""

    def guards(self, id: str) -> list[str]:
        raise NotImplementedError

    def _remove_runs(self, asked: Any) -> Any:
        for id in (each for run in asked.ids for each in self.guards(run) if each in self._rows):
            self._rows[id] = self._rows[id]._replace(status="complete")  # type: ignore[call-arg]
        return super()._remove_runs(asked)


@found_by("test_a_run_with_anything_open_in_it_is_not_removed")
class RemovesOpenRuns(RemovesMore):
    def guards(self, id: str) -> list[str]:
        return [id]


@found_by("test_a_run_with_anything_open_in_it_is_not_removed")
class RemovesRunsWithOpenSpans(RemovesMore):
    def guards(self, id: str) -> list[str]:
        return [span.id for span in self._spans_by_id(id)]


@found_by("test_runs_are_removed_with_all_that_belongs_to_them")
class LeavesViolationsOfRemovedRuns(MemoryStorage):
    def _remove_runs(self, asked: Any) -> Any:
        before = dict(self._violations)
        removed = super()._remove_runs(asked)
        self._violations = before
        return removed


@found_by("test_old_keys_are_removed")
class RemovesKeysOfTheTimeItself(MemoryStorage):
    def _remove_keys(self, asked: Any) -> Any:
        return super()._remove_keys(asked.changed(before=asked.before + "~"))


@found_by("test_old_keys_are_removed")
class RemovesKeysInADryRun(MemoryStorage):
    def _remove_keys(self, asked: Any) -> Any:
        return super()._remove_keys(asked.changed(dry_run=False))


@found_by("test_a_closed_storage_answers_no_question")
class RemovesKeysWhenItIsClosed(MemoryStorage):
    def _remove_keys(self, asked: Any) -> Any:
        return 0 if self._closed else super()._remove_keys(asked)


@found_by("test_a_payload_in_parts_is_read_as_its_text")
class KeepsNoPartsOfPayloads(MemoryStorage):
    def capabilities(self) -> Capabilities:
        return super().capabilities()._replace(keeps_contents=True)

    def apply(self, units: Any, **options: Any) -> Any:
        return super().apply([self._without_parts(unit) for unit in units], **options)

    def _without_parts(self, unit: Unit) -> Unit:
        def changed(change: Any) -> Any:
            if not isinstance(change, PutSpans):
                return change
            rests = [getattr(row.payload, "rest", row.payload) for row in change.rows]
            rows = [row._replace(payload=rest) for row, rest in zip(change.rows, rests, strict=True)]
            return change._replace(rows=rows)

        return unit._replace(changes=tuple(map(changed, unit.changes)))


class Capable(AnswersAboutScores):
    """The memory backend with all answers of its own that other storages get row by row, and waiting; all right."""

    own: ClassVar[Own] = {
        **AnswersAboutScores.own,
        Outlines: "outlines",
        SpanSums: "sums",
        RunsWhere: "runs_where",
        BriefsWhere: "briefs_where",
        SpanStats: "span_stats",
        RunSums: "run_sums",
        Search: "search",
        FailureSums: "failure_sums",
        StepUses: "step_uses",
        Touched: "touched",
        Used: "used",
        CachedCalls: "cached_calls",
        WaitAtMost: "wait_at_most",
    }
    wait_s = 10.0

    def touched(self, asked: Touched) -> Any:
        return row_by_row.answer(self, asked)

    def cached_calls(self, asked: CachedCalls) -> Any:
        return row_by_row.answer(self, asked)

    def used(self, asked: Used) -> Any:
        return row_by_row.answer(self, asked)

    def outlines(self, asked: Outlines) -> list[AgentSpanRow]:
        return [*map(outlined, row_by_row.answer(self, asked))]

    def wait_at_most(self, asked: WaitAtMost) -> None:
        super()._open()
        self.wait_s = asked.wait_s

    def _open(self) -> Any:
        return MemoryStorage._writing(_Opened(super()._open()), self.wait_s)  # type: ignore[arg-type]

    def _writing(self, wait_s: float) -> Any:
        return MemoryStorage._writing(_Opened(super()._open()), wait_s)  # type: ignore[arg-type]

    def waiting(self, patience: Patience) -> Storage:
        return Patient(self, patience)


class Patient(Wrapper[Storage]):
    """The memory backend for a caller with a patience."""

    def __init__(self, direct: Storage, patience: Patience) -> None:
        super().__init__(direct)
        self.patience = patience

    def waiting(self, patience: Patience) -> Storage:
        return Patient(self.direct, patience.within(self.patience))

    def apply(self, units: Sequence[Unit], *, stop_at_refusal: bool = False, wait_s: float = 5.0) -> list[Outcome]:
        return super().apply(units, stop_at_refusal=stop_at_refusal, wait_s=min(wait_s, self.patience.most_s()))


@found_by("test_a_caller_waits_as_long_as_its_patience_and_others_wait_longer")
class WaitsLongerThanItsCaller(MemoryStorage):
    def waiting(self, patience: Patience) -> Storage:
        return self


@found_by("test_a_caller_waits_as_long_as_its_patience_and_others_wait_longer")
class WaitsForAllCallersAsForOne(MemoryStorage):
    most_s = inf

    def waiting(self, patience: Patience) -> Storage:
        self.most_s = patience.most_s()
        return self

    def _writing(self, wait_s: float) -> Any:
        return super()._writing(min(wait_s, self.most_s))


@found_by("test_a_storage_for_a_caller_with_a_patience_is_the_same_storage")
class HasOtherRowsForACaller(MemoryStorage):
    def waiting(self, patience: Patience) -> Storage:
        return MemoryStorage()


@found_by("test_a_storage_for_a_caller_with_a_patience_is_the_same_storage")
class StaysOpenForACaller(MemoryStorage):
    def waiting(self, patience: Patience) -> Storage:
        made = copy(self)
        made.waiting = lambda patience: made  # type: ignore[method-assign]
        return made


class _Opened:
    def __init__(self, lock: Any) -> None:
        self._open = lambda: lock


@found_by("test_sums_of_a_run_are_those_of_its_spans")
class SumsCountAggregates(Capable):
    def sums(self, asked: SpanSums) -> list[SpanSum]:
        return added_up(span._replace(is_aggregate=0) for span in self.ask(SpansOf(asked.instance_id)))


@found_by("test_outlines_are_the_spans_without_most_of_their_payloads")
class OutlinesAreWhole(Capable):
    def outlines(self, asked: Outlines) -> list[AgentSpanRow]:
        return row_by_row.answer(self, asked)


@found_by("test_outlines_are_the_spans_without_most_of_their_payloads")
class OutlinesBeginTooEarly(Capable):
    def outlines(self, asked: Outlines) -> list[AgentSpanRow]:
        return super().outlines(asked.changed(after=asked.after[:-1]))


@found_by(ANSWERED)
class ListsOfRunsAreOld(Capable):
    def runs_where(self, asked: RunsWhere) -> Any:
        return self.__dict__.setdefault("known", {}).setdefault(repr(asked), row_by_row.answer(self, asked))


@found_by(ANSWERED)
class StatisticsLeaveOutCancelledSpans(Capable):
    def span_stats(self, asked: SpanStats) -> Any:
        return [replace(stat, count=stat.count - stat.cancelled) for stat in row_by_row.answer(self, asked)]


@found_by(ANSWERED)
class FailuresThatPassOnAnotherOneCount(Capable):
    def failure_sums(self, asked: FailureSums) -> Any:
        apart = {run: [span._replace(parent_span_id=None) for span in self.ask(SpansOf(run))] for run in asked.run_ids}
        return [each for run, spans in apart.items() for each in failures_of(run, spans)]


@found_by(ANSWERED)
class FailuresAreOfAllRuns(Capable):
    def failure_sums(self, asked: FailureSums) -> Any:
        runs = [run.id for run in self.ask(Query("agent_instance")).rows]
        return row_by_row.answer(self, FailureSums(runs))


@found_by(ANSWERED)
class StepsThatAreOpenAreUsed(Capable):
    def step_uses(self, asked: StepUses) -> Any:
        ended = {run: [span._replace(status="complete") for span in self.ask(SpansOf(run))] for run in asked.run_ids}
        return [use for run, spans in ended.items() for use in uses_of(run, spans)]


@found_by("test_calls_that_used_a_cache_have_their_tokens")
class CallsOfAggregatesUseACache(Capable):
    def cached_calls(self, asked: CachedCalls) -> Any:
        runs = [run.id for run in self.ask(Query("agent_instance")).rows] if asked.runs is None else asked.runs
        spans = (span for run in runs for span in self.ask(SpansOf(run)) if span.result_payload is not None)
        return [
            found
            for span in spans
            if (
                found := row_by_row.cached_call(
                    span.agent_instance_id, span.schema_name, span.label, row_by_row.quarter_of(span),
                    span.input_tokens, span.payload,
                    span.result_payload or "",
                )
            )
        ]  # fmt: skip


@found_by(ANSWERED)
class OnlyStepsThatEndedAreUses(Capable):
    def used(self, asked: Used) -> Any:
        runs = [run.id for run in self.ask(Query("agent_instance")).rows]
        uses = self.ask(StepUses(runs))
        return frozenset(use.run_id for use in uses if asked.includes(use.schema_name, use.label))


@found_by("test_the_runs_that_touched_a_file_are_those_whose_tools_name_it")
class FilesAreFoundByAnyPartOfTheirPath(Capable):
    def touched(self, asked: Touched) -> Any:
        runs = [run.id for run in self.ask(Query("agent_instance")).rows]
        steps = ((run, span) for run in runs for span in self.ask(SpansOf(run)))
        return frozenset(run for run, span in steps if "tool" in span.schema_name and asked.path in span.payload)


@found_by(ANSWERED)
class RunSumsCountCancelledSpans(Capable):
    def run_sums(self, asked: RunSums) -> Any:
        ended = {run: [span._replace(status="complete") for span in self.ask(SpansOf(run))] for run in asked.runs}
        return [each for run, spans in ended.items() for each in summed(run, spans)]


@found_by(ANSWERED)
class SearchesFindTheOldestFirst(Capable):
    def search(self, asked: Search) -> Any:
        found, total = row_by_row.answer(self, asked)
        return found[::-1], total


@found_by(ANSWERED)
class SearchesFindRepeatedTexts(Capable):
    def search(self, asked: Search) -> Any:
        matcher = Matcher(asked.words)
        rows: Any = self.ask(Query("agent_span", descending=True)).rows
        spans = [row for row in rows if matcher.matches(row)]
        return [FoundSpan(span, 0) for span in spans[asked.offset : asked.offset + asked.limit]], len(spans)


@found_by(ANSWERED)
class SearchesCountNoRepeats(Capable):
    def search(self, asked: Search) -> Any:
        found, total = row_by_row.answer(self, asked)
        return [one._replace(repeats=0) for one in found], total


@found_by("test_reading_waits_no_longer_than_it_may")
class ReadsWaitForEver(Capable):
    def wait_at_most(self, asked: WaitAtMost) -> None:
        self.wait_s = 600


@found_by("test_a_closed_storage_answers_no_question")
class WaitsWhenItIsClosed(Capable):
    def wait_at_most(self, asked: WaitAtMost) -> None:
        self.wait_s = asked.wait_s


@found_by("test_a_closed_storage_answers_no_question")
class AnswersWhenItIsClosed(SQLiteStorage):
    def ask(self, question: Any) -> Any:
        if not isinstance(question, Select):
            return super().ask(question)
        connection = sqlite3.connect(self.path)
        try:
            return Answer([], connection.execute(question.query, question.values).fetchall())
        finally:
            connection.close()


@found_by("test_a_sound_storage_has_no_problems")
class FindsDamageEverywhere(SQLiteStorage):
    def ask(self, question: Any) -> Any:
        return ["something is wrong"] if isinstance(question, Damage) else super().ask(question)


@found_by("test_damage_is_found")
class FindsNoDamage(SQLiteStorage):
    def ask(self, question: Any) -> Any:
        return [] if isinstance(question, Damage) else super().ask(question)


@found_by("test_a_file_grows_and_shrinks")
class NeverShrinks(SQLiteStorage):
    def ask(self, question: Any) -> Any:
        return None if isinstance(question, Compact) else super().ask(question)


@found_by("test_a_backup_has_everything_of_its_moment")
class BacksUpNothing(SQLiteStorage):
    def ask(self, question: Any) -> Any:
        if not isinstance(question, BackUp):
            return super().ask(question)
        SQLiteStorage(question.path).close()
        return os.path.getsize(question.path)


@found_by("test_a_backup_overwrites_nothing")
class OverwritesWithABackup(SQLiteStorage):
    def ask(self, question: Any) -> Any:
        if isinstance(question, BackUp) and os.path.exists(question.path):
            os.unlink(question.path)
        return super().ask(question)


@found_by("test_sql_can_do_nothing_but_read")
class WritesBySql(SQLiteStorage):
    def ask(self, question: Any) -> Any:
        if not isinstance(question, Select):
            return super().ask(question)
        connection = sqlite3.connect(self.path)
        try:
            with connection:
                connection.execute(question.query, question.values)
        except (sqlite3.Error, sqlite3.Warning, sqlite3.ProgrammingError) as error:
            raise InvalidValue("query", str(error)) from None
        finally:
            connection.close()


@found_by("test_sql_reads_the_documented_tables_and_views")
class LosesTheNamesOfColumns(SQLiteStorage):
    def ask(self, question: Any) -> Any:
        answer: Any = super().ask(question)
        is_table = isinstance(question, Select)
        return answer._replace(columns=[str(number) for number, _ in enumerate(answer.columns)]) if is_table else answer


@found_by("test_sql_ends_in_time_and_after_a_number_of_rows")
class ReadsEachRowBySql(SQLiteStorage):
    def ask(self, question: Any) -> Any:
        if isinstance(question, Select):
            question = Select(question.query, question.values, question.limit_s)
        return super().ask(question)


@found_by("test_journals_are_looked_at_before_each_read")
class NeverLooksIntoJournals(SQLiteStorage):
    def seeing(self, look: Any, journals: Any = None) -> Any:
        return super().seeing(lambda: None)


@found_by("test_what_is_applied_after_the_file_was_deleted_is_in_a_new_one")
class LooksSeldomForItsFile(SQLiteStorage):
    def __init__(self, *args: Any, **how: Any) -> None:
        super().__init__(*args, **how)
        self.look_seldom()


@found_by("test_another_process_opens_its_location")
class NeverWritesItsFile(JsonStorage):
    """Shares what it has within the process, so that only another process notices."""

    shared: ClassVar[dict[Path, MemoryStorage]] = {}

    def read(self) -> MemoryStorage:
        if self.closed:
            raise StorageError("the storage is closed; open it again")
        if self.path not in self.shared:
            self.shared[self.path] = MemoryStorage()
        return self.shared[self.path]

    def write(self, stored: MemoryStorage) -> None:
        self.path.touch()
        self.shared[self.path] = stored


@found_by("test_what_was_applied_is_there_in_another_instance_and_after_reopening")
class WritesWhenItIsClosed(NeverWritesItsFile):
    def read(self) -> MemoryStorage:
        if "own" not in vars(self):
            self.own = JsonStorage.read(self)
        if self.closed:
            raise StorageError("the storage is closed; open it again")
        return self.own

    def write(self, stored: MemoryStorage) -> None:
        self.own = stored
        if not self.path.exists():
            JsonStorage.write(self, stored)

    def close(self) -> None:
        if not self.closed:
            JsonStorage.write(self, self.read())
        super().close()


@found_by("test_what_was_applied_is_there_in_another_instance_and_after_reopening")
class HasAnotherAccountWhenOpenedAgain(JsonStorage):
    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self.own = new_account()

    def ask(self, question: Any) -> Any:
        self.read()
        return self.own if isinstance(question, Account) else super().ask(question)


@found_by("test_opened_to_be_read_only_it_writes_nothing")
class WritesWhereItMayOnlyRead(JsonStorage):
    def __init__(self, path: Path, read_only: bool, wait_s: float) -> None:
        super().__init__(path, False, wait_s)


@found_by("test_a_forked_child_goes_on")
class SharesNothingWithAChild(NeverWritesItsFile):
    """Claims a location, but what a forked child applies stays in the child."""


def open_mutant(location: Location, *, read_only: bool, wait_s: float) -> JsonStorage:
    """The entry point of `mutant://NAME/PATH`."""
    _, name, path = location.text.removeprefix("mutant:").split("/", 3)[1:]
    mutant = globals()[name]

    class Here(mutant):  # type: ignore[misc, valid-type]
        def capabilities(self) -> Capabilities:
            return Capabilities("mutant", location=location)

    opened: JsonStorage = Here(Path("/", path), read_only, wait_s)
    return opened
