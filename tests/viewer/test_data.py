"""A run as columns and in detail, the same over each storage."""

from typing import Any

import agentspan
from agentspan.database import Database
from agentspan.model.changes import SpanStatus
from agentspan.model.rows import AgentInstanceRow, AgentSpanRow
from agentspan.storage.protocol import Storage
from agentspan.storage.questions import Find, Outlines, SpansOf
from agentspan.viewer import data
from tests.storage.plain import Plain

SECOND = "2026-11-24T10:00:01Z"


def instance(db: Database, **fields: Any) -> AgentInstanceRow:
    """A started run."""
    made = db.agent_instances.register(
        "researcher", agent_version={"external_identifier": "1.2"}, agent_schema_version={}, **fields
    )
    db.agent_instances.start(made.id, timestamp="2026-11-24T10:00:00Z")
    return stored(db, made.id)


def stored(db: Database, id: str) -> Any:
    return db.storage.ask(Find(id)).rows[id][1]


def finished(
    db: Database, run: AgentInstanceRow, name: str = "tool", *, parent: str | None = None, **fields: Any
) -> str:
    given = {"payload": {"name": "look"}, "result_payload": {"output": 1}, "status": "complete", **fields}
    status = given.pop("status")
    return db.agent_spans.create(
        run.id, name, status, parent_span_id=parent, started_at=SECOND, finished_at="2026-11-24T10:00:03Z", **given
    ).id


def test_spans_become_columns_and_what_repeats_is_listed_once(db: Database) -> None:
    run = instance(db)
    root = finished(db, run, "agent", payload={"name": "researcher"}, result_payload={"input_tokens": 9})
    first = finished(db, run, parent=root)
    second = finished(db, run, "llm", parent=first, payload={"model": "m"}, result_payload={"cost_usd": 0.5})
    found = data.columns(db.storage, run)
    assert found["columns"]["id"] == [root, first, second]
    assert found["columns"]["parent"] == [None, 0, 1]
    assert [found["types"][n]["name"] for n in found["columns"]["type"]] == ["agent", "tool", "llm"]
    assert [found["labels"][n] for n in found["columns"]["label"]] == ["researcher", "look", "m"]
    assert [found["statuses"][n] for n in found["columns"]["status"]] == ["complete"] * 3
    assert found["columns"]["start_ms"] == [1000.0] * 3
    assert found["columns"]["duration_ms"] == [2000.0] * 3
    assert found["columns"]["input_tokens"] == [9, None, None]
    assert found["columns"]["output_tokens"] is None
    assert found["columns"]["cost_usd"] == [None, None, 0.5]
    assert found["columns"]["summary"][1] == "Tool look() → 1"
    assert found["next"] is None


def test_a_span_without_a_template_shows_its_title_and_what_went_in(db: Database) -> None:
    run = instance(db)
    finished(db, run, "step", payload={"part": 3, "of": "x" * 500})
    finished(db, run, "step", payload={})
    first, second = data.columns(db.storage, run)["columns"]["summary"]
    assert first.startswith('step {"part":3,"of":"xxx')
    assert len(first) < 200
    assert second == "step"


def test_a_span_without_a_template_shows_its_label_before_what_went_in(db: Database) -> None:
    made = db.agent_instances.register("researcher", agent_schema_version={"span_schemas": {"tool": True}})
    db.agent_instances.start(made.id, timestamp="2026-11-24T10:00:00Z")
    finished(db, stored(db, made.id), "tool", payload={"span_id": "01m8akv0n6fsxmbtht5kvad3w1kp8gga", "name": "look"})
    assert data.columns(db.storage, stored(db, made.id))["columns"]["summary"] == [
        'tool look {"span_id":"01m8akv0n6fsxmbtht5kvad3w1kp8gga","name":"look"}'
    ]


def test_a_failed_span_says_what_it_died_of(db: Database) -> None:
    run = instance(db)
    error = {"type": "os.PermissionError", "message": "no\nway", "stacktrace": "Traceback"}
    finished(db, run, status="failed", result_payload={"error": error})
    finished(db, run)
    assert data.columns(db.storage, run)["errors"] == {0: "PermissionError: no way"}


