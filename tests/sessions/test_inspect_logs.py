"""Logs of Inspect: one run for each sample and epoch, from archives and documents, however they are compressed."""

import json
import os
import sys
import zipfile
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import agentspan
from agentspan.api.context import Context
from agentspan.arriving.records import Record, Session, Step, Unread
from agentspan.database import Database
from agentspan.model.rows import ScoreRow
from agentspan.sessions.formats import Source
from agentspan.sessions.importing import Importer
from agentspan.sessions.inspect_logs import FORMATS, decode, position
from agentspan.sessions.inspect_messages import Texts
from agentspan.sessions.inspect_sample import SampleDecoder
from agentspan.sessions.reading import Unreadable
from agentspan.storage.access import scan
from tests.sessions.archives import DEFLATED, ZSTD, write_archive
from tests.sessions.stored import stored

(FORMAT,) = FORMATS
COMMIT = "0123456789abcdef0123456789abcdef01234567"
SPEC = {
    "eval_id": "ev1", "run_id": "r1", "task_id": "t1", "created": "2026-01-02T03:04:05+00:00", "task": "riddles",
    "task_version": 2, "model": "openai/gpt-4o-mini", "dataset": {"name": "riddles", "samples": 2}, "tags": ["nightly"],
    "revision": {"type": "git", "commit": COMMIT}, "packages": {"inspect_ai": "0.3.1"},
    "scorers": [{"name": "match"}, {"name": "judge"}],
}  # fmt: skip
START = {"version": 2, "eval": SPEC, "plan": {"steps": [{"solver": "generate", "params": {}}]}}
HEADER = {**START, "status": "success", "stats": {}, "results": {}}


def at(seconds: float) -> str:
    """Return a time of the sample."""
    return f"2026-01-02T03:04:{10 + seconds:09.6f}+00:00"


def event(kind: str, seconds: float, span: str | None = None, **members: Any) -> dict[str, Any]:
    """Return an event of the log."""
    found = {"event": kind, "uuid": f"{kind}@{seconds}", "timestamp": at(seconds), "working_start": seconds, **members}
    return found if span is None else {**found, "span_id": span}


def output(text: str, **members: Any) -> dict[str, Any]:
    """Return the output of a model."""
    message = {"id": f"a-{text}", "role": "assistant", "content": text, **members}
    usage = {"input_tokens": 10, "input_tokens_cache_read": 5, "input_tokens_cache_write": 2, "output_tokens": 3}
    return {"model": "gpt-4o-mini-1", "choices": [{"message": message, "stop_reason": "stop"}], "usage": usage}


QUESTION = {"id": "q", "role": "user", "content": "attachment://h1", "source": "input"}
RESULT = {"id": "r", "role": "tool", "tool_call_id": "c1", "content": "green"}
CALL = {"id": "c1", "function": "look", "arguments": {"at": "attachment://h2"}}
EVENTS = [
    event("span_begin", 0.1, id="solvers", type="solvers", name="solvers"),
    event("sample_init", 0.2, "solvers", sample={"input": "attachment://h1"}, state={"messages": [QUESTION]}),
    event("span_begin", 0.3, id="agent", parent_id="solvers", type="agent", name="searcher"),
    event("model", 0.4, "agent", model="openai/gpt-4o-mini", input_refs=[[0, 1]], input=[], tools=[{"name": "look"}],
          tool_choice="auto", config={"temperature": 0.5}, output=output("", tool_calls=[CALL]), completed=at(0.5)),
    event("span_begin", 0.61, id="looking", parent_id="agent", type="tool", name="look"),
    event("tool", 0.6, "agent", id="c1", function="look", arguments=CALL["arguments"], result="green", events=[],
          completed=at(0.7)),
    event("sandbox", 0.65, "looking", action="exec", cmd="ls", result=1, output="none", completed=at(0.66)),
    event("span_end", 0.7, id="looking"),
    event("model", 0.8, "agent", model="openai/gpt-4o-mini", input_refs=[[0, 3]], input=[], tools=[], config={},
          output=output("It is green."), completed=at(0.9)),
    event("span_end", 1.0, id="agent"),
    event("approval", 1.05, "solvers", message="", call=CALL, approver="human", decision="reject"),
    event("state", 1.06, "solvers", changes=[{"op": "add", "path": "/messages/1", "value": {}}]),
    event("store", 1.07, "solvers", changes=[{"op": "add", "path": "/notes", "value": "x"}]),
    event("span_end", 1.1, id="solvers"),
    event("span_begin", 1.2, id="judging", type="scorer", name="judge"),
    event("model", 1.3, "judging", model="openai/gpt-4o", output=output("GRADE: C"), config={}, error="too busy",
          input=[{"id": "j", "role": "user", "content": [{"type": "text", "text": "Is it right?"}]}]),
    event("score", 1.4, "judging", score={"value": "C", "explanation": "right"}, target="green", scorer="judge"),
    event("span_end", 1.5, id="judging"),
    event("error", 1.6, error={"message": "ValueError('no')", "traceback": "…", "traceback_ansi": "…"}),
]  # fmt: skip
SAMPLE = {
    "id": "s1", "epoch": 1, "uuid": "u1", "input": "attachment://h1", "target": "green", "started_at": at(0.0),
    "completed_at": at(2.0), "messages": [QUESTION, RESULT], "output": output("It is green."), "events": EVENTS,
    "scores": {"match": {"value": "I", "answer": "It is green."}, "judge": {"value": {"style": 0.5, "facts": 1}}},
    "attachments": {"h1": "What colour is it?", "h2": "the box"},
    "events_data": {"messages": [QUESTION, {"id": "a-", "role": "assistant", "content": ""}, RESULT], "calls": []},
}  # fmt: skip
MEMBERS = {"_journal/start.json": START, "samples/s1_epoch_1.json": SAMPLE}
SECOND = {**SAMPLE, "epoch": 2, "uuid": "u2", "error": {"message": "TypeError('x')"}, "scores": {}}


