"""Contract of a storage: several changes in one unit, and several units in one call; idempotency keys."""

from typing import Any

from agentspan.errors import NotStorable
from agentspan.model.changes import Applied, Key, KeyTaken, Move, Put, PutSpans, Refused, Remove, Replayed, Unit
from agentspan.model.status import LEAVES
from agentspan.storage.protocol import Storage
from agentspan.storage.questions import Find, SpansOf, Violations
from agentspan.testing.contract.base import Base
from agentspan.testing.contract.rows import T0, T1, finish, violation


class Units(Base):
    """Contract: several changes in one unit, and several units in one call; idempotency keys."""

    def test_a_unit_is_all_or_nothing(self, storage: Storage) -> None:
        """Also its violations and its key."""
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
        """Where it would have taken a run to another agent."""
        run, other = self.instance(storage), self.instance(storage)
        spans = [self.rows.span(run), self.rows.span(run)._replace(status="complete")]
        self.put(storage, *spans)
        moves = Move("agent_instance", run.id, frozenset(), {"agent_id": other.agent_id}), finish(self.rows.ids.new())
        assert storage.apply([Unit(moves)]) == [Refused("missing")]
        assert self.stored(storage, run.id) == run
        assert list(storage.ask(SpansOf(run.id))) == spans

    def test_units_of_one_call_see_the_ones_before(self, storage: Storage) -> None:
        """And a refused one does not undo its neighbours."""
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
        """With the reason, when its instance is terminated."""
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
        """Also one that ends twice, one that is missing, and those that end in another way than the one before."""
        runs = [self.instance(storage) for _ in range(5)]
        result = '{"output":"a \\"quoted\\" \\\\, {NULL}"}'
        complete: dict[str, Any] = {"status": "complete", "duration_ms": 0.125, "result": None, "updated_at": T1}
        said = {**complete, "result": result}
        failed = {"status": "failed", "duration_ms": 1e300, "error": "{}", "updated_at": T1}
        ends = [complete, said, said, failed, failed]
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
        """However many, of several instances, with their violations, and before what follows in the same call."""
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
        """Whatever is wrong, and wherever; what is in the same call stays."""
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
        """It is enough that one of them is in such an instance."""
        instance, other = self.instance(storage), self.instance(storage)
        values: dict[str, Any] = {"status": "terminated", "termination_reason": "enough"}
        self.move(storage, Move("agent_instance", instance.id, LEAVES["terminated"], values))
        first, second = self.rows.span(other), self.rows.span(instance)
        assert storage.apply([Unit((PutSpans([first, second]),))]) == [Applied(None, "enough")]
        assert list(storage.ask(SpansOf(instance.id))) == [second]

    def test_a_span_put_in_a_terminated_instance_is_stored_and_says_so(self, storage: Storage) -> None:
        """Nothing that an agent did is lost, and its recorder learns of the termination."""
        instance = self.instance(storage)
        values: dict[str, Any] = {"status": "terminated", "termination_reason": "enough"}
        storage.apply([Unit((Move("agent_instance", instance.id, LEAVES["terminated"], values),))])
        alone, together = self.rows.span(instance), [self.rows.span(instance) for _ in range(2)]
        assert storage.apply([Unit((Put(alone, minted=True),))]) == [Applied(None, "enough")]
        units = [Unit((Put(span),)) for span in together]
        assert storage.apply(units) == [Applied(None, "enough")] * 2
        assert [span.id for span in storage.ask(SpansOf(instance.id))] == [alone.id, *(span.id for span in together)]

    def test_a_text_that_is_no_unicode_is_stored_or_refused_with_all_of_its_call(self, storage: Storage) -> None:
        """It comes back as it was; or NotStorable is raised, nothing of the call is stored, and the storage goes on."""
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
        """Before any guard is looked at; the resource is the one of now."""
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
        """So that a client that tries again learns it, too."""
        instance = self.instance(storage)
        span, key = self.rows.span(instance), Key("create", "k", "h", T0)
        create = Unit((Put(span),), span.id, key)
        assert storage.apply([create]) == [Applied(span)]
        self.terminate(storage, instance)
        assert storage.apply([create]) == [Replayed(span, "enough")]

    def test_a_key_is_stored_with_its_changes(self, storage: Storage) -> None:
        """A refused unit stores none; the next unit of the same call already meets the key of the first."""
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
        """Its scope is the operation; one that was refused has used none."""
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
