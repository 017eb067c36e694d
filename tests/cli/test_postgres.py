"""Each command answers from PostgreSQL as it does from a file that has the same rows."""

import json
import re
import shlex
import sys
from pathlib import Path

import pytest

import agentspan
from agentspan.storage.location import Location
from agentspan.storage.postgres.migrations import MIGRATIONS, newest  # needs psycopg
from agentspan.storage.questions import Account, SpansOf
from agentspan.storage.registry import open_direct
from tests.cli.calling import EVERY, call, process
from tests.postgres import Emptied
from tests.sessions.installed import environment, install, toy_file, turns
from tests.waiting import until

psycopg = pytest.importorskip("psycopg", reason="needs psycopg")

pytestmark = pytest.mark.full

NOWHERE = Path("/nowhere/runs.db")
"""A file that commands which name another database do not touch."""


def record(db: object) -> None:
    """Record runs of two agents, with spans of every status, nested, with errors, tokens, tags and a score."""
    tracer = agentspan.Tracer(db, raise_errors=True)  # type: ignore[arg-type]
    for number in range(3):
        with tracer.run(
            "traveller", version=str(number), metadata={"n": number}, tags=["nightly"], task="book", session="trip"
        ):
            with tracer.span("chain", {"name": "plan"}):
                for city in ("Zürich", "Roma"):
                    with tracer.span("tool", {"name": "search", "arguments": {"city": city}}) as span:
                        span.set_result({"output": f"flights to {city}, timeout"})
            with tracer.span("llm", {"model": "gpt-4.1", "messages": [{"role": "user", "content": "flight"}]}) as span:
                span.set_result({"text": "a train", "usage": {"input_tokens": 7, "output_tokens": 3}})
    with pytest.raises(ZeroDivisionError), tracer.run("calculator"), tracer.span("tool", {"name": "divide"}):
        raise ZeroDivisionError("by \u0000 zero")
    tracer.shutdown()


def leave_open(db: object) -> None:
    """Leave a run and two spans of it open."""
    with agentspan.open(db) as opened:  # type: ignore[arg-type]
        run = opened.agent_instances.register(
            "dreamer", agent_version={"external_identifier": "1"}, agent_schema_version={}
        )
        opened.agent_instances.start(run.id)
        for status in ("active", "pending"):
            opened.agent_spans.create(run.id, "tool", status, {"name": "slow"})


@pytest.fixture
def both(tmp_path: Path, postgres_location: Location, monkeypatch: pytest.MonkeyPatch) -> tuple[str, str]:
    """A file and a schema with the same rows, made by import; the account of the schema is that of the file."""
    monkeypatch.chdir(tmp_path)
    Path("check.toml").write_text("[budget]\nsteps = 1000\n")
    record("recorded.db")
    leave_open("recorded.db")
    assert call(Path("recorded.db"), "export", "all", "-o", "all.jsonl").exit_code == 0
    url = postgres_location.text
    open_direct(postgres_location).close()
    for db in ("runs.db", url):
        assert call(db, "import", "all.jsonl").exit_code == 0  # type: ignore[arg-type]
    file = open_direct("runs.db")
    account = file.ask(Account())
    file.close()
    plain, _, schema = url.partition("?schema=")
    with psycopg.connect(plain, options=f"-csearch_path={schema}") as connection:
        connection.execute(
            "update accounts set id = %s, environment_id = %s, agent_deployment_id = %s, partition = %s", account[:4]
        )
    return "runs.db", url


READING = [
    ["overview", "--since", "2020-01-01", "--json"],  # as text it leaves out what lacks room beside the URL
    ["runs"],
    ["runs", "--failed", "--grep", "TRAV"],
    ["runs", "--agent", "traveller"],
    ["show", "-"],
    ["show", "-", "--payloads"],
    ["stats"],
    ["stats", "-"],
    ["search", "flight"],
    ["search", "zurich", "time*"],
    ["search", "flight", "--run", "-"],
    ["doctor", "--schemas", "--all"],
    ["versions"],
    ["versions", "traveller"],
    ["session", "trip"],
    ["cost"],
    ["cost", "--by", "tool"],
    ["why"],
    ["why", "-"],
    ["export", "all"],
    ["export", "all", "--format", "markdown"],
    ["export", "all", "--format", "compact"],
    ["export", "-", "--format", "otlp"],
    ["sql", "select * from runs order by run", "--format", "csv"],
    ["sql", "select * from spans order by span", "--format", "csv"],
    ["sql", "select run, tags, task, sum(spans) as n from runs group by 1, 2, 3 order by 1", "--format", "json"],
    ["diff", "--base", "traveller@0", "--head", "traveller@1"],
    ["check", "all", "--config", "check.toml"],
    ["export", "all", "--format", "dataset"],
    ["doctor", "--dry-run"],
    ["prune", "--older-than", "0d", "--dry-run"],
]
CHANGING = [
    ["score", "-", "--mark", "bad", "--note", "it paid twice"],
    ["score", "-", "helpful", "0.5", "--note", "slow"],
    ["rederive", "--prices"],
    ["rederive"],
    ["allow", "-", "--steps", "+2"],
    ["terminate", "-", "--reason", "enough"],
    ["prune", "--older-than", "0d"],
]


