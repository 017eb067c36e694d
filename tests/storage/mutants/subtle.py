"""Mutants of the memory backend whose one fault only the test that is named finds; all other tests pass."""

from typing import Any

from agentspan.model.changes import Move, Refused
from agentspan.model.rows import AgentSpanRow
from agentspan.storage.answers import Rows
from agentspan.storage.memory import MemoryStorage
from agentspan.storage.protocol import unique_of
from agentspan.storage.questions import Find, Query
from tests.storage.mutants.noting import found_by
from tests.storage.mutants.writing import Moves

SECOND = len("2026-01-01T00:00:00")
MEBIBYTE = 1 << 20


@found_by("test_times_are_compared_to_the_microsecond")
class ComparesTimesOfSpansByWholeSeconds(MemoryStorage):
    def _page(self, query: Any) -> Any:
        begin, end = (time and time[:SECOND] for time in (query.start_time, query.end_time))
        return super()._page(query.changed(start_time=begin, end_time=end))


@found_by("test_times_are_compared_to_the_microsecond")
class SortsByWholeSeconds(MemoryStorage):
    def _page(self, query: Any) -> Any:
        if query.order == "id":
            return super()._page(query)
        rows, total = super()._page(query.changed(order="id", offset=0, limit=None))
        values = {row.id: getattr(row, query.order) for row in rows}
        cut = {id: value[:SECOND] if isinstance(value, str) else value for id, value in values.items()}
        rows.sort(key=lambda row: (cut[row.id] is not None, cut[row.id], row.id), reverse=query.descending)
        end = None if query.limit is None else query.offset + query.limit
        return Rows(rows[query.offset : end], total)


@found_by("test_times_are_compared_to_the_microsecond")
class RemovesKeysByWholeSeconds(MemoryStorage):
    def _remove_keys(self, asked: Any) -> int:
        return super()._remove_keys(asked.changed(before=asked.before[:SECOND]))


@found_by("test_unique_columns_are_compared_as_they_are")
class FoldsUniqueNames(MemoryStorage):
    def _same(self, row: Any) -> Any:
        unique = unique_of(row)
        for other in self._rows.values():
            values = unique_of(other)
            if type(other) is type(row) and unique and values and self.folded(values) == self.folded(unique):
                return other
        return None

    def folded(self, values: Any) -> list[str]:
        return [value.casefold() for value in values]


@found_by("test_unique_columns_are_compared_as_they_are")
class StripsUniqueNames(FoldsUniqueNames):
    def folded(self, values: Any) -> list[str]:
        return [value.rstrip(" ") for value in values]


@found_by("test_a_move_frees_the_name_that_it_replaces")
class KeepsTheOldNameTaken(MemoryStorage):
    def _move(self, move: Any, late: Any) -> Any:
        before = self._rows.get(move.id)
        refused = super()._move(move, late)
        self.__dict__.setdefault("names", []).append(self.taken(before, move.id))
        return refused

    def taken(self, before: Any, id: str) -> Any:
        """Return the row whose name stays taken."""
        return before

    def _same(self, row: Any) -> Any:
        names = (each for each in self.__dict__.get("names", ()) if type(each) is type(row))
        return super()._same(row) or next((each for each in names if unique_of(each) == unique_of(row)), None)


@found_by("test_a_refused_unit_renames_nothing")
class KeepsTheNewNameOfARefusedUnit(KeepsTheOldNameTaken):
    def taken(self, before: Any, id: str) -> Any:
        return self._rows.get(id)


@found_by("test_a_refused_unit_leaves_spans_with_their_agent")
class KeepsTheNewAgentOfTheSpansOfARefusedUnit(MemoryStorage):
    def _apply(self, unit: Any) -> Any:
        outcome = super()._apply(unit)
        if isinstance(outcome, Refused):
            for move in unit.changes[:-1]:
                if isinstance(move, Move) and "agent_id" in move.set:
                    for span in self._spans_by_id(move.id):
                        self._rows[span.id] = span._replace(agent_id=str(move.set["agent_id"]))
        return outcome


@found_by("test_all_violations_of_a_move_are_kept")
class KeepsTheFirstViolationOfAMove(Moves):
    def other(self, move: Any) -> Any:
        return move._replace(violations=move.violations[:1])


