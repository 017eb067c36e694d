"""Contract tests: the own answers of a storage about runs, scores and SQL equal those of reading row by row."""

import random
from collections.abc import Iterator, Sequence
from typing import Any

import pytest

from agentspan.errors import InvalidValue
from agentspan.model.changes import PURPOSES, Move, Put, Refused, Remove, Unit
from agentspan.model.rows import AgentInstanceRow, AgentSpanRow, ScoreRow, TagRow
from agentspan.model.scores import age, counting
from agentspan.storage import row_by_row
from agentspan.storage.access import outlines_of
from agentspan.storage.answers import LatestScore
from agentspan.storage.protocol import Storage
from agentspan.storage.questions import (
    SORTS,
    BriefsWhere,
    CachedCalls,
    FailureSums,
    Find,
    LatestScores,
    NewestScores,
    Outlines,
    Query,
    Question,
    RemoveRuns,
    RunFilter,
    RunSums,
    RunsWhere,
    Search,
    Select,
    SpansOf,
    SpanStats,
    SpanSums,
    SpansWith,
    StepUses,
    Tags,
    TimedSums,
    Touched,
    Used,
)
from agentspan.storage.row_by_row import added_up
from agentspan.storage.text_search import terms
from agentspan.testing.contract.base import T0, T1, T2, Base, finish, why_refused

WORDS = ("flight", "Zürich", "timeout", "hotel", "train", "snake_case", "42")
SEARCHES = ("flight", "ho*", '"hotel train"', "zurich", "flight -hotel 42", "nothing", "snake")
SAID = [f'{{"role":"user","content":"{word} is said in message {number}"}}' for number, word in enumerate(WORDS)]
MODELS = (None, "gpt-4.1", "small")
ERRORS = ("no answer in 3 s", "no answer in 30 s", "gave up: no answer in 3 s", "")
NOTES = ('"note 1"', '{"note":1,"deep":{"er":true}}', '{"note":[2],"deep.er":false}', '{"note":"one"}')
COMMITS = (None, "a1" * 20, "a2" * 20, "1a" * 32)


