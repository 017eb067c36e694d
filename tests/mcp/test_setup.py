"""`agentspan setup`, and `--print-skill`: what is written where, after the change was shown, and taken back."""

import json
import os
import re
import stat
import sys
import tomllib
from hashlib import sha256
from pathlib import Path

import click
import pytest
from click.testing import CliRunner, Result

from agentspan import files
from agentspan.cli import main, settings_file
from agentspan.mcp import setup
from agentspan.mcp.entries import json_value
from agentspan.mcp.skill import FIND, INSTRUMENT


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home of its own, and a project below it as the current folder."""
    (tmp_path / "project").mkdir()
    monkeypatch.chdir(tmp_path / "project")
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in ("CLAUDE_CONFIG_DIR", "CODEX_HOME", "XDG_CONFIG_HOME", "APPDATA"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setattr(setup, "_has_mcp", lambda: True)
    return tmp_path


def run(*args: str, stdin: str = "") -> Result:
    return CliRunner().invoke(main, [*args], input=stdin, env={"COLUMNS": "100"}, catch_exceptions=False)


def files_in(folder: Path) -> dict[str, str]:
    return {str(path.relative_to(folder)): path.read_text() for path in folder.rglob("*") if path.is_file()}


def test_without_the_extra_the_server_runs_in_an_environment_of_its_own(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(setup, "_has_mcp", lambda: False)
    monkeypatch.setenv("PATH", str(home))
    assert "agentspan-sqlite[mcp]" in run("setup", "claude", "--yes").output.splitlines()[-1], "what to install"
    (home / "uvx").touch(0o755)
    done = run("setup", "claude", "--db", "a.db", "--yes").output
    assert "install" not in done.splitlines()[-1]
    entry = json.loads((home / ".claude.json").read_text())["mcpServers"]["agentspan"]
    assert [entry["command"], *entry["args"][:-1]] == [
        "uvx", "--from", "agentspan-sqlite[mcp]", "agentspan", "mcp", "--db",
    ]  # fmt: skip


PLACES = {
    "claude": (".claude.json", ".claude/skills", "project/.mcp.json", "project/.claude/skills"),
    "codex": (".codex/config.toml", ".agents/skills", "project/.codex/config.toml", "project/.agents/skills"),
    "cursor": (".cursor/mcp.json", ".cursor/skills", "project/.cursor/mcp.json", "project/.cursor/skills"),
    "gemini": (".gemini/settings.json", ".gemini/skills", "project/.gemini/settings.json", "project/.gemini/skills"),
    "opencode": (
        ".config/opencode/opencode.json", ".config/opencode/skills", "project/opencode.json",
        "project/.opencode/skills",
    ),
    "vscode": (".config/Code/User/mcp.json", ".copilot/skills", "project/.vscode/mcp.json", "project/.github/skills"),
}  # fmt: skip


@pytest.mark.parametrize("agent", [*PLACES])
@pytest.mark.parametrize("project", [False, True])
def test_each_agent_gets_its_entry_and_skills_and_gives_them_back(agent: str, project: bool, home: Path) -> None:
    config, skills = PLACES[agent][2:] if project else PLACES[agent][:2]
    words = ["setup", agent, *(["--project"] if project else [])]
    done = run(*words, "--yes")
    assert done.exit_code == 0
    assert "changed 3 files" in done.output
    written = files_in(home)
    assert written.keys() == {config, f"{skills}/agentspan/SKILL.md", f"{skills}/agentspan-instrument/SKILL.md"}
    assert written[f"{skills}/agentspan/SKILL.md"] == FIND.text
    read = tomllib.loads if config.endswith(".toml") else json.loads
    entry = read(written[config])[setup.AGENTS[agent].key]["agentspan"]
    command = entry["command"] if agent == "opencode" else [entry["command"], *entry["args"]]
    assert command[-1] == "mcp"
    assert command[0] == "agentspan" if project else os.path.isabs(command[0])
    assert "nothing changes" in run(*words, "--yes").output
    assert files_in(home) == written
    assert run(*words, "--remove", "--yes").exit_code == 0
    assert files_in(home) == {}
    assert "nothing changes" in run(*words, "--remove", "--yes").output


def test_the_change_is_shown_and_nothing_written_without_a_yes(home: Path) -> None:
    done = run("setup", "codex")
    assert done.exit_code == 2
    assert "+[mcp_servers.agentspan]" in done.output
    assert "setup codex --yes" in done.output
    assert files_in(home) == {}


def test_a_person_is_asked(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(setup, "_ask", lambda *_, **__: click.confirm("Change?", abort=True))
    assert run("setup", "gemini", stdin="n\n").exit_code == 1
    assert files_in(home) == {}
    assert run("setup", "gemini", stdin="y\n").exit_code == 0
    assert len(files_in(home)) == 3


def test_other_entries_comments_and_permissions_stay(home: Path) -> None:
    path = home / ".config/opencode/opencode.jsonc"
    path.parent.mkdir(parents=True)
    before = '{\n  // mine\n  "mcp": {\n    "other": { "type": "remote", "url": "https://x" } // keep\n  },\n}\n'
    path.write_text(before)
    path.chmod(0o640)
    assert run("setup", "opencode", "--yes").exit_code == 0
    after = path.read_text()
    assert json_value(after)["mcp"].keys() == {"other", "agentspan"}
    assert "// mine" in after
    assert "// keep" in after
    assert stat.S_IMODE(path.stat().st_mode) == 0o640
    assert run("setup", "opencode", "--remove", "--yes").exit_code == 0
    assert path.read_text() == before


def test_a_loop_of_links_is_an_error(home: Path) -> None:
    (home / ".claude.json").symlink_to(home / ".claude.json")
    assert "cannot be read" in run("setup", "claude", "--yes").output


def test_a_link_to_settings_stays_a_link(home: Path) -> None:
    kept = home / "dotfiles.json"
    kept.write_text("{}")
    (home / ".claude.json").symlink_to(kept)
    assert run("setup", "claude", "--yes").exit_code == 0
    assert (home / ".claude.json").is_symlink()
    assert "agentspan" in kept.read_text()


def test_what_a_person_added_to_the_entry_stays(home: Path) -> None:
    run("setup", "cursor", "--yes")
    path = home / ".cursor/mcp.json"
    found = json.loads(path.read_text())
    found["mcpServers"]["agentspan"]["env"] = {"AGENTSPAN_DB": "x.db"}
    path.write_text(json.dumps(found))
    assert "nothing changes" in run("setup", "cursor", "--yes").output
    run("setup", "cursor", "--yes", "--db", "other.db")
    entry = json.loads(path.read_text())["mcpServers"]["agentspan"]
    assert (entry["env"], entry["args"][1]) == ({"AGENTSPAN_DB": "x.db"}, "--db")
    run("setup", "codex", "--yes")
    path = home / ".codex/config.toml"
    path.write_text(path.read_text() + '[mcp_servers.agentspan.env]\n"a b" = "c"\n')
    run("setup", "codex", "--yes", "--db", "other.db")
    entry = tomllib.loads(path.read_text())["mcp_servers"]["agentspan"]
    assert (entry["env"], entry["args"][1]) == ({"a b": "c"}, "--db")


def test_a_file_that_is_not_valid_is_left(home: Path) -> None:
    (home / ".claude.json").write_text('{"a": \n\n oops}')
    done = run("setup", "claude", "--yes")
    assert done.exit_code == 1
    assert "is no valid JSON (line 3); nothing was changed" in done.output
    assert files_in(home) == {".claude.json": '{"a": \n\n oops}'}


def test_a_file_that_changed_meanwhile_is_left(home: Path) -> None:
    change = settings_file.Change(home / "x.json", "{}", '{"a": 1}')
    change.path.write_text('{"a": 1}')
    settings_file.write(change)  # another call made the same change
    change.path.write_text('{"b": 2}')
    with pytest.raises(click.ClickException, match="has changed meanwhile"):
        settings_file.write(change)
    assert change.path.read_text() == '{"b": 2}'


def test_a_file_that_changes_while_the_new_one_is_written_is_left(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = home / ".claude.json"
    path.write_text("{}")
    aside = files.aside

    def slowly(target: Path) -> tuple[int, str]:
        path.write_text('{"b": 2}')
        return aside(target)

    monkeypatch.setattr(files, "aside", slowly)
    assert "has changed meanwhile" in run("setup", "claude", "--yes").output
    assert files_in(home) == {".claude.json": '{"b": 2}'}


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs os.mkfifo")
@pytest.mark.parametrize("words", [["setup", "claude"], ["setup", "claude", "--remove"], ["watch", "--unattended"]])
def test_a_pipe_is_not_waited_for(words: list[str], home: Path) -> None:
    (home / ".claude").mkdir()
    for name in (".claude.json", ".claude/settings.json"):
        os.mkfifo(home / name)
    done = run(*words, "--yes")
    assert done.exit_code == 1
    assert "it is no regular file" in done.output


def test_a_skill_that_a_person_edited_stays(home: Path) -> None:
    run("setup", "claude", "--yes")
    path = home / ".claude/skills/agentspan/SKILL.md"
    path.write_text(FIND.text.replace("\n", "\r\n"), newline="")  # as git may do
    assert "nothing changes" in run("setup", "claude", "--yes").output
    path.write_text(edited := FIND.text.replace("agentspan show", "agentspan show --full", 1))
    kept = run("setup", "claude", "--yes").output
    assert "was edited, and stays as it is; delete it" in kept
    assert "nothing changes" in kept
    removed = run("setup", "claude", "--remove", "--yes").output
    assert "was edited, and stays as it is" in removed
    assert files_in(home) == {".claude/skills/agentspan/SKILL.md": edited}


def test_a_skill_of_an_older_version_is_replaced(home: Path) -> None:
    path = home / ".claude/skills/agentspan/SKILL.md"
    path.parent.mkdir(parents=True)
    body = "# an older text\n"
    path.write_text(f"{body}<!--agentspan:{sha256(body.encode()).hexdigest()[:12]}-->\n")
    assert run("setup", "claude", "--yes").exit_code == 0
    assert path.read_text() == FIND.text


def test_the_entry_names_a_storage_but_no_password(home: Path) -> None:
    run("--db", "runs.db", "setup", "claude", "--yes")
    assert json.loads((home / ".claude.json").read_text())["mcpServers"]["agentspan"]["args"] == [
        "mcp", "--db", str(home / "project/runs.db"),
    ]  # fmt: skip
    done = run("setup", "gemini", "--yes", "--db", "postgresql://me:secret@host/db")
    assert done.exit_code == 1
    assert "AGENTSPAN_DB" in done.output
    assert "secret" not in done.output


def test_skills_are_short_and_their_commands_exist(home: Path) -> None:
    assert run("setup", "--print-skill").output == FIND.text
    assert run("setup", "--print-skill", "instrument").output == INSTRUMENT.text
    for skill in (FIND, INSTRUMENT):
        assert len(skill.text.split()) <= 900
        assert re.match(rf"---\nname: {skill.name}\ndescription: .{{50,1000}}\n---\n", skill.text)
        for name, options in re.findall(r"agentspan ([a-z]+)((?: [^`\n]*)?)", skill.text.split("\n---\n", 1)[1]):
            found = main.get_command(click.Context(main), name)
            if found is None:
                assert name in ("has", "are", "records", "is"), name
                continue
            known = {each for parameter in found.params for each in parameter.opts}
            assert set(re.findall(r"--[a-z-]+", options.partition("  ")[0])) <= known, (name, options)


def test_the_programs_of_the_skill_run(home: Path) -> None:
    blocks = re.findall(r"```python\n(.*?)```", INSTRUMENT.text, re.DOTALL)
    code = "\n".join(block for block in blocks if "instrument()" not in block and "captured_runs" not in block)
    done = __import__("subprocess").run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "researcher" in run("runs").output