def steps_of(records: list[Record]) -> list[Step]:
    """Return the steps in their order, and check that times and keys are unique and parents exist."""
    steps = [record for record in records if type(record) is Step]
    keys = Counter((step.session, step.key) for step in steps)
    assert set(keys.values()) <= {1}
    assert all(step.parent is None or (step.session, step.parent) in keys for step in steps)
    assert len({(step.session, step.start_ns) for step in steps}) == len(steps)
    return sorted(steps, key=lambda step: (step.session, step.start_ns))


def sessions_of(records: list[Record]) -> dict[str, Session]:
    """Return the last state of each session."""
    return {record.id: record for record in records if type(record) is Session}


def test_a_sample_is_a_session_and_its_events_are_steps(tmp_path: Path) -> None:
    records = [*decode(write_archive(tmp_path / "a.eval", {**MEMBERS, "header.json": HEADER}), None)]
    steps = steps_of(records)
    assert [step.type for step in steps] == [
        "chain", "message", "agent", "llm", "tool", "event", "llm", "guardrail", "event", "chain", "message", "llm",
        "evaluation", "event",
    ]  # fmt: skip
    session = sessions_of(records)["u1"]
    assert (session.agent, session.version, session.git_commit) == ("riddles", f"2+{COMMIT[:12]}", COMMIT)
    assert (session.task, session.outcome, session.is_over) == ("s1", "answered", True)
    assert session.output == "It is green."
    assert session.fingerprint.keys() == {"model", "cli_version", "solver"}
    assert session.metadata["dataset"] == "riddles"
    assert not [record for record in records if type(record) is Unread]


def test_attachments_and_pools_are_undone_and_a_message_is_one_step(tmp_path: Path) -> None:
    steps = steps_of([*decode(write_archive(tmp_path / "a.eval", MEMBERS), None)])
    messages = [step.payload["content"] for step in steps if step.type == "message"]
    assert messages == ["What colour is it?", "Is it right?"]
    (tool,) = (step for step in steps if step.type == "tool")
    assert tool.payload == {"name": "look", "arguments": {"at": "the box"}, "call_id": "c1"}
    assert tool.result == {"output": "green"}
    inner = next(step for step in steps if step.payload.get("name") == "sandbox exec")
    assert (tool.key, inner.parent) == ("looking", "looking"), "the span of the tool and its event are one step"


def test_input_tokens_include_the_cache_and_errors_are_kept(tmp_path: Path) -> None:
    calls = [
        step for step in steps_of([*decode(write_archive(tmp_path / "a.eval", MEMBERS), None)]) if step.type == "llm"
    ]
    first = calls[0]
    assert first.payload == {
        "temperature": 0.5, "model": "gpt-4o-mini", "provider": "openai", "tools": ["look"], "tool_choice": "auto",
    }  # fmt: skip
    assert first.result is not None
    names = ("input_tokens", "cached_tokens", "cache_write_tokens", "output_tokens")
    assert [first.result[name] for name in names] == [17, 5, 2, 3]
    assert [call.status for call in calls] == ["complete", "complete", "failed"]
    assert (calls[2].result or {})["error"]["message"] == "too busy"


