"""With-blocks, runs, pending spans, and the tracer behind the package's functions."""

import asyncio
import json
import threading
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from freezegun import freeze_time

import agentspan
from agentspan import Tracer
from agentspan.journal.journal_folder import is_possible
from agentspan.model.changes import Outcome, Unit
from agentspan.storage.sqlite import SQLiteStorage
from tests.recording.stored import runs_of, spans_of


def test_a_run_completes_with_what_it_was_given_and_returned(tracer: Tracer) -> None:
    with tracer.run("researcher", version="1.2", metadata={"goal": "x"}, purpose="eval") as run:
        run.set_result({"a": 1})
        run.set_result({"b": 2})
        assert tracer.current_run() is run
    (stored,) = runs_of(tracer)
    assert (stored.id, stored.status, stored.purpose) == (run.id, "complete", "eval")
    assert (stored.metadata, stored.result, stored.error) == ({"goal": "x"}, {"a": 1, "b": 2}, None)
    assert stored.duration_ms is not None
    assert tracer.current_run() is None


def test_a_run_that_raises_fails_and_keeps_the_error(tracer: Tracer) -> None:
    error = ValueError("no luck")
    with pytest.raises(ValueError, match="no luck") as caught, tracer.run("a"):
        raise error
    assert caught.value is error
    (stored,) = runs_of(tracer)
    assert stored.status == "failed"
    assert (stored.error["type"], stored.error["message"]) == ("ValueError", "no luck")
    assert "test_blocks.py" in stored.error["stacktrace"]


def test_a_run_can_decorate_a_function(tracer: Tracer) -> None:
    @tracer.run("a")
    def once(number: int) -> dict[str, int]:
        return {"number": number}

    @tracer.run("b")
    async def later() -> str:
        return "done"

    assert (once(1), once(2), asyncio.run(later())) == ({"number": 1}, {"number": 2}, "done")
    assert [run.result for run in runs_of(tracer)] == [{"number": 1}, {"number": 2}, {"output": "done"}]


def test_spans_nest_in_what_is_active(tracer: Tracer) -> None:
    with tracer.run("a") as run, tracer.span("agent", {"name": "x"}) as outer:
        with tracer.span("tool", {"name": "y"}) as inner:
            assert tracer.current_span() is inner
        assert tracer.current_span() is outer
        with tracer.span("tool", {"name": "z"}):
            pass
    first, second, third = spans_of(tracer)
    assert (first.parent_span_id, second.parent_span_id, third.parent_span_id) == (None, first.id, first.id)
    assert {span.agent_instance_id for span in (first, second, third)} == {run.id}


def test_a_span_outside_any_run_opens_one_that_ends_with_it(tracer: Tracer) -> None:
    with tracer.span("tool", {"name": "x"}), tracer.span("tool", {"name": "y"}):
        pass
    with pytest.raises(ValueError, match="boom"), tracer.span("tool", {"name": "z"}):
        raise ValueError("boom")
    assert [run.status for run in runs_of(tracer)] == ["complete", "failed"]
    assert [run.span_counts.total for run in runs_of(tracer)] == [2, 1]
    assert runs_of(tracer)[1].error["message"] == "boom"


def test_a_span_is_in_the_storage_before_the_block_runs(tracer: Tracer) -> None:
    db = agentspan.open(tracer.storage)
    with tracer.run("a") as run:
        assert db.agent_instances.get(run.id).status == "active"
        with tracer.span("llm", {"model": "m"}) as span:
            stored = db.agent_spans.get(span.id)
            assert (stored.status, stored.summary, stored.payload) == ("active", "LLM m", {"model": "m"})
        assert db.agent_spans.get(span.id).status == "complete"


def test_results_are_merged_and_payloads_updated(tracer: Tracer) -> None:
    db = agentspan.open(tracer.storage)
    with tracer.run("a"), tracer.span("llm", {"model": "m", "messages": 1}) as span:
        assert len(db.agent_spans.violations(span.id)) == 1
        span.update_payload({"model": "n", "messages": []})
        stored = db.agent_spans.get(span.id)
        assert (stored.payload, stored.summary, stored.label) == ({"model": "n", "messages": []}, "LLM n", "n")
        assert db.agent_spans.violations(span.id) == []
        span.set_result({"text": "a", "input_tokens": 1})
        span.set_result({"text": "b"})
    assert spans_of(tracer)[0].result_payload == {"text": "b", "input_tokens": 1}


