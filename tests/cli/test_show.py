"""`agentspan show`: bars, folding, what failed or took long, payloads."""

import json
import re
from pathlib import Path

import pytest

import agentspan
from agentspan.cli.output import columns_of
from agentspan.cli.show import PAYLOAD_LINES
from agentspan.recording.git_commit import commit_replaced
from tests.cli.calling import call, lines


def at(seconds: float) -> str:
    return f"2026-01-01T00:00:{seconds:09.6f}Z"


@pytest.fixture
def db(tmp_path: Path) -> Path:
    return tmp_path / "runs.db"


@pytest.fixture
def run(db: Path) -> str:
    """Ten seconds: a plan (0 to 2), six fetches (2 to 5) the fourth of which fails, a pause, an answer (6 to 10)."""
    with agentspan.open(db) as opened:
        run = opened.agent_instances.register("worker")
        opened.agent_instances.start(run.id, at(0))

        def span(kind: str, payload: dict[str, object], begin: float, end: float, parent: str | None = None) -> str:
            made = opened.agent_spans.create(
                run.id, kind, "active", payload, parent_span_id=parent, started_at=at(begin)
            )
            failed = payload.get("name") == "fetch" and begin == 3.5
            result = {"error": {"type": "TimeoutError", "message": "read timed out"}} if failed else {"output": "x"}
            opened.agent_spans.finish(made.id, "failed" if failed else "complete", result, timestamp=at(end))
            return made.id

        span("chain", {"name": "plan"}, 0, 2)
        for number in range(6):
            span("tool", {"name": "fetch", "arguments": {"n": number}}, 2 + number / 2, 2.5 + number / 2)
        answer = span("chain", {"name": "answer"}, 6, 10)
        for number in range(5):
            turn = span("chain", {"name": "turn"}, 6 + number / 2, 6.5 + number / 2, answer)
            span("llm", {"model": "m"}, 6 + number / 2, 6.4 + number / 2, turn)
        opened.agent_instances.finish(run.id, "complete", at(10))
    return run.id


def test_bars_are_aligned_to_the_time_line_of_the_run(db: Path, run: str) -> None:
    shown = lines(db, "show", "-", "--full", columns=80)
    bars = [line[-12:] for line in shown[2:] if "▕" in line]
    assert bars[0] == "▕██        ▏"
    assert bars[7] == "▕      ████▏"
    assert [bar.index("█") if "█" in bar else bar.index("▏") for bar in bars[1:7]] == [3, 3, 4, 4, 5, 5]
    assert {columns_of(line) for line in shown if "▕" in line} == {80}


def test_siblings_that_repeat_are_folded_with_their_count_but_not_those_that_failed(db: Path, run: str) -> None:
    shown = [re.sub(r"  +.*", "", line[: line.index("▕")] if "▕" in line else line) for line in lines(db, "show", "-")]
    assert shown[2:] == [
        " #1 ├─✓ plan → x",
        " #2 ├─✓ Tool fetch(n=0) → x",
        " #3 ├─✓ Tool fetch(n=1) → x",
        " #4 ├─✓ Tool fetch(n=2) → x",
        " #5 ├─✗ Tool fetch(n=3)",
        "",
        " #6 ├─✓ Tool fetch(n=4) → x",
        " #7 ├─✓ Tool fetch(n=5) → x",
        " #8 └─✓ answer → x",
        " #9",
        "#10",
        "10 lines for 18 spans; --full shows each",
    ]
    text = call(db, "show", "-").output
    assert re.search(r"└─✓ Chain turn × 5 · 1 span in each +2\.5 s ▕ +▒▒+ *▏", text)
    assert "└─✓ LLM m" in text
    assert "    │    TimeoutError: read timed out" in text
    full = call(db, "show", "-", "--full").output
    assert full.count("✓ turn") == full.count("✓ LLM m") == 5


def test_the_commit_of_the_program_is_shown_short_and_is_whole_in_json(db: Path) -> None:
    tracer = agentspan.Tracer(db, raise_errors=True)
    with commit_replaced("9fceb02d0ae598e95dc970b74767f19372d61af8"), tracer.run("a") as run:
        pass
    tracer.shutdown()
    assert lines(db, "show", "-")[0] == f"run {run.id} · commit 9fceb02d0a"
    document = json.loads(call(db, "show", "-", "--json").output)
    assert document["run"]["git_commit"] == "9fceb02d0ae598e95dc970b74767f19372d61af8"


