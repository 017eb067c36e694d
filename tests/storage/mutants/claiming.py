"""Mutants that claim a capability, and do not do what it promises."""

import os
import sqlite3
from dataclasses import replace
from itertools import chain
from pathlib import Path
from typing import Any, ClassVar

from agentspan.analysis.failures import failure_sums, step_uses, sums_of, uses_of
from agentspan.analysis.runs import find_runs, run_briefs
from agentspan.analysis.stats import stats
from agentspan.errors import InvalidValue, StorageError
from agentspan.model.changes import PutSpans, Unit
from agentspan.model.rows import AgentSpanRow
from agentspan.storage.analytics import FoundSpan
from agentspan.storage.first_said import search_run
from agentspan.storage.location import Location
from agentspan.storage.memory import MemoryStorage
from agentspan.storage.new_account import new_account
from agentspan.storage.protocol import Capabilities, Query, SpanSum
from agentspan.storage.run_sums import run_sums, summed
from agentspan.storage.sqlite import SQLiteStorage
from agentspan.storage.sqlite.sql_shell import ask
from agentspan.storage.sqlite.upkeep import Upkeep
from agentspan.storage.sums import added_up
from agentspan.storage.tokenizing import Matcher
from agentspan.testing.contract.answering import RowByRow, outlined
from tests.storage.json_storage import JsonStorage
from tests.storage.mutants.noting import found_by
from tests.storage.mutants.scoring import AnswersAboutScores


@found_by("test_a_group_sees_what_it_wrote_and_is_whole_or_nothing")
class GroupsAreNotTakenBack(MemoryStorage):
    def group(self, work: Any, wait_s: float) -> Any:
        with self._writing(wait_s):
            return work(self)


@found_by("test_nobody_reads_what_a_group_takes_back")
class GroupsAreReadWhileTheyWrite(MemoryStorage):
    def group(self, work: Any, wait_s: float) -> Any:
        self._undo = []
        try:
            return work(self)
        except BaseException:
            for step in reversed(self._undo):
                step()
            raise
        finally:
            self._undo = None


class RemovesMore(MemoryStorage):
    """Completes rows before it removes runs, which takes the guard away."""

    def guards(self, id: str) -> list[str]:
        raise NotImplementedError

    def remove_runs(self, ids: Any, wait_s: float) -> Any:
        for id in (each for run in ids for each in self.guards(run) if each in self._rows):
            self._rows[id] = self._rows[id]._replace(status="complete")  # type: ignore[call-arg]
        return super().remove_runs(ids, wait_s)


@found_by("test_a_run_with_anything_open_in_it_is_not_removed")
class RemovesOpenRuns(RemovesMore):
    def guards(self, id: str) -> list[str]:
        return [id]


@found_by("test_a_run_with_anything_open_in_it_is_not_removed")
class RemovesRunsWithOpenSpans(RemovesMore):
    def guards(self, id: str) -> list[str]:
        return [*self._by_instance.get(id, ())]


@found_by("test_runs_are_removed_with_all_that_belongs_to_them")
class LeavesViolationsOfRemovedRuns(MemoryStorage):
    def remove_runs(self, ids: Any, wait_s: float) -> Any:
        before = dict(self._violations)
        removed = super().remove_runs(ids, wait_s)
        self._violations = before
        return removed


@found_by("test_old_keys_are_removed")
class RemovesKeysOfTheTimeItself(MemoryStorage):
    def remove_keys(self, before: str, wait_s: float, *, dry_run: bool = False) -> Any:
        return super().remove_keys(before + "~", wait_s, dry_run=dry_run)


@found_by("test_old_keys_are_removed")
class RemovesKeysInADryRun(MemoryStorage):
    def remove_keys(self, before: str, wait_s: float, *, dry_run: bool = False) -> Any:
        return super().remove_keys(before, wait_s)


