"""Full-text search, on both storages."""

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import agentspan
from agentspan.analysis.search import SNIPPET, search, search_by_run
from agentspan.database import Database
from agentspan.storage import text_search
from agentspan.storage.memory import MemoryStorage
from agentspan.storage.questions import Find, SpansOf
from agentspan.storage.text_search import search_run
from tests.tiers import examples


@pytest.fixture
def run(db: Database) -> str:
    run = db.agent_instances.register("a")
    for arguments, output in (
        ({"reservation_id": "HSR97W"}, 'said\n"Order" of C:\\new café'),
        ({"reservation_id": "XX1"}, "the read timed out " + "x" * 500 + " hsr97w"),
        ({"user_id": "mia_li_3668"}, {"text": "out timed read"}),
    ):
        db.agent_spans.create(run.id, "tool", "complete", {"name": "get", "arguments": arguments}, {"output": output})
    db.agent_spans.create(run.id, "tool", "active", {"name": "waiting", "arguments": {"for": "ZZ9"}})
    return run.id


def found(db: Database, what: str | list[str], **how: object) -> list[str]:
    hits = search(db.storage, what, **how)  # type: ignore[arg-type]
    rows = db.storage.ask(Find(*(hit.span_id for hit in hits.hits))).rows
    assert len(hits.hits) == hits.total
    return [text_search.TOKEN.findall(rows[hit.span_id][1].payload)[-1] for hit in hits.hits]  # type: ignore[union-attr]


def test_words_are_found_wherever_they_stand(db: Database, run: str) -> None:
    for where in ({}, {"run": run}):
        assert found(db, "hsr97w", **where) == ["XX1", "HSR97W"]
        assert found(db, "HSR97W order", **where) == ["HSR97W"]
        assert found(db, "new cafe", **where) == ["HSR97W"]
        assert found(db, "CAFÉ", **where) == ["HSR97W"]
        assert found(db, "read timed out", **where) == ["3668", "XX1"]
        assert found(db, '"read timed out"', **where) == ["XX1"]
        assert found(db, ["read timed out"], **where) == ["XX1"]
        assert found(db, "mia_li_3668", **where) == ["3668"]
        assert found(db, "mia", **where) == ["3668"]
        assert found(db, "hsr9", **where) == []
        assert found(db, "hsr9*", **where) == ["XX1", "HSR97W"]
        assert found(db, "zz9", **where) == ["ZZ9"]
        assert found(db, "nowhere", **where) == []
    assert found(db, "hsr97w", run="0" * 32) == []


def test_a_page_says_how_many_there_are(db: Database, run: str) -> None:
    every = search(db.storage, "name")
    assert (len(every.hits), every.total) == (4, 4)
    paged = [search(db.storage, "name", limit=1, offset=number) for number in range(5)]
    assert [hit for page in paged for hit in page.hits] == every.hits
    assert {page.total for page in paged} == {4}


def test_a_snippet_shows_its_matches_by_position(db: Database, run: str) -> None:
    late, early = search(db.storage, "hsr97w").hits
    assert [late.snippet[start:stop] for start, stop in late.matches] == ["hsr97w"]
    assert (late.field, early.field) == ("result_payload", "summary")
    assert late.snippet.startswith("…")
    assert len(late.snippet) <= SNIPPET
    assert [early.snippet[start:stop] for start, stop in early.matches] == ["HSR97W"]
    (hit,) = search(db.storage, "order").hits
    assert [hit.snippet[start:stop] for start, stop in hit.matches] == ["Order"]
    assert (hit.run_id, hit.status, hit.schema_name) == (run, "complete", "tool")


def test_what_is_found_follows_what_is_recorded(db: Database, run: str) -> None:
    (hit,) = search(db.storage, "zz9").hits
    assert hit.status == "active"
    db.agent_spans.finish(hit.span_id, result_payload={"output": "Landed"})
    assert search(db.storage, "landed zz9").hits[0].status == "complete"
    assert search(db.storage, "zz9").total == 1
    db.agent_spans.create(run, "tool", "complete", {"name": "new"}, {"output": "landed"})
    assert search(db.storage, "landed").total == 2


def test_a_message_is_found_in_the_step_that_said_it_first(db: Database) -> None:
    run, other = (db.agent_instances.register("a").id for _ in range(2))
    said = [{"role": "user", "content": f"this is message {number}"} for number in ("one", "two", "three")]
    spans = [db.agent_spans.create(run, "llm", "complete", {"messages": said[:length]}, {}) for length in (1, 2, 3)]
    again = db.agent_spans.create(other, "llm", "complete", {"messages": said}, {})
    for words, first in (("one", 0), ("two", 1), ("three", 2)):
        later, hit = search(db.storage, words).hits
        assert (later.span_id, later.repeats) == (again.id, 0)  # each run is for itself
        assert (hit.span_id, hit.repeats) == (spans[first].id, 2 - first)
        assert search(db.storage, words, run=run).hits == [hit]
        assert "one" not in hit.snippet or words == "one"


HOSTILE = [
    '"',
    '""',
    "a OR",
    "NOT",
    "a AND (b",
    "summary:x",
    "{a b}: c",
    "^a",
    "a NEAR/2 b",
    "*",
    "-a",
    "\x00",
    "'; drop",
]


@pytest.mark.full
@pytest.mark.parametrize("what", [*HOSTILE, "x" * 100_000, " ".join(map(str, range(1000))), "\ud800", "日本語", ""])
def test_no_query_is_an_error(db: Database, run: str, what: str) -> None:
    hits = search(db.storage, what)
    assert len(hits.hits) == min(hits.total, 50)


