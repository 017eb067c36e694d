"""`runs`, `stats`, `search`: filters, totals, always how many there are."""

import json
import re
import shlex
import time
from datetime import datetime, timedelta
from pathlib import Path

import pytest

import agentspan
from agentspan.analysis.search import Hits, located
from agentspan.cli.output import columns_of
from agentspan.recording.git_commit import commit_replaced
from tests.cli.calling import call, lines


@pytest.fixture
def db(tmp_path: Path) -> Path:
    path = tmp_path / "runs.db"
    tracer = agentspan.Tracer(path, raise_errors=True)
    for number in range(4):
        with tracer.run("even" if number % 2 == 0 else "odd", version="1", metadata={"ticket": f"T-{number}"}):
            with tracer.span("llm", {"model": "m"}) as span:
                span.set_result(
                    {"text": f"booked HSR{number}W", "input_tokens": 1000, "output_tokens": 5, "cost_usd": 0.5}
                )
            try:
                with tracer.span("tool", {"name": "book"}):
                    if number == 3:
                        raise ValueError("sold out")
            except ValueError:
                pass
    tracer.shutdown()
    return path


def test_runs_are_filtered_and_the_totals_are_of_all_that_match(db: Path) -> None:
    def total(*args: str) -> str:
        return re.sub(r" · \d[\d.]* [mµ]?s$", "", lines(db, "runs", *args)[-1])

    assert total() == "4 of 4 runs · 8 spans · 1 failed step · 4.0k tok · $2.0000"
    assert total("--agent", "odd", "--limit", "1") == "1 of 2 runs · 4 spans · 1 failed step · 2.0k tok · $1.0000"
    assert total("--failed") == "1 of 1 run · 2 spans · 1 failed step · 1.0k tok · $0.5000"
    assert lines(db, "runs", "--grep", "t-2", columns=300)[-2].startswith("1 of 1 run · 2 spans · 1.0k tok · $0.5000")
    assert total("--status", "failed") == "no run matches status=failed"
    assert total("--since", "1h").startswith("4 of 4 runs")
    assert total("--since", "2999-01-01") == "no run matches since=2999-01-01"
    assert total("--offset", "3").startswith("1 of 4 runs, from number 4 on · 8 spans")
    document = json.loads(call(db, "runs", "--agent", "odd", "--limit", "1", "--json").output)
    assert (len(document["runs"]), document["total"], document["totals"]["spans"]) == (1, 2, 4)
    assert document["runs"][0]["cost_usd"] == 0.5


def test_runs_are_filtered_by_the_beginning_of_their_commit(db: Path) -> None:
    tracer = agentspan.Tracer(db, raise_errors=True)
    for commit in ("ab" * 20, "ac" * 20):
        with commit_replaced(commit), tracer.run("a"):
            pass
    tracer.shutdown()
    for beginning, number in {"a": 2, "AB": 1, "ac" * 20: 1, "b": 0, "a%": 0}.items():
        document = json.loads(call(db, "runs", "--git-commit", beginning, "--json").output)
        assert document["total"] == len(document["runs"]) == number
        assert all(run["git_commit"].startswith(beginning.lower()) for run in document["runs"])


@pytest.mark.parametrize(
    "arguments",
    [
        ["runs", "--meta", "KEY"],
        ["runs", "--error", ""],
        ["runs", "--signature", "!"],
        ["search", "x", "--until", "tomorrow"],
        ["prune", "--dry-run", "--max-size", "big"],
        ["versions", "odd", "--base", "since=tomorrow"],
        ["diff", "--base", "tomorrow", "--head", "all"],
        ["diff", "--base", "all", "--head", "all", "--least", "beauty=1"],
        ["copy", "http://127.0.0.1:1", "--header", "x"],
    ],
)
def test_an_invalid_value_of_an_option_is_a_wrong_command_line(db: Path, arguments: list[str]) -> None:
    result = call(db, *arguments)
    assert result.exit_code == 2
    assert result.output.startswith("Error: ")
    assert result.output.count("\n") == 1