@found_by("test_what_a_closed_storage_claims_says_that_it_is_closed")
class RemovesKeysWhenItIsClosed(MemoryStorage):
    def remove_keys(self, before: str, wait_s: float, *, dry_run: bool = False) -> Any:
        return 0 if self._closed else super().remove_keys(before, wait_s, dry_run=dry_run)


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
    """The memory backend with outlines, analytics and waiting, all of them right."""

    wait_s = 10.0

    def capabilities(self) -> Capabilities:
        return super().capabilities()._replace(outlines=self, sums=self, analytics=self, waiting=self)

    def outlines(
        self, instance_id: str, *, after: str = "", limit: int | None = None, since: str | None = None
    ) -> list[AgentSpanRow]:
        spans = [span for span in self.iter_spans(instance_id) if span.id > after and span.updated_at >= (since or "")]
        return [outlined(span) for span in spans[:limit]]

    def sums(self, instance_id: str) -> list[SpanSum]:
        return added_up(self.iter_spans(instance_id))

    def find_runs(self, filter: Any, **more: Any) -> Any:
        return find_runs(RowByRow(self), filter, **more)

    def run_briefs(self, filter: Any, **more: Any) -> Any:
        return run_briefs(RowByRow(self), filter, **more)

    def span_stats(self, **more: Any) -> Any:
        return stats(RowByRow(self), **more)

    def run_sums(self, runs: Any, progress: Any = None) -> Any:
        return run_sums(RowByRow(self), runs)

    def search_spans(self, words: Any, *, limit: int, offset: int, progress: Any, runs: Any = None) -> Any:
        matcher = Matcher(words)
        ids = [run.id for run in self.page(Query("agent_instance")).rows if runs is None or run.id in runs]
        runs = [search_run(self.iter_spans(id), matcher, 1000) for id in ids]
        found = sorted(chain(*(spans for spans, _ in runs)), key=lambda one: one.span.id, reverse=True)
        return found[offset : offset + limit], sum(number for _, number in runs)

    def failure_sums(self, run_ids: Any, **more: Any) -> Any:
        return failure_sums(RowByRow(self), run_ids, **more)

    def step_uses(self, run_ids: Any, **more: Any) -> Any:
        return step_uses(RowByRow(self), run_ids, **more)

    def wait_at_most(self, wait_s: float) -> None:
        super()._open()
        self.wait_s = wait_s

    def _open(self) -> Any:
        return MemoryStorage._writing(_Opened(super()._open()), self.wait_s)  # type: ignore[arg-type]

    def _writing(self, wait_s: float) -> Any:
        return MemoryStorage._writing(_Opened(super()._open()), wait_s)  # type: ignore[arg-type]


class _Opened:
    def __init__(self, lock: Any) -> None:
        self._open = lambda: lock


@found_by("test_sums_of_a_run_are_those_of_its_spans")
class SumsCountAggregates(Capable):
    def sums(self, instance_id: str) -> list[SpanSum]:
        return added_up(span._replace(is_aggregate=0) for span in self.iter_spans(instance_id))


@found_by("test_outlines_are_the_spans_without_most_of_their_payloads")
class OutlinesAreWhole(Capable):
    def outlines(self, instance_id: str, **more: Any) -> Any:
        kept = {span.id for span in super().outlines(instance_id, **more)}
        return [span for span in self.iter_spans(instance_id) if span.id in kept]


@found_by("test_outlines_are_the_spans_without_most_of_their_payloads")
class OutlinesBeginTooEarly(Capable):
    def outlines(self, instance_id: str, *, after: str = "", **more: Any) -> Any:
        return super().outlines(instance_id, after=after[:-1], **more)


@found_by("test_analytics_answer_as_reading_row_by_row_does")
class AnalyticsAreOld(Capable):
    def find_runs(self, filter: Any, **more: Any) -> Any:
        known = self.__dict__.setdefault("known", {})
        return known.setdefault((filter, *more.items()), super().find_runs(filter, **more))


@found_by("test_analytics_answer_as_reading_row_by_row_does")
class AnalyticsLeaveOutCancelledSpans(Capable):
    def span_stats(self, **more: Any) -> Any:
        return [replace(stat, count=stat.count - stat.cancelled) for stat in super().span_stats(**more)]


@found_by("test_analytics_answer_as_reading_row_by_row_does")
class FailuresThatPassOnAnotherOneCount(Capable):
    def failure_sums(self, run_ids: Any, **more: Any) -> Any:
        apart = {run: [span._replace(parent_span_id=None) for span in self.iter_spans(run)] for run in run_ids}
        return [each for run, spans in apart.items() for each in sums_of(run, spans)]


@found_by("test_analytics_answer_as_reading_row_by_row_does")
class FailuresAreOfAllRuns(Capable):
    def failure_sums(self, run_ids: Any, **more: Any) -> Any:
        return super().failure_sums([run.id for run in self.page(Query("agent_instance")).rows], **more)


@found_by("test_analytics_answer_as_reading_row_by_row_does")
class StepsThatAreOpenAreUsed(Capable):
    def step_uses(self, run_ids: Any, **more: Any) -> Any:
        ended = [[span._replace(status="complete") for span in self.iter_spans(run)] for run in run_ids]
        return [use for run, spans in zip(run_ids, ended, strict=True) for use in uses_of(run, spans)]


