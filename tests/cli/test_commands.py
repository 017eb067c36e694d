"""The command line as a person and as a script meet it, at 80 columns and others."""

import json
import re
import shlex
import socket
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

import agentspan
from agentspan.cli import main
from agentspan.cli.output import columns_of
from agentspan.testing import deterministic
from tests.cli.calling import NAMES


@pytest.fixture
def db(tmp_path: Path) -> Path:
    return tmp_path / "runs.db"


def call(db: Path, *args: str, columns: int = 80, **env: str) -> Result:
    return CliRunner().invoke(
        main, ["--db", str(db), *args], env={"COLUMNS": str(columns), **env}, catch_exceptions=False
    )


def test_help_cuts_no_description_of_a_command(db: Path) -> None:
    said = call(db, "--help")
    assert said.exit_code == 0
    listed = said.output.partition("Look at runs:")[2]
    assert "..." not in listed
    assert sorted(re.findall(r"^  (\w+) ", listed, re.MULTILINE)) == sorted(NAMES), "each once"
    assert all(len(line) <= 80 for line in said.output.splitlines())


def record(db: Path) -> agentspan.Run:
    """A run with a span in every state, hostile text, and an error."""
    tracer = agentspan.Tracer(db, raise_errors=True)
    try:
        with tracer.run("researcher", version="1.2") as run:
            with tracer.span("agent", {"name": "researcher", "goal": "find the cause"}) as span:
                with tracer.span("llm", {"model": "gpt-4.1"}) as llm:
                    llm.set_result({"text": "I will look", "input_tokens": 812, "output_tokens": 95, "cost_usd": 0.01})
                with (
                    pytest.raises(TimeoutError),
                    tracer.span("tool", {"name": "fetch", "arguments": {"url": "https://…"}}),
                ):
                    raise TimeoutError("read timed out")
                run.create_span("retrieval", {"query": "skipped"}).cancel()
                with tracer.span("custom", {"text": "\x1b[31mred\x07\u202e", "n": 1}):
                    pass
                span.set_result({"steps": 4})
            run.create_span("tool", {"name": "later"})
            run.create_span("tool", {"name": "now"}, status="active")
            raise ValueError("out of \x1b[2Jluck")
    except ValueError:
        pass
    tracer.shutdown()
    return run


def test_show_draws_the_run(db: Path) -> None:
    with deterministic():
        run = record(db)
    result = call(db, "show", "-")
    assert result.exit_code == 0
    assert len(set(map(columns_of, result.output.splitlines()[3:]))) <= 3  # the bars are aligned
    text = re.sub(r" ▕.{10}▏$", "", result.output, flags=re.MULTILINE)
    lines = [re.sub(r" {2,}(?=\S+( ms)?$)", "  ", line) for line in text.splitlines()]
    assert lines == [
        f"run {run.id}",
        "✗ researcher 1.2 · failed · 13 ms · 7 spans · 1 failed step · 907 tok · $0.0100",
        "    ValueError: out of �[2Jluck",
        "#1 ├─✓ Agent researcher: find the cause → done in 4 steps  9.0 ms",
        '#2 │ ├─✓ LLM gpt-4.1: 812→95 tok "I will look"  1.0 ms',
        "#3 │ ├─✗ Tool fetch(url=https://…)  1.0 ms",
        "   │ │    TimeoutError: read timed out",
        '#4 │ ├─○ Search "skipped"  cancelled',
        '#5 │ └─✓ Custom {"text":"�[31mred��","n":1}  1.0 ms',
        "#6 ├─◌ Tool later()  pending",
        "#7 └─● Tool now()  running",
    ]


@pytest.mark.parametrize("columns", [60, 80, 100, 160, 200])
def test_nothing_is_wider_than_the_terminal(db: Path, columns: int) -> None:
    tracer = agentspan.Tracer(db, raise_errors=True)
    with tracer.run("an agent with quite a long name " * 3, version="日本語" * 9):
        for text in ("x" * 300, "日本語" * 100, "é" * 300, "👩‍👩‍👧" * 80, "a b " * 90):
            with (
                pytest.raises(ZeroDivisionError),
                tracer.span("tool", {"name": text}),
                tracer.span("custom", {"a": text}),
            ):
                raise ZeroDivisionError(text)
    tracer.shutdown()
    for command in (["show", "-"], ["runs"]):
        output = call(db, *command, columns=columns).output
        assert max(columns_of(line) for line in output.splitlines()) <= columns, output


def test_a_deep_tree_still_shows_its_text(db: Path) -> None:
    tracer = agentspan.Tracer(db, raise_errors=True)
    blocks = [tracer.span("tool", {"name": f"deep{number}"}) for number in range(200)]
    with tracer.run("a"):
        for block in blocks:
            block.__enter__()
        for block in reversed(blocks):
            block.__exit__(None, None, None)
    tracer.shutdown()
    output = call(db, "show", "-").output
    assert "Tool deep199()" in output
    assert max(columns_of(line) for line in output.splitlines()) <= 80


