"""`agentspan setup`: adds the MCP server and the skills to a coding agent, and takes them back.

Where each coding agent reads them is in AGENTS; docs/coding-agents.md names the pages that say so.
"""

import difflib
import importlib.util
import os
import shutil
import sys
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

import click

from agentspan.cli.app import command, db_option, location_in
from agentspan.cli.completion import SHELLS
from agentspan.cli.output import Failed, Unanswered, echo_lines, safe, style, to_copy
from agentspan.cli.settings_file import Change, read, write
from agentspan.installing import needs_extra
from agentspan.mcp import entries
from agentspan.mcp.skill import FIND, INSTRUMENT, is_edited
from agentspan.storage.location import Location
from agentspan.text import noun

NAME = "agentspan"
"""The name of the entry, and of the folder of the skill."""
Environment = Mapping[str, str]
At = Callable[[Environment], Path]


class Agent(NamedTuple):
    """The places where a coding agent reads MCP servers and skills.

    Attributes:
        title: its name.
        config, skills: the settings file and the folder of skills of a user.
        project_config, project_skills: the same of a project, below its folder.
        key: the member of the settings file with the MCP servers.
        entry: makes the entry of a command.
    """

    title: str
    config: At
    skills: At
    project_config: str
    project_skills: str
    key: str
    entry: Callable[[list[str]], dict[str, Any]]


def _home(environment: Environment) -> Path:
    return Path(environment.get("HOME") or os.path.expanduser("~"))


def _settings(environment: Environment) -> Path:
    named = environment.get("XDG_CONFIG_HOME", "")
    return Path(named) if os.path.isabs(named) else _home(environment) / ".config"


def _claude_json(environment: Environment) -> Path:
    return Path(environment.get("CLAUDE_CONFIG_DIR") or _home(environment)) / ".claude.json"


def _opencode(environment: Environment) -> Path:
    folder = _settings(environment) / "opencode"
    commented = folder / "opencode.jsonc"
    return commented if commented.exists() else folder / "opencode.json"


def _vscode(environment: Environment) -> Path:
    if sys.platform == "darwin":
        return _home(environment) / "Library/Application Support/Code/User/mcp.json"
    if sys.platform == "win32":
        return Path(environment.get("APPDATA") or _home(environment)) / "Code/User/mcp.json"
    return _settings(environment) / "Code/User/mcp.json"


def _plain(words: list[str]) -> dict[str, Any]:
    return {"command": words[0], "args": words[1:]}


def _typed(words: list[str]) -> dict[str, Any]:
    return {"type": "stdio", **_plain(words)}


def _in_one_folder(title: str, file: str) -> Agent:
    """Return an agent whose settings, in this file, and skills are in one folder, of the user as of a project."""
    skills = file.partition("/")[0] + "/skills"
    return Agent(title, lambda e: _home(e) / file, lambda e: _home(e) / skills, file, skills, "mcpServers", _plain)


AGENTS = {
    "claude": Agent(
        "Claude Code",
        _claude_json,
        lambda e: Path(e.get("CLAUDE_CONFIG_DIR") or _home(e) / ".claude") / "skills",
        ".mcp.json",
        ".claude/skills",
        "mcpServers",
        _typed,
    ),
    "codex": Agent(
        "Codex",
        lambda e: Path(e.get("CODEX_HOME") or _home(e) / ".codex") / "config.toml",
        lambda e: _home(e) / ".agents/skills",
        ".codex/config.toml",
        ".agents/skills",
        "mcp_servers",
        _plain,
    ),
    "cursor": _in_one_folder("Cursor", ".cursor/mcp.json"),
    "gemini": _in_one_folder("Gemini CLI", ".gemini/settings.json"),
    "opencode": Agent(
        "OpenCode",
        _opencode,
        lambda e: _settings(e) / "opencode/skills",
        "opencode.json",
        ".opencode/skills",
        "mcp",
        lambda words: {"type": "local", "command": words, "enabled": True},
    ),
    "vscode": Agent(
        "VS Code",
        _vscode,
        lambda e: _home(e) / ".copilot/skills",
        ".vscode/mcp.json",
        ".github/skills",
        "servers",
        _typed,
    ),
}


@command("setup")
@click.argument("agent", metavar="NAME", type=click.Choice([*AGENTS, *SHELLS]))
@click.option("--project", is_flag=True, help="Change the files of the current folder, not those of the user.")
@click.option("--remove", is_flag=True, help="Take back what setup has added.")
@click.option("--yes", is_flag=True, help="Change the files without asking.")
@db_option
@click.pass_context
def setup_command(ctx: click.Context, /, agent: str, *, project: bool, remove: bool, yes: bool, db: str | None) -> None:
    """Add agentspan to a coding agent, its MCP server and two skills; or print the script by which a shell completes
    commands.

    NAME is claude, codex, cursor, gemini, opencode or vscode. The change is shown first; other entries and comments of
    the files stay as they are; --remove takes it back. Or NAME is bash, zsh or fish.
    """
    if agent in SHELLS:
        raise click.UsageError(f"{agent} stands before all else, and takes no option")
    to = AGENTS[agent]
    location = location_in(ctx, db) if db or ctx.obj else None
    words = server_command(location, shared=project)
    changes, edited = changes_of(to, words, os.environ, project=project, remove=remove)
    for path in edited:
        echo_lines([f"{path} was edited, and stays as it is{'' if remove else '; delete it to get the new one'}"])
    if not changes:
        done = "has no entry of agentspan" if remove else "is set up already"
        echo_lines([f"{to.title} {done}; nothing changes"])
        return
    for each in changes:
        echo_lines(_diff(each))
    _ask(len(changes), yes=yes, again=["setup", agent, *(["--project"] * project), *(["--remove"] * remove), "--yes"])
    for each in changes:
        write(each)
        if each.after is None and each.path.name == "SKILL.md":
            with suppress(OSError):  # a person has put other files beside it
                each.path.parent.rmdir()
    echo_lines([f"changed {noun(len(changes), 'file')}; restart {to.title}, if it runs"])
    if not remove and not _has_mcp() and words[0] != _UVX[0]:
        echo_lines([needs_extra("answering over MCP", "mcp")])


