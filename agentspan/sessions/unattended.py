"""Makes the hook in the settings of Claude Code, and the user unit of systemd, that import sessions without a terminal.

The functions return values and texts. They write no file.
"""

import shlex
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from agentspan.ground import errors
from agentspan.sessions.formats import home

UNIT = "agentspan-watch.service"
EVENT = "SessionEnd"
HOOK_S = 60
"""The seconds that Claude Code gives the hook; an import that is cut short goes on at the next one."""
_MARK = "# added by agentspan watch --unattended"


def settings_path(environment: Mapping[str, str]) -> Path:
    """Return the path of Claude Code's settings of this user."""
    own = environment.get("CLAUDE_CONFIG_DIR")
    return (Path(own) if own else home(environment) / ".claude") / "settings.json"


def unit_path(environment: Mapping[str, str]) -> Path:
    """Return the path of the unit of this user."""
    own = environment.get("XDG_CONFIG_HOME")
    return (Path(own) if own else home(environment) / ".config") / "systemd" / "user" / UNIT


def command_line(db: Path, *words: str) -> list[str]:
    """Return a command line of this installation, which does not depend on PATH or on the current folder.

    Without -P, Python would import modules from the folder in which the session worked.
    """
    return [sys.executable, "-P", "-m", "agentspan", "--db", str(db.absolute()), *words]


def hook_of(db: Path, chosen: Sequence[str]) -> dict[str, Any]:
    """Return the entry of the hook: at the end of a session, its steps are imported.

    Args:
        chosen: the options that choose sessions.
    """
    line = shlex.join(command_line(db, "import", "claude", "--yes", *chosen))
    return {"hooks": [{"type": "command", "command": f"{line} >/dev/null 2>&1 {_MARK}", "timeout": HOOK_S}]}


def unit_of(db: Path, names: Sequence[str], chosen: Sequence[str]) -> str:
    """Return the text of the unit.

    Args:
        names: the formats and paths that are followed; all formats without one.
        chosen: the options that choose sessions.
    """
    words = command_line(db, "watch", *(names or ["all"]), *chosen, "--quiet")
    return (
        "[Unit]\nDescription=agentspan: record the sessions of coding agents as they grow\n\n"
        f"[Service]\nExecStart={' '.join(map(_quoted, words))}\nRestart=on-failure\nRestartSec=10\nNice=10\n\n"
        "[Install]\nWantedBy=default.target\n"
    )


def _quoted(word: str) -> str:
    """Return a word as systemd reads it."""
    escaped = word.replace("\\", "\\\\").replace('"', '\\"').replace("%", "%%").replace("$", "$$")
    return f'"{escaped}"' if any(character in word for character in " \t'\";") else escaped


def with_hook(settings: dict[str, Any], hook: dict[str, Any]) -> dict[str, Any]:
    """Return settings with our hook, and with everything else unchanged. An older one of ours is replaced.

    Raises:
        InvalidValue: the settings do not have the form that Claude Code describes.
    """
    found = without_hook(settings)
    hooks = dict(found.get("hooks", {}))
    return {**found, "hooks": {**hooks, EVENT: [*hooks.get(EVENT, []), hook]}}


def has_hook(text: str) -> bool:
    """Return whether a text of settings has our hook."""
    return _MARK in text


def without_hook(settings: dict[str, Any]) -> dict[str, Any]:
    """Return settings without our hook, and with everything else unchanged.

    Raises:
        InvalidValue: the settings do not have the form that Claude Code describes.
    """
    hooks = settings.get("hooks", {})
    if not isinstance(hooks, dict) or not isinstance(hooks.get(EVENT, []), list):
        raise errors.InvalidValue("settings", f"hooks, or hooks.{EVENT}, has another form than Claude Code describes")
    entries = hooks.get(EVENT, [])
    others = [entry for entry in entries if not _is_ours(entry)]
    if len(others) == len(entries):
        return settings
    kept = {name: value for name, value in hooks.items() if name != EVENT} | ({EVENT: others} if others else {})
    rest = {name: value for name, value in settings.items() if name != "hooks"}
    return {name: (kept if name == "hooks" else rest[name]) for name in settings if name in rest or kept}


def _is_ours(entry: object) -> bool:
    hooks = entry.get("hooks") if isinstance(entry, dict) else None
    if not isinstance(hooks, list):
        return False
    return any(isinstance(each, dict) and _MARK in str(each.get("command")) for each in hooks)