def test_failures_that_differ_in_values_have_one_signature_and_an_error_without_them(db: Database) -> None:
    run = instance(db)
    for status, message in (("failed", "wait 3 s"), ("failed", "wait 40 s"), ("complete", ""), ("failed", "no")):
        error = {"error": {"type": "RateLimited", "message": message}} if message else {}
        finished(db, run, status=status, result_payload=error)
    chunk = data.columns(db.storage, run)
    assert chunk["columns"]["failure"] == [0, 0, None, 1]
    assert [failure["error"] for failure in chunk["failures"]] == ["RateLimited: wait <n> s", "RateLimited: no"]
    assert len({failure["signature"] for failure in chunk["failures"]}) == 2


def test_a_long_run_comes_in_chunks_that_miss_nothing(db: Database) -> None:
    run = instance(db)
    ids = [finished(db, run)]
    for _ in range(6):
        ids.append(finished(db, run, parent=ids[-1]))
    seen: list[str] = []
    after: str | None = ""
    while after is not None:
        chunk = data.columns(db.storage, run, after=after, limit=3)
        assert len(chunk["columns"]["id"]) <= 3
        parent = chunk["columns"]["parent"][0]
        assert parent == (seen[-1] if seen else None)  # in another chunk: by id, not by position
        seen += chunk["columns"]["id"]
        after = chunk["next"]
    assert seen == ids


def test_what_changed_since_is_what_was_created_or_finished_since(db: Database) -> None:
    run = instance(db)
    open_span = db.agent_spans.create(run.id, "tool", "active", {"name": "slow"})
    finished(db, run)
    latest = data.columns(db.storage, run)["latest"]
    assert data.columns(db.storage, run, since=latest[:-1] + "Zz")["columns"]["id"] == []
    db.agent_spans.finish(open_span.id)
    new = finished(db, run)
    later = data.columns(db.storage, run, since=latest)["columns"]["id"]
    assert {open_span.id, new} <= set(later)
    assert data.columns(db.storage, run)["latest"] >= latest


def test_outlines_have_no_payload_but_where_a_list_needs_it(tmp_path: Any) -> None:
    db = agentspan.open(tmp_path / "runs.db")
    run = instance(db)
    finished(db, run)
    finished(db, run, "step", payload={"a": 1})
    finished(db, run, status="failed", result_payload={"error": "no"})
    rows = db.storage.ask(Outlines(run.id))
    assert [(row.payload, row.result_payload) for row in rows] == [
        ("{}", None),
        ('{"a":1}', None),
        ("{}", '{"error":"no"}'),
    ]
    whole = list(db.storage.ask(SpansOf(run.id)))
    assert [row._replace(payload="", result_payload="") for row in rows] == [
        row._replace(payload="", result_payload="") for row in whole
    ]
    db.close()


def test_columns_are_the_same_with_outlines_and_without(tmp_path: Any) -> None:
    db = agentspan.open(tmp_path / "runs.db")
    run = instance(db)
    for name in ("tool", "step", "llm"):
        finished(db, run, name, payload={"name": "a", "model": "m"})
    quick = data.columns(db.storage, run, after=data.columns(db.storage, run, limit=1)["next"])
    plain = Plain(db.storage)
    assert data.columns(plain, run, after=data.columns(plain, run, limit=1)["next"]) == quick
    db.close()


def test_a_detail_keeps_payloads_as_the_text_that_is_stored(db: Database) -> None:
    run = instance(db)
    number = 2**63 + 1
    span = finished(db, run, payload={"name": "look", "n": number})
    detail = data.detail(db.storage, stored(db, span))
    assert str(number) in detail["payload"]
    assert detail["result_payload"] == '{"output":1}'
    assert detail["violations"] == []


def test_a_detail_has_the_violations_of_the_schema(db: Database) -> None:
    run = instance(db)
    span = finished(db, run, "llm", payload={"model": 7})
    (violation,) = data.detail(db.storage, stored(db, span))["violations"]
    assert (violation["side"], violation["path"]) == ("payload", "$.model")