def test_nothing_of_a_payload_reaches_the_terminal_as_a_control_sequence(db: Path) -> None:
    hostile = "".join(map(chr, range(32))) + "\x7f\x9b31m\u202e\u2066\ud800\x1b]0;title\x07"
    tracer = agentspan.Tracer(db, raise_errors=True)

    @tracer.run(f"n{hostile}", version=hostile, metadata={"a": hostile})
    def run() -> None:
        with tracer.span(f"s{hostile}", {hostile: hostile}) as span:
            span.set_result({"output": hostile})
        with tracer.span("tool", {"name": hostile, "arguments": {hostile: hostile}}):
            raise ZeroDivisionError(hostile)

    with pytest.raises(ZeroDivisionError):
        run()
    tracer.shutdown()
    spans = json.loads(call(db, "show", "-", "--json").output)["spans"]
    commands = [["show", "-"], ["runs"], ["doctor", "--schemas", "--all"], *(["show", span["id"]] for span in spans)]
    for command in [*commands, *([*command, "--json"] for command in commands)]:
        output = call(db, *command).output
        bad = [c for c in output if c != "\n" and (ord(c) < 32 or 127 <= ord(c) < 160 or c in "\u202e\u2066\ud800")]
        assert bad == [], command


def test_runs_says_how_many_there_are(db: Path) -> None:
    tracer = agentspan.Tracer(db, raise_errors=True)
    for _ in range(55):
        with tracer.run("a", version="2"):
            pass
    tracer.shutdown()
    run = record(db)
    result = call(db, "runs")
    lines = result.output.splitlines()
    assert lines[-1].startswith("50 of 56 runs · 7 spans · 1 failed step · 2 open · 907 tok · $0.0100 · ")
    assert len(lines) == 53  # the header, the reason of the one that failed, and the totals
    assert "✗ failed" in lines[1]
    assert re.search(r" 7 +1  researcher", lines[1])
    assert lines[1].split()[0] in call(db, "show", lines[1].split()[0]).output.replace(run.id, lines[1].split()[0])
    found = json.loads(call(db, "runs", "--json").output)
    assert (found["total"], len(found["runs"]), found["runs"][0]["agent"]) == (56, 50, "researcher 1.2")
    assert found["runs"][0]["span_counts"]["total"] == 7


def test_a_run_is_found_by_a_unique_beginning_of_its_id(db: Path) -> None:
    run = record(db)
    for what in (run.id, run.id[:30], "-"):
        assert run.id in call(db, "show", what).output
    missing = call(db, "show", "zzz")
    assert (missing.exit_code, missing.output) == (
        1,
        f"Error: no run or span has an id like 'zzz'; the latest: {run.id[:10]}\n",
    )
    other = record(db)
    shown = call(db, "show", "0").output
    assert "several ids begin with '0': " in shown
    assert "; type more of it" in shown
    assert all(id[:10] in shown for id in (run.id, other.id))


def test_show_of_a_span_shows_all_of_it(db: Path) -> None:
    record(db)
    shown = json.loads(call(db, "show", "-", "--json").output)
    assert shown["total"] == len(shown["spans"]) == 7
    failed = next(span for span in shown["spans"] if span["status"] == "failed")
    output = call(db, "show", failed["id"]).output
    assert "✗ Tool fetch(url=https://…)" in output
    assert '"url": "https://…"' in output
    assert "Traceback (most recent call last)" in output
    assert output.count("TimeoutError: read timed out") == 2
    document = json.loads(call(db, "show", failed["id"], "--json").output)
    assert document.pop("own_ms") >= 0
    assert document == {"span": failed, "violations": [], "scores": []}


def test_span_shows_where_a_payload_breaks_its_schema(db: Path) -> None:
    tracer = agentspan.Tracer(db, raise_errors=True)
    with tracer.span("llm", {"model": 5}) as span:
        pass
    tracer.shutdown()
    assert "payload $.model: is not of type string" in call(db, "show", span.id).output
    document = json.loads(call(db, "show", span.id, "--json").output)
    assert document["violations"] == [
        {"side": "payload", "path": "$.model", "keyword": "type", "message": "is not of type string"}
    ]


