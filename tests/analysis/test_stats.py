"""Statistics per type and label, on both storages."""

import re
from pathlib import Path
from typing import Any

import pytest

import agentspan
from agentspan.analysis.runs import Rest, find_runs, shorten, stats, stats_by_version
from agentspan.database import Database
from agentspan.model.changes import FinishStatus
from agentspan.storage.questions import Select
from agentspan.storage.sums import BOUNDS_MS, Stat, bucket_of, rank

T = "2026-01-01T00:00:{:09.6f}Z"


@pytest.fixture
def run(db: Database) -> str:
    """A hundred calls of one tool that take 1 to 100 ms, the last five of which fail, and a few others."""
    run = db.agent_instances.register("a")
    for number in range(1, 101):
        failed = number > 95
        span = db.agent_spans.create(run.id, "tool", "active", {"name": "fetch"}, started_at=T.format(number / 2))
        result = {"error": "x"} if failed else {"output": 1}
        at = T.format(number / 2 + number / 1000)
        db.agent_spans.finish(span.id, "failed" if failed else "complete", result, timestamp=at)
    db.agent_spans.create(run.id, "tool", "active", {"name": "fetch"}, started_at=T.format(59))
    db.agent_spans.create(run.id, "tool", "pending", {"name": "write"})
    cancelled = db.agent_spans.create(run.id, "tool", "pending", {"name": "write"})
    db.agent_spans.finish(cancelled.id, "cancelled")
    usage = {"model": "m", "input_tokens": 7, "cost_usd": 0.25}
    db.agent_spans.create(run.id, "llm", "complete", usage, {}, started_at=T.format(1), finished_at=T.format(2))
    return run.id


def of(found: list[Stat], name: str, label: str | None) -> Stat:
    (stat,) = [stat for stat in found if (stat.schema_name, stat.label) == (name, label)]
    return stat


def test_a_call_that_returned_an_error_counts_as_failed(db: Database) -> None:
    run = db.agent_instances.register("a")
    results: list[dict[str, object]] = [
        {"is_error": True},
        {"is_error": False},
        {"is_error": "true"},
        {"output": {"is_error": True}},
        {},
    ]
    for result in [{"output": "no seat", **result} for result in results]:
        db.agent_spans.create(run.id, "tool", "complete", {"name": "book"}, result)
        db.agent_spans.create(run.id, "mcp", "complete", {"method": "tools/call"}, {**result, "is_error": True})
    cancelled = db.agent_spans.create(run.id, "tool", "pending", {"name": "book"})
    db.agent_spans.finish(cancelled.id, "cancelled")
    for found in (stats(db.storage), stats(db.storage, run=run.id)):
        assert [(stat.schema_name, stat.label, stat.failed, stat.ran) for stat in found if stat.label is None] == [
            ("mcp", None, 5, 5),
            ("tool", None, 1, 5),
        ]
    (listed,) = find_runs(db.storage).runs
    assert listed.failed == 6


def test_the_documented_sql_counts_tools_as_stats_does(tmp_path: Path) -> None:
    page = (Path(__file__).parents[2] / "docs/sessions-questions.md").read_text()
    (sql,) = [each for each in re.findall(r'agentspan sql "\n(.*?)"\n', page, re.DOTALL) if "retried" in each]
    with agentspan.open(tmp_path / "runs.db") as db:
        run = db.agent_instances.register("a")
        ended: list[tuple[FinishStatus, dict[str, Any]]] = [
            ("complete", {"is_error": True}), ("complete", {"is_error": "true"}), ("failed", {"error": "x"}),
            ("cancelled", {"is_error": True}), ("complete", {}),
        ]  # fmt: skip
        for status, result in ended:
            for name, asked in (
                ("tool", {"name": "Bash"}),
                ("mcp", {"method": "tools/call", "target": "update_issue"}),
            ):
                db.agent_spans.create(run.id, name, status, asked, result)
        found = {stat.label: stat for stat in stats(db.storage) if stat.label is not None}
        counted = {tool: rest for tool, *rest in db.storage.ask(Select(sql)).rows}
    assert counted.keys() == found.keys() == {"Bash", "update_issue"}
    for tool, (calls, failed, percent, _) in counted.items():
        stat = found[tool]
        assert (
            (calls, failed, percent) == (stat.count, stat.failed, round(100 * (stat.error_rate or 0), 1)) == (5, 2, 50)
        )


