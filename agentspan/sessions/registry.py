"""The formats of session files by name.

A format of one's own is an entry point of the group `agentspan.sessions`: a Format, or a function that decodes the
bytes of one file, `bytes -> Iterable[Record]`.
"""

import shlex
from collections.abc import Callable, Iterable, Iterator
from importlib import import_module
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import Any

from agentspan.arriving import Record
from agentspan.sessions.formats import Format, Source

GROUP = "agentspan.sessions"
_OWN = {
    "claude": "agentspan.sessions.claude",
    "codex": "agentspan.sessions.codex",
    "opencode": "agentspan.sessions.opencode",
    "gemini": "agentspan.sessions.gemini",
    "qwen": "agentspan.sessions.gemini",
    "inspect": "agentspan.sessions.inspect_logs",
    "atif": "agentspan.sessions.atif",
    "swe-agent": "agentspan.sessions.swe_agent",
    "llm": "agentspan.sessions.llm_logs",
    "openai-agents": "agentspan.sessions.openai_agents",
}
"""The modules of our own formats. A module has a list FORMATS."""


_RESUME = {
    "claude": "claude --resume",
    "codex": "codex resume",
    "opencode": "opencode -s",
    "gemini": "gemini --resume",
    "qwen": "qwen --resume",
}
"""The commands of our own formats that continue a session, without its id: no decoder has to be imported for them."""


def resume_command(format: str, session: str) -> str | None:
    """Return the command that continues a session in its product; None if there is none."""
    if format in _RESUME:
        is_option = session.startswith("-")  # a program would read it as an option
        return None if is_option or not session else f"{_RESUME[format]} {shlex.quote(session)}"
    if format in _OWN:
        return None
    found = next((_loaded(point) for point in entry_points(group=GROUP) if point.name == format), None)
    return None if found is None or found.resume is None else found.resume(session)


def formats() -> dict[str, Format]:
    """Return all formats by name: our own, then those of entry points, which replace ours of the same name."""
    found: dict[str, Format] = {}
    for module in dict.fromkeys(_OWN.values()):
        for each in import_module(module).FORMATS:
            found[each.name] = each
    return {**found, **{point.name: _loaded(point) for point in entry_points(group=GROUP)}}


def _loaded(point: EntryPoint) -> Format:
    found: Any = point.load()
    return found if isinstance(found, Format) else _of_function(point.name, found)


def _of_function(name: str, function: Callable[[bytes], Iterable[Record]]) -> Format:
    """Return the format of a function that decodes the bytes of a file. Its files are found only where one names them.

    A file belongs to the format if the function yields something for it. A folder has no files of the format.
    """

    def sources(path: Path) -> Iterator[Source]:
        if path.is_file() and next(iter(function(path.read_bytes())), None) is not None:
            yield Source(name, path)

    return Format(name, name, lambda environment: (), sources, decode=lambda path, after: function(path.read_bytes()))
