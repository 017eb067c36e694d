"""Every way to ask for a run's tokens counts a span that sums up others once: the same sum, whatever it is called."""

import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

import agentspan
from agentspan.analysis.runs import find_runs, stats
from agentspan.model.rows import AgentInstanceRow
from agentspan.storage.memory import MemoryStorage
from agentspan.storage.protocol import Storage
from agentspan.storage.questions import Query, SpansOf
from agentspan.storage.row_by_row import of_spans, summaries_of
from agentspan.storage.sums import Stat
from agentspan.testing import CapturedRun
from agentspan.viewer import data, export
from tests.cli.calling import call

USED = {"input_tokens": 100, "output_tokens": 10, "cost_usd": 0.5}
ONCE, TWICE = 110, 220
SUMS = {
    "prefactor:agent:main": ONCE,
    "x:y:agent": TWICE,
    "agent": ONCE,
    "a:agent:b": ONCE,
    "langchain:agent": ONCE,
    "my_step": TWICE,
}
"""Tokens of a run in which a span of this name and the `llm` span in it say 110 each."""


def by_recorder(storage: Any, durability: Any) -> agentspan.Tracer:
    tracer = agentspan.Tracer(storage, raise_errors=True, durability=durability)
    for name in SUMS:
        with tracer.run(name), tracer.span(name, {"name": "outer"}) as outer:
            with tracer.span("llm", {"model": "m"}) as inner:
                inner.set_result(USED)
            outer.set_result(USED)
    return tracer


def by_id(db: agentspan.Database) -> None:
    for name in SUMS:
        run = db.agent_instances.register(name)
        db.agent_instances.start(run.id)
        outer = db.agent_spans.create(run.id, name, "complete", {"name": "outer"}, USED)
        db.agent_spans.create(run.id, "llm", "complete", {"model": "m"}, USED, parent_span_id=outer.id)


def rows_of(storage: Storage) -> dict[str, AgentInstanceRow]:
    rows = [row for row in storage.ask(Query("agent_instance")).rows if isinstance(row, AgentInstanceRow)]
    return {summary.agent: summary.run for summary in summaries_of(storage, rows)}


def total(stats: list[Stat]) -> int:
    counted = [stat for stat in stats if stat.label is None and not stat.is_aggregate]
    return sum((stat.input_tokens or 0) + (stat.output_tokens or 0) for stat in counted)


def of_python(storage: Storage) -> dict[str, dict[str, int]]:
    """Ask in every way that works over any storage."""
    rows = rows_of(storage)
    found = {
        "runs": {run.agent: (run.input_tokens or 0) + (run.output_tokens or 0) for run in find_runs(storage).runs},
        "rows": {
            run.agent: (run.input_tokens or 0) + (run.output_tokens or 0)
            for run in summaries_of(storage, rows.values())
        },
        "testing": {name: CapturedRun(storage, run.id).tokens or 0 for name, run in rows.items()},
        "stats": {name: total(stats(storage, run=run.id)) for name, run in rows.items()},
    }
    assert total(stats(storage)) == sum(found["stats"].values())
    if shutil.which("node") is not None:
        found["viewer"] = of_viewer({name: data.columns(storage, run) for name, run in rows.items()})
    return found


def of_viewer(columns: dict[str, Any]) -> dict[str, int]:
    """Let the page's own code add up."""
    modules = "".join(
        re.sub(r"^import .*\n", "", export.text(f"{name}.js"), flags=re.M) for name in ("failures", "spans")
    )
    script = (
        f"{modules}\nconst columns = {json.dumps(columns)}, sums = {{}};\n"
        "for (const name in columns) {\n  const spans = new Spans();\n  spans.merge(columns[name]);\n"
        "  sums[name] = spans.sums().tokens;\n}\nconsole.log(JSON.stringify(sums));\n"
    )
    said = subprocess.run(
        ["node", "--input-type=module"], input=script, check=True, capture_output=True, text=True
    ).stdout
    return dict(json.loads(said))


