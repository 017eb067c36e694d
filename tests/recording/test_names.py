"""Names with a NUL are recorded with U+FFFD in its place, and neither a run nor a span is lost for it."""

import sys
from pathlib import Path
from typing import Any

import pytest

import agentspan
from agentspan.model.columns import columns_of
from agentspan.model.rows import ROWS
from agentspan.storage.questions import Query

BAD = "a\x00b"
CLEAN = "a\ufffdb"


@pytest.mark.parametrize("durability", ["journal", "commit"])
def test_a_nul_in_a_name_is_replaced(tmp_path: Path, durability: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", [BAD])
    tracer = agentspan.Tracer(tmp_path / "runs.db", durability=durability)
    with tracer.run(BAD, version=BAD, metadata={BAD: BAD}, purpose=BAD) as run:  # type: ignore[arg-type]
        with tracer.span(BAD, {BAD: BAD}) as span:
            span.set_result({BAD: BAD})
        with pytest.raises(ZeroDivisionError), tracer.span("llm", {"model": BAD}), tracer.span("tool", {"name": BAD}):
            raise ZeroDivisionError(BAD)
        run.create_span(BAD).finish("cancelled")
    with tracer.span("tool", {"name": "a run of its own, which has the program's name"}):
        pass
    assert tracer.health().failed == 0
    tracer.shutdown()
    with agentspan.open(tmp_path / "runs.db") as db:
        stored, other = db.agent_instances.list()
        spans = list(db.agent_spans.list(stored.id, include_summaries=True))
        assert [span.schema_name for span in spans] == [CLEAN, "llm", "tool", CLEAN]
        assert spans[0].payload == spans[0].result_payload == stored.metadata == {BAD: BAD}
        assert [db.agents.get(id).name for id in (stored.agent_id, other.agent_id)] == [CLEAN, CLEAN]
        assert stored.purpose == "live"
        for type_ in ROWS:
            names = [column.name for column in columns_of(type_) if not column.is_json]
            for row in db.storage.ask(Query(type_)).rows:
                assert [name for name in names if "\x00" in str(getattr(row, name))] == []


def test_a_run_with_an_unknown_purpose_is_recorded_as_live(tmp_path: Path) -> None:
    tracer = agentspan.Tracer(tmp_path / "runs.db")
    with tracer.run("a", purpose="fun"):  # type: ignore[arg-type]
        pass
    assert tracer.health().failed == 0
    (run,) = agentspan.open(tracer.storage).agent_instances.list()
    assert (run.status, run.purpose) == ("complete", "live")
    tracer.shutdown()
    raising = agentspan.Tracer(":memory:", raise_errors=True)
    with pytest.raises(agentspan.InvalidValue, match="purpose"), raising.run("a", purpose="fun"):  # type: ignore[arg-type]
        pass
    raising.shutdown()
