"""Contract of a storage: what the reads return."""

import json

from agentspan import ids
from agentspan.storage.protocol import Query, Storage
from agentspan.testing.contract.base import Base
from agentspan.testing.contract.rows import T0, T1, T2, spans_of


class Reading(Base):
    """Contract: what the reads return."""

    def test_the_account_never_changes(self, storage: Storage) -> None:
        """Its ids are PFIDs of its partition."""
        account = storage.account()
        assert account == storage.account()
        for id in (account.id, account.environment_id, account.agent_deployment_id):
            assert ids.is_pfid(id)
            assert ids.decode(id)[1] == account.partition

    def test_spans_are_iterated_in_the_order_of_their_ids(self, storage: Storage) -> None:
        """Only those of the instance."""
        instance, other = self.instance(storage), self.instance(storage)
        spans = [self.rows.span(instance) for _ in range(5)]
        self.put(storage, *reversed(spans), self.rows.span(other))
        assert list(storage.iter_spans(instance.id)) == spans

    def test_counts_are_by_status(self, storage: Storage) -> None:
        """Of each instance that was asked for."""
        instance, empty = self.instance(storage), self.instance(storage)
        for status in ("pending", "active", "complete", "complete", "failed", "cancelled"):
            self.put(storage, self.rows.span(instance)._replace(status=status))
        counts = storage.counts([instance.id, empty.id])
        assert counts[instance.id] == (6, 1, 1, 2, 1, 1, 4)
        assert counts[empty.id] == (0, 0, 0, 0, 0, 0, 0)

    def test_pages_are_filtered_sorted_and_cut(self, storage: Storage) -> None:
        """With the total of all of them; ties go by id."""
        instance = self.instance(storage)
        times = [T2, T0, None, T1, T1]
        spans = [self.rows.span(instance)._replace(started_at=time) for time in times]
        self.put(storage, *spans, self.rows.span(self.instance(storage)))
        query = Query("agent_span", {"agent_instance_id": instance.id}, with_total=True)
        assert storage.page(query) == (spans, 5)
        by_time = Query("agent_span", query.where, order="started_at")
        assert [row.started_at for row in spans_of(storage, by_time)] == [None, T0, T1, T1, T2]
        assert spans_of(storage, by_time)[2:4] == spans[3:5]
        down = Query("agent_span", query.where, order="started_at", descending=True, offset=1, limit=2, with_total=True)
        assert storage.page(down) == ([spans[4], spans[3]], 5)

    def test_a_time_range_is_half_open(self, storage: Storage) -> None:
        """Over started_at, else inserted_at."""
        instance = self.instance(storage)
        spans = [self.rows.span(instance)._replace(started_at=time, inserted_at=T1) for time in (T0, T1, None, T2)]
        self.put(storage, *spans)
        query = Query("agent_span", {"agent_instance_id": instance.id}, start_time=T1, end_time=T2)
        assert spans_of(storage, query) == spans[1:3]

    def test_a_prefix_finds_ids(self, storage: Storage) -> None:
        """The beginning of an id, as a person types it."""
        instance = self.instance(storage)
        spans = [self.rows.span(instance) for _ in range(3)]
        self.put(storage, *spans)
        assert spans_of(storage, Query("agent_span", prefix=spans[1].id)) == [spans[1]]
        assert spans_of(storage, Query("agent_span", prefix=spans[0].id[:5])) == spans
        assert spans_of(storage, Query("agent_span", prefix="zzz")) == []

    def test_any_text_comes_back_as_it_was(self, storage: Storage) -> None:
        """NUL, quotes, and what looks like SQL among it."""
        text = json.dumps({"a": "\x00'\";drop table agent_spans;--\U0001f600 é"}, ensure_ascii=False)
        span = self.rows.span(self.instance(storage))._replace(payload=text)
        self.put(storage, span)
        assert self.stored(storage, span.id) == span
