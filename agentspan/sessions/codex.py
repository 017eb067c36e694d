"""Finds the session files of Codex, its rollouts: one file a thread. `codex_decoder` decodes them."""

import re
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from pathlib import Path

from agentspan.arriving import object_in, parsed
from agentspan.sessions.codex_decoder import CodexDecoder
from agentspan.sessions.codex_records import is_timed_id
from agentspan.sessions.formats import Format, LineDecoder, Source, home, walk
from agentspan.sessions.reading import PACKED, Unreadable, folder_in, opened, plain_path

FOLDERS = ("sessions", "archived_sessions")
"""The folders of rollouts below Codex' own folder."""
_ENDINGS = (".jsonl", *(f".jsonl{ending}" for ending in PACKED))
_ID = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}$")
_HEAD_BYTES = 4096
_MOST_HEADER_BYTES = 8 * 2**20


def roots(environment: Mapping[str, str]) -> Sequence[Path]:
    """Return the folders of rollouts: below `$CODEX_HOME`, or `~/.codex`."""
    above = environment.get("CODEX_HOME")
    folder = Path(above) if above else home(environment) / ".codex"
    return [folder / name for name in FOLDERS]


def sources(path: Path) -> Iterable[Source]:
    """Return the rollouts in a folder, each thread before those that it started; or the source of one rollout.

    A rollout that stands there compressed as well, or archived, is one source: the plain file.
    """
    if not path.is_dir():
        return [Source("codex", path, project=folder_in(_head_of(path, _HEAD_BYTES)))] if _is_rollout(path) else []
    found: dict[str, Path] = {}
    for file in _rollouts(path):
        before = found.get(plain_path(file).name)
        if before is None or (before.suffix in PACKED and file.suffix not in PACKED):
            found[plain_path(file).name] = file
    return [
        Source("codex", file, project=folder_in(_head_of(file, _HEAD_BYTES)))
        for file in sorted(found.values(), key=_made)
    ]


def _rollouts(folder: Path) -> Iterator[Path]:
    below = [folder / name for name in FOLDERS if (folder / name).is_dir()]
    for each in below or [folder]:
        yield from (file for file in walk(each, *_ENDINGS) if file.name.startswith("rollout-"))


def _made(file: Path) -> tuple[str, str]:
    """Return the order in which threads were made: by their timed ids, as the times in names are local times."""
    id = id_of(file)
    return (id if is_timed_id(id) else "", file.name)


def id_of(file: Path) -> str:
    """Return the thread's id in the name of a rollout; the name without its ending if it has none."""
    name = plain_path(file).name.removesuffix(".jsonl")
    found = _ID.search(name)
    return name if found is None else found[0]


def _head_of(file: Path, size: int) -> bytes:
    """Return the begin of the first line of a file that may be compressed; nothing if it cannot be read."""
    try:
        with closing(opened(file)) as lines:
            return lines.readline(size)
    except (OSError, EOFError, zlib.error, Unreadable):
        return b""


def _is_rollout(file: Path) -> bool:
    """Return whether a file begins with the header of a thread."""
    header = object_in(parsed(_head_of(file, _MOST_HEADER_BYTES)))
    if header.get("type") == "session_meta":
        return type(header.get("payload")) is dict and "id" in header["payload"]
    return "type" not in header and {"id", "timestamp", "instructions"} <= header.keys()


def _decoder(source: Source) -> LineDecoder:
    return CodexDecoder(id_of(source.path))


FORMATS: list[Format] = [Format("codex", "Codex", roots, sources, lines=_decoder, version=2)]