def test_schemas_lists_what_agents_were_registered_with(db: Path) -> None:
    with agentspan.open(db) as database:
        types = [{"name": "charge", "params_schema": {}, "template": "Charge {{amount}}"}]
        database.agent_instances.register("payer", agent_schema_version={"span_type_schemas": types})
        database.agent_instances.register("other")
    output = call(db, "doctor", "--schemas").output
    assert "payer" in output
    assert re.search(r"charge +Charge \{\{amount\}\}", output)
    assert "and 18 built-in span types (--all shows them)" in output
    assert output.endswith("2 of 2 schema versions\n")
    assert "LLM {{model}}" in call(db, "doctor", "--schemas", "--all", columns=120).output
    assert json.loads(call(db, "doctor", "--schemas", "--json").output)["total"] == 2


def test_schemas_says_what_cannot_be_used_and_why(db: Path) -> None:
    types = [
        {"name": "good", "params_schema": {"type": "object"}, "template": "{{a}}"},
        {"name": "elsewhere", "params_schema": {"$ref": "https://example.org/a"}, "result_schema": {"pattern": "(["}},
        {"name": "odd", "template": "{{a b}}"},
    ]
    quality = [{"name": "tone", "schema": {"$ref": "#/gone"}}]
    with agentspan.open(db) as database:
        version = {"span_type_schemas": types, "quality_schemas": quality}
        database.agent_instances.register("payer", agent_schema_version=version)
    lines = call(db, "doctor", "--schemas", columns=160).output.splitlines()
    assert [line.strip() for line in lines if "unchecked" in line or "no summary" in line] == [
        "unchecked payload: the schema has a $ref to another document; put it under $defs and refer to #/$defs/…",
        "unchecked result_payload: the schema has a pattern that is no regular expression, or cannot be matched in "
        "bounded time (look-around, back-references, or too large)",
        "no summary: the template has a tag that is no name; use {{field}} or {{object.field}}",
        "quality tone: unchecked payload: the schema has a $ref that leads nowhere",
    ]
    narrow = call(db, "doctor", "--schemas", columns=80).output
    assert "  quality tone: unchecked payload: the schema has a $ref that leads nowhere\n" in narrow
    unusable = json.loads(call(db, "doctor", "--schemas", "--json").output)["schemas"][0]["unusable"]
    assert [(part["name"], part["field"]) for part in unusable] == [
        ("elsewhere", "params_schema"),
        ("elsewhere", "result_schema"),
        ("odd", "template"),
        ("tone", "schema"),
    ]


def test_rederive_renders_by_the_newest_template(db: Path) -> None:
    types = [{"name": "charge", "params_schema": {}, "template": "old {{amount}}"}]
    with agentspan.open(db) as database:
        run = database.agent_instances.register("payer", agent_schema_version={"span_type_schemas": types})
        spans = [database.agent_spans.create(run.id, "charge", "complete", {"amount": n}, {}) for n in range(1200)]
        assert spans[5].summary == "old 5"
    assert call(db, "rederive", "--summaries").output == "summaries of 0 of 1,200 spans changed\n"
    with agentspan.open(db) as database:
        types[0]["template"] = "new {{amount}}"
        database.agent_schema_versions.create(run.agent_id, span_type_schemas=types)
    assert json.loads(call(db, "rederive", "--json").output) == {
        "spans": 1200,
        "changed": {"summaries": 1200, "costs": 0},
    }
    with agentspan.open(db) as database:
        after = database.agent_spans.get(spans[5].id)
    assert after == spans[5].model_copy(update={"summary": "new 5", "updated_at": after.updated_at})


