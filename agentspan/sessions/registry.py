"""The formats of session files by name.

A format of one's own is an entry point of the group `agentspan.sessions`: a Format, or a function that decodes the
bytes of one file, `bytes -> Iterable[Record]`.
"""

import re
import shlex
from collections.abc import Callable, Iterable, Iterator, Mapping
from importlib import import_module
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import Any, NamedTuple

from agentspan.arriving import Record
from agentspan.sessions.formats import Format, Source

GROUP = "agentspan.sessions"
LIKELY_BYTES = 4096
"""The first bytes of a file that say of which format it probably is."""


class _Own(NamedTuple):
    """One of our own formats.

    Attributes:
        module: has a list FORMATS.
        name: what most names of its files have.
        mark: matches in the first bytes of most of its files.
    """

    module: str
    name: str
    mark: bytes


_OWN = {
    "claude": _Own(
        "agentspan.sessions.claude",
        ".jsonl",
        rb'"(?:isSidechain|leafUuid|permissionMode)"\s*:|"type"\s*:\s*"(?:queue-operation|file-history-snapshot)"',
    ),
    "codex": _Own("agentspan.sessions.codex", ".jsonl", rb'"type"\s*:\s*"session_meta"|"instructions"\s*:'),
    "opencode": _Own("agentspan.sessions.opencode", ".db", rb"\ASQLite format 3\0"),
    "gemini": _Own("agentspan.sessions.gemini", ".json", rb'"projectHash"\s*:'),
    "qwen": _Own("agentspan.sessions.gemini", ".jsonl", rb'"parts"\s*:|"systemPayload"\s*:'),
    "inspect": _Own("agentspan.sessions.inspect_logs", "", rb'\APK\x03\x04|\A\s*\{\s*"version"\s*:\s*\d'),
    "atif": _Own("agentspan.sessions.atif", "", rb'"schema_version"\s*:\s*"ATIF-v'),
    "swe-agent": _Own("agentspan.sessions.swe_agent", ".traj", rb""),
    "llm": _Own("agentspan.sessions.llm_logs", "logs.db", rb"\ASQLite format 3\0"),
    "openai-agents": _Own("agentspan.sessions.openai_agents", "", rb'"object"\s*:\s*"trace'),
}


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


class _Formats(Mapping[str, Format]):
    """All formats by name. The module of a format is imported when the format is first looked up."""

    def __init__(self) -> None:
        self._places = _OWN | {point.name: point for point in entry_points(group=GROUP)}
        self._known: dict[str, Format] = {}

    def __getitem__(self, name: str) -> Format:
        if name not in self._known:
            place = self._places[name]
            self._known[name] = _loaded(place) if isinstance(place, EntryPoint) else _own(name, place)
        return self._known[name]

    def __contains__(self, name: object) -> bool:
        return name in self._places

    def __iter__(self) -> Iterator[str]:
        return iter(self._places)

    def __len__(self) -> int:
        return len(self._places)


def formats() -> Mapping[str, Format]:
    """Return all formats by name: our own, then those of entry points, which replace ours of the same name."""
    return _Formats()


def likely(path: Path, head: bytes) -> list[str]:
    """Return the names of our own formats that a file is probably of, by its name and its first bytes."""
    return [name for name, own in _OWN.items() if own.name in path.name and re.search(own.mark, head)]


def _own(name: str, own: _Own) -> Format:
    found: list[Format] = import_module(own.module).FORMATS
    return next(each for each in found if each.name == name)


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
