"""Contract tests: the answers of reads."""

import json
from typing import Any

from agentspan import ids
from agentspan.model.changes import Applied, Change, Key, Move, Put, PutSpans, Ref, Refused, Unit
from agentspan.model.rows import AgentSpanRow
from agentspan.storage.answers import SpanCounts
from agentspan.storage.protocol import Storage
from agentspan.storage.questions import (
    Account,
    Counts,
    Find,
    Outlines,
    Query,
    RemoveKeys,
    SpansOf,
    StoredKeys,
    Violations,
)
from agentspan.testing.contract.base import T0, T1, T2, Base, finish, spans_of, violation

LONG = 2_345
"""The number of spans of a long run: more than a backend reads at once."""


class Reading(Base):
    """Contract tests: the answers of reads to each kind of question."""

    def test_the_account_never_changes(self, storage: Storage) -> None:
        """Two reads return the same account. Its ids are PFIDs of its partition."""
        account = storage.ask(Account())
        assert account == storage.ask(Account())
        for id in (account.id, account.environment_id, account.agent_deployment_id):
            assert ids.is_pfid(id)
            assert ids.decode(id)[1] == account.partition

    def test_the_account_is_a_row_like_others(self, storage: Storage) -> None:
        """The account is found by its id, and is the only row of its type. No other row may have its id."""
        account = storage.ask(Account())
        assert storage.ask(Find(account.id)).rows == {account.id: ("account", account)}
        assert storage.ask(Query("account", with_total=True)) == ([account], 1)
        agent = self.rows.agent()._replace(id=account.id)
        assert storage.apply([Unit((Put(agent),))]) == [Refused("id_used", account)]

    def test_spans_are_iterated_in_the_order_of_their_ids(self, storage: Storage) -> None:
        """Spans of other instances are left out."""
        instance, other = self.instance(storage), self.instance(storage)
        spans = [self.rows.span(instance) for _ in range(5)]
        self.put(storage, *reversed(spans), self.rows.span(other))
        assert list(storage.ask(SpansOf(instance.id))) == spans

    def test_a_long_run_is_iterated_to_its_end(self, storage: Storage) -> None:
        """The iterator yields all LONG spans of a run."""
        spans = self._long_run(storage)
        assert [span.id for span in storage.ask(SpansOf(spans[0].agent_instance_id))] == [span.id for span in spans]

    def test_spans_are_iterated_in_one_snapshot(self, storage: Storage) -> None:
        """The snapshot is taken when the first span is read: later changes and new spans are not in it."""
        spans = self._long_run(storage)
        run_id = spans[0].agent_instance_id
        before = list(storage.ask(SpansOf(run_id)))
        iterator = storage.ask(SpansOf(run_id))
        first = next(iterator)
        late = spans[-1]._replace(id=self.rows.ids.new())
        units = [Unit((finish(span.id),)) for span in (spans[0], spans[LONG // 2], spans[-1])]
        assert storage.apply([*units, Unit((Put(late),))]) == [Applied()] * 4
        seen = [first, *iterator]
        assert [span.id for span in seen] == [span.id for span in before]
        assert [span.id for span, was in zip(seen, before, strict=True) if span != was] == []

    def _long_run(self, storage: Storage) -> list[AgentSpanRow]:
        """Put a run of LONG active spans; return them."""
        instance = self.instance(storage)
        spans = [self.rows.span(instance) for _ in range(LONG)]
        assert storage.apply([Unit((PutSpans(spans),))]) == [Applied()]
        return spans

    def test_an_id_is_found_as_it_is_written(self, storage: Storage) -> None:
        """Ids and prefixes of ids in another case match nothing, in reads and in changes."""
        instance = self.instance(storage)
        span = self.rows.span(instance)
        storage.apply([Unit((Put(span, violations=(violation(),)),))])
        for id, run in ((span.id.upper(), instance.id.upper()), (span.id.title(), instance.id.title())):
            assert storage.ask(Find(id, run)) == ({}, None, {})
            assert storage.ask(Violations([id])) == {id: []}
            assert storage.ask(Counts([run])) == {run: SpanCounts()}
            assert list(storage.ask(SpansOf(run))) == []
            for query in (Query("agent_span", prefix=id[:-2]), Query("agent_span", {"agent_instance_id": run})):
                assert storage.ask(query).rows == []
            moves = finish(id), Move("agent_instance", run, frozenset(), {"status": "failed"})
            assert storage.apply([Unit((move,)) for move in moves]) == [Refused("missing")] * 2
        other = span._replace(id=span.id.upper())
        self.put(storage, other)
        assert storage.ask(Find(span.id, other.id)).rows == {row.id: ("agent_span", row) for row in (span, other)}

    def test_counts_are_by_status(self, storage: Storage) -> None:
        """The answer has the counts of each instance in the question, also of one without spans."""
        instance, empty = self.instance(storage), self.instance(storage)
        for status in ("pending", "active", "complete", "complete", "failed", "cancelled"):
            self.put(storage, self.rows.span(instance)._replace(status=status))
        counts = storage.ask(Counts([instance.id, empty.id]))
        assert counts[instance.id] == (6, 1, 1, 2, 1, 1, 4)
        assert counts[empty.id] == (0, 0, 0, 0, 0, 0, 0)

    def test_an_instance_without_spans_counts_zeros(self, storage: Storage) -> None:
        """An unknown instance has zeros, too, also if it occurs twice and beside others in one question."""
        instance, unknown = self.instance(storage), self.rows.ids.new()
        self.put(storage, self.rows.span(instance))
        counts = storage.ask(Counts([unknown, instance.id, unknown]))
        assert dict(counts) == {unknown: SpanCounts(), instance.id: SpanCounts(1, active=1)}
        assert dict(storage.ask(Counts([]))) == {}

    def test_rows_are_found_in_one_snapshot_with_what_is_stored_under_a_key(self, storage: Storage) -> None:
        """An unknown id or key is absent. `terminated` has the terminated runs of the found rows."""
        terminated, active = self.instance(storage), self.instance(storage)
        spans = [self.rows.span(run) for run in (terminated, active)]
        key = Key("create", "k", "h", T0)
        storage.apply([Unit((Put(spans[0]),), spans[0].id, key), Unit((Put(spans[1]),))])
        self.terminate(storage, terminated)
        found = storage.ask(Find(spans[1].id, self.rows.ids.new(), spans[1].id, key=key))
        assert found == (
            {span.id: ("agent_span", span) for span in spans},
            ("h", spans[0].id),
            {terminated.id: "enough"},
        )
        assert storage.ask(Find(terminated.id, active.id)).terminated == {terminated.id: "enough"}
        assert storage.ask(Find(key=key._replace(key="other"))) == ({}, None, {})
        assert storage.ask(Find(key=key._replace(operation="other"))).key is None
        assert storage.ask(Find()) == ({}, None, {})

    def test_pages_one_after_the_other_are_the_whole(self, storage: Storage) -> None:
        """Pages by `offset` and `limit` have each row once, in both directions. A page beyond the end is empty."""
        instance = self.instance(storage)
        spans = [self.rows.span(instance) for _ in range(7)]
        self.put(storage, *spans[3:], *spans[:3])
        for descending, rows in ((False, spans), (True, spans[::-1])):
            query = Query("agent_span", descending=descending, with_total=True)
            pages = [storage.ask(query.changed(offset=offset, limit=3)) for offset in (0, 3, 6, 9)]
            assert [page.rows for page in pages] == [rows[:3], rows[3:6], rows[6:], []]
            assert {page.total for page in pages} == {7}
            assert storage.ask(query.changed(limit=0)) == ([], 7)
            assert storage.ask(query.changed(offset=5)).rows == rows[5:]
            assert storage.ask(query.changed(with_total=False)) == (rows, None)

    def test_pages_after_an_id_are_the_whole(self, storage: Storage) -> None:
        """`after` works in both directions. Its id is not on the page, and need not be stored. The total stays."""
        instance = self.instance(storage)
        spans = [self.rows.span(instance) for _ in range(7)]
        gone = spans.pop(3)
        self.put(storage, *spans[3:], *spans[:3], self.rows.span(self.instance(storage)))
        for descending, rows in ((False, spans), (True, spans[::-1])):
            where = {"agent_instance_id": instance.id}
            query = Query("agent_span", where, descending=descending, limit=4, with_total=True)
            first = storage.ask(query)
            assert first == (rows[:4], 6)
            assert storage.ask(query.changed(after=rows[3].id)) == (rows[4:], 6)
            assert storage.ask(query.changed(after=gone.id)).rows == rows[3:]
            assert storage.ask(query.changed(after=rows[0].id, offset=1, limit=2)).rows == rows[2:4]
            assert storage.ask(query.changed(after=rows[5].id)) == ([], 6)

    def test_violations_of_many_spans_are_read_together(self, storage: Storage) -> None:
        """A span without violations, and an unknown id, have an empty list."""
        instance = self.instance(storage)
        spans = [self.rows.span(instance) for _ in range(3)]
        found = (violation("result_payload"), violation())
        storage.apply([Unit((Put(spans[1], violations=found),)), *(Unit((Put(span),)) for span in spans[::2])])
        ids = [self.rows.ids.new(), *(span.id for span in spans)]
        for hint in (None, instance.id):
            assert dict(storage.ask(Violations(ids, instance_id=hint))) == {
                **{id: [] for id in ids},
                spans[1].id: [*found],
            }
        assert dict(storage.ask(Violations([]))) == {}

    def test_the_run_that_a_caller_names_changes_no_answer(self, storage: Storage) -> None:
        """`instance_id` is no guard: it only helps a backend that is partitioned by run to find a span."""
        instance = self.instance(storage)
        parent, child = self.rows.span(instance), self.rows.span(instance)
        refs = (Ref("agent_span", parent.id, instance.id), Ref("agent", instance.agent_id))
        self.put(storage, parent)
        assert storage.apply([Unit((Put(child, refs),), child.id)]) == [Applied(child)]
        self.move(storage, finish(child.id)._replace(instance_id=instance.id))
        ended = child._replace(status="complete", updated_at=T1)
        ids = (child.id, instance.id, instance.agent_id, instance.agent_version_id, self.rows.ids.new())
        found = storage.ask(Find(*ids, instance_id=instance.id))
        assert found == storage.ask(Find(*ids))
        assert found.rows[child.id] == ("agent_span", ended)
        assert len(found.rows) == 4

    def test_pages_are_filtered_sorted_and_cut(self, storage: Storage) -> None:
        """The total counts all rows that match. Rows with equal values are sorted by id."""
        instance = self.instance(storage)
        times = [T2, T0, None, T1, T1]
        spans = [self.rows.span(instance)._replace(started_at=time) for time in times]
        self.put(storage, *spans, self.rows.span(self.instance(storage)))
        query = Query("agent_span", {"agent_instance_id": instance.id}, with_total=True)
        assert storage.ask(query) == (spans, 5)
        by_time = Query("agent_span", query.where, order="started_at")
        assert [row.started_at for row in spans_of(storage, by_time)] == [None, T0, T1, T1, T2]
        assert spans_of(storage, by_time)[2:4] == spans[3:5]
        down = Query("agent_span", query.where, order="started_at", descending=True, offset=1, limit=2, with_total=True)
        assert storage.ask(down) == ([spans[4], spans[3]], 5)

    def test_a_time_range_is_half_open(self, storage: Storage) -> None:
        """The range includes its start and excludes its end. It applies to started_at, else to inserted_at."""
        instance = self.instance(storage)
        spans = [self.rows.span(instance)._replace(started_at=time, inserted_at=T1) for time in (T0, T1, None, T2)]
        self.put(storage, *spans)
        query = Query("agent_span", {"agent_instance_id": instance.id}, start_time=T1, end_time=T2)
        assert spans_of(storage, query) == spans[1:3]

    def test_times_are_compared_to_the_microsecond(self, storage: Storage) -> None:
        """Ends of ranges, sort orders, and the times in Outlines, StoredKeys and RemoveKeys count each microsecond."""
        instance = self.instance(storage)
        times = [f"2026-01-01T00:00:00.{fraction}Z" for fraction in ("000000", "000001", "000999", "001000", "999999")]
        spans = [self.rows.span(instance, started_at=time, inserted_at=T2) for time in reversed(times)]
        self.put(storage, *spans)
        where = {"agent_instance_id": instance.id}
        by_time = spans[::-1]
        assert spans_of(storage, Query("agent_span", where, order="started_at")) == by_time
        assert spans_of(storage, Query("agent_span", where, order="started_at", descending=True)) == spans
        for begin, time in enumerate(times):
            for end, until in enumerate(times):
                query = Query("agent_span", where, start_time=time, end_time=until, order="started_at", with_total=True)
                assert storage.ask(query) == (by_time[begin:end], max(0, end - begin))
        keys = [Key("create", time, "h", time) for time in times]
        storage.apply([Unit((), span.id, key) for span, key in zip(by_time, keys, strict=True)])
        answers = storage.capabilities().answers
        if Outlines in answers:
            other = self.instance(storage)
            changed = [self.rows.span(other, updated_at=time) for time in times]
            self.put(storage, *changed)
            for number, time in enumerate(times):
                found = storage.ask(Outlines(other.id, since=time))
                assert [span.id for span in found] == [span.id for span in changed[number:]]
        for number, time in enumerate(times):
            if StoredKeys in answers:
                assert [key.key for key in storage.ask(StoredKeys(since=time))] == times[number:]
            if RemoveKeys in answers:
                assert storage.ask(RemoveKeys(time, 1.0, dry_run=True)) == number

    def test_a_prefix_finds_ids(self, storage: Storage) -> None:
        """A query with `prefix` returns the spans whose ids begin with it."""
        instance = self.instance(storage)
        spans = [self.rows.span(instance) for _ in range(3)]
        self.put(storage, *spans)
        assert spans_of(storage, Query("agent_span", prefix=spans[1].id)) == [spans[1]]
        assert spans_of(storage, Query("agent_span", prefix=spans[0].id[:5])) == spans
        assert spans_of(storage, Query("agent_span", prefix="zzz")) == []

    def test_any_text_comes_back_as_it_was(self, storage: Storage) -> None:
        """The text has quotes, SQL, an emoji and line ends. In JSON it also has an escaped NUL."""
        text = "a'\";drop table agent_spans;--\U0001f600 é\r\n"
        payload = json.dumps({"a": f"\x00{text}"}, ensure_ascii=False)
        span = self.rows.span(self.instance(storage))._replace(payload=payload, summary=text)
        self.put(storage, span)
        assert self.stored(storage, span.id) == span

    def test_a_payload_of_megabytes_comes_back_whole(self, storage: Storage) -> None:
        """Payloads of megabytes, ASCII and not, are put alone, put together, and set by a move."""
        instance = self.instance(storage)
        text = json.dumps("".join(f"{number:06} é\U0001f600 " for number in range(110_000)), ensure_ascii=False)
        plain = f'{{"a":"{"x" * 1_100_000}"}}'
        alone, *together = (self.rows.span(instance, payload=plain, result_payload=text) for _ in range(2))
        set_later = self.rows.span(instance)
        values: dict[str, Any] = {"status": "complete", "payload": text, "result_payload": plain}
        end = Move("agent_span", set_later.id, frozenset({"active"}), values)
        changes: list[Change] = [Put(alone), PutSpans(together), Put(set_later), end]
        assert storage.apply([Unit((change,)) for change in changes]) == [Applied()] * 4
        ended = set_later._replace(**values)
        # Only the ids: pytest takes minutes to say how long texts differ.
        same = [row.id for row in (alone, *together, ended) if self.stored(storage, row.id) == row]
        assert same == [row.id for row in (alone, *together, ended)]

    def test_an_escaped_surrogate_in_a_payload_stays_as_it_was(self, storage: Storage) -> None:
        """The text of a payload is not encoded anew: single, reversed and paired surrogates stay escaped."""
        payloads = ('{"a":"x\\ud83d y"}', '"\\ude00\\ud83d"', '{"\\uDFFF":["\\ud83d\\ude00","\\u00e9"]}')
        instance = self.instance(storage)
        spans = [self.rows.span(instance, payload=payload, result_payload=payload) for payload in payloads]
        self.put(storage, *spans)
        assert list(storage.ask(SpansOf(instance.id))) == spans
