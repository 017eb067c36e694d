"""For tests: the contract that every storage backend keeps, as a class of pytest tests to inherit.

from agentspan.testing import StorageContract

class TestMyStorage(StorageContract):
    @pytest.fixture
    def storage(self):
        yield MyStorage(...)
"""

import json
import threading
import unittest
from typing import Any

from agentspan import ids
from agentspan.errors import StorageError
from agentspan.model.changes import (
    Applied,
    Key,
    KeyTaken,
    Move,
    Over,
    Put,
    PutSpans,
    Ref,
    Refused,
    Remove,
    Replayed,
    Unit,
    Violation,
)
from agentspan.model.rows import (
    AgentInstanceRow,
    AgentRow,
    AgentSchemaVersionRow,
    AgentSpanRow,
    AgentVersionRow,
    Row,
    WriterRow,
)
from agentspan.model.status import LEAVES
from agentspan.storage.protocol import Query, Storage
from agentspan.storage.registry import open_direct

T0, T1, T2 = (f"2026-01-01T00:00:0{second}.000000Z" for second in range(3))


class Rows:
    """Makes rows that fit together, with ids of one source."""

    def __init__(self) -> None:
        self.ids = ids.IdSource(7)

    def agent(self, name: str | None = None) -> AgentRow:
        """An agent."""
        return AgentRow(self.ids.new(), name, name or "nameless", None, "pending", T0, T0)

    def family(self, agent: AgentRow) -> tuple[AgentVersionRow, AgentSchemaVersionRow, AgentInstanceRow]:
        """A version, a schema version and an instance of an agent."""
        version = AgentVersionRow(self.ids.new(), agent.id, self.ids.new(), None, None, None, T0, T0)
        schema = AgentSchemaVersionRow(self.ids.new(), agent.id, None, self.ids.new(), "[]", None, T0, T0)
        values: dict[str, Any] = dict.fromkeys(AgentInstanceRow._fields)
        values.update(id=self.ids.new(), agent_id=agent.id, agent_version_id=version.id, status="active")
        values.update(agent_schema_version_id=schema.id, purpose="live", inserted_at=T0, updated_at=T0, started_at=T0)
        return version, schema, AgentInstanceRow(**values)

    def span(self, instance: AgentInstanceRow, **changed: Any) -> AgentSpanRow:
        """An active span of an instance."""
        values: dict[str, Any] = dict.fromkeys(AgentSpanRow._fields)
        values.update(id=self.ids.new(), agent_id=instance.agent_id, agent_instance_id=instance.id, status="active")
        values.update(schema_name="tool", schema_title="Tool", payload="{}", started_at=T0, is_aggregate=0)
        values.update(inserted_at=T0, updated_at=T0, **changed)
        return AgentSpanRow(**values)


def finish(span_id: str, status: str = "complete", **values: Any) -> Move:
    """A guarded move to a terminal status."""
    return Move("agent_span", span_id, LEAVES[status], {"status": status, "updated_at": T1, **values})