@found_by("test_analytics_answer_as_reading_row_by_row_does")
class RunSumsCountCancelledSpans(Capable):
    def run_sums(self, runs: Any, progress: Any = None) -> Any:
        return [
            each
            for run in runs
            for each in summed(run, (span._replace(status="complete") for span in self.iter_spans(run)))
        ]


@found_by("test_analytics_answer_as_reading_row_by_row_does")
class SearchesFindTheOldestFirst(Capable):
    def search_spans(self, words: Any, **more: Any) -> Any:
        found, total = super().search_spans(words, **more)
        return found[::-1], total


@found_by("test_analytics_answer_as_reading_row_by_row_does")
class SearchesFindRepeatedTexts(Capable):
    def search_spans(self, words: Any, *, limit: int, offset: int, progress: Any, runs: Any = None) -> Any:
        matcher = Matcher(words)
        spans = [row for row in self.page(Query("agent_span", descending=True)).rows if matcher.matches(row)]  # type: ignore[arg-type]
        return [FoundSpan(span, 0) for span in spans[offset : offset + limit]], len(spans)  # type: ignore[arg-type]


@found_by("test_analytics_answer_as_reading_row_by_row_does")
class SearchesCountNoRepeats(Capable):
    def search_spans(self, words: Any, **more: Any) -> Any:
        found, total = super().search_spans(words, **more)
        return [one._replace(repeats=0) for one in found], total


@found_by("test_analytics_answer_as_reading_row_by_row_does")
class SearchesAnswerNothing(Capable):
    def search_spans(self, words: Any, **more: Any) -> Any:
        return None


@found_by("test_reading_waits_no_longer_than_it_may")
class ReadsWaitForEver(Capable):
    def wait_at_most(self, wait_s: float) -> None:
        self.wait_s = 600


@found_by("test_what_a_closed_storage_claims_says_that_it_is_closed")
class WaitsWhenItIsClosed(Capable):
    def wait_at_most(self, wait_s: float) -> None:
        self.wait_s = wait_s


@found_by("test_what_a_closed_storage_claims_says_that_it_is_closed")
class AnswersWhenItIsClosed(SQLiteStorage):
    def select(self, query: str, values: Any = ()) -> Any:
        return ask(self.path, query, values)


@found_by("test_a_sound_storage_has_no_problems")
class FindsDamageEverywhere(SQLiteStorage):
    def check(self) -> list[str]:
        return ["something is wrong"]


@found_by("test_damage_is_found")
class FindsNoDamage(SQLiteStorage):
    def check(self) -> list[str]:
        return []


@found_by("test_a_file_grows_and_shrinks")
class NeverShrinks(SQLiteStorage):
    def capabilities(self) -> Capabilities:
        return super().capabilities()._replace(file=NeverCompacts(self._connections, self._parts))


class NeverCompacts(Upkeep):
    def compact(self, wait_s: float) -> None:
        pass


@found_by("test_a_backup_has_everything_of_its_moment")
class BacksUpNothing(SQLiteStorage):
    def backup(self, path: Any) -> int:
        SQLiteStorage(path).close()
        return os.path.getsize(path)


@found_by("test_a_backup_overwrites_nothing")
class OverwritesWithABackup(SQLiteStorage):
    def backup(self, path: Any) -> int:
        if os.path.exists(path):
            os.unlink(path)
        return super().backup(path)


@found_by("test_sql_can_do_nothing_but_read")
class WritesBySql(SQLiteStorage):
    def select(self, query: str, values: Any = ()) -> Any:
        connection = sqlite3.connect(self.path)
        try:
            with connection:
                connection.execute(query, values)
        except (sqlite3.Error, sqlite3.Warning, sqlite3.ProgrammingError) as error:
            raise InvalidValue("query", str(error)) from None
        finally:
            connection.close()


@found_by("test_sql_reads_the_documented_tables_and_views")
class LosesTheNamesOfColumns(SQLiteStorage):
    def select(self, query: str, values: Any = ()) -> Any:
        answer = super().select(query, values)
        return answer._replace(columns=[str(number) for number, _ in enumerate(answer.columns)])


@found_by("test_journals_are_looked_at_before_each_read")
class NeverLooksIntoJournals(SQLiteStorage):
    def seeing(self, look: Any) -> Any:
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

    def account(self) -> Any:
        self.read()
        return self.own


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