class Stored(MemoryStorage):
    """Changes the payloads that it stores."""

    def kept(self, text: str) -> str:
        raise NotImplementedError

    def _put(self, put: Any, late: Any) -> Any:
        if isinstance(put.row, AgentSpanRow):
            result = put.row.result_payload
            row = put.row._replace(
                payload=self.kept(put.row.payload), result_payload=None if result is None else self.kept(result)
            )
            put = put._replace(row=row)
        return super()._put(put, late)

    def _move(self, move: Any, late: Any) -> Any:
        texts = {
            column: self.kept(value)
            for column, value in move.set.items()
            if column in ("payload", "result_payload") and value is not None
        }
        return super()._move(move._replace(set={**move.set, **texts}), late)


@found_by("test_a_payload_of_megabytes_comes_back_whole")
class CutsPayloadsAtAMebibyte(Stored):
    def kept(self, text: str) -> str:
        return text[:MEBIBYTE]


@found_by("test_a_text_that_is_no_unicode_is_stored_or_refused_with_all_of_its_call")
class LosesLoneSurrogates(Stored):
    def kept(self, text: str) -> str:
        return text.encode(errors="ignore").decode()


@found_by("test_an_escaped_surrogate_in_a_payload_stays_as_it_was")
class LosesEscapedSurrogates(Stored):
    def kept(self, text: str) -> str:
        return text.replace("\\ud83d", "") if "\\ude00" not in text else text


@found_by("test_a_long_run_is_iterated_to_its_end")
class IteratesOverAThousandSpans(MemoryStorage):
    def _spans(self, asked: Any) -> Any:
        return iter([*super()._spans(asked)][:1000])


@found_by("test_spans_are_iterated_in_one_snapshot")
class IteratesInPages(MemoryStorage):
    def _spans(self, asked: Any) -> Any:
        query = Query("agent_span", {"agent_instance_id": asked.instance_id}, limit=500)
        while rows := self.ask(query).rows:
            yield from rows
            query = query.changed(after=rows[-1].id)


@found_by("test_a_group_that_is_interrupted_is_taken_back")
class CommitsAGroupThatWasInterrupted(MemoryStorage):
    def group(self, work: Any, wait_s: float) -> Any:
        interrupts: list[BaseException] = []

        def committed(storage: Any) -> Any:
            try:
                return work(storage)
            except Exception:
                raise
            except BaseException as raised:
                interrupts.append(raised)

        done = super().group(committed, wait_s)
        if interrupts:
            raise interrupts[0]
        return done


FIXED_S = 0.5


@found_by("test_each_writer_waits_as_long_as_its_caller_says")
class ApplyIgnoresWaitS(MemoryStorage):
    def apply(self, units: Any, *, stop_at_refusal: bool = False, wait_s: float = 5.0) -> Any:
        return super().apply(units, stop_at_refusal=stop_at_refusal, wait_s=FIXED_S)


@found_by("test_each_writer_waits_as_long_as_its_caller_says")
class GroupsIgnoreWaitS(MemoryStorage):
    def group(self, work: Any, wait_s: float) -> Any:
        return super().group(work, FIXED_S)


@found_by("test_each_writer_waits_as_long_as_its_caller_says")
class RemovalIgnoresWaitS(MemoryStorage):
    def _remove_runs(self, asked: Any) -> Any:
        return super()._remove_runs(asked.changed(wait_s=FIXED_S))


@found_by("test_an_id_is_found_as_it_is_written")
class FindsIdsInAnyCase(MemoryStorage):
    def _found(self, asked: Any) -> Any:
        found = super()._found(Find(*map(str.lower, asked.ids), key=asked.key, instance_id=asked.instance_id))
        rows = {id: found.rows[id.lower()] for id in asked.ids if id.lower() in found.rows}
        return found._replace(rows={**found.rows, **rows} if asked.key else rows)


@found_by("test_an_id_is_found_as_it_is_written")
class MovesIdsInAnyCase(Moves):
    def other(self, move: Any) -> Any:
        return move._replace(id=move.id.lower())


@found_by("test_an_id_is_found_as_it_is_written")
class FindsPrefixesInAnyCase(MemoryStorage):
    def _page(self, query: Any) -> Any:
        return super()._page(query.changed(prefix=query.prefix.lower()))
