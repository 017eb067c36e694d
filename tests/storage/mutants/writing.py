"""Mutants of the memory backend that apply units wrongly."""

import time
from contextlib import nullcontext
from typing import Any

from agentspan.model.changes import Applied, Over, Put, Refused, Replayed
from agentspan.model.rows import TYPE_OF, AgentSpanRow
from agentspan.storage import protocol
from agentspan.storage.answers import KeyRow
from agentspan.storage.memory import MemoryStorage
from agentspan.storage.protocol import unique_of
from tests.storage.mutants.noting import found_by


class Outcomes(MemoryStorage):
    """Changes the outcome of each unit."""

    def told(self, outcome: Any) -> Any:
        raise NotImplementedError

    def _apply(self, unit: Any) -> Any:
        return self.told(super()._apply(unit))


@found_by("test_a_replay_says_that_the_run_was_terminated")
class ReplaysWithoutTerminated(Outcomes):
    def told(self, outcome: Any) -> Any:
        return outcome._replace(terminated=None) if isinstance(outcome, Replayed) else outcome


@found_by("test_a_subject_comes_back_as_it_is_afterwards")
class ReturnsNoSubject(Outcomes):
    def told(self, outcome: Any) -> Any:
        return outcome._replace(row=None) if isinstance(outcome, Applied) else outcome


@found_by("test_a_span_put_in_a_terminated_instance_is_stored_and_says_so")
class TellsNoTermination(Outcomes):
    def told(self, outcome: Any) -> Any:
        return Applied() if isinstance(outcome, Applied) and outcome.row is None else outcome


@found_by("test_each_column_of_a_span_is_set_by_a_move_and_by_many_puts_at_once")
class ForgetsAColumnThatFewSpansHave(MemoryStorage):
    def _move(self, move: Any, late: Any) -> Any:
        known = {name: value for name, value in move.set.items() if name != "response_id"}
        return super()._move(move._replace(set=known), late)


@found_by("test_units_of_one_call_see_the_ones_before")
class StopsAtEachRefusal(MemoryStorage):
    def apply(self, units: Any, *, stop_at_refusal: bool = False, wait_s: float = 5.0) -> Any:
        return super().apply(units, stop_at_refusal=True, wait_s=wait_s)


@found_by("test_runs_of_one_call_have_each_an_outcome_of_their_own")
class RefusesAllRunsOfACall(MemoryStorage):
    def apply(self, units: Any, *, stop_at_refusal: bool = False, wait_s: float = 5.0) -> Any:
        outcomes = super().apply(units, stop_at_refusal=stop_at_refusal, wait_s=wait_s)
        refused = next((outcome for outcome in outcomes if isinstance(outcome, Refused)), None)
        return outcomes if refused is None else [refused] * len(outcomes)


@found_by("test_runs_of_one_call_end_each_by_itself")
class EndsAllRunsOfACallAsTheFirst(MemoryStorage):
    def apply(self, units: Any, *, stop_at_refusal: bool = False, wait_s: float = 5.0) -> Any:
        self.first: Any = None
        return super().apply(units, stop_at_refusal=stop_at_refusal, wait_s=wait_s)

    def _move(self, move: Any, late: Any) -> Any:
        if move.type == "agent_instance":
            self.first = self.first or move.set
            move = move._replace(set=self.first)
        return super()._move(move, late)


@found_by("test_stop_at_refusal_leaves_the_rest_untried")
class NeverStopsAtRefusal(MemoryStorage):
    def apply(self, units: Any, *, stop_at_refusal: bool = False, wait_s: float = 5.0) -> Any:
        return super().apply(units, wait_s=wait_s)


@found_by("test_a_writer_waits_for_another_one_as_long_as_it_may")
class NeverWaits(MemoryStorage):
    def apply(self, units: Any, *, stop_at_refusal: bool = False, wait_s: float = 5.0) -> Any:
        return super().apply(units, stop_at_refusal=stop_at_refusal, wait_s=0)


@found_by("test_a_writer_waits_for_another_one_as_long_as_it_may")
class WaitsForEver(MemoryStorage):
    def apply(self, units: Any, *, stop_at_refusal: bool = False, wait_s: float = 5.0) -> Any:
        return super().apply(units, stop_at_refusal=stop_at_refusal, wait_s=600)


@found_by("test_a_writer_waits_for_another_one_as_long_as_it_may")
class GroupsWaitForEver(MemoryStorage):
    def group(self, work: Any, wait_s: float) -> Any:
        return super().group(work, 600)


@found_by("test_of_many_threads_one_wins")
class HasNoLock(MemoryStorage):
    def _open(self) -> Any:
        return nullcontext()

    def _writing(self, wait_s: float) -> Any:
        return nullcontext()

    def _move(self, move: Any, late: Any) -> Any:
        moved = protocol.moved(move, self._rows.get(move.id))
        time.sleep(0.0005)  # as where rows lie elsewhere: between reading and writing, other threads run
        if isinstance(moved, Refused):
            return moved
        self._rows[move.id] = moved.row
        return None