def test_the_head_has_what_a_run_says_of_itself(db: Path) -> None:
    tracer = agentspan.Tracer(db, raise_errors=True)
    with commit_replaced("9f" * 20, is_dirty=True), tracer.run("a", task="book", user="mia", tags=["nightly", "eval"]):
        pass
    tracer.shutdown()
    assert lines(db, "show", "-")[1] == "    commit 9f9f9f9f9f with changes · task book · user mia · tags eval, nightly"
    document = json.loads(call(db, "runs", "--json").output)
    assert [(run["task"], run["tags"], run["git_dirty"]) for run in document["runs"]] == [
        ("book", ["eval", "nightly"], True)
    ]


def test_only_what_failed_with_what_leads_to_it(db: Path, run: str) -> None:
    shown = lines(db, "show", "-", "--failed")
    assert len(shown) == 7
    assert " #5 └─✗ Tool fetch(n=3)" in shown[2]
    assert "1 of 18 spans" in shown
    (command,) = re.findall(r"agentspan show (\S+#5) ", "\n".join(shown))
    assert "✗ Tool fetch(n=3)" in call(db, "show", command).output
    document = json.loads(call(db, "show", "-", "--failed", "--json").output)
    assert ([span["status"] for span in document["spans"]], document["total"]) == (["failed"], 18)


def test_equal_failures_are_one_line_with_their_count_and_their_error(db: Path) -> None:
    with agentspan.open(db) as opened:
        made = opened.agent_instances.register("retry")
        opened.agent_instances.start(made.id, at(0))
        message = "read timed out, because the server that was asked does not answer on this port, whoever asks it"
        for number in range(39):
            payload = {"name": "fetch", "arguments": {"n": number}}
            error = {"error": {"type": "TimeoutError", "message": message}}
            opened.agent_spans.create(made.id, "tool", "failed", payload, error, started_at=at(1), finished_at=at(2))
        opened.agent_instances.finish(made.id, "complete", at(3))
    shown = lines(db, "show", "-")
    assert "Tool fetch × 39 failed" in shown[2]
    assert "TimeoutError: read timed out" in shown[3]
    assert shown[4].endswith("whoever asks it")  # the end of the message is not cut
    assert shown[5:] == ["1 line for 39 spans; --full shows each"]
    assert call(db, "show", "-", "--full").output.count("✗ Tool fetch(n=") == 39
    assert "39 of 39 spans, in 1 line; --full shows each" in lines(db, "show", "-", "--failed")
    assert call(db, "show", "-", "--failed", "--full").output.count("✗ Tool fetch(n=") == 39


def test_failures_that_differ_in_numbers_and_ids_are_one_line_with_their_error_without_them(db: Path) -> None:
    with agentspan.open(db) as opened:
        made = opened.agent_instances.register("retry")
        for number in range(39):
            error = {"error": {"type": "RateLimited", "message": f"request {number}f3a9c01, retry in {number} s"}}
            opened.agent_spans.create(made.id, "tool", "failed", {"name": "fetch_table"}, error)
            opened.agent_spans.create(made.id, "tool", "complete", {"name": "wait"}, {})
    shown = lines(db, "show", "-", "--failed")
    assert "Tool fetch_table × 39 failed" in shown[2]
    assert shown[3].strip() == "RateLimited: request <hex>, retry in <n> s"
    assert "39 of 78 spans, in 1 line; --full shows each" in shown


@pytest.mark.parametrize("word", ["x" * 3000, "日本語" * 900, "a word and " * 300])
def test_a_long_error_goes_on_over_a_few_lines_that_fit(db: Path, word: str) -> None:
    tracer = agentspan.Tracer(db, raise_errors=True)
    with pytest.raises(ValueError, match=word[:9]), tracer.run("a"), tracer.span("tool", {"name": "x"}):
        raise ValueError(word)
    tracer.shutdown()
    shown = lines(db, "show", "-")
    assert max(map(columns_of, shown)) <= 80
    assert len(shown) == 2 + 4 + 1 + 4
    assert shown[5].endswith("…")
    assert shown[-1].endswith("…")


