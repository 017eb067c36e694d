"""The memory backend with partitions, and mutants of it."""

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any, ClassVar

from agentspan import clock
from agentspan.model.changes import OPEN
from agentspan.model.rows import AgentInstanceRow
from agentspan.model.spans import is_guess
from agentspan.storage.postgres import partitions
from agentspan.storage.postgres.partitions import Range, bound_at, time_of
from agentspan.storage.questions import (
    DropPartitions,
    MakePartitions,
    MissingPartitions,
    Partitions,
    Query,
    RemoveRuns,
    SpansOf,
    TablesState,
)
from agentspan.storage.sums import Dropped, Made, Partition, State
from tests.storage.mutants.noting import Claiming, Own, found_by


class Parted(Claiming):
    """Its partitions are ranges; which runs are in one is computed."""

    own: ClassVar[Own] = {
        Partitions: "partitions",
        TablesState: "state",
        MissingPartitions: "missing",
        MakePartitions: "make",
        DropPartitions: "drop_old",
    }

    def ask(self, question: Any) -> Any:
        self._open()  # raises where it is closed
        return super().ask(question)

    def __init__(self) -> None:
        super().__init__()
        self.ranges: list[Range] = []

    def partitions(self, asked: Partitions) -> list[Partition]:
        def text(bound: str | None) -> str | None:
            at = time_of(bound or "")
            return None if at is None else clock.parse(at)

        found = [Partition("", text(each.start), text(each.end), False, 0, 0) for each in self.ranges]
        return [*found, Partition("", None, None, True, 0, 0)]

    def state(self, asked: TablesState) -> State:
        return State(1, {})

    def _missing(self, ahead: int, since: str | None = None) -> list[Range]:
        now = datetime.now(UTC)
        begin = now if since is None else clock.to_datetime(since)
        return [*partitions.missing(self.ranges, "month", since=begin, now=now, ahead=ahead)]

    def missing(self, asked: MissingPartitions) -> int:
        return len(self._missing(asked.ahead))

    def make(self, asked: MakePartitions) -> Made:
        made = self._missing(asked.ahead, asked.since)
        self.ranges = sorted([*self.ranges, *made])
        return Made([each.start or "" for each in made]) if made else Made([])

    def drop_old(self, asked: DropPartitions) -> Dropped:
        done = Dropped()
        for each in [each for each in self.ranges if (each.end or "") <= bound_at(datetime.now(UTC))]:
            runs = [run for run in self.ask(Query("agent_instance")).rows if (each.start or "") <= run.id < each.end]
            if all(self.may_go(run, asked.before, asked.is_dead) for run in runs):
                self.ranges.remove(each)
                runs_, spans = self.remove([run.id for run in runs])
                done = Dropped(done.partitions + 1, done.runs + runs_, done.spans + spans)
        return done

    def remove(self, ids: list[str]) -> tuple[int, int]:
        return self.ask(RemoveRuns(ids, 5.0))

    def may_go(self, run: AgentInstanceRow, before: str, is_dead: Callable[[str], bool]) -> bool:
        statuses = {run.status, *(span.status for span in self.ask(SpansOf(run.id)))}
        if statuses & OPEN or (run.finished_at or run.updated_at) >= before:
            return False
        return not is_guess(run) or run.writer_id is None or is_dead(run.writer_id)


@found_by("test_partitions_are_made_ahead_once")
class MakesPartitionsAgain(Parted):
    def _missing(self, ahead: int, since: str | None = None) -> list[Range]:
        self.ranges, before = [], self.ranges
        missing = super()._missing(ahead, since)
        self.ranges = before
        return missing


@found_by("test_an_old_partition_is_removed_with_all_that_belongs_to_its_runs")
class DropsSpansOnly(Parted):
    def remove(self, ids: list[str]) -> tuple[int, int]:
        spans = [span for id in ids for span in self.ask(SpansOf(id))]
        for span in spans:
            del self._rows[span.id]
        return len(ids), len(spans)


@found_by("test_a_partition_with_a_run_that_may_stay_is_not_removed")
class DropsRunsThatFinishedLate(Parted):
    def may_go(self, run: AgentInstanceRow, before: str, is_dead: Callable[[str], bool]) -> bool:
        return super().may_go(run, "~", is_dead)


@found_by("test_a_partition_with_a_run_that_may_stay_is_not_removed")
class DropsRunsOfLivingPrograms(Parted):
    def may_go(self, run: AgentInstanceRow, before: str, is_dead: Callable[[str], bool]) -> bool:
        return super().may_go(run, before, lambda id: is_dead(id) or True)