def test_scores_have_numbers_and_name_who_judged(tmp_path: Path) -> None:
    session = sessions_of([*decode(write_archive(tmp_path / "a.eval", MEMBERS), None)])["u1"]
    found = {score["name"]: (score["value"], score["label"], score["source"]) for score in session.scores}
    assert found == {
        "match": (0.0, "I", "code"),
        "judge/style": (0.5, None, "model"),
        "judge/facts": (1.0, None, "model"),
    }


def test_every_compression_and_the_document_give_the_same(tmp_path: Path) -> None:
    deflated = [*decode(write_archive(tmp_path / "a.eval", {**MEMBERS, "header.json": HEADER}), None)]
    zstd = [*decode(write_archive(tmp_path / "b.eval", {**MEMBERS, "header.json": HEADER}, method=ZSTD), None)]
    document = tmp_path / "2026-01-02T03-04-05_riddles_x.json"
    document.write_text(json.dumps({**HEADER, "samples": [SAMPLE], "reductions": []}, indent=1))
    assert zstd == deflated == [*decode(document, None)]
    assert [source.path.name for source in FORMAT.sources(tmp_path)] == [document.name, "a.eval", "b.eval"]
    assert [*FORMAT.sources(document)]


def test_a_sample_in_many_members_gives_the_same(tmp_path: Path) -> None:
    whole = [*decode(write_archive(tmp_path / "a.eval", MEMBERS), None)]
    text = json.dumps(SAMPLE).replace("attachment://h1", "attachment://0").replace("attachment://h2", "attachment://1")
    sample = json.loads(text)
    events, pool = sample.pop("events"), sample.pop("events_data")["messages"]
    messages, attachments = sample.pop("messages"), [*sample.pop("attachments").values()]
    assert messages == [pool[0], pool[2]]
    under = "samples/s1_epoch_1"
    chunked = {
        "_journal/start.json": START, f"{under}/events/0.json": events[:7], f"{under}/events/7.json": events[7:],
        f"{under}/events/stats.json": {}, f"{under}/messages/0.json": pool[:1], f"{under}/messages/1.json": pool[1:],
        f"{under}/attachments/0.json": attachments,
        f"{under}/sample.json": {**sample, "message_refs": [[0, 1], [2, 3]]},
    }  # fmt: skip
    assert [*decode(write_archive(tmp_path / "b.eval", chunked), None)] == whole


def test_a_log_that_grows_gives_the_rows_of_the_whole(tmp_path: Path) -> None:
    members = {**MEMBERS, "samples/s1_epoch_2.json": SECOND, "header.json": HEADER}
    found = []
    for pieces in ([4], [1, 2, 3, 4, 4]):
        with agentspan.open(tmp_path / f"{len(pieces)}.db") as database:
            for count in pieces:
                _brought_in(database, tmp_path / "log.eval", dict([*members.items()][:count]))
            found.append(stored(database))
    assert found[0] == found[1]
    assert [run["status"] for run, _ in found[0]] == ["complete", "failed"]


def _brought_in(database: Database, path: Path, members: dict[str, Any]) -> Importer:
    write_archive(path, members)
    os.utime(path, ns=(1, 10**18 + path.stat().st_size))
    one = Importer(Context(database.storage), {"inspect": FORMAT}, now=lambda: 2 * 10**18)
    one.import_source(Source("inspect", path))
    return one


def test_only_new_samples_are_decoded_again(tmp_path: Path) -> None:
    path = write_archive(tmp_path / "a.eval", MEMBERS)
    before = position(path)
    assert [*decode(path, before)] == []
    write_archive(path, {**MEMBERS, "samples/s1_epoch_2.json": SECOND})
    assert [*sessions_of([*decode(path, before)])] == ["u2"]
    write_archive(path, {**MEMBERS, "samples/s1_epoch_2.json": SECOND, "header.json": HEADER})
    assert [*sessions_of([*decode(path, before)])] == ["u1", "u2"], "all runs get the status of the evaluation"


def test_an_edited_score_counts_instead_of_the_earlier_one(tmp_path: Path) -> None:
    edited = {"value": "C", "history": [{"value": "I"}, {"value": "C", "provenance": {"timestamp": at(30)}}]}
    with agentspan.open(tmp_path / "a.db") as database:
        for score in ({"value": "I"}, edited, edited):
            sample = {**SAMPLE, "scores": {"match": score}}
            _brought_in(database, tmp_path / "log.eval", {**MEMBERS, "samples/s1_epoch_1.json": sample})
        scores = sorted(scan(database.storage, ScoreRow), key=lambda score: score.inserted_at)
        assert [(score.value, score.label) for score in scores] == [(0.0, "I"), (1.0, "C")]