def test_a_span_is_shown_in_its_run_with_the_steps_around_it(db: Path, run: str) -> None:
    with agentspan.open(db) as opened:
        span = next(span for span in opened.agent_spans.list(run) if span.status == "failed")
    shown = [
        re.sub(r"  +.*", "", line[: line.index("▕")] if "▕" in line else line)
        for line in lines(db, "show", span.id, "--around")
    ]
    assert shown[0] == f"run {run}"
    assert [line.replace("├─", "").replace("└─", "") for line in shown[2:] if line[6:7] in ("✓", "✗")] == [
        " #1 ✓ plan → x", *(f" #{n + 2} ✓ Tool fetch(n={n}) → x" for n in range(3)), " #5 ✗ Tool fetch(n=3)",
        *(f" #{n + 2} ✓ Tool fetch(n={n}) → x" for n in (4, 5)), " #8 ✓ answer → x",
    ]  # fmt: skip
    whole = lines(db, "show", span.id, "--around")
    at = next(number for number, line in enumerate(whole) if span.id in line)
    assert "TimeoutError: read timed out" in whole[at - 1]
    assert whole[at + 1].split()[1:] == ["payload", "{"]
    assert whole[-2:] == ["step #5 of 18", f"the whole run: agentspan show {run} --db {db}"]
    assert sum("payload" in line for line in whole) == 1
    assert len(lines(db, "show", span.id, "--around", "--full")) == len(whole) + 8
    document = json.loads(call(db, "show", span.id, "--around", "--json").output)
    assert (document["step"], len(document["spans"]), document["total"]) == (5, 10, 18)
    assert json.loads(call(db, "show", "-", "--json").output)["step"] is None
    assert lines(db, "show", span.id)[-2:] == [
        "its run at this step:",
        f"  agentspan show {span.id} --around --db {db}",
    ]


def test_steps_have_the_numbers_of_the_whole_run_however_much_of_it_is_shown(db: Path, run: str) -> None:
    whole = {span["number"]: span["id"] for span in json.loads(call(db, "show", "-", "--json").output)["spans"]}
    assert [*whole] == [*range(1, 19)]
    for options in (["--full"], ["--failed"], ["--slow", "3"]):
        for line in lines(db, "show", "-", *options):
            if numbered := re.match(r" *#(\d+) ", line):
                title = re.split("[✓✗]", line)[1].split("→")[0].split("  ")[0].strip()
                assert title in lines(db, "show", f"-#{numbered[1]}")[0]
    document = json.loads(call(db, "show", "-", "--failed", "--json").output)
    assert [(span["id"], span["number"]) for span in document["spans"]] == [(whole[5], 5)]


@pytest.mark.parametrize("name", ["-#5", "#5", "{run}#5", "{short}#5", "worker@default#5"])
def test_a_step_is_named_by_its_run_and_its_number(db: Path, run: str, name: str) -> None:
    with agentspan.open(db) as opened:
        (failed,) = (span.id for span in opened.agent_spans.list(run) if span.status == "failed")
    named = name.format(run=run, short=run[:12])
    shown = lines(db, "show", named)
    assert f"  id       {failed}" in shown
    assert "  step     #5 of 18" in shown
    span = json.loads(call(db, "show", named, "--json").output)["span"]
    assert (span["id"], span["number"]) == (failed, 5)
    assert lines(db, "show", named, "--around")[-2] == "step #5 of 18"
    assert failed in lines(db, "score", named, "--mark", "bad")[0]


@pytest.mark.parametrize("number", ["0", "19", "9" * 5000])
def test_a_step_that_a_run_lacks_is_an_error_with_the_steps_it_has(db: Path, run: str, number: str) -> None:
    result = call(db, "show", f"-#{number}")
    assert result.exit_code == 1
    assert result.output.endswith(f" has no step #{number[:9]}; its steps are #1 to #18\n")


def test_a_command_about_runs_says_that_a_step_is_none(db: Path, run: str) -> None:
    result = call(db, "why", "-#5")
    assert (result.exit_code, result.output) == (1, "Error: '#5' is a step, and here a run is needed: -\n")
    assert call(db, "show", "nobody#5").exit_code == 1