_UVX = ("uvx", "--from", "agentspan-sqlite[mcp]", NAME)


def _has_mcp() -> bool:
    """Return whether the SDK of MCP is here in a version that serves: a framework may need an older one."""
    return importlib.util.find_spec("mcp_types") is not None


def server_command(location: Location | None, *, shared: bool) -> list[str]:
    """Return the command that the coding agent starts: with `uvx`, if it is there, where the extra is not installed.

    Args:
        location: the storage for `--db`; None for the one of the folder in which the coding agent works.
        shared: whether other people read the entry, in a project: it then names no path of this machine.

    Raises:
        Failed: the location has a password, which does not belong into a settings file.
    """
    own = Path(sys.executable).with_name("agentspan")
    # Not `-m agentspan` alone: without -P that would import modules from the folder in which the agent works.
    words = [NAME] if shared else [str(own)] if own.exists() else [sys.executable, "-P", "-m", "agentspan"]
    if not _has_mcp() and shutil.which(_UVX[0]):
        words = [*_UVX]
    if location is None:
        return [*words, "mcp"]
    if location.path is None and str(location) != location.text:
        raise Failed(f"{location} has a password; leave out --db, and set AGENTSPAN_DB where the coding agent starts")
    return [*words, "mcp", "--db", location.text if shared else location.absolute().text]


def changes_of(
    to: Agent, words: list[str], environment: Environment, *, project: bool, remove: bool
) -> tuple[list[Change], list[Path]]:
    """Return the changes of the settings file and of the skills, and the skills that a person has edited.

    Nothing is written.

    Raises:
        Failed: a file cannot be read, or is not valid.
    """
    config = Path(to.project_config) if project else to.config(environment)
    skills = Path(to.project_skills) if project else to.skills(environment)
    found, edited = [_of_config(config.absolute(), to, words, remove=remove)], []
    for skill in (FIND, INSTRUMENT):
        path = (skills / skill.name / "SKILL.md").absolute()
        before = read(path)
        if before is not None and is_edited(before):
            edited.append(path)
        elif remove or before is None or before.replace("\r\n", "\n") != skill.text:
            found.append(Change(path.resolve(), before, None if remove else skill.text))
    return [each for each in found if each.before != each.after], edited


def _of_config(path: Path, to: Agent, words: list[str], *, remove: bool) -> Change:
    before, path = read(path), path.resolve()  # reading refuses a loop of links, resolve() raises RuntimeError
    text, is_toml, keys = before or "", path.suffix == ".toml", (to.key, NAME)
    try:
        if remove:
            after = (entries.remove_toml if is_toml else entries.remove_json)(text, keys)
            is_empty = not after.strip() or after.split() in (["{}"], ["{", "}"])
            return Change(path, before, None if is_empty and after != text else after if before is not None else None)
        entry = to.entry(words)
        values = (entries.toml_value if is_toml else entries.json_value)(text)
        servers = values.get(to.key)
        stored = servers.get(NAME) if isinstance(servers, dict) else None
        if isinstance(stored, dict) and "command" in stored:  # a person may have added an environment
            entry = {**stored, **entry}
            if entry == stored:
                return Change(path, before, before)
        return Change(path, before, (entries.set_toml if is_toml else entries.set_json)(text, keys, entry))
    except entries.NotEditable as error:
        raise Failed(f"{path} {error}; nothing was changed") from None


_COLORS = {"+": "green", "-": "red", "@": "cyan"}


def _diff(change: Change) -> list[str]:
    """Return the lines of a unified diff; of a whole skill, which `setup --print-skill` prints, its path."""
    if change.path.name == "SKILL.md" and None in (change.before, change.after):
        sign, text = ("-", change.before) if change.after is None else ("+", change.after)
        return [style(safe(f"{sign} {change.path} ({noun((text or '').count(chr(10)), 'line')})"), fg=_COLORS[sign])]
    before, after = ((text or "").splitlines() for text in (change.before, change.after))
    old, new = ("/dev/null" if text is None else str(change.path) for text in (change.before, change.after))
    lines = difflib.unified_diff(before, after, old, new, lineterm="")
    return [style(safe(line), fg=_COLORS.get(line[:1])) for line in lines]


def _ask(number: int, *, yes: bool, again: list[str]) -> None:
    if yes:
        return
    if not sys.stdin.isatty():
        raise Unanswered(f"nothing was changed; to change it without being asked: {to_copy(*again)}")
    click.confirm(f"Change {noun(number, 'file')}?", abort=True)
