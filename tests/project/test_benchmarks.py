"""The benchmarks run and print their tables. Measured times are not checked: tests count, at most."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.checkout import ROOT
from tests.postgres import Emptied

pytestmark = pytest.mark.full

BENCHMARKS = ROOT / "benchmarks"
FIGURE = re.compile(r"\d+\.\d+ (?:µs|ms|×|MiB)")


def run(script: str, *args: object, path: Path | None = None, check: bool = True) -> "subprocess.CompletedProcess[str]":
    done = subprocess.run(
        [sys.executable, "-W", "error", BENCHMARKS / script, *map(str, args)],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(map(str, filter(None, (path, BENCHMARKS.parent))))},
        capture_output=True,
        encoding="utf-8",
        timeout=120,
    )
    assert not check or (done.returncode, done.stderr) == (0, "")
    return done


def rows(said: str, *names: str) -> list[str]:
    """Return the line of a table for each beginning."""
    found = [line for name in names for line in said.splitlines() if line.startswith(f"{name}  ")]
    assert len(found) == len(names), said
    return found


def test_the_benchmark_of_the_view_prints_a_row_for_each_shape_and_choice_of_columns(tmp_path: Path) -> None:
    done = run("bench_view.py", "--spans", 20, "--turns", 1, "--folder", tmp_path)
    assert done.stdout.count("wanted") == 18
    assert list(tmp_path.iterdir()) == []


def test_spans_are_measured_and_counted(tmp_path: Path) -> None:
    names = ("journal @span", "journal redact=None with span", "commit @span", "disabled @span", "floor")
    options = [option for name in names for option in ("--only", name)]
    said = run("bench_span.py", "--spans", 300, "--rounds", 1, "--folder", tmp_path, *options).stdout
    alone, short_turns = said.split("short turns")
    for line in rows(alone, *names[:3], "floor: id, encode, append"):
        assert len(FIGURE.findall(line)) == 4
        assert "100 %" in line  # of the spans are in the file when it has flushed
    assert " 0 %" in rows(alone, "disabled @span")[0]
    rows(short_turns, "two transactions, BEGIN … COMMIT", "two transactions, autocommit", "commit @span")
    assert said.count("wanted") == 4
    assert list(tmp_path.iterdir()) == []


def test_the_import_of_sessions_is_measured_beside_json(tmp_path: Path) -> None:
    said = run("bench_sessions.py", "--sessions", 2, "--rounds", 1, "--folder", tmp_path).stdout
    for line in rows(said, "json.loads", "decode", "import", "second import"):
        assert len(FIGURE.findall(line)) == 2
    assert said.startswith("2 sessions, 800 lines")
    assert list(tmp_path.iterdir()) == []


def test_payloads_are_measured_beside_json() -> None:
    said = run("bench_payload.py", "--turns", 1).stdout
    for line in rows(said, "10 kB, ASCII", "100 kB, not ASCII", "1,000 kB, ASCII", "1,200 kB, not ASCII"):
        assert line.count(" µs") == 4
    assert said.count("wanted") == 6


def test_it_says_what_to_install_for_the_comparison(tmp_path: Path) -> None:
    (tmp_path / "opentelemetry").mkdir()
    (tmp_path / "opentelemetry" / "__init__.py").write_text("raise ImportError")
    options = ("--only", "OpenTelemetry", "--skip-commits", "--spans", 100, "--rounds", 1)
    done = run("bench_span.py", *options, path=tmp_path, check=False)
    assert done.returncode != 0
    assert 'pip install "agentspan-sqlite[bench]"' in done.stderr


def test_opentelemetry_records_the_same(tmp_path: Path) -> None:
    pytest.importorskip("opentelemetry.sdk.trace", reason="needs opentelemetry-sdk")
    options = ("--only", "OpenTelemetry", "--skip-commits", "--spans", 100, "--rounds", 1)
    names = ("OpenTelemetry @span", "OpenTelemetry with span", "OpenTelemetry, two texts")
    for line in rows(run("bench_span.py", *options).stdout, *names):
        assert "100 %" in line


@pytest.mark.nightly
def test_spans_are_followed_into_the_file(tmp_path: Path) -> None:
    said = run("bench_durable.py", "--spans", 300, "--rounds", 1, "--folder", tmp_path).stdout
    rows(said, "journal, caller", "journal, until in the file", "executemany, one transaction")
    assert said.count("wanted") == 2
    assert list(tmp_path.iterdir()) == []


@pytest.mark.nightly
def test_calls_with_histories_are_compared_with_another_checkout(tmp_path: Path) -> None:
    said = run("bench_histories.py", "--runs", 1, "--rounds", 1, "--folder", tmp_path, "--against", ROOT).stdout
    assert said.count("wanted") == 2
    assert list(tmp_path.iterdir()) == []


@pytest.mark.nightly
@pytest.mark.skipif(sys.platform != "linux", reason="needs /proc")
def test_memory_is_looked_at_again_and_again(tmp_path: Path) -> None:
    said = run("bench_durable.py", "--memory", "--spans", 300, "--folder", tmp_path).stdout
    assert len(re.findall(r"^ +300 .* MiB", said, re.MULTILINE)) == 2  # at the end, and when it has flushed
    assert said.count("wanted") == 2


def test_requests_are_sent_between_the_marks_at_which_they_are_counted(tmp_path: Path) -> None:
    pytest.importorskip("uvicorn", reason="needs uvicorn")
    said = run("count_serve.py", "--child", tmp_path / "agentspan.db", "--rounds", 1).stdout
    assert [kind for kind, _ in json.loads(said.splitlines()[-1]) if kind] == [
        "create",
        "finish",
        "create, keyed",
        "finish, keyed",
        "get",
        "list of 50",
        "bulk of 100",
    ]


def test_requests_of_otlp_are_counted_beside_plain_inserts() -> None:
    said = run("count_otlp.py", "--child", "--rounds", 1, "--batch", 20).stdout
    assert json.loads(said.splitlines()[-1]) == ["plain", "agentspan"]


@pytest.mark.nightly
def test_files_of_several_sizes_are_compared(tmp_path: Path) -> None:
    options = ("--sizes", "3000,5000", "--spans", 100, "--rounds", 1, "--folder", tmp_path)
    said = run("bench_scale.py", *options).stdout
    lines = [line for line in said.splitlines() if line.startswith(("     3,000", "     5,000"))]
    assert [len(FIGURE.findall(line)) for line in lines] == [12, 12]
    assert list(tmp_path.iterdir()) == []


@pytest.mark.nightly
def test_a_replay_with_whole_histories_compares_the_file_with_what_was_said(tmp_path: Path) -> None:
    messages: list[dict[str, str]] = []
    for turn in range(10):
        messages.append({"role": "user", "content": f"{turn} " + "x" * 998})
        messages.append({"role": "assistant", "content": f"answer {turn}"})
    file = tmp_path / "made-runs.jsonl"
    made = [{"task_id": task, "trial": 0, "messages": messages} for task in range(2)]
    file.write_text("".join(json.dumps(conversation) + "\n" for conversation in made))
    options = ("--db", tmp_path / "replay.db", "--whole-histories")
    said = run("replay.py", file, *options).stdout
    (figures,) = re.findall(r"^said ([\d,]+) bytes, sent ([\d,]+) bytes, file ([\d,]+) bytes", said, re.MULTILINE)
    once, sent, size = (int(figure.replace(",", "")) for figure in figures)
    assert once == 2 * sum(len(json.dumps(message, separators=(",", ":"))) for message in messages)
    assert 5 * once < sent < 6 * once
    assert size == os.path.getsize(tmp_path / "replay.db")
    assert said.endswith(f"{size / once:.1f} × what was said\n")


def test_the_ingest_of_otlp_is_measured(tmp_path: Path) -> None:
    said = run("bench_otlp_ingest.py", "--spans", 100, "--batch", 30, "--rounds", 1, "--folder", tmp_path).stdout
    assert "100 spans of " in said
    assert "in 4 requests" in said
    (row,) = rows(said, "agentspan")
    assert len(row.split()) == 4


@pytest.mark.nightly
def test_postgresql_is_measured_beside_psycopg_and_a_file(postgres_server: Emptied) -> None:
    url = f"{postgres_server.url}?schema=bench"
    said = run("bench_postgres.py", "--url", url, "--spans", 200, "--large", 100, "--rounds", 1, "--batches", 2).stdout
    assert said.count("wanted") == 13
    assert "spans in" in said


@pytest.mark.nightly
def test_a_turn_of_a_spool_is_measured(postgres_server: Emptied) -> None:
    said = run("bench_spool.py", "--db", f"{postgres_server.url}?schema=spool", "--spans", 100).stdout
    assert json.loads(said).keys() == {"call", "call_cpu", "spooled", "stored", "stored_cpu"}


@pytest.mark.nightly
def test_how_often_drift_is_right_is_counted() -> None:
    said = run("bench_verdicts.py", "--simulate", 1).stdout
    assert len(re.findall(r"^ +[14]0 +(?:none|50) +\d+ points +[\d.]+% +[\d.]+%$", said, re.MULTILINE)) == 4


@pytest.mark.nightly
def test_answers_about_many_runs_are_measured(tmp_path: Path) -> None:
    said = run("bench_verdicts.py", "--spans", 500, "--rounds", 1, "--folder", tmp_path).stdout
    assert "spans made" in said
    for row in rows(said, "why", "drift", "stats --version", "making the index"):
        assert re.search(r"\d+\.\d\d s", row), row


@pytest.mark.nightly
def test_planted_causes_are_counted() -> None:
    said = run("bench_verdicts.py", "--planted", 1).stdout
    for row in rows(said, "argument", "empty result", "false alarms"):
        assert len(re.findall(r"\d\.\d{3}", row)) == 2, row