@pytest.mark.parametrize("what", ["tomorrow", "25:00", "7", "2026-13-01", "-1h", "9" * 30 + "d", ""])
def test_a_time_that_is_none_says_what_one_looks_like(db: Path, what: str) -> None:
    result = call(db, "runs", "--since", what)
    assert result.exit_code == 2
    assert "since: must be such as 90s" in result.output


@pytest.mark.parametrize(
    "what",
    [
        "90s",
        "1.5h",
        "2w",
        "02:00",
        "yesterday",
        "today 23:59",
        "2026-01-02",
        "2026-01-02 03:04",
        "2026-01-02T03:04:05.5+02:00",
    ],
)
def test_times_that_people_type(db: Path, what: str) -> None:
    assert call(db, "runs", "--since", what).exit_code == 0


def test_statistics_name_what_fails_and_what_takes_long(db: Path) -> None:
    shown = lines(db, "stats", columns=120)
    assert shown[0].split() == ["span", "type", "spans", "failed", "p50", "p95", "p99", "max", "total", "tok", "cost"]
    (book,) = [line for line in shown if line.startswith("  book")]
    assert book.split()[1:3] == ["4", "25%"]
    (model,) = [line for line in shown if line.startswith("  m ")]
    assert model.split()[-2:] == ["4.0k", "$2.0000"]
    assert shown[-1] == "8 spans · 1 failed step · of 2 types · 4.0k tok · $2.0000"
    assert lines(db, "stats", "-")[-1] == "2 spans · 1 failed step · of 2 types · 1.0k tok · $0.5000"
    assert lines(db, "stats", "--until", "2020-01-01")[-1] == "0 spans · of 0 types"
    document = json.loads(call(db, "stats", "--json", "--since", "2020-01-01").output)
    assert document["total"] == len(document["stats"]) == 4
    assert {stat["label"]: stat["error_rate"] for stat in document["stats"] if stat["schema_name"] == "tool"} == {
        None: 0.25,
        "book": 0.25,
    }
    assert len(document["stats"][0]["histogram"]) == len(document["bounds_ms"]) + 1
    assert document["since"] == "2020-01-01T00:00:00.000000Z"


def test_search_finds_a_code(db: Path) -> None:
    shown = lines(db, "search", "hsr2w")
    assert "HSR2W" in shown[0]
    assert shown[2] == "1 of 1 span"
    (found,) = json.loads(call(db, "search", "hsr2w", "--json").output)["hits"]
    run, span_id = found["run_id"], found["span_id"]
    assert shown[3] == "show the top hit in its run:"
    (named,) = re.findall(rf"^  agentspan show (\S+#1) --around --db {re.escape(str(db))}$", shown[4])
    assert run.startswith(named.partition("…")[0].partition("#")[0])
    assert shown[1].startswith(f"  step {named} · llm · ")
    assert f"  id       {span_id}" in lines(db, "show", named)
    assert "HSR2W" in call(db, "show", span_id).output
    document = json.loads(call(db, "search", "booked", "--limit", "2", "--json").output)
    assert (len(document["hits"]), document["total"]) == (2, 4)
    hit = document["hits"][0]
    assert [hit["snippet"][start:stop] for start, stop in hit["matches"]] == ["booked"]
    assert lines(db, "search", "sold", "out")[-3] == "1 of 1 span"
    assert lines(db, "search", "out sold")[-1] == "nothing found; words must be whole, or end in *: book* finds booking"
    assert lines(db, "search", "booked", "--task", "none") == ["no run matches task=none; there are no tasks yet"]
    assert lines(db, "search", "booked", "--run", "-")[-3] == "1 of 1 span"
    assert lines(db, "search", "booked", "--offset", "3")[-3] == "1 of 4 spans, from number 4 on"


def test_search_says_how_many_later_steps_repeat_a_text(db: Path) -> None:
    tracer = agentspan.Tracer(db, raise_errors=True)
    said = [{"role": "user", "content": f"the secret of room {number}"} for number in (101, 102)]
    with tracer.run("a"):
        for length in (1, 2, 2):
            with tracer.span("llm", {"messages": said[:length]}):
                pass
    tracer.shutdown()
    title, facts, text, *_ = lines(db, "search", "101")
    assert title.startswith("✓ LLM")
    assert facts.endswith(" · and in 2 later steps")
    assert "the secret of room 101" in text
    assert lines(db, "search", "102")[1].endswith(" · and in 1 later step")
    (hit,) = json.loads(call(db, "search", "101", "--json").output)["hits"]
    assert hit["repeats"] == 2