class StorageContract:
    """Inherit it, and give it a `storage` fixture that yields an empty storage."""

    rows = Rows()

    def _instance(self, storage: Storage) -> AgentInstanceRow:
        agent = self.rows.agent()
        version, schema, instance = self.rows.family(agent)
        self._put(storage, agent, version, schema, instance)
        return instance

    def _put(self, storage: Storage, *rows: Row) -> None:
        outcomes = storage.apply([Unit((Put(row),)) for row in rows])
        assert all(isinstance(outcome, Applied) for outcome in outcomes)

    def _stored(self, storage: Storage, id: str) -> Row | None:
        found = storage.find(id).rows.get(id)
        return None if found is None else found[1]

    def test_the_account_never_changes(self, storage: Storage) -> None:
        """Its ids are PFIDs of its partition."""
        account = storage.account()
        assert account == storage.account()
        for id in (account.id, account.environment_id, account.agent_deployment_id):
            assert ids.is_pfid(id)
            assert ids.decode(id)[1] == account.partition

    def test_what_is_put_is_found_with_its_type(self, storage: Storage) -> None:
        """Rows of every type, by id, in one call."""
        agent = self.rows.agent("a")
        version, schema, instance = self.rows.family(agent)
        writer = WriterRow(self.rows.ids.new(), "host", "boot", 1, "2", "program", T0)
        span = self.rows.span(instance, label="x", input_tokens=3, cost_usd=0.5, duration_ms=1.5, is_aggregate=1)
        rows: tuple[Row, ...] = (agent, version, schema, instance, writer, span)
        self._put(storage, *rows)
        found = storage.find(*(row.id for row in rows), self.rows.ids.new())
        assert dict(found.rows.values()) == {
            "agent": agent,
            "agent_version": version,
            "agent_schema_version": schema,
            "agent_instance": instance,
            "writer": writer,
            "agent_span": span,
        }

    def test_an_id_that_any_type_uses_is_refused(self, storage: Storage) -> None:
        """The row in the way comes back."""
        instance = self._instance(storage)
        clash = self.rows.span(instance)._replace(id=instance.id)
        assert storage.apply([Unit((Put(clash),))]) == [Refused("id_used", instance)]
        span = self.rows.span(instance)
        self._put(storage, span)
        assert storage.apply([Unit((Put(span, minted=True),))]) == [Refused("id_used", span)]

    def test_unique_columns_refuse_a_second_row(self, storage: Storage) -> None:
        """None among them is never a clash."""
        first = self.rows.agent("same")
        self._put(storage, first, self.rows.agent(None), self.rows.agent(None))
        assert storage.apply([Unit((Put(self.rows.agent("same")),))]) == [Refused("not_unique", first)]

    def test_references_must_exist_and_have_the_type(self, storage: Storage) -> None:
        """A row's own references, and those that the change names besides."""
        instance = self._instance(storage)
        orphan = self.rows.span(instance)._replace(agent_instance_id=self.rows.ids.new())
        for put in (Put(orphan), Put(orphan, minted=True)):
            assert _why(storage, Unit((put,))) == "missing"
        for parent in (self.rows.ids.new(), instance.id):
            child = self.rows.span(instance, parent_span_id=parent)
            assert _why(storage, Unit((Put(child, (Ref("agent_span", parent),)),))) == "missing"
            assert self._stored(storage, child.id) is None

    def test_a_parent_that_nobody_named_as_a_reference_may_come_later(self, storage: Storage) -> None:
        """Between processes a child can arrive first."""
        instance = self._instance(storage)
        self._put(storage, self.rows.span(instance, parent_span_id=self.rows.ids.new()))

    def test_a_move_sets_values_when_its_guard_holds(self, storage: Storage) -> None:
        """And leaves everything else as it is."""
        span = self.rows.span(self._instance(storage))
        self._put(storage, span)
        assert storage.apply([Unit((finish(span.id, result_payload='{"a":1}'),))]) == [Applied()]
        stored = self._stored(storage, span.id)
        assert stored == span._replace(status="complete", updated_at=T1, result_payload='{"a":1}')

    def test_a_move_is_refused_when_the_status_forbids_it(self, storage: Storage) -> None:
        """The stored row comes back, untouched."""
        span = self.rows.span(self._instance(storage))._replace(status="complete")
        self._put(storage, span)
        assert storage.apply([Unit((finish(span.id, "failed"),))]) == [Refused("status", span)]
        assert self._stored(storage, span.id) == span

    def test_a_move_of_what_is_not_there_is_refused(self, storage: Storage) -> None:
        """Also when the id names another type."""
        instance = self._instance(storage)
        assert storage.apply([Unit((finish(self.rows.ids.new()),))]) == [Refused("missing")]
        assert storage.apply([Unit((finish(instance.id),))]) == [Refused("missing", instance)]

    def test_a_unit_is_all_or_nothing(self, storage: Storage) -> None:
        """Also its violations and its key."""
        instance = self._instance(storage)
        span, other = self.rows.span(instance), self.rows.span(instance)
        key = Key("op", "k", "h", T0)
        bad = Unit((Put(span, violations=(_violation(),)), finish(other.id)), span.id, key)
        assert storage.apply([bad]) == [Refused("missing")]
        assert self._stored(storage, span.id) is None
        assert storage.violations([span.id])[span.id] == []
        assert storage.find(key=key).key is None

    def test_spans_are_put_together(self, storage: Storage) -> None:
        """However many, of several instances, with their violations, and before what follows in the same call."""
        instances = [self._instance(storage), self._instance(storage)]
        spans = [self.rows.span(instances[number % 2], is_aggregate=number % 3 // 2) for number in range(567)]
        found = [(spans[number].id, _violation(side)) for number, side in ((3, "payload"), (560, "result_payload"))]
        done = spans[566]._replace(status="complete", updated_at=T1)
        units = [Unit((PutSpans(spans, found),)), Unit((finish(done.id),), done.id)]
        assert storage.apply(units) == [Applied(), Applied(done)]
        for number, instance in enumerate(instances):
            assert list(storage.iter_spans(instance.id)) == [*spans[:566], done][number::2]
        assert storage.violations([spans[3].id])[spans[3].id] == [_violation()]
        assert storage.violations([spans[560].id])[spans[560].id] == [_violation("result_payload")]

    def test_spans_are_put_together_or_none_of_them(self, storage: Storage) -> None:
        """Whatever is wrong, and wherever; what is in the same call stays."""
        instance = self._instance(storage)
        spans = [self.rows.span(instance) for _ in range(8)]
        used = self.rows.span(instance)
        self._put(storage, used)
        for bad, why in ((used, "id_used"), (used._replace(id=self.rows.ids.new(), agent_instance_id="x"), "missing")):
            for place in (0, 4, 8):
                rows = [*spans[:place], bad, *spans[place:]]
                last = self.rows.span(instance)
                refused, applied = storage.apply(
                    [Unit((PutSpans(rows, [(spans[0].id, _violation())]),)), Unit((Put(last),), last.id)]
                )
                assert isinstance(refused, Refused)
                assert refused.why == why
                assert applied == Applied(last)
                assert storage.find(*(span.id for span in spans)).rows == {}
                assert storage.violations([spans[0].id])[spans[0].id] == []

    def test_spans_are_put_together_in_a_terminated_instance_too(self, storage: Storage) -> None:
        """It is enough that one of them is in such an instance."""
        instance, other = self._instance(storage), self._instance(storage)
        values: dict[str, Any] = {"status": "terminated", "termination_reason": "enough"}
        self._move(storage, Move("agent_instance", instance.id, LEAVES["terminated"], values))
        first, second = self.rows.span(other), self.rows.span(instance)
        assert storage.apply([Unit((PutSpans([first, second]),))]) == [Applied(None, "enough")]
        assert list(storage.iter_spans(instance.id)) == [second]

    def test_units_of_one_call_see_the_ones_before(self, storage: Storage) -> None:
        """And a refused one does not undo its neighbours."""
        span = self.rows.span(self._instance(storage))
        units = [Unit((Put(span),)), Unit((finish(span.id),)), Unit((finish(span.id),)), Unit((), span.id)]
        done = span._replace(status="complete", updated_at=T1)
        assert storage.apply(units) == [Applied(), Applied(), Refused("status", done), Applied(done)]

    def test_stop_at_refusal_leaves_the_rest_untried(self, storage: Storage) -> None:
        """The list of outcomes ends with the refusal."""
        instance = self._instance(storage)
        first, last = self.rows.span(instance), self.rows.span(instance)
        units = [Unit((Put(first),)), Unit((finish(last.id),)), Unit((Put(last),))]
        assert storage.apply(units, stop_at_refusal=True) == [Applied(), Refused("missing")]
        assert self._stored(storage, first.id) == first
        assert self._stored(storage, last.id) is None

    def test_a_subject_comes_back_as_it_is_afterwards(self, storage: Storage) -> None:
        """With the reason, when its instance is terminated."""
        instance = self._instance(storage)
        span = self.rows.span(instance)
        assert storage.apply([Unit((Put(span),), span.id)]) == [Applied(span)]
        values: dict[str, Any] = {"status": "terminated", "termination_reason": "enough"}
        move = Move("agent_instance", instance.id, LEAVES["terminated"], values)
        (outcome,) = storage.apply([Unit((move,), instance.id)])
        assert outcome == Applied(instance._replace(**values), "enough")
        done = span._replace(status="complete", updated_at=T1)
        assert storage.apply([Unit((finish(span.id),), span.id)]) == [Applied(done, "enough")]
        assert storage.find(span.id).terminated == {instance.id: "enough"}

    def test_the_same_key_and_request_replays(self, storage: Storage) -> None:
        """Before any guard is looked at; the resource is the one of now."""
        span = self.rows.span(self._instance(storage))
        key = Key("agent_spans/create", "k", "hash", T0)
        assert storage.apply([Unit((Put(span),), span.id, key)]) == [Applied(span)]
        again = Unit((Put(span._replace(id=self.rows.ids.new())),), span.id, key)
        self._move(storage, finish(span.id))
        assert storage.apply([again]) == [Replayed(span._replace(status="complete", updated_at=T1))]
        found = storage.find(key=key)
        assert found.key is not None
        assert found.key == ("hash", span.id)
        assert span.id in found.rows

    def test_the_same_key_for_another_request_is_taken(self, storage: Storage) -> None:
        """Its scope is the operation; one that was refused has used none."""
        instance = self._instance(storage)
        one, two = self.rows.span(instance), self.rows.span(instance)
        missing = Unit((finish(one.id),), one.id, Key("create", "k", "h0", T0))
        assert storage.apply([missing]) == [Refused("missing")]
        assert storage.apply([Unit((Put(one),), one.id, Key("create", "k", "h1", T0))]) == [Applied(one)]
        assert storage.apply([Unit((Put(two),), two.id, Key("create", "k", "h2", T0))]) == [KeyTaken()]
        assert storage.apply([Unit((Put(two),), two.id, Key("other", "k", "h2", T0))]) == [Applied(two)]

    def test_violations_are_kept_with_their_span(self, storage: Storage) -> None:
        """A new payload replaces those of the payload."""
        span = self.rows.span(self._instance(storage))
        storage.apply([Unit((Put(span, violations=(_violation(), _violation("result_payload"))),))])
        assert storage.violations([span.id])[span.id] == [_violation(), _violation("result_payload")]
        move = Move("agent_span", span.id, frozenset({"active"}), {"payload": "[]"}, (_violation(path="$.b"),))
        storage.apply([Unit((move,))])
        assert storage.violations([span.id])[span.id] == [_violation("result_payload"), _violation(path="$.b")]

    def test_spans_are_iterated_in_the_order_of_their_ids(self, storage: Storage) -> None:
        """Only those of the instance."""
        instance, other = self._instance(storage), self._instance(storage)
        spans = [self.rows.span(instance) for _ in range(5)]
        self._put(storage, *reversed(spans), self.rows.span(other))
        assert list(storage.iter_spans(instance.id)) == spans

    def test_counts_are_by_status(self, storage: Storage) -> None:
        """Of each instance that was asked for."""
        instance, empty = self._instance(storage), self._instance(storage)
        for status in ("pending", "active", "complete", "complete", "failed", "cancelled"):
            self._put(storage, self.rows.span(instance)._replace(status=status))
        counts = storage.counts([instance.id, empty.id])
        assert counts[instance.id] == (6, 1, 1, 2, 1, 1, 4)
        assert counts[empty.id] == (0, 0, 0, 0, 0, 0, 0)

    def test_pages_are_filtered_sorted_and_cut(self, storage: Storage) -> None:
        """With the total of all of them; ties go by id."""
        instance = self._instance(storage)
        times = [T2, T0, None, T1, T1]
        spans = [self.rows.span(instance)._replace(started_at=time) for time in times]
        self._put(storage, *spans, self.rows.span(self._instance(storage)))
        query = Query("agent_span", {"agent_instance_id": instance.id}, with_total=True)
        assert storage.page(query) == (spans, 5)
        by_time = Query("agent_span", query.where, order="started_at")
        assert [row.started_at for row in _spans(storage, by_time)] == [None, T0, T1, T1, T2]
        assert _spans(storage, by_time)[2:4] == spans[3:5]
        down = Query("agent_span", query.where, order="started_at", descending=True, offset=1, limit=2, with_total=True)
        assert storage.page(down) == ([spans[4], spans[3]], 5)

    def test_a_time_range_is_half_open(self, storage: Storage) -> None:
        """Over started_at, else inserted_at."""
        instance = self._instance(storage)
        spans = [self.rows.span(instance)._replace(started_at=time, inserted_at=T1) for time in (T0, T1, None, T2)]
        self._put(storage, *spans)
        query = Query("agent_span", {"agent_instance_id": instance.id}, start_time=T1, end_time=T2)
        assert _spans(storage, query) == spans[1:3]

    def test_a_prefix_finds_ids(self, storage: Storage) -> None:
        """The beginning of an id, as a person types it."""
        instance = self._instance(storage)
        spans = [self.rows.span(instance) for _ in range(3)]
        self._put(storage, *spans)
        assert _spans(storage, Query("agent_span", prefix=spans[1].id)) == [spans[1]]
        assert _spans(storage, Query("agent_span", prefix=spans[0].id[:5])) == spans
        assert _spans(storage, Query("agent_span", prefix="zzz")) == []

    def test_any_text_comes_back_as_it_was(self, storage: Storage) -> None:
        """NUL, quotes, and what looks like SQL among it."""
        text = json.dumps({"a": "\x00'\";drop table agent_spans;--\U0001f600 é"}, ensure_ascii=False)
        span = self.rows.span(self._instance(storage))._replace(payload=text)
        self._put(storage, span)
        assert self._stored(storage, span.id) == span

    def test_of_many_threads_one_wins(self, storage: Storage) -> None:
        """Eight threads finish the same 50 spans."""
        instance = self._instance(storage)
        spans = [self.rows.span(instance) for _ in range(50)]
        self._put(storage, *spans)
        wins: list[str] = []

        def work() -> None:
            for span in spans:
                if isinstance(storage.apply([Unit((finish(span.id),))])[0], Applied):
                    wins.append(span.id)

        threads = [threading.Thread(target=work) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert sorted(wins) == [span.id for span in spans]

    def test_a_span_put_in_a_terminated_instance_is_stored_and_says_so(self, storage: Storage) -> None:
        """Nothing that an agent did is lost, and its recorder learns of the termination."""
        instance = self._instance(storage)
        values: dict[str, Any] = {"status": "terminated", "termination_reason": "enough"}
        storage.apply([Unit((Move("agent_instance", instance.id, LEAVES["terminated"], values),))])
        alone, together = self.rows.span(instance), [self.rows.span(instance) for _ in range(2)]
        assert storage.apply([Unit((Put(alone, minted=True),))]) == [Applied(None, "enough")]
        units = [Unit((Put(span),)) for span in together]
        assert storage.apply(units) == [Applied(None, "enough")] * 2
        assert [span.id for span in storage.iter_spans(instance.id)] == [alone.id, *(span.id for span in together)]

    def test_a_move_can_ask_that_columns_are_as_they_were(self, storage: Storage) -> None:
        """So that what was read and changed is not written over somebody else's change."""
        instance = self._instance(storage)
        move = Move("agent_instance", instance.id, frozenset(), {"metadata": '{"a":1}'}, unchanged={"metadata": None})
        assert storage.apply([Unit((move,))]) == [Applied()]
        stored = instance._replace(metadata='{"a":1}')
        assert storage.apply([Unit((move,))]) == [Refused("changed", stored)]
        again = move._replace(set={"metadata": "{}"}, unchanged={"metadata": '{"a":1}'})
        assert storage.apply([Unit((again,))]) == [Applied()]

    def test_an_end_replaces_a_close_once(self, storage: Storage) -> None:
        """Only where the row was closed for its program, and its status is one of those that are named."""
        instance = self._instance(storage)
        span = self.rows.span(instance)
        self._put(storage, span)
        over = (Over(frozenset({"failed"}), {"status": "complete", "ended_late": 1, "updated_at": T2}),)
        end = finish(span.id)._replace(over=over)
        close = finish(span.id, "failed", closed_by="terminated", closed_at=T1)
        assert storage.apply([Unit((finish(span.id, "failed"),)), Unit((end,))])[1].why == "status"  # type: ignore[union-attr]
        other = self.rows.span(instance)
        self._put(storage, other)
        terminate = Move(
            "agent_instance", instance.id, frozenset(), {"status": "terminated", "termination_reason": "x"}
        )
        end, close = (move._replace(id=other.id) for move in (end, close))
        elsewhere = end._replace(over=(Over(frozenset({"cancelled"}), over[0].set),))
        units = [Unit((change,)) for change in (terminate, close, elsewhere, end, end)]
        outcomes = storage.apply(units)
        assert [type(outcome) for outcome in outcomes] == [Applied, Applied, Refused, Applied, Refused]
        assert outcomes[3] == Applied(None, "x")
        stored = self._stored(storage, other.id)
        closed = other._replace(closed_by="terminated", closed_at=T1)
        assert stored == closed._replace(status="complete", ended_late=1, updated_at=T2)
        assert storage.apply([Unit((end,))]) == [Refused("status", stored)]

    def test_only_what_nothing_refers_to_is_removed(self, storage: Storage) -> None:
        """All of a unit, or nothing."""
        agent = self.rows.agent("x")
        version, schema, instance = self.rows.family(agent)
        self._put(storage, agent, version, schema)
        assert storage.apply([Unit((Remove("agent", agent.id),))]) == [Refused("referenced", agent)]
        removes = (Remove("agent_version", version.id), Remove("agent_schema_version", schema.id))
        self._put(storage, instance)
        assert storage.apply([Unit((*removes, Remove("agent", agent.id)))]) == [Refused("referenced", version)]
        assert self._stored(storage, version.id) == version
        other = self.rows.agent("y")
        self._put(storage, other)
        assert storage.apply([Unit((Remove("agent", other.id),))]) == [Applied()]
        assert self._stored(storage, other.id) is None
        assert storage.apply([Unit((Remove("agent", other.id),))]) == [Refused("missing")]
        self._put(storage, self.rows.agent("y"))  # the name is free again

    def test_a_key_whose_resource_is_gone_is_refused(self, storage: Storage) -> None:
        """The request cannot be answered again."""
        agent = self.rows.agent()
        unit = Unit((Put(agent),), agent.id, Key("create", "k", "h", T0))
        storage.apply([unit])
        storage.apply([Unit((Remove("agent", agent.id),))])
        assert storage.apply([unit]) == [Refused("missing")]

    def test_a_group_sees_what_it_wrote_and_is_whole_or_nothing(self, storage: Storage) -> None:
        """Where the storage has groups."""
        groups = storage.capabilities().groups
        if groups is None:
            raise unittest.SkipTest("the storage claims no groups")
        instance = self._instance(storage)
        one, two = self.rows.span(instance), self.rows.span(instance)

        def work(group: Storage) -> str:
            assert group.apply([Unit((Put(one),), one.id)]) == [Applied(one)]
            assert group.find(one.id).rows[one.id][1] == one
            assert group.apply([Unit((Put(one),))]) == [Refused("id_used", one)]
            assert group.apply([Unit((Put(two),))]) == [Applied()]
            return "done"

        assert groups.group(work, 1.0) == "done"
        assert [span.id for span in storage.iter_spans(instance.id)] == [one.id, two.id]
        before, key = list(storage.iter_spans(instance.id)), Key("create", "k", "h", T0)

        def fail(group: Storage) -> None:
            lost = self.rows.span(instance)
            units = [Unit((Put(lost),), lost.id, key), Unit((finish(one.id),)), Unit((Put(self.rows.agent("lost")),))]
            assert len(group.apply(units)) == 3
            raise ZeroDivisionError

        try:
            groups.group(fail, 1.0)
        except ZeroDivisionError:
            pass
        assert list(storage.iter_spans(instance.id)) == before
        assert storage.find(key=key).key is None
        assert storage.apply([Unit((Put(self.rows.agent("lost")),))]) == [Applied()]

    def test_what_was_applied_is_there_in_another_instance_and_after_reopening(self, storage: Storage) -> None:
        """Where the storage claims a location: it is opened there again, twice; the account and keys are the same."""
        location = storage.capabilities().location
        if location is None:
            raise unittest.SkipTest("the storage claims no location")
        instance = self._instance(storage)
        span, key = self.rows.span(instance), Key("create", "k", "h", T0)
        create = Unit((Put(span, violations=(_violation(),)),), span.id, key)
        assert storage.apply([create]) == [Applied(span)]
        other = open_direct(location)
        assert other.account() == storage.account()
        assert other.apply([create, Unit((finish(span.id),))]) == [Replayed(span), Applied()]
        done = span._replace(status="complete", updated_at=T1)
        assert self._stored(storage, span.id) == done
        other.close()
        storage.close()
        again = open_direct(location)
        assert list(again.iter_spans(instance.id)) == [done]
        assert again.violations([span.id])[span.id] == [_violation()]
        assert again.find(key=key).key == ("h", span.id)
        again.close()

    def test_a_closed_storage_says_so(self, storage: Storage) -> None:
        """Closing twice is fine."""
        storage.close()
        storage.close()
        for use in (lambda: storage.find("x"), lambda: storage.apply([Unit((finish("x"),))])):
            try:
                use()
            except StorageError as error:
                assert "open it again" in str(error)  # noqa: PT017 (pytest is not imported in the package)
            else:
                raise AssertionError("no StorageError")

    def _move(self, storage: Storage, move: Move) -> None:
        assert storage.apply([Unit((move,))]) == [Applied()]


def _why(storage: Storage, unit: Unit) -> str | None:
    (outcome,) = storage.apply([unit])
    return outcome.why if isinstance(outcome, Refused) else None


def _violation(side: Any = "payload", path: str = "$.a") -> Violation:
    return Violation(side, path, "type", "is not of type string")


def _spans(storage: Storage, query: Query) -> list[AgentSpanRow]:
    return [row for row in storage.page(query).rows if isinstance(row, AgentSpanRow)]
