"""Mutants of the memory backend that answer reads wrongly, or close, fork or are opened again wrongly."""

import os
import time
from contextlib import nullcontext
from typing import Any

from agentspan.model.rows import AgentSpanRow, instance_of
from agentspan.storage.answers import Rows
from agentspan.storage.location import memory
from agentspan.storage.memory import MemoryStorage
from agentspan.storage.protocol import Capabilities, new_account
from tests.storage.mutants.noting import found_by


@found_by("test_the_account_never_changes")
class HasAnotherAccountEachTime(MemoryStorage):
    def _account_row(self, asked: Any) -> Any:
        return new_account()


@found_by("test_the_account_is_a_row_like_others")
class DoesNotFindItsAccount(MemoryStorage):
    def _found(self, asked: Any) -> Any:
        found = super()._found(asked)
        return found._replace(rows={id: located for id, located in found.rows.items() if located[0] != "account"})


@found_by("test_a_closed_storage_answers_no_question")
class AnswersWhenClosed(MemoryStorage):
    def close(self) -> None:
        pass


@found_by("test_reads_are_whole_while_others_write")
class ReadsWithoutALock(MemoryStorage):
    def _open(self) -> Any:
        return nullcontext()

    def _writing(self, wait_s: float) -> Any:
        return super()._open()

    def _put(self, put: Any, late: Any) -> Any:
        refused = super()._put(put, late)
        time.sleep(0.0005)  # as where rows lie elsewhere: between two of them, other threads run
        return refused


@found_by("test_a_forked_child_goes_on")
class WorksInItsProcessOnly(MemoryStorage):
    def __init__(self) -> None:
        super().__init__()
        self.process = os.getpid()

    def _open(self) -> Any:
        assert os.getpid() == self.process
        return super()._open()


@found_by("test_what_was_applied_is_there_in_another_instance_and_after_reopening")
class ClaimsALocationAndKeepsNothing(MemoryStorage):
    def capabilities(self) -> Capabilities:
        return super().capabilities()._replace(location=memory())


class Found(MemoryStorage):
    """Changes what find returns."""

    def other(self, found: Any, ids: Any) -> Any:
        raise NotImplementedError

    def _found(self, asked: Any) -> Any:
        return self.other(super()._found(asked), asked.ids)


@found_by("test_what_is_put_is_found_with_its_type")
class FindsSpansAndRunsOnly(Found):
    def other(self, found: Any, ids: Any) -> Any:
        rows = {id: row for id, row in found.rows.items() if row[0] in ("agent_span", "agent_instance")}
        return found._replace(rows=rows)


@found_by("test_rows_are_found_in_one_snapshot_with_what_is_stored_under_a_key")
class FindsNoKey(Found):
    def other(self, found: Any, ids: Any) -> Any:
        return found._replace(key=None)


@found_by("test_rows_are_found_in_one_snapshot_with_what_is_stored_under_a_key")
class FindsNoRowOfAKey(Found):
    def other(self, found: Any, ids: Any) -> Any:
        return found._replace(rows={id: row for id, row in found.rows.items() if id in ids})


@found_by("test_rows_are_found_in_one_snapshot_with_what_is_stored_under_a_key")
class FindsNoTermination(Found):
    def other(self, found: Any, ids: Any) -> Any:
        return found._replace(terminated={})


@found_by("test_the_run_that_a_caller_names_changes_no_answer")
class FindsOnlyInTheRunThatIsNamed(MemoryStorage):
    def _found(self, asked: Any) -> Any:
        found = super()._found(asked)
        rows = {id: row for id, row in found.rows.items() if asked.instance_id in (None, instance_of(row[1]))}
        return found._replace(rows=rows)


@found_by("test_violations_of_many_spans_are_read_together")
class LeavesOutSpansWithoutViolations(MemoryStorage):
    def _violations_of(self, asked: Any) -> Any:
        return {id: found for id, found in super()._violations_of(asked).items() if found}


@found_by("test_an_instance_without_spans_counts_zeros")
class CountsNoUnknownIds(MemoryStorage):
    def _counted(self, asked: Any) -> Any:
        return {id: counts for id, counts in super()._counted(asked).items() if id in self._rows}


@found_by("test_counts_are_by_status")
class CountsCancelledAsOpen(MemoryStorage):
    def _counted(self, asked: Any) -> Any:
        counts = super()._counted(asked)
        return {id: each._replace(finished=each.finished - each.cancelled) for id, each in counts.items()}