@found_by("test_a_unit_is_all_or_nothing")
class LeavesOutTheLastChange(MemoryStorage):
    def _apply(self, unit: Any) -> Any:
        return super()._apply(unit._replace(changes=unit.changes[:-1]) if len(unit.changes) > 1 else unit)


@found_by("test_a_unit_is_all_or_nothing")
class WritesAlthoughRefused(MemoryStorage):
    def _restoring(self) -> Any:
        return lambda: None


@found_by("test_a_key_is_stored_with_its_changes")
class StoresTheKeyOfARefusedUnit(MemoryStorage):
    def _apply(self, unit: Any) -> Any:
        outcome, key = super()._apply(unit), unit.key
        if key is not None and isinstance(outcome, Refused):
            self._keys.setdefault(
                (key.operation, key.key),
                KeyRow(key.operation, key.key, key.request_hash, unit.subject, key.inserted_at),
            )
        return outcome


@found_by("test_the_same_key_and_request_replays")
class StoresNoKey(MemoryStorage):
    def _apply(self, unit: Any) -> Any:
        return super()._apply(unit._replace(key=None))


@found_by("test_the_same_key_for_another_request_is_taken")
class ReplaysAnotherRequest(MemoryStorage):
    def _apply(self, unit: Any) -> Any:
        return super()._apply(unit if unit.key is None else unit._replace(key=unit.key._replace(request_hash="")))


@found_by("test_the_same_key_for_another_request_is_taken")
class SharesKeysBetweenOperations(MemoryStorage):
    def _apply(self, unit: Any) -> Any:
        return super()._apply(unit if unit.key is None else unit._replace(key=unit.key._replace(operation="")))


@found_by("test_a_key_whose_resource_is_gone_is_refused")
class AppliesAgainWhatIsGone(MemoryStorage):
    def _apply(self, unit: Any) -> Any:
        outcome = super()._apply(unit)
        is_gone = unit.key is not None and outcome == Refused("missing")
        return super()._apply(unit._replace(key=None)) if is_gone else outcome


@found_by("test_an_id_that_any_type_uses_is_refused")
class OverwritesWithMintedIds(MemoryStorage):
    def _put(self, put: Any, late: Any) -> Any:
        if put.minted and put.row.id in self._rows:
            self._rows[put.row.id] = put.row
            return None
        return super()._put(put, late)


@found_by("test_unique_columns_refuse_a_second_row")
class HasNothingUnique(MemoryStorage):
    def _same(self, row: Any) -> Any:
        return None


@found_by("test_references_must_exist_and_have_the_type")
class IgnoresRefs(MemoryStorage):
    def _put(self, put: Any, late: Any) -> Any:
        return super()._put(put._replace(refs=()), late)


@found_by("test_a_parent_that_nobody_named_as_a_reference_may_come_later")
class WantsParentsFirst(MemoryStorage):
    def _put(self, put: Any, late: Any) -> Any:
        parent = getattr(put.row, "parent_span_id", None)
        return super()._put(put, late) if parent is None or parent in self._rows else Refused("missing")


@found_by("test_any_text_comes_back_as_it_was")
class CutsTextsAtLineBreaks(MemoryStorage):
    def _put(self, put: Any, late: Any) -> Any:
        if isinstance(put.row, AgentSpanRow) and put.row.summary is not None:
            put = put._replace(row=put.row._replace(summary=put.row.summary.split("\r")[0]))
        return super()._put(put, late)


@found_by("test_a_text_that_is_no_unicode_is_stored_or_refused_with_all_of_its_call")
class LetsTheDriversErrorOut(MemoryStorage):
    def _put(self, put: Any, late: Any) -> Any:
        (getattr(put.row, "summary", None) or "").encode()
        return super()._put(put, late)


@found_by("test_a_span_put_in_a_terminated_instance_is_stored_and_says_so")
class RefusesLateSpans(MemoryStorage):
    def _put(self, put: Any, late: Any) -> Any:
        return Refused("status") if self._terminated(put.row) is not None else super()._put(put, late)


@found_by("test_spans_are_put_together_or_none_of_them")
class PutsSomeOfTheSpans(MemoryStorage):
    def _put_spans(self, put: Any, late: Any) -> Any:
        refused = [self._put(Put(row), late) for row in put.rows]
        return next(filter(None, refused), None)

    def _restoring(self) -> Any:
        return lambda: None


@found_by("test_spans_are_put_together")
class LosesViolationsOfSpansTogether(MemoryStorage):
    def _put_spans(self, put: Any, late: Any) -> Any:
        return super()._put_spans(put._replace(violations=()), late)


