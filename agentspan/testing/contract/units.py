"""Contract tests: several changes in one unit, and several units in one call; idempotency keys."""

from typing import Any, cast

from agentspan.errors import NotStorable
from agentspan.model.changes import (
    LEAVES,
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
)
from agentspan.model.rows import AgentRow, AgentSpanRow, Row, WriterRow
from agentspan.storage.protocol import Storage
from agentspan.storage.questions import Find, SpansOf, Violations
from agentspan.testing.contract.base import T0, T1, T2, Base, finish, violation, why_refused

FIXED = ("id", "agent_id", "agent_instance_id", "parent_span_id", "inserted_at", "writer_id")
"""The columns of a span that no later change sets."""


class Units(Base):
    """Contract tests: units of several changes, calls of several units, idempotency keys."""

    def test_a_unit_is_all_or_nothing(self, storage: Storage) -> None:
        """A refused unit stores no row, no violation and no key."""
        instance = self.instance(storage)
        span, other = self.rows.span(instance), self.rows.span(instance)
        key = Key("op", "k", "h", T0)
        bad = Unit((Put(span, violations=(violation(),)), finish(other.id)), span.id, key)
        assert storage.apply([bad]) == [Refused("missing")]
        assert self.stored(storage, span.id) is None
        assert storage.ask(Violations([span.id]))[span.id] == []
        assert storage.ask(Find(key=key)).key is None

    def test_a_refused_unit_renames_nothing(self, storage: Storage) -> None:
        """The old name is still taken, and the new one is still free."""
        agent, missing = self.rows.agent("old"), finish(self.rows.ids.new())
        self.put(storage, agent)
        rename = Move("agent", agent.id, frozenset(), {"external_identifier": "new", "name": "new"})
        assert storage.apply([Unit((rename, missing))]) == [Refused("missing")]
        assert self.stored(storage, agent.id) == agent
        assert storage.apply([Unit((Put(self.rows.agent("old")),))]) == [Refused("not_unique", agent)]
        self.put(storage, self.rows.agent("new"))

    def test_a_refused_unit_leaves_spans_with_their_agent(self, storage: Storage) -> None:
        """A refused unit that would move a run to another agent moves none of its spans."""
        run, other = self.instance(storage), self.instance(storage)
        spans = [self.rows.span(run), self.rows.span(run)._replace(status="complete")]
        self.put(storage, *spans)
        moves = Move("agent_instance", run.id, frozenset(), {"agent_id": other.agent_id}), finish(self.rows.ids.new())
        assert storage.apply([Unit(moves)]) == [Refused("missing")]
        assert self.stored(storage, run.id) == run
        assert list(storage.ask(SpansOf(run.id))) == spans

    def test_units_of_one_call_see_the_ones_before(self, storage: Storage) -> None:
        """A unit is checked against the state after the earlier units. A refused unit does not undo the others."""
        span = self.rows.span(self.instance(storage))
        units = [Unit((Put(span),)), Unit((finish(span.id),)), Unit((finish(span.id),)), Unit((), span.id)]
        done = span._replace(status="complete", updated_at=T1)
        assert storage.apply(units) == [Applied(), Applied(), Refused("status", done), Applied(done)]

    def test_stop_at_refusal_leaves_the_rest_untried(self, storage: Storage) -> None:
        """The list of outcomes ends with the refusal."""
        instance = self.instance(storage)
        first, last = self.rows.span(instance), self.rows.span(instance)
        units = [Unit((Put(first),)), Unit((finish(last.id),)), Unit((Put(last),))]
        assert storage.apply(units, stop_at_refusal=True) == [Applied(), Refused("missing")]
        assert self.stored(storage, first.id) == first
        assert self.stored(storage, last.id) is None

    def test_a_subject_comes_back_as_it_is_afterwards(self, storage: Storage) -> None:
        """The outcome has the subject as it is after the unit, and the reason if its instance is terminated."""
        instance = self.instance(storage)
        span = self.rows.span(instance)
        assert storage.apply([Unit((Put(span),), span.id)]) == [Applied(span)]
        values: dict[str, Any] = {"status": "terminated", "termination_reason": "enough"}
        move = Move("agent_instance", instance.id, LEAVES["terminated"], values)
        (outcome,) = storage.apply([Unit((move,), instance.id)])
        assert outcome == Applied(instance._replace(**values), "enough")
        done = span._replace(status="complete", updated_at=T1)
        assert storage.apply([Unit((finish(span.id),), span.id)]) == [Applied(done, "enough")]
        assert storage.ask(Find(span.id)).terminated == {instance.id: "enough"}

    def test_runs_of_one_call_have_each_an_outcome_of_their_own(self, storage: Storage) -> None:
        """A drain registers many runs of one agent at once; one that cannot be put is no reason to refuse others."""
        agent = self.rows.agent()
        version, schema, run = self.rows.family(agent)
        self.put(storage, agent, version, schema)
        first, lost, named, last = (run._replace(id=self.rows.ids.new()) for _ in range(4))
        lost, named = lost._replace(agent_version_id=self.rows.ids.new()), named._replace(external_identifier="x")
        rows = [run, first, lost, run, named, last]
        units = [Unit((Put(row, minted=True),), row.id) for row in rows]
        units.append(Unit((Put(first, minted=True),)))
        assert storage.apply(units) == [
            Applied(run),
            Applied(first),
            Refused("missing"),
            Refused("id_used", run),
            Applied(named),
            Applied(last),
            Refused("id_used", first),
        ]
        assert [self.stored(storage, row.id) for row in (run, first, named, last)] == [run, first, named, last]
        assert self.stored(storage, lost.id) is None

    def test_runs_of_one_call_end_each_by_itself(self, storage: Storage) -> None:
        """A run that ends twice, and one that is missing, are refused. Different ends in one call are all applied."""
        runs = [self.instance(storage) for _ in range(5)]
        result = '{"output":"a \\"quoted\\" \\\\, {NULL}"}'
        complete: dict[str, Any] = {"status": "complete", "duration_ms": 0.125, "result": None, "updated_at": T1}
        ended = {**complete, "result": result}
        failed = {"status": "failed", "duration_ms": 1e300, "error": "{}", "updated_at": T1}
        ends = [complete, ended, ended, failed, failed]
        moves = [
            Move("agent_instance", run.id, LEAVES[values["status"]], values)
            for run, values in zip(runs, ends, strict=True)
        ]
        gone = moves[1]._replace(id=self.rows.ids.new())
        asked = [moves[0], moves[1], gone, moves[2], moves[1], moves[3], moves[4]]
        changed: list[Any] = [run._replace(**values) for run, values in zip(runs, ends, strict=True)]
        outcomes = storage.apply([Unit((move,)) for move in asked])
        done = Applied()
        assert outcomes == [done, done, Refused("missing"), done, Refused("status", changed[1]), done, done]
        assert [self.stored(storage, run.id) for run in runs] == changed

    def test_spans_are_put_together(self, storage: Storage) -> None:
        """567 spans of two instances are put with their violations. The next unit of the same call finds them."""
        instances = [self.instance(storage), self.instance(storage)]
        spans = [self.rows.span(instances[number % 2], is_aggregate=number % 3 // 2) for number in range(567)]
        found = [(spans[number].id, violation(side)) for number, side in ((3, "payload"), (560, "result_payload"))]
        done = spans[566]._replace(status="complete", updated_at=T1)
        units = [Unit((PutSpans(spans, found),)), Unit((finish(done.id),), done.id)]
        assert storage.apply(units) == [Applied(), Applied(done)]
        for number, instance in enumerate(instances):
            assert list(storage.ask(SpansOf(instance.id))) == [*spans[:566], done][number::2]
        assert storage.ask(Violations([spans[3].id]))[spans[3].id] == [violation()]
        assert storage.ask(Violations([spans[560].id]))[spans[560].id] == [violation("result_payload")]

    def test_spans_are_put_together_or_none_of_them(self, storage: Storage) -> None:
        """One bad span at any place refuses the whole unit. The next unit of the same call is applied."""
        instance = self.instance(storage)
        spans = [self.rows.span(instance) for _ in range(8)]
        used = self.rows.span(instance)
        self.put(storage, used)
        for bad, why in ((used, "id_used"), (used._replace(id=self.rows.ids.new(), agent_instance_id="x"), "missing")):
            for place in (0, 4, 8):
                rows = [*spans[:place], bad, *spans[place:]]
                last = self.rows.span(instance)
                refused, applied = storage.apply(
                    [Unit((PutSpans(rows, [(spans[0].id, violation())]),)), Unit((Put(last),), last.id)]
                )
                assert isinstance(refused, Refused)
                assert refused.why == why
                assert applied == Applied(last)
                assert storage.ask(Find(*(span.id for span in spans))).rows == {}
                assert storage.ask(Violations([spans[0].id]))[spans[0].id] == []

    def test_spans_are_put_together_in_a_terminated_instance_too(self, storage: Storage) -> None:
        """The outcome has the reason if one of the spans is in a terminated instance."""
        instance, other = self.instance(storage), self.instance(storage)
        self.terminate(storage, instance)
        first, second = self.rows.span(other), self.rows.span(instance)
        assert storage.apply([Unit((PutSpans([first, second]),))]) == [Applied(None, "enough")]
        assert list(storage.ask(SpansOf(instance.id))) == [second]

    def test_a_span_put_in_a_terminated_instance_is_stored_and_says_so(self, storage: Storage) -> None:
        """Nothing that an agent did is lost, and its recorder learns of the termination."""
        instance = self.instance(storage)
        self.terminate(storage, instance)
        alone, together = self.rows.span(instance), [self.rows.span(instance) for _ in range(2)]
        assert storage.apply([Unit((Put(alone, minted=True),))]) == [Applied(None, "enough")]
        units = [Unit((Put(span),)) for span in together]
        assert storage.apply(units) == [Applied(None, "enough")] * 2
        assert [span.id for span in storage.ask(SpansOf(instance.id))] == [alone.id, *(span.id for span in together)]

    def test_a_text_that_is_no_unicode_is_stored_or_refused_with_all_of_its_call(self, storage: Storage) -> None:
        """The text is stored unchanged; or NotStorable is raised, nothing of the call is stored, later calls work."""
        instance = self.instance(storage)
        for column, text in (("summary", "a\ud800b"), ("payload", '{"a":"\udfff"}'), ("result_payload", '"\ud83d"')):
            good, bad = self.rows.span(instance), self.rows.span(instance, **{column: text})
            try:
                outcomes = storage.apply([Unit((Put(good),)), Unit((Put(bad),))])
            except NotStorable:
                assert storage.ask(Find(good.id, bad.id)).rows == {}
                self.put(storage, good)
            except Exception as error:
                raise AssertionError(f"a {type(error).__name__}, which should be a NotStorable") from error
            else:
                assert outcomes == [Applied(), Applied()]
                assert self.stored(storage, bad.id) == bad
            assert self.stored(storage, good.id) == good

    def test_the_same_key_and_request_replays(self, storage: Storage) -> None:
        """The key is checked before any guard. The outcome has the resource as it is now."""
        span = self.rows.span(self.instance(storage))
        key = Key("agent_spans/create", "k", "hash", T0)
        assert storage.apply([Unit((Put(span),), span.id, key)]) == [Applied(span)]
        again = Unit((Put(span._replace(id=self.rows.ids.new())),), span.id, key)
        self.move(storage, finish(span.id))
        assert storage.apply([again]) == [Replayed(span._replace(status="complete", updated_at=T1))]
        found = storage.ask(Find(key=key))
        assert found.key is not None
        assert found.key == ("hash", span.id)
        assert span.id in found.rows

    def test_a_replay_says_that_the_run_was_terminated(self, storage: Storage) -> None:
        """A client that repeats a request receives the reason of the termination, too."""
        instance = self.instance(storage)
        span, key = self.rows.span(instance), Key("create", "k", "h", T0)
        create = Unit((Put(span),), span.id, key)
        assert storage.apply([create]) == [Applied(span)]
        self.terminate(storage, instance)
        assert storage.apply([create]) == [Replayed(span, "enough")]

    def test_a_key_is_stored_with_its_changes(self, storage: Storage) -> None:
        """A refused unit stores no key. In one call, the second unit with a key is already replayed."""
        instance = self.instance(storage)
        span, key = self.rows.span(instance), Key("create", "k", "h", T0)
        assert storage.apply([Unit((finish(span.id),), span.id, key)]) == [Refused("missing")]
        assert storage.ask(Find(key=key)).key is None
        create = Unit((Put(span),), span.id, key)
        other = Unit((finish(span.id),), span.id, key._replace(request_hash="other"))
        assert storage.apply([create, create, other]) == [Applied(span), Replayed(span), KeyTaken()]
        assert storage.ask(Find(key=key)) == ({span.id: ("agent_span", span)}, ("h", span.id), {})
        assert storage.apply([other, Unit((finish(span.id),))], stop_at_refusal=True) == [KeyTaken()]
        assert self.stored(storage, span.id) == span

    def test_the_same_key_for_another_request_is_taken(self, storage: Storage) -> None:
        """A key belongs to one operation. A refused unit does not use up its key."""
        instance = self.instance(storage)
        one, two = self.rows.span(instance), self.rows.span(instance)
        missing = Unit((finish(one.id),), one.id, Key("create", "k", "h0", T0))
        assert storage.apply([missing]) == [Refused("missing")]
        assert storage.apply([Unit((Put(one),), one.id, Key("create", "k", "h1", T0))]) == [Applied(one)]
        assert storage.apply([Unit((Put(two),), two.id, Key("create", "k", "h2", T0))]) == [KeyTaken()]
        assert storage.apply([Unit((Put(two),), two.id, Key("other", "k", "h2", T0))]) == [Applied(two)]

    def test_a_key_whose_resource_is_gone_is_refused(self, storage: Storage) -> None:
        """The request cannot be answered again."""
        agent = self.rows.agent()
        unit = Unit((Put(agent),), agent.id, Key("create", "k", "h", T0))
        storage.apply([unit])
        storage.apply([Unit((Remove("agent", agent.id),))])
        assert storage.apply([unit]) == [Refused("missing")]


class Changing(Base):
    """Contract tests: the guards and the stored values of a single change."""

    def test_what_is_put_is_found_with_its_type(self, storage: Storage) -> None:
        """One Find returns rows of six types by their ids."""
        agent = self.rows.agent("a")
        version, schema, instance = self.rows.family(agent)
        writer = WriterRow(self.rows.ids.new(), "host", "boot", 1, "2", "program", T0)
        span = self.rows.full_span(instance)
        rows: tuple[Row, ...] = (agent, version, schema, instance, writer, span)
        self.put(storage, *rows)
        found = storage.ask(Find(*(row.id for row in rows), self.rows.ids.new()))
        assert dict(found.rows.values()) == {
            "agent": agent,
            "agent_version": version,
            "agent_schema_version": schema,
            "agent_instance": instance,
            "writer": writer,
            "agent_span": span,
        }

    def test_each_column_of_a_span_is_set_by_a_move_and_by_many_puts_at_once(self, storage: Storage) -> None:
        """Columns that most spans leave empty are set, too."""
        instance = self.instance(storage)
        span, others = self.rows.span(instance), [self.rows.full_span(instance) for _ in range(7)]
        assert storage.apply([Unit((Put(span),)), Unit((PutSpans(others),))]) == [Applied(), Applied()]
        full = self.rows.full_span(instance)._asdict()
        values = {name: full[name] for name in full if name not in FIXED}
        assert storage.apply([Unit((Move("agent_span", span.id, LEAVES["complete"], values),))]) == [Applied()]
        assert list(storage.ask(SpansOf(instance.id))) == [span._replace(**values), *others]

    def test_an_id_that_any_type_uses_is_refused(self, storage: Storage) -> None:
        """The refusal has the row that uses the id."""
        instance = self.instance(storage)
        clash = self.rows.span(instance)._replace(id=instance.id)
        assert storage.apply([Unit((Put(clash),))]) == [Refused("id_used", instance)]
        span = self.rows.span(instance)
        self.put(storage, span)
        assert storage.apply([Unit((Put(span, minted=True),))]) == [Refused("id_used", span)]

    def test_unique_columns_refuse_a_second_row(self, storage: Storage) -> None:
        """Two rows may both have None in a unique column."""
        first = self.rows.agent("same")
        self.put(storage, first, self.rows.agent(None), self.rows.agent(None))
        assert storage.apply([Unit((Put(self.rows.agent("same")),))]) == [Refused("not_unique", first)]

    def test_unique_columns_are_compared_as_they_are(self, storage: Storage) -> None:
        """Names that differ in case, in blanks or in how an accent is written are different names."""
        names = ("same", "Same", "SAME", "same ", " same", "s\u00e4me", "sa\u0308me", "stra\u00dfe", "strasse")
        agents = [self.rows.agent(name) for name in names]
        self.put(storage, *agents)
        for agent in agents:
            again = Put(agent._replace(id=self.rows.ids.new()))
            assert storage.apply([Unit((again,))]) == [Refused("not_unique", agent)]

    def test_references_must_exist_and_have_the_type(self, storage: Storage) -> None:
        """The references of the row and those in `refs` of the change are both checked."""
        instance = self.instance(storage)
        orphan = self.rows.span(instance)._replace(agent_instance_id=self.rows.ids.new())
        for put in (Put(orphan), Put(orphan, minted=True)):
            assert why_refused(storage, Unit((put,))) == "missing"
        for parent in (self.rows.ids.new(), instance.id):
            child = self.rows.span(instance, parent_span_id=parent)
            assert why_refused(storage, Unit((Put(child, (Ref("agent_span", parent),)),))) == "missing"
            assert self.stored(storage, child.id) is None

    def test_a_parent_that_nobody_named_as_a_reference_may_come_later(self, storage: Storage) -> None:
        """Between processes a child can arrive first."""
        instance = self.instance(storage)
        self.put(storage, self.rows.span(instance, parent_span_id=self.rows.ids.new()))

    def test_a_move_sets_values_when_its_guard_holds(self, storage: Storage) -> None:
        """Columns that the move does not name stay unchanged."""
        span = self.rows.span(self.instance(storage))
        self.put(storage, span)
        assert storage.apply([Unit((finish(span.id, result_payload='{"a":1}'),))]) == [Applied()]
        stored = self.stored(storage, span.id)
        assert stored == span._replace(status="complete", updated_at=T1, result_payload='{"a":1}')

    def test_an_end_may_set_what_was_learnt_by_then(self, storage: Storage) -> None:
        """A finish may set the type, the payload and columns derived from them. A second finish is refused."""
        span = self.rows.span(self.instance(storage))
        self.put(storage, span)
        learnt: dict[str, Any] = {
            "schema_name": "llm",
            "schema_title": "LLM",
            "payload": '{"model":"m"}',
            "label": "m",
            "is_aggregate": 1,
        }
        end = finish(span.id, result_payload='{"text":"a"}', finished_at=T1, **learnt)
        assert storage.apply([Unit((end,))]) == [Applied()]
        stored = span._replace(
            status="complete", updated_at=T1, result_payload='{"text":"a"}', finished_at=T1, **learnt
        )
        assert self.stored(storage, span.id) == stored
        assert storage.apply([Unit((end,))]) == [Refused("status", stored)]

    def test_a_run_takes_its_spans_to_another_agent(self, storage: Storage) -> None:
        """Spans of other runs keep their agent."""
        run, other = self.instance(storage), self.instance(storage)
        agent = self.rows.agent()
        version, schema, _ = self.rows.family(agent)
        spans = [self.rows.span(run), self.rows.span(run)._replace(status="complete"), self.rows.span(other)]
        self.put(storage, agent, version, schema, *spans)
        values: dict[str, Any] = {
            "agent_id": agent.id,
            "agent_version_id": version.id,
            "agent_schema_version_id": schema.id,
        }
        self.move(storage, Move("agent_instance", run.id, frozenset(), values))
        assert self.stored(storage, run.id) == run._replace(**values)
        agents = [cast(AgentSpanRow, self.stored(storage, span.id)).agent_id for span in spans]
        assert agents == [agent.id, agent.id, other.agent_id]

    def test_a_move_frees_the_name_that_it_replaces(self, storage: Storage) -> None:
        """Another row may take the old name, but not the new one. Setting a name to None frees it, too."""
        first, second, third = self.rows.agent("old"), self.rows.agent("old"), self.rows.agent("new")
        self.put(storage, first)
        self.move(storage, _named(first, "new"))
        assert storage.apply([Unit((Put(third),))]) == [
            Refused("not_unique", first._replace(external_identifier="new"))
        ]
        self.put(storage, second)
        self.move(storage, _named(first, None))
        self.put(storage, third)

    def test_a_move_is_refused_when_the_status_forbids_it(self, storage: Storage) -> None:
        """The refusal has the stored row, which is unchanged."""
        span = self.rows.span(self.instance(storage))._replace(status="complete")
        self.put(storage, span)
        assert storage.apply([Unit((finish(span.id, "failed"),))]) == [Refused("status", span)]
        assert self.stored(storage, span.id) == span

    def test_a_move_of_what_is_not_there_is_refused(self, storage: Storage) -> None:
        """A move of a missing id, and of an id of another type, is refused as missing."""
        instance = self.instance(storage)
        assert storage.apply([Unit((finish(self.rows.ids.new()),))]) == [Refused("missing")]
        assert storage.apply([Unit((finish(instance.id),))]) == [Refused("missing", instance)]

    def test_a_move_can_ask_that_columns_are_as_they_were(self, storage: Storage) -> None:
        """A move with `unchanged` is refused if another writer has changed one of these columns meanwhile."""
        instance = self.instance(storage)
        move = Move("agent_instance", instance.id, frozenset(), {"metadata": '{"a":1}'}, unchanged={"metadata": None})
        assert storage.apply([Unit((move,))]) == [Applied()]
        stored = instance._replace(metadata='{"a":1}')
        assert storage.apply([Unit((move,))]) == [Refused("changed", stored)]
        again = move._replace(set={"metadata": "{}"}, unchanged={"metadata": '{"a":1}'})
        assert storage.apply([Unit((again,))]) == [Applied()]

    def test_an_end_replaces_a_close_once(self, storage: Storage) -> None:
        """`over` applies only if the row has `closed_by` and one of the named statuses."""
        instance = self.instance(storage)
        span = self.rows.span(instance)
        self.put(storage, span)
        over = (Over(frozenset({"failed"}), {"status": "complete", "ended_late": 1, "updated_at": T2}),)
        end = finish(span.id)._replace(over=over)
        close = finish(span.id, "failed", closed_by="terminated", closed_at=T1)
        assert storage.apply([Unit((finish(span.id, "failed"),)), Unit((end,))])[1].why == "status"  # type: ignore[union-attr]
        other = self.rows.span(instance)
        self.put(storage, other)
        terminate = Move(
            "agent_instance", instance.id, frozenset(), {"status": "terminated", "termination_reason": "x"}
        )
        end, close = (move._replace(id=other.id) for move in (end, close))
        elsewhere = end._replace(over=(Over(frozenset({"cancelled"}), over[0].set),))
        units = [Unit((change,)) for change in (terminate, close, elsewhere, end, end)]
        outcomes = storage.apply(units)
        assert [type(outcome) for outcome in outcomes] == [Applied, Applied, Refused, Applied, Refused]
        assert outcomes[3] == Applied(None, "x")
        stored = self.stored(storage, other.id)
        closed = other._replace(closed_by="terminated", closed_at=T1)
        assert stored == closed._replace(status="complete", ended_late=1, updated_at=T2)
        assert storage.apply([Unit((end,))]) == [Refused("status", stored)]

    def test_what_replaces_a_close_may_add_to_the_values_of_the_end(self, storage: Storage) -> None:
        """The first `Over` whose guard holds is applied. With `adds`, its values are added to those of the move."""
        instance = self.instance(storage)
        over = (Over(frozenset({"cancelled"}), {}), Over(frozenset({"failed"}), {"ended_late": 1}, adds=True))
        span = self.rows.span(instance)._replace(status="failed", closed_by="abandoned", closed_at=T0)
        self.put(storage, span)
        self.move(storage, finish(span.id, label="x")._replace(over=over))
        ended = span._replace(status="complete", updated_at=T1, label="x", ended_late=1)
        assert self.stored(storage, span.id) == ended

    def test_only_what_nothing_refers_to_is_removed(self, storage: Storage) -> None:
        """A unit of several removals is applied whole or refused whole."""
        agent = self.rows.agent("x")
        version, schema, instance = self.rows.family(agent)
        self.put(storage, agent, version, schema)
        assert storage.apply([Unit((Remove("agent", agent.id),))]) == [Refused("referenced", agent)]
        removes = (Remove("agent_version", version.id), Remove("agent_schema_version", schema.id))
        self.put(storage, instance)
        assert storage.apply([Unit((*removes, Remove("agent", agent.id)))]) == [Refused("referenced", version)]
        assert self.stored(storage, version.id) == version
        other = self.rows.agent("y")
        self.put(storage, other)
        assert storage.apply([Unit((Remove("agent", other.id),))]) == [Applied()]
        assert self.stored(storage, other.id) is None
        assert storage.apply([Unit((Remove("agent", other.id),))]) == [Refused("missing")]
        self.put(storage, self.rows.agent("y"))  # the name is free again

    def test_violations_are_kept_with_their_span(self, storage: Storage) -> None:
        """A new payload replaces the violations of the payload, and leaves those of the result."""
        span = self.rows.span(self.instance(storage))
        storage.apply([Unit((Put(span, violations=(violation(), violation("result_payload"))),))])
        assert storage.ask(Violations([span.id]))[span.id] == [violation(), violation("result_payload")]
        move = Move("agent_span", span.id, frozenset({"active"}), {"payload": "[]"}, (violation(path="$.b"),))
        storage.apply([Unit((move,))])
        assert storage.ask(Violations([span.id]))[span.id] == [violation("result_payload"), violation(path="$.b")]

    def test_all_violations_of_a_move_are_kept(self, storage: Storage) -> None:
        """The order of violations is kept, on both sides; equal violations are not merged."""
        span = self.rows.span(self.instance(storage))
        self.put(storage, span)
        found = [violation(path=f"$.{number}") for number in range(20)]
        found += [violation("result_payload", "$.r"), violation("result_payload", "$.r")]
        self.move(storage, finish(span.id, payload="[]", result_payload="{}")._replace(violations=tuple(found)))
        assert storage.ask(Violations([span.id]))[span.id] == found


def _named(agent: AgentRow, name: str | None) -> Move:
    """Return the move that sets the unique name of an agent, or removes it."""
    return Move("agent", agent.id, frozenset(), {"external_identifier": name})