def test_a_hit_has_its_run_its_agent_and_the_number_of_its_step(db: Path) -> None:
    tracer = agentspan.Tracer(db, raise_errors=True)
    with tracer.run("finder", version="2") as run, tracer.span("chain", {"name": "outer"}):
        for number in range(3):
            with tracer.span("tool", {"name": "look", "arguments": {"room": 700 + number}}) as span:
                pass
    tracer.flush()
    facts = lines(db, "search", "702")[1].split(" · ")
    assert run.id.startswith(facts[0].removeprefix("  step ").removesuffix("#4"))
    assert facts[1:3] == ["tool", "finder 2"]
    (hit,) = json.loads(call(db, "search", "702", "--json").output)["hits"]
    assert [hit[name] for name in ("span_id", "run_id", "agent", "version", "step")] == [
        span.id, run.id, "finder", "2", 4,
    ]  # fmt: skip
    (found,) = agentspan.open(tracer.storage).search("702").hits
    assert (found.agent, found.version, found.step) == ("finder", "2", 4)
    few = located(tracer.storage, Hits([found], 1), most_steps=3).hits[0]
    assert (few.agent, few.step) == ("finder", None)
    tracer.shutdown()


def test_runs_with_a_mark_are_listed_with_mark_note_and_scores(db: Path) -> None:
    tracer = agentspan.Tracer(db, raise_errors=True)
    with tracer.run("judged") as run:
        run.score("reward", 0)
    tracer.shutdown()
    call(db, "score", run.id, "--mark", "bad", "--note", "paid twice")
    call(db, "score", run.id, "--note", "ask Mia")
    judged = ["  reward 0 (by code)", "  mark bad: paid twice (by human)", "  note: ask Mia (by human)"]
    assert lines(db, "runs", "--mark", "bad")[2:5] == judged
    assert lines(db, "runs", "--score", "reward==0")[2:5] == judged
    assert judged[0] not in lines(db, "runs")


@pytest.mark.parametrize("words", [["--", "-x"], ['"'], ["AND"], ["a*b", "("], ["*"], ["NEAR(a b)"]])
def test_no_words_are_an_error(db: Path, words: list[str]) -> None:
    assert any(re.fullmatch(r"\d+ of \d+ spans?|nothing found; .*", line) for line in lines(db, "search", *words))


@pytest.mark.parametrize("columns", [60, 80, 100, 160, 200])
def test_all_lists_fit_the_terminal(db: Path, columns: int) -> None:
    tracer = agentspan.Tracer(db, raise_errors=True)
    with (
        tracer.run("agent " * 40, version="v" * 100),
        tracer.span("日本語" * 30, {"text": "booked " * 100}),
        tracer.span("tool", {"name": "x" * 150}),
    ):
        pass
    tracer.shutdown()
    for command in (
        ["runs"],
        ["stats"],
        ["stats", "-"],
        ["search", "booked"],
        ["sql", "select * from spans"],
        ["doctor", "--schemas"],
    ):
        shown = [line for line in lines(db, *command, columns=columns) if not line.startswith("  agentspan ")]
        assert max(map(columns_of, shown)) <= columns, command


def test_statistics_are_bounded_and_show_the_cost_at_80_columns(tmp_path: Path) -> None:
    path = tmp_path / "runs.db"
    tracer = agentspan.Tracer(path, raise_errors=True)
    with tracer.run("wide"):
        for number in range(120):
            with tracer.span("tool" if number % 2 else f"type{number}", {"name": f"a tool {number}"}) as span:
                span.set_result({"cost_usd": 0.000016, "input_tokens": 70_123})
    tracer.shutdown()
    shown = lines(path, "stats", columns=80)
    assert len(shown) <= 45
    assert max(map(columns_of, shown)) <= 80
    assert shown[0].split()[-1] == "cost"
    assert sum("$0.000016" in line for line in shown) >= 38
    assert any(line.startswith("  … and ") for line in shown)
    assert re.fullmatch(r"… and \d+ more types; --all shows each", shown[-2])
    assert "$0.0019" in shown[-1]
    assert len(lines(path, "stats", "--all")) == 1 + 61 + 60 + 1
    assert len(lines(path, "stats", "--limit", "4")) == 1 + 4 + 3 + 1
    document = json.loads(call(path, "stats", "--json").output)
    assert document["total"] == len(document["stats"]) == 121
    document = json.loads(call(path, "stats", "--json", "--limit", "4").output)
    assert (document["total"], len(document["stats"])) == (121, 4)