@pytest.mark.parametrize(("keyword", "meant"), [("paylod", "payload"), ("Payload", "payload"), ("redcue", "reduce")])
def test_a_misspelled_keyword_is_an_error_and_no_member(tracer: Tracer, keyword: str, meant: str) -> None:
    for _ in range(2):
        with pytest.raises(TypeError, match=f"no keyword '{keyword}': did you mean {meant}"):
            tracer.span("tool", **{keyword: {"name": "t"}})  # type: ignore[call-overload]
    with pytest.raises(TypeError, match="versoin"):
        tracer.run("a", versoin="1")  # type: ignore[call-arg]
    with tracer.run("a"), tracer.span("tool", {keyword: "in the dict"}, load=1):
        pass
    assert spans_of(tracer)[0].payload == {keyword: "in the dict", "load": 1}


def test_keywords_are_members_of_the_payload(tracer: Tracer) -> None:
    @tracer.span("tool", retries=3)
    def search(query: str) -> str:
        return query

    with tracer.run("a"):
        with tracer.span("llm", model="m", messages=[]):
            pass
        with tracer.span("llm", {"model": "m", "stream": True}, model="n"):
            pass
        with tracer.span("llm", "no mapping", model="m"):  # type: ignore[call-overload]
            pass
        search("x")
    assert [span.payload for span in spans_of(tracer)] == [
        {"model": "m", "messages": []},
        {"model": "n", "stream": True},
        {"input": "no mapping", "model": "m"},
        {"name": "search", "arguments": {"query": "x"}, "retries": 3},
    ]


def test_a_block_without_a_result_has_none(tracer: Tracer) -> None:
    with tracer.span("tool", {"name": "x"}):
        pass
    assert spans_of(tracer)[0].result_payload is None


def test_an_error_that_was_caught_can_be_recorded(tracer: Tracer) -> None:
    with tracer.run("a") as run, tracer.span("tool", {"name": "x"}) as span:
        try:
            raise ValueError("caught")
        except ValueError as error:
            span.record_error(error)
            run.record_error(error)
    assert spans_of(tracer)[0].status == "failed"
    assert spans_of(tracer)[0].result_payload["error"]["message"] == "caught"
    assert runs_of(tracer)[0].status == "failed"


def test_async_blocks_are_blocks(tracer: Tracer) -> None:
    async def main() -> None:
        async with tracer.run("a"), tracer.span("llm", {"model": "m"}) as span:
            await asyncio.sleep(0)
            span.set_result({"text": "x"})

    asyncio.run(main())
    assert (spans_of(tracer)[0].status, runs_of(tracer)[0].status) == ("complete", "complete")


def test_a_block_object_can_be_entered_again_and_in_itself(tracer: Tracer) -> None:
    block = tracer.span("tool", {"name": "x"})
    with tracer.run("a"):
        with block, block:
            pass
        with block:
            pass
    first, second, third = spans_of(tracer)
    assert (second.parent_span_id, third.parent_span_id) == (first.id, None)


def test_a_block_object_that_tasks_share_leaves_each_tasks_own_span(tracer: Tracer) -> None:
    block = tracer.span(schema_name="tool", payload={"name": "x"})

    async def work(number: int, turns: int) -> None:
        async with block as span:
            for _ in range(turns):
                await asyncio.sleep(0)
            span.set_result({"output": number})
            assert tracer.current_span() is span
        assert span.status == "complete"

    async def main() -> None:
        await asyncio.gather(*(work(number, turns) for number, turns in enumerate((5, 1, 3, 2))))

    with tracer.run("a"):
        asyncio.run(main())
    assert [span.result_payload for span in spans_of(tracer)] == [{"output": number} for number in range(4)]


def test_a_pending_span_starts_finishes_or_is_cancelled(tracer: Tracer) -> None:
    with tracer.run("a") as run:
        one = run.create_span("retrieval", {"query": "q"})
        two = run.create_span("retrieval", {"query": "q"}, status="pending")
        three = run.create_span("tool", {"name": "x"}, status="active")
        assert [span.status for span in (one, two, three)] == ["pending", "pending", "active"]
        one.start()
        one.finish(result_payload={"count": 4})
        two.cancel()
        three.finish("failed", {"output": "partly"})
    found = spans_of(tracer)
    assert [span.status for span in found] == ["complete", "cancelled", "failed"]
    assert found[0].summary == 'Search "q" → 4 docs'
    assert found[1].started_at == found[1].finished_at
    assert found[2].result_payload == {"output": "partly"}