CANNOT = [
    (["backup", "copy.db"], "pg_dump"),
    (["backup", "copy.db"], "agentspan copy"),
    (["prune", "--max-size", "1 MB"], "size"),
    (["copy", "http://127.0.0.1:9"], "--state"),
]
"""Commands for files only, and the word that their refusal names."""
ELSEWHERE = {
    "diff": "below", "tail": "below", "import": "the fixture", "copy": "tests/maintenance/test_copying.py",
    "serve": "tests/serve/test_several_servers.py", "record": "below", "demo": "below", "init": "below",
    "sessions": "below", "watch": "below", "open": "tests/cli/test_open.py",
    "run": "below", "evaluate": "below", "completion": "tests/cli/test_completion.py",
    "mcp": "tests/mcp", "setup": "tests/mcp", "skill": "tests/mcp",
}  # fmt: skip


def test_no_command_is_left_out() -> None:
    named = [arguments[0] for arguments in (*READING, *CHANGING, *(arguments for arguments, _ in CANNOT))]
    assert {*named, *ELSEWHERE} == set(EVERY)


def said(db: str, arguments: list[str], both: tuple[str, str]) -> str:
    """Return what a command prints, without the name of the database, and what only a file has.

    Numbers are rounded to 9 digits: sums of floats differ in the order in which they are added up.
    """
    result = call(db, *arguments, columns=300)  # type: ignore[arg-type]  # names of databases wrap elsewhere
    text = f"{result.exit_code}\n{result.output}"
    for name in (*both, str(Location("postgresql", both[1])), str(Path("runs.db").absolute())):
        text = text.replace(shlex.quote(name), "DB").replace(name, "DB")
    text = re.sub(r"\d+\.\d{6,}(?!Z|\d)", lambda number: f"{float(number[0]):.9g}", text).replace("\n0 bytes freed", "")
    return re.sub(r"\d{4}-\d\d-\d\dT[\d:.]+Z|\d+ s ago", "T", text) if arguments[0] in dict_of(CHANGING) else text


def dict_of(commands: list[list[str]]) -> set[str]:
    return {arguments[0] for arguments in commands}


def test_every_command_reads_the_same(both: tuple[str, str]) -> None:
    for arguments in READING:
        for more in ([], ["--json"]) if "--format" not in arguments else ([],):
            of_file, of_server = (said(db, [*arguments, *more], both) for db in both)
            assert of_server == of_file, arguments
            code = 3 if arguments[0] == "check" else 0  # a run is active
            assert of_file.startswith(f"{code}\n"), of_file
    ids = json.loads(call(both[0], "runs", "--json").output)["runs"]  # type: ignore[arg-type]
    spans = [span for run in ids for span in agentspan.open(both[0]).storage.ask(SpansOf(run["id"]))]
    for id in [run["id"] for run in ids]:
        assert said(both[1], ["show", id, "--full"], both) == said(both[0], ["show", id, "--full"], both)
    for span in spans[:3]:
        assert said(both[1], ["show", span.id], both) == said(both[0], ["show", span.id], both)
    for more in (["--all"], ["--json"]):
        arguments = ["tail", ids[-1]["id"], "--one", *more]
        assert said(both[1], arguments, both) == said(both[0], arguments, both)
    pair = [ids[0]["id"], ids[1]["id"]]
    assert said(both[1], ["diff", *pair], both) == said(both[0], ["diff", *pair], both)


def test_every_command_changes_the_same(both: tuple[str, str]) -> None:
    for arguments in CHANGING:
        of_file, of_server = (said(db, arguments, both) for db in both)
        assert of_server == of_file, arguments
    assert said(both[1], ["runs"], both) == said(both[0], ["runs"], both)


def test_what_cannot_be_says_so_by_name(both: tuple[str, str]) -> None:
    for arguments, says in CANNOT:
        result = call(both[1], *arguments)  # type: ignore[arg-type]
        assert result.exit_code != 0, arguments
        assert says in result.output, result.output
        assert "sesame" not in result.output