def test_statistics_of_a_label_and_of_its_type(db: Database, run: str) -> None:
    for found in (stats(db.storage), stats(db.storage, run=run)):
        assert [(stat.schema_name, stat.label) for stat in found] == [
            ("tool", None),
            ("tool", "fetch"),
            ("tool", "write"),
            ("llm", None),
            ("llm", "m"),
        ]
        fetch, whole = of(found, "tool", "fetch"), of(found, "tool", None)
        assert (fetch.count, fetch.failed, fetch.cancelled, fetch.open, fetch.ran) == (101, 5, 0, 1, 100)
        assert (fetch.p50_ms, fetch.p95_ms, fetch.p99_ms, fetch.max_ms) == pytest.approx((50, 95, 99, 100))
        assert fetch.total_ms == pytest.approx(5050)
        assert fetch.error_rate == 0.05
        assert sum(fetch.histogram) == 100
        assert len(fetch.histogram) == len(BOUNDS_MS) + 1
        assert (whole.count, whole.cancelled, whole.open, whole.ran) == (103, 1, 2, 100)
        assert whole.p95_ms == fetch.p95_ms
        write = of(found, "tool", "write")
        assert (write.ran, write.p50_ms, write.max_ms, write.error_rate, write.total_ms) == (0, None, None, None, 0)
        llm = of(found, "llm", "m")
        assert (llm.input_tokens, llm.output_tokens, llm.cost_usd) == (7, None, 0.25)


def test_statistics_of_a_window(db: Database, run: str) -> None:
    found = stats(db.storage, since=T.format(25), until=T.format(49))
    fetch = of(found, "tool", "fetch")
    assert (fetch.count, fetch.failed, fetch.open) == (48, 2, 0)
    assert (fetch.p50_ms, fetch.max_ms) == pytest.approx((73, 97))
    assert [stat for stat in found if stat.schema_name == "llm"] == []
    assert stats(db.storage, since="9999-01-01T00:00:00.000000Z") == []


def test_of_no_spans_there_are_no_statistics(db: Database) -> None:
    assert stats(db.storage) == []


def test_a_percentile_is_a_value_that_occurred() -> None:
    assert [rank(1, p) for p in (50, 95, 99)] == [0, 0, 0]
    assert [rank(2, p) for p in (50, 95, 99)] == [0, 1, 1]
    assert [rank(100, p) for p in (50, 95, 99)] == [49, 94, 98]


def test_a_bucket_begins_with_its_bound() -> None:
    assert bucket_of(0.05) == 0
    assert bucket_of(BOUNDS_MS[0]) == 1
    assert bucket_of(BOUNDS_MS[-1]) == len(BOUNDS_MS)
    assert [f"{bound:g}" for bound in BOUNDS_MS[:7]] == ["0.1", "0.2", "0.5", "1", "2", "5", "10"]


@pytest.mark.parametrize("types", [1, 3, 25, 200])
@pytest.mark.parametrize("labels", [0, 2, 50])
@pytest.mark.parametrize("rows", [1, 10, 40])
def test_statistics_are_shortened_to_so_many_rows_and_say_what_is_left_out(types: int, labels: int, rows: int) -> None:
    found = [stat(f"t{type_}", label) for type_ in range(types) for label in (None, *map(str, range(labels)))]
    shown = shorten(found, rows)
    kept = [each for each in shown if isinstance(each, Stat)]
    assert len(kept) == min(rows, len(found))
    assert kept == [each for each in found if each in kept]  # in the same order
    left = sum(each.number for each in shown if isinstance(each, Rest))
    known = {each.schema_name for each in kept}
    assert left == sum(each.label is None or each.schema_name in known for each in found) - len(kept)
    assert [each.schema_name for each in kept if each.label is None] == [f"t{n}" for n in range(len(known))]
    if types <= rows // 2:
        assert len(known) == types


