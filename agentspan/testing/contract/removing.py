"""Contract of a storage that claims removal: what goes, and what stays."""

from agentspan.model.changes import Applied, Key, Put, Refused, Replayed, Unit
from agentspan.model.rows import AgentInstanceRow, OtelTraceRow, RefusedChangeRow, ScoreRow, TagRow
from agentspan.storage.protocol import Storage
from agentspan.storage.questions import Counts, Find, Query, RemoveKeys, RemoveRuns, SpansOf, Violations
from agentspan.testing.contract.base import Base
from agentspan.testing.contract.rows import T0, T1, T2, finish, violation


class Removing(Base):
    """Contract: removal."""

    def test_runs_are_removed_with_all_that_belongs_to_them(self, storage: Storage) -> None:
        """Spans, violations, refused changes, traces, tags, scores, unique values; a key of theirs answers nothing."""
        self.answered(storage, RemoveRuns)
        gone, stays = self._ended(storage, "same"), self._ended(storage, "other")
        refused = [
            RefusedChangeRow(self.rows.ids.new(), "x", run.id, "status", None, "{}", None, T0) for run in (gone, stays)
        ]
        traces = [OtelTraceRow(name * 32, run.id, T0) for name, run in (("a", gone), ("b", stays))]
        tags = [TagRow(self.rows.ids.new(), run.id, "eval", T0) for run in (gone, stays)]
        judged = ("reward", 1.0, None, "code", None, T0, "why")
        scores = [ScoreRow(self.rows.ids.new(), run.id, "agent_instance", run.id, *judged) for run in (gone, stays)]
        self.put(storage, *refused, *traces, *tags, *scores)
        before = {run.id: list(storage.ask(SpansOf(run.id))) for run in (gone, stays)}
        key = Key("create", "k", "h", T0)
        span = self.rows.span(gone)._replace(status="complete")
        create = Unit((Put(span),), span.id, key)
        assert storage.apply([create]) == [Applied(span)]
        assert storage.ask(RemoveRuns([gone.id, self.rows.ids.new()], 1.0)) == (1, 3)
        of_gone = (refused[0].id, traces[0].id, tags[0].id, scores[0].id, span.id)
        gone_ids = [gone.id, *of_gone, *(each.id for each in before[gone.id])]
        assert storage.ask(Find(*gone_ids)).rows == {}
        assert list(storage.ask(SpansOf(gone.id))) == []
        assert storage.ask(Counts([gone.id]))[gone.id].total == 0
        assert storage.ask(Violations([before[gone.id][0].id]))[before[gone.id][0].id] == []
        assert storage.apply([create]) == [Refused("missing")]
        assert storage.ask(Query("agent_instance")).rows == [stays]
        assert storage.ask(Query("refused_change")).rows == [refused[1]]
        assert storage.ask(Query("otel_trace")).rows == [traces[1]]
        assert storage.ask(Query("tag")).rows == [tags[1]]
        assert storage.ask(Query("score")).rows == [scores[1]]
        assert list(storage.ask(SpansOf(stays.id))) == before[stays.id]
        assert storage.ask(Violations([before[stays.id][0].id]))[before[stays.id][0].id] == [violation()]
        self.put(storage, gone._replace(id=self.rows.ids.new()))  # its external_identifier is free again
        assert storage.ask(RemoveRuns([gone.id], 1.0)) == (0, 0)

    def test_a_run_with_anything_open_in_it_is_not_removed(self, storage: Storage) -> None:
        """One that is open itself, or has an active or pending span; the finished ones beside it go."""
        self.answered(storage, RemoveRuns)
        ended = self._ended(storage, "ended")
        is_open = self.instance(storage)
        stay = [is_open]
        for status in ("active", "pending"):
            run = self.instance(storage)
            self.put(
                storage, self.rows.span(run)._replace(status="complete"), self.rows.span(run)._replace(status=status)
            )
            stay.append(self.end(storage, run))
        ids = [*(run.id for run in stay), ended.id]
        assert storage.ask(RemoveRuns(ids, 1.0)) == (1, 2)
        assert storage.ask(Query("agent_instance")).rows == stay
        assert [storage.ask(Counts([run.id]))[run.id].total for run in stay] == [0, 2, 2]

    def test_old_keys_are_removed(self, storage: Storage) -> None:
        """Those from before a time; a dry run counts them. A key that is gone can be used again."""
        self.answered(storage, RemoveRuns)
        agents = [self.rows.agent() for _ in range(3)]
        keys = [Key("create", f"k{time}", "h", time) for time in (T0, T1, T2)]
        units = [Unit((Put(agent),), agent.id, key) for agent, key in zip(agents, keys, strict=True)]
        storage.apply(units)
        assert storage.ask(RemoveKeys(T1, 1.0, dry_run=True)) == 1
        assert storage.ask(Find(key=keys[0])).key == ("h", agents[0].id)
        assert storage.ask(RemoveKeys(T1, 1.0)) == 1
        assert [storage.ask(Find(key=key)).key for key in keys] == [None, ("h", agents[1].id), ("h", agents[2].id)]
        assert storage.apply(units) == [Refused("id_used", agents[0]), Replayed(agents[1]), Replayed(agents[2])]
        assert storage.ask(RemoveKeys(T1, 1.0)) == 0
        assert len(storage.ask(Find(*(agent.id for agent in agents))).rows) == 3

    def _ended(self, storage: Storage, name: str) -> AgentInstanceRow:
        """Put a finished run with two finished spans, of which the first has a violation."""
        agent = self.rows.agent()
        version, schema, run = self.rows.family(agent)
        run = run._replace(external_identifier=name)
        self.put(storage, agent, version, schema, run)
        spans = [self.rows.span(run) for _ in range(2)]
        storage.apply([Unit((Put(spans[0], violations=(violation(),)),)), Unit((Put(spans[1]),))])
        for span in spans:
            self.move(storage, finish(span.id))
        return self.end(storage, run)