def test_one_grammar_of_filters_stands_on_every_command(db: Path, tmp_path: Path) -> None:
    def total(*args: str) -> int:
        return int(json.loads(call(db, *args, "--json").output)["total"])

    every = (["--agent", "odd@1"], ["--agent", "odd", "--version", "1"], ["--meta", "ticket=T-3"], ["--error", "SOLD"])
    for words, runs in zip(every, (2, 2, 1, 1), strict=True):
        assert total("runs", *words) == total("export", *words) == runs
        assert total("search", "booked", *words) == runs
        llm = next(s for s in json.loads(call(db, "stats", *words, "--json").output)["stats"] if s["label"] == "m")
        assert llm["count"] == runs
    assert total("export", "odd@1") == 2
    assert json.loads(call(db, "stats", "odd@1", "--json").output)["stats"][0]["count"] == 2
    assert json.loads(call(db, "prune", "--error", "sold out", "--dry-run", "--json").output)["runs"] == 1
    assert json.loads(call(db, "prune", "--agent", "even", "--json").output)["runs"] == 2
    for option in ("--grep", "--git-commit", "--error"):  # as of an unset variable in a script
        assert call(db, "prune", option, "").output.endswith("is empty; without the option, every run matches\n")
    assert total("runs") == 2
    assert call(db, "export").exit_code == call(db, "stats", "-", "--failed").exit_code == 2


def test_an_unknown_agent_is_an_error_that_names_the_one_that_is_meant(db: Path) -> None:
    for args in (["runs"], ["stats"], ["search", "x"], ["export"], ["prune"]):
        result = call(db, *args, "--agent", "evne")
        assert result.exit_code == 1
        assert result.output == "Error: no agent is named 'evne'; is 'even' meant?\n"


def test_runs_that_failed_have_their_reason(db: Path) -> None:
    shown = lines(db, "runs", "--sort", "failed", "-n", "1")
    assert shown[2] == "  Tool book: ValueError: sold out · ticket=T-3"
    assert lines(db, "runs", "--agent", "even")[2] == "  ticket=T-2"


def test_a_text_of_runs_leads_to_the_search_in_their_steps(db: Path) -> None:
    for text in ("t-2", "nowhere in a run"):
        shown = lines(db, "runs", "--grep", text, "--failed", columns=300)
        search = f"agentspan search {shlex.quote(text)} --by-run --failed --db {db}"
        assert shown[-1] == f"runs with it in their steps: {search}"


def test_runs_say_what_they_were_about(tmp_path: Path) -> None:
    path = tmp_path / "runs.db"
    tracer = agentspan.Tracer(path, raise_errors=True)
    prompt = "please book a flight from Berlin to Seoul"
    with tracer.run("shop", task="t-1"), tracer.span("llm", {"messages": [{"role": "user", "content": prompt}]}):
        pass
    with pytest.raises(ValueError, match="x"), tracer.run("shop", task="a task of some length"):
        raise ValueError("x" * 70)
    with tracer.run("shop", task="t-2"), tracer.span("agent", {"name": "a", "input": "find a hotel"}):
        pass
    with tracer.run("shop", metadata={"otel": {"resource": 1}, "host": "h"}):
        pass
    tracer.shutdown()
    failed, asked = (f"  ValueError: {'x' * 70}"[:79] + "…", f"  t-1: {prompt}")
    assert lines(path, "runs")[2] == "  host=h"
    assert lines(path, "runs")[4] == "  t-2: find a hotel"
    assert lines(path, "runs")[6:8] == ["  a task of some length", failed]
    assert lines(path, "runs")[9] == asked
    wide = lines(path, "runs", columns=150)
    assert wide[0].endswith("agent  about")
    assert wide[-2].endswith(f"  shop  t-1: {prompt}")
    assert json.loads(call(path, "runs", "--json").output)["runs"][3]["about"] == f"t-1: {prompt}"


