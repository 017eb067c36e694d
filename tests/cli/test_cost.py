"""`agentspan cost`: sentences, a table, a document."""

import json
from pathlib import Path

import pytest

import agentspan
from tests.cli.calling import call, lines

SONNET = "claude-sonnet-4-5"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "a.db"
    tracer = agentspan.Tracer(path, raise_errors=True)
    for model, cached in ((SONNET, 90_000), ("claude-haiku-4-5", 10_000), ("unheard-of", 5)):
        folder = {"cwd": f"/work/{'deep/' * 9}{model}"}
        with tracer.run("a", session=model[:8], metadata=folder), tracer.span("llm", {"model": model}) as span:
            span.set_result({"input_tokens": 100_000, "output_tokens": 0, "cached_tokens": cached})
    assert tracer.flush()
    return path


def test_it_prints_sums_what_has_no_price_and_what_caches_saved(path: Path) -> None:
    first, second, *rest = lines(path, "cost")
    assert first.startswith("$0.1480: 3 runs, 3 calls of models, 300.0k tokens in, 0 out.")
    assert second.startswith("Not in it: 1 call with 100.0k tokens of unheard-of, without a known price")
    text = "\n".join(rest)
    assert "Caches: 100.0k tokens were read from one, which saved $0.2520" in text
    rows = [line.split() for line in rest if line.startswith((SONNET, "unheard-of"))]
    assert rows[0] == [SONNET, "1", "1", "100.0k", "0", "$0.0570", "39%"]
    assert rows[1] == ["unheard-of", "1", "1", "100.0k", "0", "–"]


def test_options(path: Path) -> None:
    assert "2 more rows; -n 3 lists all" in lines(path, "cost", "--by", "session", "-n", "1")
    text = "\n".join(lines(path, "cost", "--by", "project", "--model", "claude-*"))
    assert f"deep/{SONNET}" in text
    assert "unheard" not in text
    assert lines(path, "cost", "--agent", "a", "--tool", "nothing") == ["no run matches agent=a tool=nothing"]
    assert call(path, "cost", "--by", "nothing").exit_code == 2


def test_a_prompt_names_the_step_that_show_prints(tmp_path: Path) -> None:
    path = tmp_path / "a.db"
    tracer = agentspan.Tracer(path, raise_errors=True)
    with tracer.run("a", session="s"):
        with tracer.span("message", {"role": "user", "content": "fix the tests, please"}):
            pass
        with tracer.span("llm", {"model": SONNET}) as span:
            span.set_result({"input_tokens": 100_000, "output_tokens": 0})
    assert tracer.flush()
    header, row = [line for line in lines(path, "cost", "--by", "prompt") if "calls " in line or "fix" in line]
    assert header.split() == ["prompt", "step", "calls", "in", "out", "cost"]
    assert row.startswith("fix the tests, please ")
    step = row.split()[-6]
    assert step.endswith("#1")
    assert "fix the tests" in call(path, "show", step).output
    (found,) = json.loads(call(path, "cost", "--by", "prompt", "--json").output)["rows"]
    assert (found["name"], found["step"]) == ("fix the tests, please", 1)


def test_the_document(path: Path) -> None:
    found = json.loads(call(path, "cost", "--by", "agent", "--json").output)
    assert found["by"] == "agent"
    assert found["total"]["unpriced_calls"] == 1
    assert [(row["name"], row["filter"]) for row in found["rows"]] == [("a", {"agent": "a"})]
    assert found["cache"][0]["net_usd"] == pytest.approx(0.252)
    assert found["periods"][0].keys() == {"name", "since", "until"}
    assert found["total_rows"] == 1