def of_file(path: Path) -> dict[str, dict[str, int]]:
    """Ask in every way that there is for a file, too."""

    def sql(query: str) -> dict[str, int]:
        rows = json.loads(call(path, "sql", "--json", query).output)["rows"]
        return dict(rows)

    with agentspan.open(path, read_only=True) as db:
        found = of_python(db.storage)
        ids = {name: run.id for name, run in rows_of(db.storage).items()}
    shown = json.loads(call(path, "runs", "--json").output)["runs"]
    names = {id: name for name, id in ids.items()}
    return found | {
        "agentspan runs": {names[run["id"]]: (run["input_tokens"] or 0) + (run["output_tokens"] or 0) for run in shown},
        "agentspan show": {name: tokens_in(call(path, "show", id).output) for name, id in ids.items()},
        "agentspan stats": {name: tokens_in(call(path, "stats", id).output) for name, id in ids.items()},
        "view runs": sql("select agent, input_tokens + output_tokens as tokens from runs"),
        "view spans": sql(
            "select agent, sum(input_tokens + output_tokens) as tokens from spans where not is_aggregate group by run"
        ),
    }


def tokens_in(output: str) -> int:
    (found,) = re.findall(r"· ([\d,]+) tok\b", output)
    return int(found.replace(",", ""))


def assert_everywhere(found: dict[str, dict[str, int]], expected: dict[str, int]) -> None:
    assert found == dict.fromkeys(found, expected)


def test_runs_says_what_show_says(tmp_path: Path) -> None:
    by_recorder(tmp_path / "runs.db", "commit").shutdown()
    totals = {
        run["agent"]: run["input_tokens"] + run["output_tokens"]
        for run in json.loads(call(tmp_path / "runs.db", "runs", "--json").output)["runs"]
    }
    with agentspan.open(tmp_path / "runs.db", read_only=True) as db:
        ids = {name: run.id for name, run in rows_of(db.storage).items()}
    shown = {name: tokens_in(call(tmp_path / "runs.db", "show", id).output) for name, id in ids.items()}
    assert (totals, shown) == (SUMS, SUMS)


@pytest.mark.parametrize("durability", ["journal", "commit"])
def test_a_recorded_file_has_one_token_sum(tmp_path: Path, durability: str) -> None:
    by_recorder(tmp_path / "runs.db", durability).shutdown()
    assert_everywhere(of_file(tmp_path / "runs.db"), SUMS)


def test_a_file_written_by_id_has_one_token_sum(tmp_path: Path) -> None:
    with agentspan.open(tmp_path / "runs.db") as db:
        by_id(db)
    assert_everywhere(of_file(tmp_path / "runs.db"), SUMS)


def test_a_storage_in_memory_has_the_same_token_sum() -> None:
    storage = MemoryStorage()
    by_id(agentspan.open(storage))
    assert_everywhere(of_python(storage), SUMS)
    storage = MemoryStorage()
    tracer = by_recorder(storage, "commit")
    assert_everywhere(of_python(storage), SUMS)
    tracer.shutdown()


@pytest.mark.full
def test_an_import_has_the_same_token_sum_whatever_its_lines_say(tmp_path: Path) -> None:
    with agentspan.open(tmp_path / "from.db") as db:
        by_id(db)
    exported = call(tmp_path / "from.db", "export", "all", "--format", "jsonl").output
    without, wrong = tmp_path / "without.jsonl", tmp_path / "wrong.jsonl"
    without.write_text(
        re.sub(r', "(?:is_aggregate|sensitive_encoding)": \d', "", exported), encoding="utf-8"
    )  # as versions before wrote it
    wrong.write_text(re.sub(r'"is_aggregate": \d', '"is_aggregate": 1', exported), encoding="utf-8")
    for file in (without, wrong):
        with agentspan.open(file.with_suffix(".db")):
            pass
        assert call(file.with_suffix(".db"), "import", str(file)).exit_code == 0
        assert_everywhere(of_file(file.with_suffix(".db")), SUMS)


def test_types_that_sum_up_others_are_marked_in_the_statistics(tmp_path: Path) -> None:
    with agentspan.open(tmp_path / "runs.db") as db:
        by_id(db)
        found = stats(db.storage)
        spans = [span for run in rows_of(db.storage).values() for span in db.storage.ask(SpansOf(run.id))]
        marks = {(stat.schema_name, stat.label): stat.is_aggregate for stat in found}
    assert {name: marks[name, None] for name in SUMS} == {name: tokens == ONCE for name, tokens in SUMS.items()}
    assert marks["llm", "m"] is False
    assert marks == {(stat.schema_name, stat.label): stat.is_aggregate for stat in of_spans(spans)}