def test_logs_of_early_versions(tmp_path: Path) -> None:
    message = {"role": "user", "content": "tc://h1"}
    events = [
        {"event": "step", "action": "begin", "type": "solver", "name": "plan", "timestamp": at(0)},
        {"event": "model", "model": "m", "input": [message], "output": output("yes"), "timestamp": at(1)},
        {"event": "subtask", "name": "web", "input": {}, "result": 1, "timestamp": at(2), "events": [
            {"event": "info", "data": "inner", "timestamp": at(2.5)}]},
        {"event": "step", "action": "end", "type": "solver", "name": "plan", "timestamp": at(3)},
    ]  # fmt: skip
    sample = {"id": 1, "epoch": 1, "input": "Why?", "messages": [message, message], "events": events,
              "attachments": {"h1": "Why?"}}  # fmt: skip
    records = [*decode(write_archive(tmp_path / "a.eval", {**MEMBERS, "samples/s1_epoch_1.json": sample}), None)]
    steps = {step.key: step for step in steps_of(records)}
    assert [*sessions_of(records)] == ["ev1:1:1"]
    assert [(step.type, step.parent) for step in steps.values()] == [
        ("chain", None), ("message", "0"), ("llm", "0"), ("chain", "0"), ("event", "2"),
    ]  # fmt: skip
    assert [step.payload["content"] for step in steps.values() if step.type == "message"] == ["Why?"]


def test_a_pool_in_the_sample_and_references_to_single_messages(tmp_path: Path) -> None:
    pool = [QUESTION, {"id": "m2", "role": "system", "content": "be brief"}]
    call = {**EVENTS[3], "input_refs": [1, 0, 7, -1]}
    sample = {**SAMPLE, "events": [call, {**call, "uuid": "again"}], "events_data": None, "message_pool": pool}
    records = [*decode(write_archive(tmp_path / "a.eval", {**MEMBERS, "samples/s1_epoch_1.json": sample}), None)]
    messages = [step.payload["content"] for step in steps_of(records) if step.type == "message"]
    assert messages == ["be brief", "What colour is it?", "green"]


def test_a_log_without_samples_keeps_its_counts_and_scores(tmp_path: Path) -> None:
    usage = {"openai/gpt-4o": {"input_tokens": 8, "output_tokens": 2}}
    summary = {
        "id": 1,
        "epoch": 1,
        "uuid": "u9",
        "input": "Why?",
        "model_usage": usage,
        "scores": {"match": {"value": 1}},
    }
    members = {"_journal/start.json": START, "_journal/summaries/1.json": [summary]}
    records = [*decode(write_archive(tmp_path / "a.eval", members), None)]
    assert [step.type for step in steps_of(records)] == ["message", "llm"]
    assert sessions_of(records)["u9"].scores[0]["value"] == 1.0
    results = {"scores": [{"name": "match", "metrics": {"accuracy": {"value": 0.5}}}]}
    header = {**HEADER, "stats": {"model_usage": usage}, "results": results, "status": "cancelled"}
    records = [*decode(write_archive(tmp_path / "b.eval", {"header.json": header}), None)]
    assert sessions_of(records)["ev1"].outcome == "interrupted"
    assert [(score["name"], score["value"]) for score in sessions_of(records)["ev1"].scores] == [
        ("match/accuracy", 0.5)
    ]
    assert [*decode(write_archive(tmp_path / "c.eval", {"_journal/start.json": START}), None)] == [], "it goes on"