@found_by("test_spans_are_put_together_in_a_terminated_instance_too")
class TellsNoTerminationOfSpansTogether(MemoryStorage):
    def _put_spans(self, put: Any, late: Any) -> Any:
        return super()._put_spans(put, [])


@found_by("test_violations_are_kept_with_their_span")
class LosesViolations(MemoryStorage):
    def _add_violations(self, id: str, violations: Any) -> None:
        pass


@found_by("test_violations_are_kept_with_their_span")
class KeepsViolationsOfTheOldPayload(MemoryStorage):
    def _move(self, move: Any, late: Any) -> Any:
        before = self._violations.get(move.id, ())
        refused = super()._move(move, late)
        if refused is None:
            self._violations[move.id] = (*before, *move.violations)
        return refused


class Moves(MemoryStorage):
    """Applies another move than it should."""

    def other(self, move: Any) -> Any:
        raise NotImplementedError

    def _move(self, move: Any, late: Any) -> Any:
        return super()._move(self.other(move), late)


@found_by("test_a_move_sets_values_when_its_guard_holds")
class SetsTheStatusOnly(Moves):
    def other(self, move: Any) -> Any:
        return move._replace(set={column: move.set[column] for column in ("status",) if column in move.set})


@found_by("test_an_end_may_set_what_was_learnt_by_then")
class KeepsTheTypeOfTheBegin(Moves):
    def other(self, move: Any) -> Any:
        return move._replace(set={column: value for column, value in move.set.items() if column != "schema_name"})


@found_by("test_a_run_takes_its_spans_to_another_agent")
class LeavesSpansWithTheOldAgent(MemoryStorage):
    def _move(self, move: Any, late: Any) -> Any:
        before = {id: row for id, row in self._rows.items() if isinstance(row, AgentSpanRow)}
        refused = super()._move(move, late)
        if move.type == "agent_instance":
            self._rows.update(before)
        return refused


@found_by("test_a_move_is_refused_when_the_status_forbids_it")
class MovesFromAnyStatus(Moves):
    def other(self, move: Any) -> Any:
        return move._replace(leaves=frozenset())


@found_by("test_a_move_of_what_is_not_there_is_refused")
class MovesAnyType(Moves):
    def other(self, move: Any) -> Any:
        row = self._rows.get(move.id)
        return move if row is None else move._replace(type=TYPE_OF[type(row)])


@found_by("test_a_move_can_ask_that_columns_are_as_they_were")
class IgnoresUnchanged(Moves):
    def other(self, move: Any) -> Any:
        return move._replace(unchanged={})


@found_by("test_an_end_replaces_a_close_once")
class NeverReplacesAClose(Moves):
    def other(self, move: Any) -> Any:
        return move._replace(over=())


@found_by("test_an_end_replaces_a_close_once")
class ForgetsThatItWasClosed(Moves):
    def other(self, move: Any) -> Any:
        return move._replace(over=tuple(over._replace(set={**over.set, "closed_by": None}) for over in move.over))


@found_by("test_an_end_replaces_a_close_once")
class ReplacesACloseOfAnyStatus(Moves):
    def other(self, move: Any) -> Any:
        anything = frozenset({"complete", "failed", "cancelled"})
        return move._replace(over=tuple(over._replace(leaves=anything) for over in move.over))


@found_by("test_what_replaces_a_close_may_add_to_the_values_of_the_end")
class IgnoresThatOverAdds(Moves):
    def other(self, move: Any) -> Any:
        return move._replace(over=tuple(Over(over.leaves, over.set) for over in move.over))


@found_by("test_random_units_have_the_outcomes_that_they_have_in_memory")
class ReplacesARunThatItsProgramEnded(Moves):
    def other(self, move: Any) -> Any:
        row: Any = self._rows.get(move.id)
        if move.over and row is not None and row.closed_by is not None and row.ended_late:
            self._rows[move.id] = row._replace(ended_late=None)
        return move


@found_by("test_only_what_nothing_refers_to_is_removed")
class RemovesWhatOthersReferTo(MemoryStorage):
    def _remove(self, remove: Any) -> Any:
        row = self._rows.get(remove.id)
        if row is None or TYPE_OF[type(row)] != remove.type:
            return Refused("missing", row)
        del self._rows[remove.id]
        return None


@found_by("test_only_what_nothing_refers_to_is_removed")
class KeepsTheNameOfWhatIsRemoved(MemoryStorage):
    def _remove(self, remove: Any) -> Any:
        row = self._rows.get(remove.id)
        refused = super()._remove(remove)
        if refused is None and row is not None:
            self.__dict__.setdefault("removed", []).append(row)
        return refused

    def _same(self, row: Any) -> Any:
        removed = (each for each in self.__dict__.get("removed", ()) if type(each) is type(row))
        return super()._same(row) or next((each for each in removed if unique_of(each) == unique_of(row)), None)
