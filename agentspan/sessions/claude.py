"""Claude Code's sessions: JSONL files in `~/.claude/projects`, with files of sub-agents and workflows beside them.

This module finds the files and puts those of one session together; `claude_records` decodes them.
"""

import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from agentspan.arriving import object_in, parsed
from agentspan.sessions.claude_records import ClaudeDecoder
from agentspan.sessions.formats import Format, Source, head_of, home, walk
from agentspan.sessions.reading import PACKED, first_bytes, folder_in, plain_path

NAME = "claude"
_KEEPS_DAYS = 30
_ENDINGS = (".jsonl", *(f".jsonl{packed}" for packed in PACKED))
_OURS = re.compile(
    rb'"(?:isSidechain|leafUuid|isSnapshotUpdate|permissionMode|aiTitle|customTitle|lastPrompt|bridgeSessionId)"\s*:'
    rb'|"type"\s*:\s*"(?:queue-operation|file-history-snapshot)"'
)
_NAMED = re.compile(r"(?:agent-.+|[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12})\.jsonl\Z")
"""The names of files of sessions and sub-agents. They count for files that cannot be read here."""
_SESSION = re.compile(rb'"sessionId"\s*:\s*"([^"\\]+)"')


def roots(environment: Mapping[str, str]) -> list[Path]:
    """Return the folders of sessions: of each folder in CLAUDE_CONFIG_DIR, else of the default ones."""
    named = [each.strip() for each in environment.get("CLAUDE_CONFIG_DIR", "").split(",")]
    folders = [Path(each).expanduser() for each in named if each]
    if not folders:
        folders = [home(environment) / ".claude", home(environment) / ".config" / "claude"]
    return [folder / "projects" for folder in folders]


def keeps_days(environment: Mapping[str, str]) -> int:
    """Return after how many days Claude Code deletes a session: `cleanupPeriodDays` of the settings, else 30."""
    for root in roots(environment):
        days = object_in(parsed(head_of(root.parent / "settings.json", 2**20))).get("cleanupPeriodDays")
        if type(days) is int and days >= 0:
            return days
    return _KEEPS_DAYS


def sources(path: Path) -> Iterator[Source]:
    """Yield the sessions in a folder, or that of a file; of a sub-agent's file, the session that started it."""
    if path.is_dir():
        yield from _in_folder(path)
        return
    if path.name.endswith(".meta.json"):
        path = path.with_name(path.name.replace(".meta.json", ".jsonl"))
    if not path.name.endswith(_ENDINGS):
        return
    head = first_bytes(path)
    main = _main_of(path, head)
    if main is not None:
        path, head = main, first_bytes(main)
    if _is_ours(path, head):
        yield _source(path, head, _old_sidecars(path.parent))


def _in_folder(folder: Path) -> Iterator[Source]:
    """Yield the sessions in a folder. Of a session that is there twice, plain and compressed, only the plain file."""
    old: tuple[Path, dict[str, list[Path]]] = Path(), {}
    seen: set[Path] = set()
    for path in walk(folder, *_ENDINGS):
        if path.name.startswith("journal.jsonl") or plain_path(path) in seen:
            continue
        seen.add(plain_path(path))
        head = first_bytes(path)
        if not _is_ours(path, head):
            continue
        if _is_sidecar(path) and _main_of(path, head) is not None:
            continue
        if old[0] != path.parent:
            old = path.parent, _old_sidecars(path.parent)
        yield _source(path, head, old[1])


def _is_ours(path: Path, head: bytes | None) -> bool:
    if head is None:
        return _NAMED.match(plain_path(path).name) is not None
    return _OURS.search(head) is not None


def _is_sidecar(path: Path) -> bool:
    return path.name.startswith("agent-") or "subagents" in path.parts[-5:-1]


def _main_of(path: Path, head: bytes | None) -> Path | None:
    """Return the main file of a session by the path of a sub-agent's file; None if that is gone, or for other files."""
    if not _is_sidecar(path):
        return None
    for above in list(path.parents)[:4]:
        if above.name == "subagents":
            return _existing(above.parent.parent, above.parent.name)
    found = _SESSION.search(head or b"")
    return None if found is None else _existing(path.parent, found[1].decode("utf-8", "replace"))


def _existing(folder: Path, session: str) -> Path | None:
    if "/" in session or "\0" in session:
        return None
    for ending in _ENDINGS:
        if (path := folder / f"{session}{ending}").is_file():
            return path
    return None


def _old_sidecars(folder: Path) -> dict[str, list[Path]]:
    """Return the files of sub-agents that lie beside their session, by the session's id."""
    found: dict[str, list[Path]] = {}
    try:
        paths = sorted(
            path for path in folder.iterdir() if path.name.startswith("agent-") and path.name.endswith(_ENDINGS)
        )
    except OSError:
        return found
    for path in paths:
        session = _SESSION.search(first_bytes(path) or b"")
        if session is not None:
            found.setdefault(session[1].decode("utf-8", "replace"), []).append(path)
    return found


def _source(path: Path, head: bytes | None, old: Mapping[str, list[Path]]) -> Source:
    parts: list[Path] = []
    if not _is_sidecar(path):
        stem = plain_path(path).name.removesuffix(".jsonl")
        parts += _with_meta(old.get(stem, ()))
        beside = path.parent / stem
        parts += walk(beside / "subagents", *_ENDINGS, ".meta.json")
        parts += walk(beside / "workflows", ".json")
    else:
        parts += [meta for meta in _with_meta([path]) if meta != path]
    return Source(NAME, path, tuple(parts), folder_in(head or b""))


def _with_meta(paths: Iterable[Path]) -> list[Path]:
    found = []
    for path in paths:
        meta = path.with_name(plain_path(path).name.removesuffix(".jsonl") + ".meta.json")
        found += [path, meta] if meta.is_file() else [path]
    return found


FORMATS = [Format(NAME, "Claude Code", roots, sources, lines=ClaudeDecoder, keeps_days=keeps_days, version=2)]