def test_a_pending_span_entered_as_a_block_is_the_parent_inside(tracer: Tracer) -> None:
    with tracer.run("a") as run:
        with run.create_span("agent", {"name": "x"}) as planned, tracer.span("tool", {"name": "y"}):
            grandchild = run.create_span("tool", {"name": "z"}, parent=planned)
        grandchild.cancel()
        sibling = run.create_span("tool", {"name": "w"})
        sibling.cancel()
    first, second, third, fourth = spans_of(tracer)
    assert first.status == "complete"
    assert (second.parent_span_id, third.parent_span_id, fourth.parent_span_id) == (first.id, first.id, None)


def test_a_pending_spans_wait_is_not_its_duration(tracer: Tracer) -> None:
    with tracer.run("a") as run, freeze_time("2026-01-01", auto_tick_seconds=0) as clock:
        span = run.create_span("tool", {"name": "x"})
        clock.tick(60)
        span.start()
        clock.tick(2)
        span.finish()
    assert spans_of(tracer)[0].duration_ms == 2000


@pytest.mark.parametrize("durability", ["journal", "commit"])
def test_forbidden_transitions_raise_only_when_asked_to(tmp_path: Path, durability: Any) -> None:
    quiet = Tracer(tmp_path / "quiet.db", durability=durability)
    with quiet.run("a") as run:
        span = run.create_span("tool", {"name": "x"})
        span.finish()  # pending: not started
        span.start()
        span.start()
        span.cancel()  # active
        span.finish()
        span.finish()
        span.update_payload({"a": 1})
    assert spans_of(quiet)[0].status == "complete"
    assert quiet.health()[:5] == (5, 5, 0, 0, 0)
    quiet.shutdown()
    loud = Tracer(tmp_path / "loud.db", raise_errors=True)
    with loud.run("a") as run:
        span = run.create_span("tool", {"name": "x"})
        with pytest.raises(agentspan.InvalidAction, match="is pending: only an active one can become complete"):
            span.finish()
    loud.shutdown()


def test_a_span_that_another_process_finished_stays_as_it_is(tmp_path: Path) -> None:
    tracer = Tracer(tmp_path / "runs.db")
    with agentspan.open(tmp_path / "runs.db") as other, tracer.run("a"), tracer.span("tool", {"name": "x"}) as span:
        other.agent_spans.finish(span.id, "failed", {"output": "theirs"})
    assert spans_of(tracer)[0].result_payload == {"output": "theirs"}
    assert (tracer.health().failed, tracer.health().refused) == (0, 1)
    tracer.shutdown()