def test_a_detail_has_the_scores_of_its_span_that_count(db: Database) -> None:
    run = instance(db)
    span, other = finished(db, run), finished(db, run)
    db.scores.record(span, "correct", 0)
    db.scores.record(span, "correct", 1, explanation="it is")
    db.scores.record(run.id, "reward", 1)
    (score,) = data.detail(db.storage, stored(db, span))["scores"]
    assert (score["name"], score["text"], score["by"], score["target"]) == ("correct", "correct 1: it is", "code", span)
    assert score["at"] == db.scores.list(span)[0].inserted_at.strftime("%Y-%m-%dT%H:%M:%S.%fZ")
    assert data.detail(db.storage, stored(db, other))["scores"] == []


def test_the_head_of_a_run_has_its_names_and_counts(db: Database) -> None:
    run = instance(db, metadata={"ticket": 7}, external_identifier="mine")
    db.agent_spans.create(run.id, "tool", "active", {"name": "look"})
    finished(db, run, status="failed", result_payload={})
    facts = data.run_facts(db.storage, run)
    assert (facts["agent"], facts["version"], facts["status"]) == ("researcher", "1.2", "active")
    assert facts["external_identifier"] == "mine"
    assert facts["metadata"] == '{"ticket":7}'
    assert (facts["spans"]["total"], facts["spans"]["active"], facts["spans"]["failed"]) == (2, 1, 1)
    assert not facts["left_open"]  # written by id: nobody knows of a program that could be dead


def test_an_end_that_came_after_the_termination_is_told(db: Database) -> None:
    run = instance(db)
    span = db.agent_spans.create(run.id, "tool", "active").id
    assert data.run_facts(db.storage, run)["closed"] is None
    db.agent_instances.terminate(run.id, "too dear")
    assert data.detail(db.storage, db.storage.ask(Find(span)).rows[span][1])["closed"] == "terminated"  # type: ignore[arg-type]
    db.agent_spans.finish(span)
    db.agent_instances.finish(run.id)
    late = "terminated; its own end came after the termination"
    row, run_row = db.storage.ask(Find(span)).rows[span][1], db.storage.ask(Find(run.id)).rows[run.id][1]
    assert data.detail(db.storage, row)["closed"] == late  # type: ignore[arg-type]
    assert data.run_facts(db.storage, run_row)["closed"] == late  # type: ignore[arg-type]


def test_words_are_found_in_payloads_and_results(db: Database) -> None:
    run = instance(db)
    by_payload = finished(db, run, payload={"name": "look", "arguments": {"q": "HATHAT twice"}})
    by_result = finished(db, run, result_payload={"output": "it is HATHAT"})
    finished(db, run)
    assert data.matches(db.storage, run.id, "hathat") == [by_payload, by_result]
    assert data.matches(db.storage, run.id, "hat*") == [by_payload, by_result]
    assert data.matches(db.storage, run.id, '"hathat twice"') == [by_payload]
    assert data.matches(db.storage, run.id, "  ") == []


def test_statistics_are_those_of_the_run(db: Database) -> None:
    run, other = instance(db), instance(db)
    finished(db, run)
    finished(db, other)
    found = data.statistics(db.storage, run.id)
    assert [(row["kind"], row["label"], row["count"]) for row in found["stats"]] == [
        ("tool", None, 1),
        ("tool", "look", 1),
    ]
    assert len(found["stats"][0]["histogram"]) == len(found["bounds_ms"]) + 1


def test_a_run_without_spans_has_empty_columns(storage: Storage) -> None:
    run = instance(agentspan.open(storage))
    found = data.columns(storage, run)
    assert found["columns"]["id"] == []
    assert (found["next"], found["latest"]) == (None, None)