@pytest.mark.full
@settings(max_examples=examples(60), suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(
    texts=st.lists(st.text('aáB1_- \n\\"*é日\u0301\x00\x1f', max_size=12), min_size=1, max_size=5),
    what=st.text('aáB1_ "*é日\\\u0301\x00', max_size=6),
)
def test_both_storages_find_the_same(tmp_path_factory: pytest.TempPathFactory, texts: list[str], what: str) -> None:
    answers = []
    for place in (MemoryStorage(), tmp_path_factory.mktemp("x") / "runs.db"):
        with agentspan.open(place) as db:
            run = db.agent_instances.register("a")
            spans = [db.agent_spans.create(run.id, "custom", "complete", {"t": text}, {}) for text in texts]
            hits = search(db.storage, what)
            numbers = {span.id: number for number, span in enumerate(spans)}
            answers.append(([(numbers[hit.span_id], hit.snippet, hit.matches) for hit in hits.hits], hits.total))
    assert answers[0] == answers[1]


def test_of_a_hit_in_a_large_payload_only_the_surroundings_are_kept(db: Database) -> None:
    run = db.agent_instances.register("a").id
    before, after = "before " * 60_000, "after " * 60_000
    for number in range(3):
        payload = {"n": number, "list": [f"{before} {number}", {"text": f"{before} a needle {number} {after}"}]}
        db.agent_spans.create(run, "tool", "complete", payload, {"text": after})
    for where in ({}, {"run": run}):
        hits = search(db.storage, "needle", **where)  # type: ignore[arg-type]
        assert [hit.field for hit in hits.hits] == ["payload"] * 3
        assert ["needle" in hit.snippet for hit in hits.hits] == [True] * 3
        assert [hit.snippet[slice(*hit.matches[0])] for hit in hits.hits] == ["needle"] * 3
    spans = [*db.storage.ask(SpansOf(run))]
    found, total = search_run(spans, text_search.Matcher(["needle"]), 10)
    assert total == len(found) == 3
    assert sum(len(one.span.payload) + len(one.span.result_payload or "") for one in found) <= 6 * text_search.WINDOW


@given(
    st.text(st.sampled_from("ab1 _-é\u0301Σ→한ǅ"), max_size=20),
    st.lists(st.text(st.sampled_from("abé1"), min_size=1, max_size=2), min_size=1, max_size=3),
    st.sampled_from(["", "*"]),
)
def test_a_term_is_found_where_its_tokens_are_adjacent(text: str, words: list[str], ending: str) -> None:
    (term,) = text_search.terms([" ".join(words) + ending])
    tokens = f" {' '.join(text_search.TOKEN.findall(text_search.fold(text)))} "
    is_there = f" {term[:-1]}" in tokens if ending else f" {term} " in tokens
    assert text_search.Matcher([term]).matches_any(text) is is_there


def _runs_with_steps(db: Database, *numbers: int) -> list[str]:
    runs = []
    for number in numbers:
        run = db.agent_instances.register(
            "a", agent_version={"external_identifier": "2"}, external_identifier=f"t-{number}"
        )
        for step in range(number):
            result = {"output": f"gate {step} is open"}
            db.agent_spans.create(run.id, "tool", "complete", {"name": "look"}, result)
        runs.append(run.id)
    return runs


def test_hits_are_grouped_by_run_the_run_with_the_latest_hit_first(db: Database) -> None:
    one, five, two = _runs_with_steps(db, 1, 5, 2)
    found = search_by_run(db.storage, "gate")
    assert str(found) == "8 steps in 3 runs"
    assert [(each.run.id, each.steps, len(each.hits)) for each in found.runs] == [
        (two, 2, 2),
        (five, 5, 3),
        (one, 1, 1),
    ]
    assert [hit.step for hit in found.runs[1].hits] == [5, 4, 3]
    assert {(each.agent, each.version) for each in found.runs} == {("a", "2")}
    paged = [search_by_run(db.storage, "gate", limit=1, offset=number) for number in range(4)]
    assert [each for page in paged for each in page.runs] == [*found.runs]
    assert {(page.total, page.found) for page in paged} == {(8, 3)}
    assert [each.run.id for each in search_by_run(db.storage, "gate", runs=[one, two]).runs] == [two, one]
    (alone,) = search_by_run(db.storage, "gate", run=five, per_run=9).runs
    assert (alone.run.id, len(alone.hits)) == (five, 5)
    nothing = search_by_run(db.storage, "nowhere")
    assert (str(nothing), nothing.runs, nothing.named) == ("no step", (), None)
    assert search_by_run(db.storage, "   ").runs == ()


def test_of_many_hits_the_latest_are_grouped(db: Database) -> None:
    runs = _runs_with_steps(db, 3, 4, 2)
    found = search_by_run(db.storage, "gate", examined=5)
    assert [each.run.id for each in found.runs] == [runs[2], runs[1]]
    assert (found.total, found.examined, found.is_whole) == (9, 5, False)
    assert str(found) == "9 steps; the latest 5 are in 2 runs"


def test_an_id_leads_to_its_run_or_step(db: Database) -> None:
    first, second = _runs_with_steps(db, 1, 2)
    (step,) = [span.id for span in db.storage.ask(SpansOf(first))]

    def named(text: str) -> str | None:
        row = search_by_run(db.storage, text).named
        return None if row is None else row.id

    assert named(first) == first
    assert named(f" {step} ") == step
    assert named("t-2") == second
    assert named(f"{first}*") == first
    for text in ("gate", "-", "a@2", first[:6], "", "\x00", "\udc80", "t-9", "0" * 32, "x" * 10_000):
        assert named(text) is None, text
