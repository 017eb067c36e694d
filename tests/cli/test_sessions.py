"""The commands about sessions of coding agents: what lies on this machine, bringing it in, and following it."""

import json
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import click
import pytest

import agentspan
from agentspan.arriving.arrival import Arrived
from agentspan.cli import app, main
from agentspan.cli.importing import is_of_sessions
from agentspan.cli.sessions import show_arrived
from agentspan.sessions.importing import Importer
from tests.cli.calling import call, lines
from tests.sessions.claude_entries import answer, prompt, text, written
from tests.sessions.installed import environment, install, toy_file, turns

DAY_S = 86_400


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home with sessions of the toy format in two folders."""
    monkeypatch.syspath_prepend(install(tmp_path))
    for name in ("CLAUDE_CONFIG_DIR", "CODEX_HOME", "XDG_CONFIG_HOME", "XDG_DATA_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    toy_file(tmp_path / "toys/a", "one", turns(2, cwd="/work/shop"), idle_s=3600)
    toy_file(tmp_path / "toys/a", "two", turns(3, cwd="/work/shop"), idle_s=29 * DAY_S)
    toy_file(tmp_path / "toys/b", "three", turns(4, cwd="/work/secret"), idle_s=2 * DAY_S)
    return tmp_path


@pytest.fixture
def db(home: Path) -> Path:
    return home / "runs.db"


def projects(db: Path, *args: str) -> dict[str, Any]:
    found = json.loads(call(db, "sessions", "--json", *args).output)
    return {each["project"]: each for each in found["projects"]}


def runs(db: Path) -> set[str]:
    with agentspan.open(db, read_only=True) as database:
        return {run.run.external_identifier or "" for run in database.runs().runs}


def test_sessions_lists_folders_sizes_and_what_expires(home: Path, db: Path) -> None:
    found = projects(db)
    assert [*found] == ["/work/shop", "/work/secret"]
    shop = found["/work/shop"]
    assert (shop["sessions"], shop["expiring"], shop["imported"]) == (2, 1, 0)
    assert shop["bytes"] == sum(path.stat().st_size for path in (home / "toys/a").iterdir())
    assert not db.exists(), "listing stores nothing"
    text = call(db, "sessions").output
    assert "1 session is deleted by the product within a week" in text
    assert max(len(line) for line in text.splitlines() if "agentspan import" not in line) <= 80


def test_sessions_says_what_is_imported_already(db: Path) -> None:
    call(db, "import", "toy", "--project", "shop")
    assert {name: each["imported"] for name, each in projects(db).items()} == {"/work/shop": 2, "/work/secret": 0}


@pytest.mark.parametrize(
    ("options", "taken"),
    [
        ([], {"one", "two", "three"}),
        (["--project", "shop"], {"one", "two"}),
        (["--project", "/work/sh*"], {"one", "two"}),
        (["--project", "/work"], {"one", "two", "three"}),
        (["--exclude-project", "secret"], {"one", "two"}),
        (["--exclude-project", "secret", "--exclude-project", "/work/shop"], set()),
        (["--project", "/work", "--exclude-project", "sec*"], {"one", "two"}),
        (["--since", "7d"], {"one", "three"}),
    ],
)
def test_what_is_chosen_is_imported(db: Path, options: list[str], taken: set[str]) -> None:
    assert call(db, "import", "toy", *options).exit_code == 0
    assert (runs(db) if db.exists() else set()) == {f"toy:{name}" for name in taken}


def test_without_a_terminal_import_lists_and_asks_for_a_name(db: Path) -> None:
    result = call(db, "import")
    assert result.exit_code == 2
    assert "/work/shop" in result.output
    assert "agentspan import all" in result.output
    assert not db.exists()


def test_yes_imports_all_formats(db: Path) -> None:
    assert call(db, "import", "--yes").exit_code == 0
    assert len(runs(db)) == 3


def test_import_says_what_is_new_and_what_to_type_next(db: Path) -> None:
    first = lines(db, "import", "toy")
    assert first[0].startswith("3 new runs · 9 steps · $")
    assert first[1:] == ["look at them in a browser:", f"  agentspan open --db {db}", *first[-2:]]
    assert first[-1].strip() == f"agentspan runs --db {db}"
    assert lines(db, "import", "toy") == ["0 new runs · 0 steps", "3 files unchanged"]


def test_import_as_json_is_one_document(db: Path) -> None:
    found = json.loads(call(db, "import", "toy", "--json").output)
    assert (found["runs"], found["steps"], found["grown"], found["unchanged"]) == (3, 9, 0, 0)
    again = json.loads(call(db, "import", "toy", "--json").output)
    assert (again["runs"], again["steps"], again["unchanged"]) == (0, 0, 3)


def test_a_file_that_grew_is_read_on(home: Path, db: Path) -> None:
    call(db, "import", "toy")
    with (home / "toys/a/one.toy").open("a") as file:
        file.write(json.dumps({"id": "9", "ask": "more?", "at": 50}) + "\n")
    assert lines(db, "import", "toy")[0].startswith("0 new runs · 1 run grown · 1 step")


def test_a_file_and_a_folder_are_recognised_by_content(home: Path, db: Path) -> None:
    assert call(db, "import", str(home / "toys/a/one.toy")).exit_code == 0
    assert runs(db) == {"toy:one"}
    assert call(db, "import", str(home / "toys/b")).exit_code == 0
    assert runs(db) == {"toy:one", "toy:three"}


def test_a_file_that_shows_its_format_in_its_first_bytes_imports_no_decoder_of_another(tmp_path: Path) -> None:
    path = written(tmp_path, [prompt(1, "water the beds"), answer(2, text("They are watered."))])
    program = (
        "import sys; from agentspan.cli import main; main(sys.argv[1:], standalone_mode=False);"
        "print(*[name for name in sys.modules if name.startswith('agentspan.sessions.')])"
    )
    command = [sys.executable, "-c", program, "import", str(path), "--db", str(tmp_path / "a.db")]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    assert done.stdout.startswith("1 new run")
    others = ("codex", "opencode", "gemini", "qwen", "inspect", "atif", "swe_agent", "llm", "openai", "archives")
    names = [name.rpartition(".")[2] for name in done.stdout.splitlines()[-1].split()]
    assert "claude_records" in names
    assert [name for name in names if name.startswith(others)] == []


def test_a_file_whose_first_bytes_show_another_format_is_recognised_by_the_rest(db: Path) -> None:
    path = written(db.parent, [prompt(1, "water the beds"), answer(2, text("They are watered."))])
    path.write_text('{"about": {"instructions": 1, "projectHash": 2, "parts": 3}}\n' * 200 + path.read_text())
    assert lines(db, "import", str(path))[0].startswith("1 new run")
    assert len(runs(db)) == 1


def test_an_export_is_imported_as_before(home: Path, db: Path) -> None:
    call(db, "import", "toy")
    call(db, "export", "all", "-o", "all.jsonl")
    assert not is_of_sessions("all.jsonl")
    assert "3 runs and 9 spans imported" in call(home / "other.db", "import", "all.jsonl").output
    assert call(home / "other.db", "import", "all.jsonl", "--since", "7d").exit_code == 2


def test_a_name_that_is_nothing_says_which_formats_there_are(db: Path) -> None:
    result = call(db, "import", "clade")
    assert result.exit_code == 1
    assert "toy" in result.output
    assert not db.exists()


def test_what_is_not_understood_is_counted_in_one_line(home: Path, db: Path) -> None:
    path = home / "toys/a/one.toy"
    path.write_bytes(path.read_bytes() + b'\xff\xfe{"id"\n\x00\x00\n[1, 2]\n' + b"{broken\n" * 3)
    result = call(db, "import", "toy")
    assert result.exit_code == 0
    assert [line for line in result.output.splitlines() if "not understood" in line] == [
        "not understood: 6 × a line that is no JSON"
    ]
    assert len(runs(db)) == 3


def test_on_a_terminal_import_asks(home: Path, db: Path) -> None:
    pty = pytest.importorskip("pty", reason="needs pty")
    for typed, code, count in ((b"n\n", 1, 0), (b"y\n", 0, 3)):
        main_end, other_end = pty.openpty()
        command = [sys.executable, "-m", "agentspan", "--db", str(db), "import"]
        started = subprocess.Popen(
            command, stdin=other_end, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment(home)
        )
        os.write(main_end, typed)
        said = started.communicate()[0].decode()
        os.close(main_end)
        os.close(other_end)
        assert started.returncode == code, said
        assert "Import 3 sessions?" in said
        assert (len(runs(db)) if db.exists() else 0) == count


def test_show_prints_the_command_that_continues_a_session(db: Path) -> None:
    call(db, "import", "toy", "--project", "secret")
    assert "cd /work/secret && toy --continue three" in call(db, "show", "-").output


def test_unattended_installs_once_keeps_all_else_and_is_removed_again(
    home: Path, db: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("shutil.which", lambda name: f"/bin/{name}")
    settings, unit = home / ".claude/settings.json", home / ".config/systemd/user/agentspan-watch.service"
    before = {"model": "big", "hooks": {"SessionEnd": [{"hooks": [{"type": "command", "command": "x"}]}], "Stop": []}}
    settings.parent.mkdir()
    settings.write_text(json.dumps(before))
    asks = call(db, "watch", "--unattended")
    assert asks.exit_code == 2
    assert json.loads(settings.read_text()) == before
    assert not unit.exists()
    assert call(db, "watch", "--unattended", "--yes", "--exclude-project", "my secret").exit_code == 0
    changed = json.loads(settings.read_text())
    assert changed["hooks"]["SessionEnd"][0] == before["hooks"]["SessionEnd"][0]  # type: ignore[index]
    (ours,) = changed["hooks"]["SessionEnd"][1]["hooks"]
    assert "import claude --yes --exclude-project 'my secret'" in ours["command"]
    assert '"my secret" --quiet' in unit.read_text()
    assert json.loads((settings.parent / "settings.json.before-agentspan").read_text()) == before
    assert "installed already" in call(db, "watch", "--unattended", "--yes", "--exclude-project", "my secret").output
    assert call(db, "watch", "--unattended", "--yes").exit_code == 0  # with other options: replaced, not added
    assert len(json.loads(settings.read_text())["hooks"]["SessionEnd"]) == 2
    assert call(db, "watch", "--unattended", "--remove", "--yes").exit_code == 0
    assert json.loads(settings.read_text()) == before
    assert json.loads((settings.parent / "settings.json.before-agentspan").read_text()) == before
    assert not unit.exists()
    assert "nothing is installed" in call(db, "watch", "--unattended", "--remove").output


def test_settings_that_changed_while_a_person_was_asked_are_left(
    home: Path, db: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = home / ".claude/settings.json"
    settings.parent.mkdir()
    settings.write_text("{}")
    monkeypatch.setattr("agentspan.cli.watch._copy", lambda change: settings.write_text('{"model": "new"}'))
    done = call(db, "watch", "--unattended", "--yes")
    assert (done.exit_code, settings.read_text()) == (1, '{"model": "new"}')


def test_the_hook_imports_without_a_terminal(home: Path, db: Path) -> None:
    from agentspan.sessions.unattended import hook_of

    (hook,) = hook_of(db, ["--exclude-project", "a 'b'"])["hooks"]
    line = hook["command"].replace("import claude", "import toy")
    folder = home / "cloned"
    folder.mkdir()
    (folder / "click.py").write_text("raise SystemExit(3)")  # a program of the folder, which must not run
    done = subprocess.run(line, shell=True, env=environment(home), cwd=folder, stdin=subprocess.DEVNULL, check=False)
    assert done.returncode == 0
    assert len(runs(db)) == 3


def test_settings_that_cannot_be_read_are_not_changed(home: Path, db: Path) -> None:
    settings = home / ".claude/settings.json"
    settings.parent.mkdir()
    for bad in ("{// a comment\n}", "[]", '{"hooks": []}', '{"hooks": {"SessionEnd": 1}}'):
        settings.write_text(bad)
        assert call(db, "watch", "--unattended", "--yes").exit_code == 1
        assert settings.read_text() == bad


def test_watch_without_a_name_or_terminal_lists_and_exits_with_2(db: Path) -> None:
    assert call(db, "watch").exit_code == 2
    assert not db.exists()


def test_serve_asks_before_it_follows_all_formats(db: Path) -> None:
    result = call(db, "serve", "--watch")
    assert result.exit_code == 2
    assert "agentspan serve --watch all" in result.output
    assert not db.exists()
    assert call(db, "serve", "--watch", "toy", "--read-only").exit_code == 2


def test_nothing_in_a_file_is_a_control_sequence(home: Path, db: Path) -> None:
    hostile = "/work/\x1b[31m\u202e\x9b\n"
    toy_file(home / "toys/\x1b[31m", "a\x1b[31m", [*turns(1, cwd=hostile), {"\x1b[31m": 1}])
    (home / "toys/\x1b[31m.toy").symlink_to("/proc/self/mem")
    outputs = [call(db, *words).output for words in (["sessions"], ["import", "toy"], ["show", "-"], ["sessions"])]
    assert not any(character in "".join(outputs) for character in "\x1b\x9b\u202e")
    assert max(len(line) for line in outputs[0].splitlines() if "agentspan import" not in line) <= 80


def test_the_second_import_reads_no_file(home: Path, db: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    call(db, "import", "toy")

    def no_reading(*args: object) -> None:
        raise AssertionError("a file was opened")

    monkeypatch.setattr("agentspan.sessions.reading.open_regular", no_reading)
    monkeypatch.setattr("agentspan.sessions.formats.open_regular", no_reading)
    assert lines(db, "import", "toy")[1] == "3 files unchanged"


def test_the_summary_names_costs_that_differ_models_without_a_price_and_a_few_files(
    capsys: pytest.CaptureFixture[str],
) -> None:
    arrived = Arrived(spans=7, inherited=2, cost_usd=1.5)
    arrived.runs["a"] = arrived.changed_runs["b"] = None
    arrived.stated |= {"near": [1.0, 1.005], "far": [1.2, 1.31]}
    arrived.no_price |= {"new-model": 3}
    problems = [f"/x/{number}: Permission denied" for number in range(12)]
    show_arrived(cast(Importer, SimpleNamespace(arrived=arrived, removed=0, problems=problems)), 4)
    out, err = capsys.readouterr()
    assert out.splitlines()[:5] == [
        "1 new run · 1 run grown · 7 steps · $1.5000",
        "4 files unchanged",
        "2 steps left out, because a session that was forked has them",
        "far: the sessions state $1.2000, the price table gives $1.3100",
        "without a price: new-model (3 calls)",
    ]
    assert err.splitlines()[9:] == ["not read: /x/9: Permission denied", "not read: 2 more files"]


def test_each_command_is_in_a_group() -> None:
    assert "watch" in app.COMMANDS["Record and watch"]
    assert isinstance(main.get_command(click.Context(main), "watch"), click.Command)


def test_credentials_of_sessions_are_redacted_and_their_files_stay_as_they_are(home: Path, db: Path) -> None:
    secret = "sk-ant-api03-" + "a1B2" * 20
    path = written(home / ".claude/projects", [prompt(1, f"the key is {secret}"), answer(2, text(f"{secret}?"))])
    before = path.read_bytes(), path.stat(), sorted(home.rglob(".claude/**/*"))
    assert call(db, "import", "claude").exit_code == 0
    shown = call(db, "show", "--payloads", "-").output
    assert "the key is [redacted]" in shown
    assert secret[:16] not in shown
    assert (path.read_bytes(), sorted(home.rglob(".claude/**/*"))) == (before[0], before[2])
    assert path.stat().st_mtime_ns == before[1].st_mtime_ns


def test_a_project_that_was_pruned_comes_back_only_when_it_is_read_again(db: Path) -> None:
    call(db, "import", "toy")
    assert call(db, "prune", "--project", "shop").exit_code == 0
    call(db, "import", "toy")
    assert runs(db) == {"toy:three"}
    call(db, "import", "toy", "--again")
    assert runs(db) == {"toy:one", "toy:two", "toy:three"}


def test_without_a_module_for_zstd_a_file_is_named_and_the_rest_is_imported(
    home: Path, db: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("zstandard", "compression", "compression.zstd"):
        monkeypatch.setitem(sys.modules, name, None)
    path = written(home / ".claude/projects", [prompt(1, "go"), answer(2, text("gone"))])
    packed = path.with_name("22222222-2222-4333-8444-555555555555.jsonl.zst")
    packed.write_bytes(b"\x28\xb5\x2f\xfd")
    result = call(db, "import", "claude")
    assert result.exit_code == 0
    assert result.output.startswith("1 new run")
    assert f"not read: {packed} is compressed by zstd, which needs more packages; run: " in result.output


def test_import_says_that_a_removed_run_stays_removed(home: Path, db: Path) -> None:
    call(db, "import", "toy")
    call(db, "prune", "--project", "secret")
    (path,) = (path for path in (home / "toys").rglob("*.toy") if "secret" in path.read_text())
    with path.open("a") as file:
        file.write('{"id": "9", "ask": "more?", "at": 99}\n')
    said = "1 session left out, because the run was removed, as by prune; --again brings it back"
    assert said in lines(db, "import", "toy")
    assert len(runs(db)) == 2
    call(db, "import", "toy", "--again")
    assert len(runs(db)) == 3