def test_a_version_with_a_number_sign_is_no_step(db: Path) -> None:
    tracer = agentspan.Tracer(db, raise_errors=True)
    with tracer.run("ci", version="build#1") as run, tracer.span("tool", {"name": "x"}):
        pass
    tracer.shutdown()
    assert lines(db, "show", "ci@build#1")[0].startswith(f"run {run.id}")
    assert "step     #1 of 1" in call(db, "show", "ci@build#1#1").output


def test_a_value_of_an_option_may_look_like_a_step(db: Path, run: str) -> None:
    assert call(db, "score", "-", "--note", "-#5").exit_code == 0
    assert "-#5" in call(db, "show", "-").output


def test_only_what_took_longest_by_itself(db: Path, run: str) -> None:
    shown = lines(db, "show", "-", "--slow", "2")
    (first, second, around) = shown[2:5]
    assert re.match(r" *#\d+ ✓ .*plan → x .* 2\.0 s", first)
    assert re.match(r" *#\d+ ✓ .*answer → x .* 1\.5 s", second)  # 4 s, of which 2.5 belong to the turns in it
    assert around.strip().endswith("4.0 s with the steps inside it")
    assert shown[5] == "2 steps of 18, by the time in which no step inside it ran"
    assert shown[6] == "the slowest in full:"
    numbers = [span["number"] for span in json.loads(call(db, "show", "-", "--slow", "2", "--json").output)["spans"]]
    assert [f"#{number}" for number in numbers] == [line.split()[0] for line in (first, second)]
    failed = call(db, "show", "-", "--slow", "2", "--failed").output
    assert "1 failed step of 18, by the time" in failed


def test_a_span_has_the_time_in_which_nothing_inside_it_ran(db: Path, run: str) -> None:
    with agentspan.open(db) as opened:
        answer = next(span.id for span in opened.agent_spans.list(run) if span.payload == {"name": "answer"})
    assert "  self     1.5 s" in lines(db, "show", answer)
    assert json.loads(call(db, "show", answer, "--json").output)["own_ms"] == 1500.0


def test_that_no_step_failed_is_said_with_the_next_command(tmp_path: Path) -> None:
    tracer = agentspan.Tracer(tmp_path / "runs.db", raise_errors=True)
    with tracer.run("a") as run, tracer.span("tool", {"name": "look"}):
        pass
    tracer.shutdown()
    shown = lines(tmp_path / "runs.db", "show", "-", "--failed")
    assert shown[-1] == f"no step failed; how it ended: agentspan why {run.id} --db {tmp_path / 'runs.db'}"


def test_payloads_are_shown_cut_with_where_the_whole_is(db: Path) -> None:
    tracer = agentspan.Tracer(db, raise_errors=True)
    with tracer.run("a", metadata={"ticket": 7}), tracer.span("custom", {"list": list(range(50))}) as span:
        span.set_result({"ok": True})
    tracer.shutdown()
    shown = lines(db, "show", "-", "--payloads")
    assert any('"ticket": 7' in line for line in shown)
    assert any("result" in line and "{" in line for line in shown)
    assert "… 43 more lines; show #1 has all" in "\n".join(shown)
    assert len(shown) < 2 * PAYLOAD_LINES + 10
    assert max(map(columns_of, shown)) <= 80


def test_a_long_text_in_a_payload_goes_on_below_itself(db: Path) -> None:
    tracer = agentspan.Tracer(db, raise_errors=True)
    with tracer.run("a"), tracer.span("custom", {"text": "word " * 30, "wide": "日本語" * 20, "long": "x" * 200_000}):
        pass
    tracer.shutdown()
    shown = lines(db, "show", "-", "--payloads")
    assert max(map(columns_of, shown)) <= 80
    text = "".join(line.lstrip(" │") for line in shown)
    assert text.replace(" ", "").count("word") >= 30
    assert "more lines; show #1 has all" in shown[-1]


@pytest.mark.parametrize("columns", [60, 70, 100, 160, 200])
@pytest.mark.parametrize("options", [[], ["--full"], ["--payloads"], ["--failed"]])
def test_it_fits_the_terminal(db: Path, run: str, columns: int, options: list[str]) -> None:
    shown = lines(db, "show", "-", *options, columns=columns)
    assert max(columns_of(line) for line in shown if "agentspan show" not in line) <= columns
    assert ("▕" in "".join(shown)) == (columns >= 70)