def test_a_long_duration_stands_apart_from_the_status(tmp_path: Path) -> None:
    path = tmp_path / "runs.db"
    with agentspan.open(path) as opened:
        run = opened.agent_instances.register("long").id
        opened.agent_instances.start(run, timestamp="2026-01-01T00:00:00Z")
        opened.agent_instances.terminate(run, "too long")
    head, row, *_ = lines(path, "runs")
    assert re.search(r" ■ terminated \d+h \d\dm +0 +long$", row)
    assert head.index("took") + 4 == row.index("m   ") + 1


def test_times_are_local_and_have_their_zone(db: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    began = json.loads(call(db, "runs", "-n", "1", "--json").output)["runs"][0]["started_at"]
    try:
        monkeypatch.setenv("TZ", "XYZ-5")  # five hours before UTC
        time.tzset()
        head, run, *_ = lines(db, "runs", "-n", "1")
        assert "started (XYZ)" in head
        local = datetime.fromisoformat(began) + timedelta(hours=5)
        assert f" {local:%m-%d %H:%M:%S} " in run
        head, run, *_ = lines(db, "runs", "-n", "1", "--utc")
        assert "started (UTC)" in head
        assert f" {began[5:19].replace('T', ' ')} " in run
        assert lines(db, "search", "booked")[1].endswith(" XYZ")
        day = f"{local + timedelta(hours=1):%Y-%m-%d %H:%M}"
        assert lines(db, "runs", "--since", day)[-1] == f"no run matches since={day}"
        assert lines(db, "runs", "--until", day)[-1].startswith("4 of 4")
        last = "9999-12-31T23:59:59Z"  # it has no local time
        with agentspan.open(db) as opened:
            run = opened.agent_instances.register("late").id
            opened.agent_instances.start(run, timestamp=last)
            opened.agent_instances.finish(run, timestamp=last)
        assert "started (local)" in lines(db, "runs", "-n", "2")[0]
        assert " 12-31 23:59:59 " in lines(db, "runs", "-n", "1")[1]
    finally:
        monkeypatch.undo()
        time.tzset()


def test_stats_by_version_list_each_version_below_each_row(tmp_path: Path) -> None:
    path = tmp_path / "runs.db"
    tracer = agentspan.Tracer(path, raise_errors=True)
    for version, calls in (("1", 3), ("2", 5)):
        with tracer.run("shop", version=version):
            for _ in range(calls):
                with tracer.span("tool", {"name": "fetch"}):
                    pass
    tracer.shutdown()
    shown = [line.split()[:2] for line in lines(path, "stats", "--by", "version")[1:]]
    assert shown[:-1] == [
        ["tool", "8"],
        ["shop@2", "5"],
        ["shop@1", "3"],
        ["fetch", "8"],
        ["shop@2", "5"],
        ["shop@1", "3"],
    ]
    document = json.loads(call(path, "stats", "--by", "version", "--json", "-n", "1").output)
    assert [(each["agent"], each["version"], each["runs"]) for each in document["versions"]] == [
        ("shop", "2", 1),
        ("shop", "1", 1),
    ]
    assert [[stat["count"] for stat in each["stats"]] for each in document["versions"]] == [[5], [3]]
    assert (document["left_out_versions"], document["left_out_labels"]) == (0, 0)
    assert call(path, "stats", "-", "--by", "version").exit_code == 2


def test_a_wrong_rule_over_a_score_names_its_option_and_the_scores_that_there_are(db: Path) -> None:
    result = call(db, "runs", "--score", "rewrd")
    assert result.exit_code == 1
    assert result.output.startswith("Error: --score: 'rewrd' is not a rule: ")
    assert result.output.endswith("; there are no scores yet\n")
    assert call(db, "score", "-", "reward", "1").exit_code == 0
    assert call(db, "runs", "--score", "rewrd").output.endswith("; scores: 'reward'\n")
    with agentspan.open(db) as database, pytest.raises(agentspan.InvalidValue, match=r"score: 'rewrd' is not a rule"):
        database.runs(score="rewrd")