def test_demo_records_a_real_agent_and_says_what_to_try(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("AGENTSPAN_DB")
    (tmp_path / "README.md").write_text("# A garden\n\nTODO water the garden, and the garden again\n")
    (tmp_path / "notes.txt").write_text("the garden grows")
    result = CliRunner().invoke(main, ["demo"], env={"COLUMNS": "80"})
    assert result.exit_code == 0, result.output
    assert "✗ Tool read_file(path=CONTRIBUTING.md)" in result.output
    assert "FileNotFoundError" in result.output
    assert "cancelled" in result.output
    assert "2 text files about garden" in result.output
    assert "agentspan show -" in result.output
    assert max(columns_of(line) for line in result.output.splitlines()) <= 80
    with agentspan.open("agentspan.db", read_only=True) as db:
        (run,) = db.agent_instances.list()
        assert (run.status, run.span_counts.failed, run.span_counts.cancelled) == ("complete", 1, 1)
        spans = db.agent_spans.list(run.id, include_summaries=True, page_size=100)
        assert all(span.summary for span in spans)
        assert [db.agent_spans.violations(span.id) for span in spans] == [[]] * len(spans)
        assert len({span.schema_name for span in spans}) >= 5


def test_demo_works_in_an_empty_folder_and_answers_in_json(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    result = CliRunner().invoke(main, ["demo", "--db", "x.db", "--json"])
    document = json.loads(result.output)
    assert (document["db"], document["run"]["status"]) == ("x.db", "complete")


@pytest.mark.parametrize(
    "command",
    [
        *("runs", "show -", "why", "search x", "stats", "versions", "cost", "diff a b", "export -", "overview"),
        *("check x", "show --follow", "open", "doctor --schemas", "copy x.db", "rederive"),
        *("prune --older-than 1d", "sql 'select 1'"),
    ],
)
def test_a_file_that_is_not_there_is_not_made_and_ways_to_a_first_run_are_named(db: Path, command: str) -> None:
    result = call(db, *shlex.split(command))
    assert result.exit_code == (2 if command == "check x" else 1)
    assert "does not exist; nothing has been recorded there yet" in result.output
    assert "`agentspan demo`" in result.output
    assert "`agentspan import`" in result.output
    assert not db.exists()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ("show - --around", "--around is about a span"),
        ("show SPAN --failed", "about a whole run, not about a span"),
        ("show SPAN --around --slow 2", "about a whole run, not about a span"),
        ("diff -", "two runs are needed"),
        ("diff - - --base all", "two runs are needed"),
        ("diff --base all", "two runs are needed"),
        ("diff - - --outcome reward>=1", "--outcome and --least are about groups"),
        ("diff - - --least cost_usd=1", "--outcome and --least are about groups"),
        ("copy a b c", "one SRC and one DST"),
        ("copy x.db --header a=b", "--header and --state are for copies to http"),
        ("copy x.db --state FILE", "--header and --state are for copies to http"),
        ("copy http://127.0.0.1:9 --since 7d", "--since is for copies to a database"),
        ("doctor --all", "each stands alone"),
        ("doctor --schemas --tables", "each stands alone"),
        ("doctor --tables --idle 2h", "each stands alone"),
        ("record --json -- python x.py", "--json is for --list"),
        ("record --list -- python x.py", "--list runs no program"),
        ("record", "a program to run is missing"),
    ],
)
def test_options_that_do_not_go_together_are_refused(db: Path, arguments: str, said: str) -> None:
    with agentspan.open(db) as opened:
        run = opened.agent_instances.register("a")
        opened.agent_instances.start(run.id)
        span = opened.agent_spans.create(run.id, "tool", "complete", {"name": "x"})
    result = call(db, *arguments.replace("SPAN", span.id).split(), columns=200)
    assert (result.exit_code, said in result.output) == (2, True), result.output


def test_an_empty_file_says_what_to_do(db: Path) -> None:
    agentspan.SQLiteStorage(db).close()
    assert "`agentspan demo` records a run" in call(db, "show", "-").output
    assert call(db, "runs").output.endswith(
        "nothing has been recorded here yet; `agentspan demo` records a run to look at\n"
    )


def test_colours_are_for_terminals_and_no_color_is_honoured(db: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from agentspan.cli import output

    record(db)
    assert "\x1b[" not in call(db, "show", "-").output

    class Terminal:
        def isatty(self) -> bool:
            return True

    def at_a_terminal(**env: str) -> Any:
        monkeypatch.setattr("agentspan.cli.output.sys.stdout", Terminal())
        for name, value in env.items():
            monkeypatch.setenv(name, value)
        return output.style("x", fg="red")

    monkeypatch.delenv("NO_COLOR", raising=False)
    assert at_a_terminal() == "\x1b[31mx\x1b[0m"
    assert at_a_terminal(NO_COLOR="1") == "x"


def test_the_environment_names_the_file(db: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    record(db)
    monkeypatch.setenv("AGENTSPAN_DB", str(db))
    assert "1 of 1 run · 7 spans" in CliRunner().invoke(main, ["runs"]).output
    assert "1 of 1 run · 7 spans" in CliRunner().invoke(main, ["runs", "--db", str(db)]).output
    assert agentspan.__version__ in CliRunner().invoke(main, ["--version"]).output


def test_a_report_of_a_bug_has_counts_and_versions_and_nothing_that_a_run_or_a_machine_says(
    db: Path, tmp_path: Path
) -> None:
    run = record(db)
    said = call(db, "doctor", "--report", AGENTSPAN_TOKEN="s3cret")
    report = json.loads(said.output)
    assert report["agentspan"] == agentspan.__version__
    assert report["storage"]["rows"]["agent_span"] == 7
    assert report["storage"]["runs"]["failed"] == 1
    assert "AGENTSPAN_TOKEN" in report["variables"]
    for private in (
        str(tmp_path),
        "s3cret",
        "researcher",
        run.id,
        "fetch",
        Path.home().name + "/",
        socket.gethostname(),
    ):
        assert private not in said.output
    lost = json.loads(call(tmp_path / "none.db", "doctor", "--report").output)
    assert lost["storage"] == {"error": "DatabaseUnusable"}
    assert call(db, "doctor", "--report", "--tables").exit_code == 2