def test_threads_have_contexts_of_their_own(tracer: Tracer) -> None:
    def work() -> None:
        with tracer.run("thread"), tracer.span("tool", {"name": "x"}):
            pass

    with tracer.run("main"), tracer.span("tool", {"name": "y"}):
        threads = [threading.Thread(target=work) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert tracer.flush(30)
    assert [span.parent_span_id for span in spans_of(tracer)] == [None] * 9
    assert tracer.health()[:5] == (36, 0, 0, 0, 0)


def test_threads_that_record_first_at_the_same_moment_all_do(tmp_path: Path) -> None:
    for number in range(10):
        tracer = Tracer(tmp_path / f"{number}.db", raise_errors=True)
        gate = threading.Barrier(8)

        def work(tracer: Tracer = tracer, gate: threading.Barrier = gate) -> None:
            gate.wait()
            with tracer.run("a"), tracer.span("tool", {"name": "x"}):
                pass

        threads = [threading.Thread(target=work) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert tracer.health()[:5] == (32, 0, 0, 0, 0)
        tracer.shutdown()


def test_two_tracers_do_not_mix(tmp_path: Path) -> None:
    one, two = Tracer(tmp_path / "1.db", raise_errors=True), Tracer(tmp_path / "2.db", raise_errors=True)
    with one.run("a"), two.run("b"), one.span("tool", {"name": "x"}), two.span("tool", {"name": "y"}):
        assert one.current_span() is not two.current_span()
    assert [span.label for span in spans_of(one)] == ["x"]
    assert [span.label for span in spans_of(two)] == ["y"]
    assert spans_of(two)[0].parent_span_id is None
    one.shutdown()
    two.shutdown()


@pytest.mark.parametrize("durability", ["journal", "commit"])
def test_strict_schemas_keep_what_does_not_match_out(tmp_path: Path, durability: Any) -> None:
    tracer = Tracer(tmp_path / "runs.db", strict_schemas=True, durability=durability)
    with tracer.run("a"):
        with tracer.span("llm", {"nothing": 1}):
            pass
        with tracer.span("llm", {"model": "m"}) as span:
            span.set_result({"input_tokens": "many"})
    (stored,) = spans_of(tracer)
    assert stored.status == "failed"
    assert stored.result_payload["error"]["type"] == "agentspan.errors.ValidationErrors"
    tracer.shutdown()


def test_configure_is_idempotent_and_switches(tmp_path: Path) -> None:
    first = agentspan.configure(tmp_path / "1.db")
    assert agentspan.configure(str(tmp_path / "1.db")) is first
    with agentspan.run("a"):
        pass
    second = agentspan.configure(tmp_path / "2.db")
    assert second is not first
    with agentspan.run("b"):
        pass
    assert [run.name for run in agentspan.open(tmp_path / "1.db").agents.list()] == ["a"]
    assert [run.name for run in agentspan.open(tmp_path / "2.db").agents.list()] == ["b"]


def test_recording_works_again_after_shutdown(tmp_path: Path) -> None:
    agentspan.configure(tmp_path / "runs.db", raise_errors=True)
    for _ in range(2):
        with agentspan.run("a"):
            pass
        agentspan.shutdown()
        agentspan.shutdown()
    agentspan.configure(tmp_path / "runs.db", raise_errors=True)
    with agentspan.run("a"):
        pass
    assert agentspan.open(tmp_path / "runs.db").agent_instances.list().pagination.item_count == 3


def test_without_configure_the_environment_names_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AGENTSPAN_DB", str(tmp_path / "env.db"))

    @agentspan.span
    def search(query: str) -> str:
        return query

    assert (agentspan.current_span(), agentspan.current_run(), agentspan.health()[:5]) == (None, None, (0, 0, 0, 0, 0))
    search("x")
    assert agentspan.open(tmp_path / "env.db").agent_instances.list().pagination.item_count == 1
    monkeypatch.delenv("AGENTSPAN_DB")
    monkeypatch.chdir(tmp_path)
    agentspan.shutdown()
    search("x")
    assert (tmp_path / "agentspan.db").exists()


def test_a_decorated_function_follows_a_new_configuration(tmp_path: Path) -> None:
    @agentspan.span
    def search(query: str) -> str:
        return query

    for name in ("1.db", "2.db"):
        agentspan.configure(tmp_path / name)
        search("x")
        assert agentspan.open(tmp_path / name).agent_instances.list().pagination.item_count == 1


def test_misuse_at_configuration_always_raises(tmp_path: Path) -> None:
    with pytest.raises(agentspan.DatabaseUnusable, match="does not exist; create it"):
        agentspan.configure(tmp_path / "nowhere" / "x.db")
    with pytest.raises(agentspan.InvalidValue, match="durability"):
        agentspan.configure(tmp_path / "x.db", durability="wishful")  # type: ignore[arg-type]


def test_a_file_that_cannot_be_used_does_not_stop_the_program(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("AGENTSPAN_DB", str(tmp_path / "nowhere" / "x.db"))

    @agentspan.span
    def search(query: str) -> str:
        return query

    with agentspan.run("a") as run:
        assert [search(str(number)) for number in range(3)] == ["0", "1", "2"]
        run.create_span("tool").cancel()
    assert agentspan.health().failed > 0
    assert "nowhere does not exist" in (agentspan.health().last_error or "")
    assert len([r for r in caplog.records if "nowhere does not exist" in r.message]) == 1


def test_a_busy_file_costs_a_moment_and_loses_nothing(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    import sqlite3

    class Waits(SQLiteStorage):
        def apply(self, units: Sequence[Unit], *, stop_at_refusal: bool = False, wait_s: float = 5.0) -> list[Outcome]:
            if threading.get_ident() == here:  # a thread of agentspan writes what waits
                waits.append(wait_s)
            return super().apply(units, stop_at_refusal=stop_at_refusal, wait_s=wait_s)

    waits: list[float] = []
    here = threading.get_ident()
    storage = Waits(tmp_path / "runs.db")
    tracer = Tracer(storage, durability="commit")
    other = sqlite3.connect(tmp_path / "runs.db", isolation_level=None)
    with tracer.run("a"):
        with tracer.span("tool", {"name": "before"}):
            pass
        other.execute("begin immediate")
        waits.clear()
        for number in range(20):
            with tracer.span("tool", {"name": str(number)}):
                pass
        assert waits == [0.25]  # only the first call waits
        assert tracer.health().waiting == 40
        assert tracer.flush(0.0) is False
        other.execute("rollback")
        assert tracer.flush()
        with tracer.span("tool", {"name": "after"}):
            pass
    assert tracer.health()[:5] == (2 + 2 + 40 + 2, 0, 0, 0, 0)
    assert [span.status for span in spans_of(tracer)] == ["complete"] * 22
    assert len([record for record in caplog.records if "DatabaseBusy" in record.message]) == 1
    other.close()
    tracer.shutdown()
    storage.close()


def test_a_run_that_begins_while_the_file_is_busy_is_kept_too(tmp_path: Path) -> None:
    import sqlite3

    tracer = Tracer(tmp_path / "runs.db", durability="commit")
    other = sqlite3.connect(tmp_path / "runs.db", isolation_level=None)
    other.execute("begin immediate")
    with tracer.run("a") as run, tracer.span("tool", {"name": "x"}):
        assert run.id
    assert tracer.health().recorded == 0
    other.execute("rollback")
    other.close()
    assert tracer.flush()
    (stored,) = runs_of(tracer)
    assert (stored.id, stored.status, stored.span_counts.complete) == (run.id, "complete", 1)
    assert tracer.health()[1:5] == (0, 0, 0, 0)
    tracer.shutdown()


@pytest.mark.skipif(not is_possible(), reason="needs a journal")
def test_the_first_span_of_a_program_does_not_wait_long_for_a_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import sqlite3
    import time

    monkeypatch.setenv("AGENTSPAN_DB", str(tmp_path / "runs.db"))
    other = sqlite3.connect(tmp_path / "runs.db", isolation_level=None)
    other.execute("begin exclusive")
    began = time.monotonic()
    with agentspan.run("a"):
        pass
    assert time.monotonic() - began < 8.0  # 0.25 s; one that waits to open the file waits 10 s
    assert agentspan.health()[:3] == (2, 0, 0)
    other.execute("rollback")
    other.close()
    assert agentspan.flush()
    with agentspan.open() as db:
        assert [run.status for run in db.agent_instances.list()] == ["complete"]


def test_what_waits_is_written_at_shutdown(tmp_path: Path) -> None:
    import sqlite3

    tracer = Tracer(tmp_path / "runs.db")
    other = sqlite3.connect(tmp_path / "runs.db", isolation_level=None, check_same_thread=False)
    with tracer.run("a"):
        other.execute("begin immediate")
        with tracer.span("tool", {"name": "x"}):
            pass
    timer = threading.Timer(0.2, lambda: other.execute("rollback"))
    timer.start()
    tracer.shutdown()
    timer.join()
    other.close()
    with agentspan.open(tmp_path / "runs.db") as db:
        (run,) = db.agent_instances.list()
        assert (run.status, run.span_counts.complete) == ("complete", 1)


def test_a_bug_in_the_storage_does_not_reach_the_program(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    class Buggy(agentspan.MemoryStorage):
        broken = False

        def apply(self, units: Any, **options: Any) -> Any:
            if self.broken:
                raise ZeroDivisionError("a bug")
            return super().apply(units, **options)

    storage = Buggy()
    tracer = Tracer(storage)
    with tracer.run("a"):
        storage.broken = True
        with tracer.span("tool", {"name": "x"}) as span:
            span.update_payload({"a": 1})
        with pytest.raises(KeyError), tracer.span("tool", {"name": "y"}):
            raise KeyError("theirs")
    assert tracer.health().failed >= 4
    assert len([record for record in caplog.records if "ZeroDivisionError" in record.message]) == 1


def test_methods_given_nonsense_do_not_raise(tmp_path: Path) -> None:
    tracer = Tracer(tmp_path / "runs.db")
    nonsense: Any = 7
    with tracer.run("a", metadata=nonsense) as run, tracer.span("tool", nonsense) as span:
        span.set_result(nonsense)
        span.update_payload(nonsense)
        span.record_error(nonsense)
        run.set_result(nonsense)
    assert [stored.status for stored in spans_of(tracer)] == ["failed"]
    tracer.shutdown()


def test_the_writer_of_a_span_is_known(tmp_path: Path) -> None:
    import os
    import sqlite3

    tracer = Tracer(tmp_path / "runs.db", raise_errors=True)
    for _ in range(2):
        with tracer.run("a"), tracer.span("tool", {"name": "x"}):
            pass
    tracer.flush()
    connection = sqlite3.connect(tmp_path / "runs.db")
    ((writer, pid, start),) = connection.execute("select id, pid, process_start from writers").fetchall()
    assert pid == os.getpid()
    assert start == Path("/proc/self/stat").read_text().rpartition(")")[2].split()[19]
    assert {span.writer_id for span in spans_of(tracer)} == {writer} == {run.writer_id for run in runs_of(tracer)}
    connection.close()
    tracer.shutdown()


def test_own_span_types_are_registered_from_models_and_schemas(tmp_path: Path) -> None:
    from pydantic import BaseModel

    class Charge(BaseModel):
        amount: int
        currency: str = "EUR"

    agentspan.span_type(
        "charge",
        payload=Charge,
        result={"type": "object", "required": ["receipt"]},
        title="Charge",
        template="Charge {{amount}} {{currency}}{{#receipt}} → {{receipt}}{{/receipt}} ({{_status}})",
    )
    tracer = Tracer(tmp_path / "runs.db", raise_errors=True)

    @tracer.span("charge")
    def charge(amount: Any, currency: str = "EUR") -> dict[str, Any]:
        return {"receipt": "r1"} if amount else {}

    with tracer.run("a"):
        charge(5)
        charge("much")
        charge(0)
    first, second, third = spans_of(tracer)
    assert (first.schema_title, first.summary) == ("Charge", "Charge 5 EUR → r1 (complete)")
    db = agentspan.open(tracer.storage)
    assert [v.path for v in db.agent_spans.violations(second.id)] == ["$.amount"]
    assert [v.message for v in db.agent_spans.violations(third.id)] == ["lacks receipt"]
    (version,) = db.agent_schema_versions.list()
    assert "charge" in {item["name"] for item in version.span_type_schemas}
    tracer.shutdown()


def test_times_are_stamped_in_the_caller_under_a_frozen_clock(tracer: Tracer) -> None:
    with freeze_time("2026-01-01 12:00:00") as clock, tracer.run("a"), tracer.span("tool", {"name": "x"}):
        clock.tick(1.5)
    (span,) = spans_of(tracer)
    assert span.model_dump(mode="json")["started_at"] == "2026-01-01T12:00:00Z"
    assert span.model_dump(mode="json")["finished_at"] == "2026-01-01T12:00:01.500000Z"
    assert span.duration_ms == 1500


def test_payloads_are_json_text_in_the_file(tmp_path: Path) -> None:
    import sqlite3

    tracer = Tracer(tmp_path / "runs.db", raise_errors=True)
    with tracer.span("tool", {"name": "x", "arguments": {"é": [1, None]}}):
        pass
    assert tracer.flush()
    connection = sqlite3.connect(tmp_path / "runs.db")
    (payload,) = connection.execute("select payload from agent_spans").fetchone()
    assert json.loads(payload) == {"name": "x", "arguments": {"é": [1, None]}}
    assert connection.execute("select run, agent, type, label, status from spans").fetchone()[2:] == (
        "tool",
        "x",
        "complete",
    )
    assert connection.execute("select spans, failed_spans from runs").fetchone() == (1, 0)
    connection.close()
    tracer.shutdown()


def test_the_times_of_a_span_follow_time_machine_and_its_duration_is_real(tracer: Tracer) -> None:
    time_machine = pytest.importorskip("time_machine", reason="needs time-machine")
    began = time.perf_counter()
    with time_machine.travel(datetime(2030, 1, 1, tzinfo=UTC), tick=False) as clock:
        with tracer.run("a") as run, tracer.span("tool", {"name": "x"}):
            clock.shift(5)
        db = agentspan.open(tracer.storage)
        by_id = db.agent_spans.create(run.id, "tool", "active", {"name": "y"}).id
        clock.shift(7)
        finished = db.agent_spans.finish(by_id)
    assert finished.duration_ms == 7000
    span = next(span for span in db.agent_spans.list(run.id) if span.id != by_id)
    assert span.started_at == datetime(2030, 1, 1, tzinfo=UTC)
    assert span.finished_at == datetime(2030, 1, 1, 0, 0, 5, tzinfo=UTC)
    assert span.duration_ms is not None
    assert 0 <= span.duration_ms < (time.perf_counter() - began) * 1000