def test_rows_made_by_hand_do_not_break_the_page(tmp_path: Any) -> None:
    import sqlite3

    db = agentspan.open(tmp_path / "runs.db")
    run = instance(db)
    span = finished(db, run, "llm", payload={"model": "m"})
    db.close()
    with sqlite3.connect(tmp_path / "runs.db") as by_hand:
        by_hand.execute("update agent_spans set payload = '[1]', result_payload = '\"text\"', status = 'failed'")
    by_hand.close()
    db = agentspan.open(tmp_path / "runs.db")
    row = stored(db, span)
    assert isinstance(row, AgentSpanRow)
    assert data.detail(db.storage, row)["messages"] == []
    assert data.columns(db.storage, run)["errors"] == {0: "text"}
    db.close()


def judged(db: Database, *, passes: bool, error: str | None = None) -> str:
    """A run of the task 7 that asks a model, and calls a tool."""
    run = instance(db, task="7").id

    def span(name: str, status: SpanStatus, payload: Any, result: Any, second: int) -> None:
        at = [f"2026-11-24T10:00:{each:02d}Z" for each in (second, second + 1)]
        db.agent_spans.create(run, name, status, payload, result, started_at=at[0], finished_at=at[1])

    question = {"role": "user", "content": "Book it, please"}
    span("message", "complete", question, None, 1)
    span("llm", "complete", {"model": "m", "messages": [question]}, {"text": "I book it now"}, 2)
    arguments = {"name": "book", "arguments": {"seat": 4}}
    if error is None:
        span("tool", "complete", arguments, {"output": "done"}, 4)
    else:
        span("tool", "failed", arguments, {"error": {"type": "Full", "message": error}}, 4)
    db.agent_instances.finish(run, "complete" if passes else "failed", timestamp="2026-11-24T10:00:09Z")
    return run


def test_why_a_run_failed_is_told_with_its_leaf_its_prompt_and_a_run_to_compare_with(db: Database) -> None:
    passed, other = judged(db, passes=True), judged(db, passes=False, error="no seat 3")
    failed = judged(db, passes=False, error="no seat 4")
    assert data.why(db.storage, stored(db, passed)) == {"why": None}
    why = data.why(db.storage, stored(db, failed))["why"]
    leaf = next(span.id for span in db.agent_spans.list(failed) if span.status == "failed")
    assert (why["step"], why["number"], why["rule"]) == (leaf, 3, None)
    assert why["sentence"] == "Step 3 failed: Tool book(seat=4)"
    facts = dict(why["facts"])
    assert facts["error"] == "Full: no seat 4"
    assert facts["given"] == '{"seat": 4}'
    assert facts["the user had said"] == "Book it, please"
    assert facts["the model had said"] == "I book it now"
    assert (why["others"], why["elsewhere"]) == (1, "1× in 1 other run")
    assert (why["nearest"], why["nearest_text"]) == (passed, "the passing run of task 7")
    assert data.why(db.storage, stored(db, other))["why"]["signature"] == why["signature"]


def test_a_run_that_completed_may_have_missed_the_rule_over_a_score(db: Database) -> None:
    good, bad = judged(db, passes=True), judged(db, passes=True)
    db.scores.record(good, "reward", 1)
    db.scores.record(bad, "reward", 0)
    why = data.why(db.storage, stored(db, bad))["why"]
    assert (why["rule"], why["step"], why["nearest"]) == ("reward>=1", None, good)
    assert why["sentence"].startswith("No step failed. It ended: ")
    assert data.why(db.storage, stored(db, good)) == {"why": None}


def test_a_span_with_children_has_a_time_of_its_own(db: Database) -> None:
    run = instance(db)
    root = db.agent_spans.create(
        run.id, "agent", "complete", {"name": "a"}, {}, started_at=SECOND, finished_at="2026-11-24T10:00:11Z"
    ).id
    finished(db, run, parent=root)  # 2 s
    finished(db, run, parent=root)  # at the same time
    going = db.agent_spans.create(run.id, "chain", "active", {"name": "b"}, started_at=SECOND).id
    finished(db, run, parent=going)
    assert data.own_times(db.storage, run.id) == {"own_ms": {root: 8000.0}}