def test_a_run_without_time_has_no_bars(db: Path) -> None:
    with agentspan.open(db) as opened:
        run = opened.agent_instances.register("a")
        opened.agent_instances.start(run.id, at(1))
        opened.agent_spans.create(run.id, "tool", "complete", {"name": "x"}, {}, started_at=at(1), finished_at=at(1))
        opened.agent_instances.finish(run.id, "complete", at(1))
    assert "Tool x" in call(db, "show", "-").output


LATE = "its own end came after the termination"


def late(db: Path, spans: int = 1, *, run_ends: bool = False) -> tuple[str, list[str]]:
    """A terminated run whose spans end after that, but for the last one."""
    with agentspan.open(db) as opened:
        run = opened.agent_instances.register("late").id
        opened.agent_instances.start(run)
        made = [opened.agent_spans.create(run, "tool", "active", {"name": "pay"}).id for _ in range(spans + 1)]
        opened.agent_instances.terminate(run, "too dear")
        for id in made[:-1]:
            opened.agent_spans.finish(id, "complete", {"output": "paid"})
        if run_ends:
            opened.agent_instances.finish(run)
    return run, made


def test_an_end_after_the_termination_is_shown_as_one(db: Path) -> None:
    run, made = late(db)
    shown = lines(db, "show", run)
    (at,) = (number for number, line in enumerate(shown) if LATE in line)
    assert "pay" in shown[at - 1]
    assert "✓" in shown[at - 1]
    assert f"complete (closed by being terminated; {LATE})" in call(db, "show", made[0]).output
    assert "failed (closed by being terminated)" in call(db, "show", made[1]).output
    assert call(db, "export", run, "--format", "markdown").output.count(LATE) == 1


def test_the_late_end_of_a_run_is_shown_below_the_reason(db: Path) -> None:
    run, _ = late(db, 0)
    assert not any(LATE in line for line in lines(db, "show", run))
    run, _ = late(db, 0, run_ends=True)
    shown = lines(db, "show", run)
    (at,) = (number for number, line in enumerate(shown) if LATE in line)
    assert "terminated: too dear" in shown[at - 1]


def test_ends_after_the_termination_are_not_folded_away(db: Path) -> None:
    run, _ = late(db, 9)
    assert sum(LATE in line for line in lines(db, "show", run)) == 9


def test_a_late_end_fits_into_a_narrow_terminal(db: Path) -> None:
    run, _ = late(db, 2, run_ends=True)
    for columns in (40, 60, 80):
        assert all(columns_of(line) <= columns for line in lines(db, "show", run, columns=columns))


def test_a_span_without_a_template_shows_its_label_before_its_payload(db: Path) -> None:
    with agentspan.open(db) as opened:
        run = opened.agent_instances.register("worker", agent_schema_version={"span_schemas": {"tool": True}})
        opened.agent_instances.start(run.id, at(0))
        for payload in ({"span_id": "01m8akv0n6fsxmbtht5kvad3w1kp8gga", "name": "fetch"}, {}):
            opened.agent_spans.create(run.id, "tool", "active", payload, started_at=at(1))
    shown = lines(db, "show", "-", columns=80)
    assert any('tool fetch {"span_id"' in line for line in shown)
    assert any("tool  " in line for line in shown)


def test_a_tool_that_returned_an_error_is_shown_with_what_failed(tmp_path: Path) -> None:
    tracer = agentspan.Tracer(tmp_path / "runs.db", raise_errors=True)
    with tracer.run("a"):
        for number in range(9):
            with tracer.span("tool", {"name": "book"}) as span:
                span.set_result({"output": "no seat" if number == 4 else "ok", "is_error": number == 4})
    tracer.shutdown()
    shown = call(tmp_path / "runs.db", "show", "-").output
    assert shown.count("Tool book × 4") == 2
    assert shown.count("Tool book() → error") == shown.count("no seat") == 1
    assert "no seat" in (failed := call(tmp_path / "runs.db", "show", "-", "--failed").output)
    assert "× 4" not in failed