@found_by("test_spans_are_iterated_in_the_order_of_their_ids")
class IteratesInTheOrderOfPuts(MemoryStorage):
    def _spans(self, asked: Any) -> Any:
        return iter([row for row in self._rows.values() if row in self._spans_by_id(asked.instance_id)])


@found_by("test_spans_are_iterated_in_the_order_of_their_ids")
class IteratesOverAllRuns(MemoryStorage):
    def _spans(self, asked: Any) -> Any:
        return iter([row for _, row in sorted(self._rows.items()) if isinstance(row, AgentSpanRow)])


class Pages(MemoryStorage):
    """Answers another query than it should."""

    def other(self, query: Any) -> Any:
        raise NotImplementedError

    def _page(self, query: Any) -> Any:
        return super()._page(self.other(query))


@found_by("test_pages_one_after_the_other_are_the_whole")
class PagesHaveOneTooMany(Pages):
    def other(self, query: Any) -> Any:
        return query if query.limit is None else query.changed(limit=query.limit + 1)


@found_by("test_pages_one_after_the_other_are_the_whole")
class PagesBeginOneTooLate(Pages):
    def other(self, query: Any) -> Any:
        return query.changed(offset=query.offset + 1) if query.offset else query


@found_by("test_pages_after_an_id_are_the_whole")
class PagesBeginAnywhere(Pages):
    def other(self, query: Any) -> Any:
        return query.changed(after="")


@found_by("test_pages_after_an_id_are_the_whole")
class PagesBeginWithTheIdItself(Pages):
    def other(self, query: Any) -> Any:
        return query.changed(after=query.after[:-1] + ("0", "~")[query.descending]) if query.after else query


@found_by("test_pages_one_after_the_other_are_the_whole")
class PagesAlwaysCount(Pages):
    def other(self, query: Any) -> Any:
        return query.changed(with_total=True)


@found_by("test_pages_are_filtered_sorted_and_cut")
class PagesAreSortedById(Pages):
    def other(self, query: Any) -> Any:
        return query.changed(order="id")


@found_by("test_pages_are_filtered_sorted_and_cut")
class PagesIgnoreWhere(Pages):
    def other(self, query: Any) -> Any:
        return query.changed(where={})


@found_by("test_random_queries_have_the_pages_that_they_have_in_memory")
class PagesIgnoreNone(Pages):
    def other(self, query: Any) -> Any:
        return query.changed(where={column: value for column, value in query.where.items() if value is not None})


@found_by("test_a_time_range_is_half_open")
class TimesAreIncluded(Pages):
    def other(self, query: Any) -> Any:
        return query if query.end_time is None else query.changed(end_time=query.end_time + "~")


@found_by("test_a_prefix_finds_ids")
class PagesIgnorePrefixes(Pages):
    def other(self, query: Any) -> Any:
        return query.changed(prefix="")


@found_by("test_pages_are_filtered_sorted_and_cut")
class CountsThePageOnly(MemoryStorage):
    def _page(self, query: Any) -> Any:
        rows = super()._page(query).rows
        return Rows(rows, len(rows) if query.with_total else None)


@found_by("test_pages_are_filtered_sorted_and_cut")
class PagesHaveNoneLast(MemoryStorage):
    def _page(self, query: Any) -> Any:
        rows, total = super()._page(query.changed(offset=0, limit=None))
        rows.sort(key=lambda row: getattr(row, query.order) is None)
        end = None if query.limit is None else query.offset + query.limit
        return Rows(rows[query.offset : end], total)


@found_by("test_pages_are_filtered_sorted_and_cut")
class PagesHaveTiesReversed(MemoryStorage):
    def _page(self, query: Any) -> Any:
        rows, total = super()._page(query.changed(order="id", offset=0, limit=None, descending=not query.descending))
        if query.order == "id":
            return super()._page(query)
        rows.sort(key=lambda row: getattr(row, query.order) or "", reverse=query.descending)
        end = None if query.limit is None else query.offset + query.limit
        return Rows(rows[query.offset : end], total)


@found_by("test_pages_of_an_agents_spans_are_those_in_memory_while_it_grows")
class CountsTheSpansOfAnAgentOnce(MemoryStorage):
    def __init__(self) -> None:
        super().__init__()
        self.totals: dict[str, int] = {}

    def _page(self, query: Any) -> Rows:
        found = super()._page(query)
        if query.type != "agent_span" or query.where.keys() != {"agent_id"} or found.total is None:
            return found
        return found._replace(total=self.totals.setdefault(repr(query.where), found.total))