def test_demo_and_record_record_there(
    tmp_path: Path, postgres_location: Location, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("agent.py").write_text("import agentspan\n\nwith agentspan.run('recorded'):\n    pass\n")
    url = postgres_location.text
    assert call(url, "demo").exit_code == 0  # type: ignore[arg-type]
    started = process(url, "record", "--", sys.executable, "agent.py")  # type: ignore[arg-type]
    last = started.communicate()[1]
    assert started.returncode == 0, last
    assert "(recorded) is in postgresql://" in last
    assert "sesame" not in last
    with agentspan.open(postgres_location) as opened:
        assert "recorded" in {run.agent for run in opened.runs().runs}


def test_cases_are_evaluated_there(
    tmp_path: Path, postgres_location: Location, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    cases = [{"id": f"case {number}", "input": f"{number}", "expected": number} for number in range(12)]
    Path("cases.jsonl").write_text("".join(f"{json.dumps(case)}\n" for case in cases))
    answers = []
    for function, version, more in (("json:loads", "1", ()), ("builtins:str", "2", ("--against", "1"))):
        words = ("evaluate", function, "--cases", "cases.jsonl", "--name", "reader", "--version", version)
        done = call(postgres_location.text, *words, "--score", "exact", "--json", *more)  # type: ignore[arg-type]
        answers.append((done.exit_code, json.loads(done.stdout)["verdict"]))
    assert answers == [(0, "inconclusive"), (1, "worse")]


def test_sessions_are_imported_and_followed_there(
    tmp_path: Path, postgres_location: Location, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(install(tmp_path))
    monkeypatch.setenv("HOME", str(tmp_path))
    url = postgres_location.text
    open_direct(postgres_location).close()
    for name in ("one", "two"):
        toy_file(tmp_path / "toys", name, turns(3))
    done = json.loads(call(url, "import", "toy", "--json").output)  # type: ignore[arg-type]
    assert (done["runs"], done["steps"]) == (2, 6)
    again = json.loads(call(url, "import", "toy", "--json").output)  # type: ignore[arg-type]
    assert (again["runs"], again["steps"], again["unchanged"]) == (0, 0, 2)
    listed = json.loads(call(url, "sessions", "toy", "--json").output)  # type: ignore[arg-type]
    assert listed["total"]["imported"] == 2
    toy_file(tmp_path / "toys", "three", turns(5))
    started = process(url, "watch", "toy", env=environment(tmp_path))  # type: ignore[arg-type]
    with agentspan.open(postgres_location) as opened:
        until(lambda: sorted(run.spans for run in opened.runs().runs) == [3, 3, 5])
    started.terminate()
    assert "sesame" not in started.communicate()[1]
    assert started.returncode == 0


def test_sending_goes_on_where_it_ended_with_a_file_of_its_own(both: tuple[str, str], tmp_path: Path) -> None:
    state = tmp_path / "sent"
    result = call(both[1], "copy", "http://[no", "--state", str(state))  # type: ignore[arg-type]
    assert "--state" not in result.output
    assert result.exit_code == 1


def test_a_program_records_by_commits(postgres_location: Location) -> None:
    record(postgres_location)
    with agentspan.open(postgres_location) as opened:
        found = opened.runs()
        assert [(run.agent, run.run.status, run.spans) for run in found.runs] == [
            ("calculator", "failed", 1),
            ("traveller", "complete", 4),
            ("traveller", "complete", 4),
            ("traveller", "complete", 4),
        ]


def test_init_makes_tables_and_partitions_and_the_doctor_shows_them(postgres_server: Emptied) -> None:
    url = postgres_server.new().text
    made = call(NOWHERE, "init", url, "--ahead", "2", "--width", "month")
    assert (made.exit_code, "is ready" in made.output) == (0, True)
    assert "sesame" not in made.output
    assert call(NOWHERE, "doctor", "--tables", "--db", url).exit_code == 0
    more = json.loads(call(NOWHERE, "init", "--db", url, "--ahead", "6", "--since", "90d", "--json").output)
    assert len(more["made"]) > 2
    assert more["moved"] == 0
    shown = json.loads(call(NOWHERE, "doctor", "--tables", "--db", url, "--json").output)
    assert [each["is_default"] for each in shown["partitions"]] == [False] * (len(shown["partitions"]) - 1) + [True]
    assert (shown["missing"], shown["version"], shown["index"]) == (0, newest(MIGRATIONS), {})
    assert set(more["made"]) < {each["name"] for each in shown["partitions"]}
    lines = call(NOWHERE, "doctor", "--tables", "--db", url).output.splitlines()
    assert len(lines) == 2 + len(shown["partitions"])
    assert lines[-1].split()[:2] == ["finished_spans_default", "0"]


def test_init_makes_a_file_which_has_no_partitions(tmp_path: Path) -> None:
    path = str(tmp_path / "runs.db")
    assert "has no partitions" in call(NOWHERE, "init", path).output
    assert "has no partitions" in call(NOWHERE, "doctor", "--tables", "--db", path).output


def test_the_doctor_makes_the_partitions_that_are_missing(postgres_server: Emptied) -> None:
    url = postgres_server.new().text
    open_direct(url).close()
    plain, _, schema = url.partition("?schema=")
    with psycopg.connect(plain, options=f"-csearch_path={schema}", autocommit=True) as connection:
        parts = (
            "select inhrelid::regclass::text from pg_inherits where inhparent = 'finished_spans'::regclass order by 1"
        )
        *_, last, default = sorted(name for (name,) in connection.execute(parts))
        assert default == "finished_spans_default"
        connection.execute(f"drop table {last}")
    status = call(NOWHERE, "doctor", "--tables", "--db", url)
    assert (status.exit_code, "1 partition for now" in status.output) == (1, True)
    assert json.loads(call(NOWHERE, "doctor", "--db", url, "--dry-run", "--json").output)["partitions"] == {
        "made": [],
        "missing": 1,
    }
    assert json.loads(call(NOWHERE, "doctor", "--db", url, "--json").output)["partitions"] == {
        "made": [last],
        "missing": 0,
    }
    assert call(NOWHERE, "doctor", "--tables", "--db", url).exit_code == 0