def test_labels_that_occur_once_are_one_row() -> None:
    labels = [stat("tool", name, count=1 + (name == "often")) for name in ("a", "often", *"bcdefghijk")]
    found = [stat("llm", None), stat("llm", "m", count=1), stat("tool", None), *labels]
    shown = shorten(found, 40)
    assert shown == [*found[:2], found[2], *labels[:9], Rest("tool", 3, is_once=True)]
    assert shorten(found, 40, once=None) == found


def test_models_and_tools_come_first(db: Database) -> None:
    run = db.agent_instances.register("a")
    for seconds, name in enumerate(("mcp", "llm", "tool", "chain", "agent"), 1):
        db.agent_spans.create(
            run.id, name, "complete", {"name": name}, {}, started_at=T.format(0), finished_at=T.format(seconds)
        )
    for found in (stats(db.storage), stats(db.storage, run=run.id)):
        types = [stat.schema_name for stat in found if stat.label is None]
        assert types == ["tool", "llm", "mcp", "agent", "chain"]


def stat(schema_name: str, label: str | None, *, count: int = 2) -> Stat:
    return Stat(schema_name, label, count, 0, 0, 0, 1.0, 1.0, 1.0, 1.0, 1.0, (), None, None, None, False)


def record_versions(db: Database, versions: str) -> None:
    """A run of each version: as many calls of `fetch` as it has a number, and one of a tool of its own."""
    for version in versions:
        run = db.agent_instances.register("a", agent_version={"external_identifier": version})
        for _ in range(int(version)):
            db.agent_spans.create(run.id, "tool", "complete", {"name": "fetch"}, {})
        db.agent_spans.create(run.id, "tool", "failed", {"name": f"only {version}"}, {})


def test_statistics_are_broken_down_by_version_the_latest_first(db: Database) -> None:
    record_versions(db, "1232")
    other = db.agent_instances.register("b")
    db.agent_spans.create(other.id, "tool", "complete", {"name": "fetch"}, {})
    found = db.stats_by_version()
    assert [*found.stats] == db.stats()
    assert [(each.name, each.runs) for each in found.versions] == [
        ("b@default", 1), ("a@2", 2), ("a@3", 1), ("a@1", 1)
    ]  # fmt: skip
    assert [of([*each.stats], "tool", "fetch").count for each in found.versions] == [1, 4, 3, 1]
    assert [*found.versions[1].stats] == db.stats(agent="a", version="2")
    assert (found.left_out_versions, found.left_out_labels) == (0, 0)
    of_a = db.stats_by_version(agent="a")
    assert [each.name for each in of_a.versions] == ["a@2", "a@3", "a@1"]
    assert [*of_a.stats] == db.stats(agent="a")
    (one,) = db.stats_by_version(agent="a@3").versions
    assert [*one.stats] == db.stats(version="3")
    assert db.stats_by_version(until="2020-01-01").stats == ()


def test_only_so_many_versions_and_labels_are_broken_down(db: Database) -> None:
    record_versions(db, "1234")
    found = stats_by_version(db.storage, most_versions=2, most_labels=3)
    assert [each.version for each in found.versions] == ["4", "3"]
    assert (found.left_out_versions, found.left_out_labels) == (2, 3)
    assert len(found.stats) == 3
    assert {(each.schema_name, each.label) for version in found.versions for each in version.stats} <= {
        (each.schema_name, each.label) for each in found.stats
    }