def test_without_a_module_for_zstd_the_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_archive(tmp_path / "a.eval", MEMBERS, method=ZSTD)
    for name in ("zstandard", "compression", "compression.zstd"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(Unreadable, match="sessions"):
        [*decode(path, None)]


def test_an_unknown_event_is_kept_and_counted(tmp_path: Path) -> None:
    sample = {**SAMPLE, "events": [*EVENTS, event("dream", 1.9, colour="attachment://h1"), 7]}
    records = [*decode(write_archive(tmp_path / "a.eval", {**MEMBERS, "samples/s1_epoch_1.json": sample}), None)]
    kept = steps_of(records)[-1]
    assert (kept.type, kept.payload["content"]["colour"]) == ("unknown:event", "What colour is it?")
    told = [record.what for record in records if type(record) is Unread]
    assert told == ["event of type dream", "an event that is no object"]


def test_ids_and_scores_that_no_file_can_hold_are_stored(tmp_path: Path) -> None:
    bad = "a\ud800b"
    scores = {bad: {"value": bad, "explanation": bad}}
    sample = {**SAMPLE, "id": bad, "uuid": bad, "scores": scores, "events": [{**EVENTS[3], "uuid": bad}]}
    with agentspan.open(tmp_path / "a.db") as database:
        one = _brought_in(database, tmp_path / "log.eval", {**MEMBERS, "samples/s1_epoch_1.json": sample})
        assert not one.problems
        ((run, spans),) = stored(database)
        assert (run["external_identifier"], len(spans)) == ("inspect:a?b", 3)
        assert [score.label for score in scan(database.storage, ScoreRow)] == ["a?b"]


def test_an_archive_that_was_cut_gives_its_whole_samples(tmp_path: Path) -> None:
    path = write_archive(tmp_path / "a.eval", {**MEMBERS, "samples/s1_epoch_2.json": SECOND})
    whole = path.read_bytes()
    path.write_bytes(whole[: whole.index(b"samples/s1_epoch_2.json") + 100])
    records = [*decode(path, None)]
    assert [*sessions_of(records)] == ["u1"]
    assert [record.what for record in records if type(record) is Unread] == ["an archive whose end is missing"]


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda data: b"not JSON", "a sample that is no JSON"),
        (lambda data: b"[1]", "a sample that is no object"),
        (lambda data: b"[" * 100_000, "a sample that is no JSON"),
    ],
)
def test_a_broken_sample_is_counted_and_the_rest_is_read(
    tmp_path: Path, change: Callable[[bytes], bytes], told: str
) -> None:
    members = {**MEMBERS, "samples/s0_epoch_1.json": change(b""), "samples/s1_epoch_2.json": SECOND}
    records = [*decode(write_archive(tmp_path / "a.eval", members), None)]
    assert [*sessions_of(records)] == ["u1", "u2"]
    assert [record.what for record in records if type(record) is Unread] == [told]


@pytest.mark.parametrize("method", [DEFLATED, ZSTD])
def test_broken_bytes_never_raise(tmp_path: Path, method: int) -> None:
    path = tmp_path / "a.eval"
    whole = write_archive(path, {**MEMBERS, "header.json": HEADER}, method=method).read_bytes()

    @given(place=st.integers(0, len(whole) - 1), byte=st.integers(0, 255), cut=st.integers(0, len(whole)))
    def check(place: int, byte: int, cut: int) -> None:
        path.write_bytes((whole[:place] + bytes([byte]) + whole[place + 1 :])[: cut or None])
        for _ in decode(path, None) if path.stat().st_size else ():
            pass
        position(path)

    check()


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5) | st.just("attachment://h1"),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)


@st.composite
def hostile_events(draw: st.DrawFn) -> list[Any]:
    """Return events of which some members were replaced by any JSON."""
    found: list[Any] = []
    for each in draw(st.lists(st.sampled_from(EVENTS), max_size=8)):
        names = draw(st.sets(st.sampled_from([*each]), max_size=3))
        found.append({**each, **{name: draw(JSON) for name in names}, "event": each["event"]})
    return [*found, draw(JSON)]


@given(events=hostile_events(), pool=st.lists(JSON, max_size=3), messages=JSON)
def test_events_of_any_content_never_raise(events: list[Any], pool: list[Any], messages: Any) -> None:
    decoder = SampleDecoder("s", 0, Texts({"h1": "text"}), pool)
    for record in (*decoder.feed(events), *decoder.messages(messages), *decoder.rest()):
        assert isinstance(record, Step | Unread)


@given(sample=st.dictionaries(st.sampled_from([*SAMPLE]), JSON), header=st.dictionaries(st.sampled_from([*SPEC]), JSON))
def test_samples_of_any_content_never_raise(
    tmp_path_factory: pytest.TempPathFactory, sample: dict[str, Any], header: dict[str, Any]
) -> None:
    path = tmp_path_factory.getbasetemp() / "any.eval"
    start = {**START, "eval": header}
    members = {"_journal/start.json": start, "samples/1.json": {**SAMPLE, **sample}}
    for record in decode(write_archive(path, members), None):
        assert isinstance(record, Session | Step | Unread)


def test_archives_of_tests_are_archives(tmp_path: Path) -> None:
    with zipfile.ZipFile(write_archive(tmp_path / "a.eval", MEMBERS)) as archive:
        assert archive.testzip() is None
        assert archive.namelist() == [*MEMBERS]