class Answering(Base):
    """Contract tests: outlines, sums, questions about many runs, SQL."""

    def test_outlines_are_the_spans_without_most_of_their_payloads(self, storage: Storage) -> None:
        """Outlines are sorted by id, and may be limited by `after`, `since` and `limit`."""
        self.answered(storage, Outlines)
        runs = _history(self, storage, random.Random(1), steps=60)
        for run in runs:
            spans = [outlined(span) for span in storage.ask(SpansOf(run.id))]
            assert storage.ask(Outlines(run.id)) == spans
            for number in (0, 1, len(spans) // 2):
                assert storage.ask(Outlines(run.id, limit=number)) == spans[:number]
                after = spans[number].id if number < len(spans) else ""
                assert storage.ask(Outlines(run.id, after=after)) == [span for span in spans if span.id > after]
            for since in {span.updated_at for span in spans}:
                assert storage.ask(Outlines(run.id, since=since)) == [
                    span for span in spans if span.updated_at >= since
                ]
            bare = [span._replace(payload="{}", result_payload=None) for span in spans]
            found = [*outlines_of(storage, run.id, bare=True)]
            assert [span._replace(payload="{}", result_payload=None) for span in found] == bare
        assert storage.ask(Outlines("nothing")) == []

    def test_sums_of_a_run_are_those_of_its_spans(self, storage: Storage) -> None:
        """Spans are summed by status, type and label. The cost of aggregates is left out."""
        self.answered(storage, SpanSums)
        chance = random.Random(4)
        for run in _history(self, storage, chance, steps=60):
            costs = (None, 0.5, 0.25)
            for _ in range(5):
                cost, is_aggregate = chance.choice(costs), chance.randrange(2)
                self.put(storage, self.rows.span(run)._replace(cost_usd=cost, is_aggregate=is_aggregate))
            wanted = added_up(storage.ask(SpansOf(run.id)))
            assert sorted(storage.ask(SpanSums(run.id)), key=repr) == sorted(wanted, key=repr)
        assert storage.ask(SpanSums(self.rows.ids.new())) == []

    def test_the_runs_that_touched_a_file_are_those_whose_tools_name_it(self, storage: Storage) -> None:
        """Calls of tools count, by the whole path or by its end, whole parts; neither answers nor other spans do."""
        self.answered(storage, Touched)
        named = '{"name":"Edit","arguments":{"file_path":"/work/shop/src/a%_é.py"}}'
        patch = '{"name":"apply_patch","arguments":"*** Begin Patch\\n*** Update File: src/b.py\\n@@"}'
        runs = [self.instance(storage) for _ in range(4)]
        steps = (("tool", named), ("codex:tool", patch), ("message", named), ("tool", "{}"))
        for run, (name, payload) in zip(runs, steps, strict=True):
            self.put(storage, self.rows.span(run, schema_name=name, payload=payload))
        asked = (
            "a%_é.py", "src/a%_é.py", "/work/shop/src/a%_é.py", "aX_é.py", "%_é.py", "b.py", "./src/b.py",
            "/work/shop/src/b.py", "shop/src", "", "/", "\ud800",
        )  # fmt: skip
        for path in asked:
            assert storage.ask(Touched(path)) == row_by_row.answer(storage, Touched(path)), path
        assert storage.ask(Touched("src/a%_é.py")) == {runs[0].id}
        assert storage.ask(Touched("/work/shop/src/b.py")) == {runs[1].id}

    def test_calls_that_used_a_cache_have_their_tokens(self, storage: Storage) -> None:
        """Of a result, only whole numbers at its top count, and of those only what a cache read or wrote."""
        self.answered(storage, CachedCalls)
        runs = [self.instance(storage) for _ in range(3)]
        results = (
            '{"cached_tokens":7,"response_model":"m-1","text":"\\ud800"}',
            '{"cache_write_tokens":9,"cache_write_1h_tokens":4}',
            '{"cached_tokens":0}', '{"cached_tokens":"7"}', '{"cached_tokens":-7}', '{"a":{"cached_tokens":7}}', "[]",
            '{"cached_tokens":2.0,"cache_write_tokens":1,"cache_write_1h_tokens":5}', '"\\"cached_tokens\\""', None,
        )  # fmt: skip
        for run in runs[:2]:
            for number, result in enumerate(results):
                payload = '{"provider":"p","messages":[{"role":"user","content":"hello"}]}' if number % 2 else "{}"
                span = self.rows.span(run, payload=payload, is_aggregate=0)
                self.put(
                    storage, span._replace(status="complete", label="m", result_payload=result, input_tokens=number)
                )
        self.put(storage, self.rows.span(runs[2], is_aggregate=1)._replace(result_payload=results[0]))
        ids = [run.id for run in runs]
        for asked in (None, ids, ids[1:], [ids[0], "nothing"], []):
            found, wanted = storage.ask(CachedCalls(asked)), row_by_row.answer(storage, CachedCalls(asked))
            assert sorted(found, key=repr) == sorted(wanted, key=repr)
        span = self.rows.span(runs[0])
        name = runs[0].id, span.schema_name, "m", row_by_row.quarter_of(span)
        assert sorted(storage.ask(CachedCalls(ids[:1])), key=repr) == [
            (*name, "m-1", None, 0, 7, 0, 0), (*name, None, "p", 1, 0, 9, 4), (*name, None, "p", 7, 2, 1, 1),
        ]  # fmt: skip

    def test_answers_about_many_runs_are_those_of_reading_row_by_row(self, storage: Storage) -> None:
        """The answers are compared for random runs, before and after spans end and runs are removed."""
        self.answered(storage, RunsWhere)
        for seed in (0, 5):  # both seeds yield a span that failed only because its child failed
            chance = random.Random(seed)
            runs = _history(self, storage, chance, steps=40)
            self._assert_same(storage, chance, runs)
            for run in chance.sample(runs, 2):
                for span in list(storage.ask(SpansOf(run.id))):
                    if span.status == "active":
                        self.move(storage, finish(span.id, duration_ms=chance.choice((0.25, 7.0)), output_tokens=3))
            self._assert_same(storage, chance, runs)
            if RemoveRuns in storage.capabilities().answers:
                storage.ask(RemoveRuns([run.id for run in runs[:2]], 5.0))
                self._assert_same(storage, chance, runs)

    def _assert_same(self, storage: Storage, chance: random.Random, runs: Sequence[AgentInstanceRow]) -> None:
        def assert_same(question: Question[Any], *, in_order: bool = True) -> None:
            answer, wanted = storage.ask(question), row_by_row.answer(storage, question)
            if not in_order:
                answer, wanted = sorted(answer, key=repr), sorted(wanted, key=repr)
            assert answer == wanted, question

        times = [None, *sorted({run.inserted_at for run in runs})]
        agent = storage.ask(Find(runs[0].agent_id)).rows.get(runs[0].agent_id)
        names = [None, "nobody", runs[0].agent_id, getattr(agent and agent[1], "name", None)]
        filters = [RunFilter(), RunFilter(failed=True), RunFilter(grep="NOTE 1"), RunFilter(grep=runs[0].id[-9:])]
        filters += [RunFilter(git_commit=beginning) for beginning in ("", "a", "A1", COMMITS[1], "a0", "%")]
        filters += [RunFilter(version=runs[0].agent_version_id[-9:]), RunFilter(session="s1"), RunFilter(session="s")]
        filters += [RunFilter(error=text) for text in ("NO ANSWER", "no such error", "")]
        filters += [RunFilter(meta=(("note", value),)) for value in ("1", "[2]", "one")]
        filters += [RunFilter(task="t1"), RunFilter(tags=("a",)), RunFilter(tags=("a", "b"), task="t1")]
        filters.append(RunFilter(purpose="eval"))
        filters += [RunFilter(ids=frozenset(run.id for run in runs[:2])), RunFilter(ids=frozenset())]
        filters.append(RunFilter(until=times[-1], meta=(("note", "1"), ("deep.er", "true"))))
        for _ in range(4):
            status = chance.choice((None, "active", "complete", "failed", "terminated"))
            filters.append(RunFilter(chance.choice(names), status, chance.choice(times), chance.random() < 0.3))
        for filter in filters:
            limit, offset = chance.choice(((None, 0), (3, 0), (2, 2), (5, 1000)))
            sort = "started" if filter == RunFilter() else chance.choice(SORTS)
            assert_same(RunsWhere(filter, limit, offset, sort))
            assert_same(BriefsWhere(filter))
        ids = [run.id for run in runs]
        some = ids[1:3]
        for since, until in [(None, None), *((chance.choice(times), chance.choice(times)) for _ in range(3))]:
            for wanted in (None, some, []):
                assert_same(SpanStats(since, until, wanted), in_order=False)
        for asked in (ids, ids[1:2], [*ids[:2], "nothing"]):
            assert_same(FailureSums(asked), in_order=False)
            assert_same(StepUses(asked), in_order=False)
        for wanted in (ids, some, []):
            assert_same(RunSums(wanted), in_order=False)
            assert_same(TimedSums(wanted), in_order=False)
        for name in (*MODELS, "*", "g*", "*[", "G*", "\ud800"):
            for types in (("llm",), ("tool", "agent"), ()):
                assert_same(Used(frozenset(types), name or ""))
        for words in SEARCHES:
            limit, offset = chance.choice(((1000, 0), (2, 1)))
            search = Search(terms(words), limit, offset, chance.choice((None, some)))
            found, total = storage.ask(search)
            slowly, of_all = row_by_row.answer(storage, search)
            hits = [[(one.span.id, one.repeats) for one in page] for page in (found, slowly)]
            assert (hits[0], total) == (hits[1], of_all), words
            for run in ids:
                assert_same(SpansWith(run, terms(words)))

    def test_sql_reads_the_documented_tables_and_views(self, storage: Storage) -> None:
        """A SELECT may have parameters; the answer has the names of the columns."""
        self.answered(storage, Select)
        run = self.instance(storage)
        spans = [self.rows.span(run, summary="it's a") for _ in range(3)]
        self.put(storage, *spans)
        assert storage.ask(Select("select ? as one, 'a' as two", (1,))) == (["one", "two"], [(1, "a")])
        by_id = "select id, payload from agent_spans where agent_instance_id = ? and summary = ? order by id"
        answer = storage.ask(Select(by_id, (run.id, "it's a")))
        assert answer == (["id", "payload"], [(span.id, span.payload) for span in spans])
        assert storage.ask(Select("select run, spans from runs")).rows == [(run.id, 3)]
        assert storage.ask(Select("select span, status from spans order by span limit 1")).rows == [
            (spans[0].id, "active")
        ]
        assert storage.ask(Select("select id from agents where 1 = 0")) == (["id"], [])

    def test_sql_ends_in_time_and_after_a_number_of_rows(self, storage: Storage) -> None:
        """A SELECT that takes longer than its limit raises InvalidValue; no more rows are read than asked for."""
        self.answered(storage, Select)
        three = "select 1 as n union all select 2 union all select 3 order by n"
        assert storage.ask(Select(three, most_rows=2, limit_s=60)).rows == [(1,), (2,)]
        endless = "with recursive a(n) as (select 1 union all select n % 9 + 1 from a) select count(*) from a"
        with pytest.raises(InvalidValue, match=r"took longer than 0\.05 s"):
            storage.ask(Select(endless, limit_s=0.05))

    def test_sql_can_do_nothing_but_read(self, storage: Storage) -> None:
        """A statement that writes, or is no SQL, raises InvalidValue."""
        self.answered(storage, Select)
        span = self.rows.span(self.instance(storage))
        self.put(storage, span)
        for query in (
            "update agent_spans set status = 'failed'",
            "delete from agent_spans",
            "insert into agents select * from agents",
            "drop table agent_spans",
            "create table mine (id text)",
            "select 1; delete from agent_spans",
            "selekt",
            "select * from nowhere",
            "select ?",
        ):
            with pytest.raises(InvalidValue):
                storage.ask(Select(query))
        assert self.stored(storage, span.id) == span
        assert storage.apply([Unit((finish(span.id),))])


def outlined(span: AgentSpanRow) -> AgentSpanRow:
    """Return a span without the payloads that the answer to Outlines omits."""
    payload = span.payload if span.summary is None else "{}"
    return span._replace(payload=payload, result_payload=span.result_payload if span.status == "failed" else None)


def _history(base: Base, storage: Storage, chance: random.Random, steps: int) -> list[AgentInstanceRow]:
    """Apply runs with spans of every kind, whose costs and durations add up exactly; return the runs as they are."""
    runs: list[AgentInstanceRow] = []
    for _ in range(4):
        agent = base.rows.agent()._replace(name=f"agent {chance.randrange(2)}")
        version, schema, run = base.rows.family(agent)
        at = f"2026-01-0{chance.randrange(1, 9)}T00:00:00.000000Z"
        run = run._replace(
            metadata=chance.choice(NOTES),
            session=chance.choice((None, "s1", "s2")),
            task=chance.choice((None, "t1", "t2")),
            purpose=chance.choice(PURPOSES),
            inserted_at=at,
            started_at=chance.choice((None, at)),
            git_commit=COMMITS[len(runs)],
        )
        base.put(storage, agent, version, schema, run)
        base.put(storage, *(TagRow(base.rows.ids.new(), run.id, tag, at) for tag in "ab" if chance.random() < 0.6))
        runs.append(run)
    for _ in range(steps):
        run = chance.choice(runs)
        outer, inner = _span(base, chance, run), _span(base, chance, run)
        spans = [outer, inner._replace(parent_span_id=outer.id)]
        storage.apply([Unit(tuple(Put(span) for span in spans))])
    for run in chance.sample(runs, 3):
        status = chance.choice(("complete", "failed", "terminated"))
        values: dict[str, Any] = {
            "status": status,
            "duration_ms": float(chance.randrange(9)),
            "updated_at": run.inserted_at,
        }
        base.move(storage, Move("agent_instance", run.id, frozenset({"active"}), values))
    return list(_as_they_are(storage, runs))


def _as_they_are(storage: Storage, runs: Sequence[AgentInstanceRow]) -> Iterator[AgentInstanceRow]:
    found = storage.ask(Find(*(run.id for run in runs))).rows
    for run in runs:
        row = found[run.id][1]
        assert isinstance(row, AgentInstanceRow)
        yield row


def _span(base: Base, chance: random.Random, run: AgentInstanceRow) -> AgentSpanRow:
    status = chance.choice(("pending", "active", "complete", "complete", "complete", "failed", "cancelled"))
    text = " ".join(chance.choices(WORDS, k=3))
    at = f"2026-01-0{chance.randrange(1, 9)}T00:00:00.00000{chance.randrange(9)}Z"
    ended = status in ("complete", "failed")
    result = f'{{"text": "{chance.choice(WORDS)}"}}'
    if status == "failed":
        result = f'{{"error": {{"type": "E", "message": "{chance.choice(ERRORS)}"}}}}'
    name = chance.choice(("llm", "tool", "agent"))
    return base.rows.span(run)._replace(
        schema_name=name,
        status=status,
        payload=chance.choice((f'{{"text": "{text}"}}', f'{{"messages":[{",".join(SAID[: chance.randrange(8)])}]}}')),
        result_payload=result if ended and chance.random() < 0.7 else None,
        summary=text if chance.random() < 0.5 else None,
        label=chance.choice(MODELS),
        started_at=chance.choice((None, at)),
        inserted_at=at,
        updated_at=at,
        duration_ms=chance.choice((0.0625, 1.0, 12.5, 400.0)) if ended else None,
        input_tokens=chance.choice((None, 0, 7)),
        output_tokens=chance.choice((None, 5)),
        cost_usd=chance.choice((None, 0.25, 0.5)),
        finish_reason=chance.choice((None, "stop", "length")) if ended else None,
        is_aggregate=int(name == "agent"),  # as in practice, all spans of a type or none of them
    )


NAMES = ("reward", "mark")


class Scoring(Base):
    """Contract tests: tags and scores."""

    def test_tags_and_scores_belong_to_a_run_that_exists(self, storage: Storage) -> None:
        """A run has each tag once, and any number of scores, also of spans that are not stored yet."""
        run, other = self.instance(storage), self.instance(storage)
        tags = [TagRow(self.rows.ids.new(), each.id, tag, T0) for each in (run, other) for tag in ("eval", "nightly")]
        scores = [self.score(run.id, number, target_id=target) for number in (1.0, 2.0) for target in (run.id, "later")]
        self.put(storage, *tags, *scores, self.score(other.id, None))
        again = tags[0]._replace(id=self.rows.ids.new())
        assert storage.apply([Unit((Put(again),))]) == [Refused("not_unique", tags[0])]
        assert storage.apply([Unit((Put(scores[0]),))]) == [Refused("id_used", scores[0])]
        unknown = self.rows.ids.new()
        assert why_refused(storage, Unit((Put(again._replace(agent_instance_id=unknown)),))) == "missing"
        assert why_refused(storage, Unit((Put(self.score(unknown, 1.0)),))) == "missing"
        assert storage.ask(Query("tag", {"agent_instance_id": run.id})).rows == tags[:2]
        assert storage.ask(Query("score", {"agent_instance_id": run.id, "name": "reward"})).rows == scores
        assert why_refused(storage, Unit((Remove("agent_instance", run.id),))) == "referenced"
        assert why_refused(storage, Unit((Remove("tag", tags[0].id), Put(again)))) is None
        assert storage.ask(Query("tag", {"agent_instance_id": run.id})).rows == [tags[1], again]

    def test_newest_scores_and_tags_are_those_of_reading_row_by_row(self, storage: Storage) -> None:
        """Of each target, name and judge, the score that is newest by time, then by id, counts, unless it withdraws."""
        self.answered(storage, NewestScores)
        chance, rows = random.Random(5), list[ScoreRow]()
        runs = [self.instance(storage) for _ in range(5)]
        for run in runs[1:]:
            kept = [TagRow(self.rows.ids.new(), run.id, f"tag-{number}", T0) for number in range(3, 0, -1)]
            self.put(storage, *kept)
            for _ in range(30):
                row = self.score(run.id, chance.choice((None, 0.5, 1.0)), label=chance.choice((None, None, "good")))
                is_of_span = chance.random() < 0.3
                rows.append(
                    row._replace(
                        name=chance.choice(NAMES),
                        target_type="agent_span" if is_of_span else "agent_instance",
                        target_id="span" if is_of_span else run.id,
                        source=chance.choice(("human", "code")),
                        identifier=chance.choice((None, "a", "b")),
                        inserted_at=chance.choice((T0, T1, T2)),
                    )
                )
        chance.shuffle(rows)
        self.put(storage, *rows)
        for ids in ([run.id for run in runs], [runs[2].id], [self.rows.ids.new()], []):
            assert storage.ask(NewestScores(ids)) == counting(row for row in rows if row.agent_instance_id in ids)
            assert storage.ask(Tags(ids)) == {
                id: ["tag-1", "tag-2", "tag-3"] if id in [run.id for run in runs[1:]] else [] for id in ids
            }
        for name in (*NAMES, "unknown"):
            for source in (None, "human", "model"):
                of_runs = [row for row in rows if (row.name, row.target_type) == (name, "agent_instance")]
                wanted = counting(row for row in of_runs if source in (None, row.source))
                found = {row.target_id: LatestScore(row.value, row.label) for row in sorted(wanted, key=age)}
                assert storage.ask(LatestScores(name, source)) == found

    def score(
        self, run_id: str, value: float | None, *, target_id: str | None = None, label: str | None = None
    ) -> ScoreRow:
        """A score of a run, or of another target in it."""
        target_type = "agent_instance" if target_id in (None, run_id) else "agent_span"
        id, target_id = self.rows.ids.new(), target_id or run_id
        return ScoreRow(id, run_id, target_type, target_id, "reward", value, label, "code", None, T0, None)
