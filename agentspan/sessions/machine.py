"""The sessions that lie on this machine: which files, of which folder and time, and how many will be deleted soon.

Only the first bytes of files are read here. Nothing is decoded, and nothing is stored.
"""

import fnmatch
import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import NamedTuple

from agentspan.arriving import Session
from agentspan.ground import errors, jsontext, text
from agentspan.sessions.formats import About, Format, Source, walk
from agentspan.sessions.importing import Importer, Stamp, Wanted, stamps_of
from agentspan.sessions.reading import PACKED, first_bytes, folder_in
from agentspan.sessions.registry import LIKELY_BYTES, likely

ALL = "all"
"""The name that stands for all formats."""
HEAD_BYTES = (16_384, 262_144)
"""The first bytes of a file, in which its folder and its first time stand; more are read of one that begins oddly."""
DAY_S = 86_400
SOON_DAYS = 7
_ENDINGS = tuple(f".{name}{packed}" for name in ("jsonl", "json") for packed in ("", *PACKED))
"""The endings of files in a folder that are searched by their content."""
_TIME = re.compile(rb'"(\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d(?:\.\d{1,9})?(?:Z|[+-]\d\d:?\d\d))"')


class Head(NamedTuple):
    """Facts in the first bytes of a file: its folder, and its first time in nanoseconds; None for a missing one."""

    folder: str | None
    first_ns: int | None


class Listed(NamedTuple):
    """The sessions of one format in one folder.

    Attributes:
        format, title: the name of the format, and of the product.
        project: the folder that the sessions are about.
        sessions: how many there are.
        first_ns, last_ns: the times of the first and of the last record, in nanoseconds since the epoch.
        bytes: the size of their files.
        expiring: how many the product will delete within a week.
        imported: how many have been imported.
    """

    format: str
    title: str
    project: str
    sessions: int
    first_ns: int
    last_ns: int
    bytes: int
    expiring: int
    imported: int


class Choice(NamedTuple):
    """The choice of sessions. The defaults choose all.

    Attributes:
        since_ns: those that were changed since then; nanoseconds since the epoch.
        projects, excluded: patterns of folders, of which one must match, and none may.
    """

    since_ns: int = 0
    projects: tuple[str, ...] = ()
    excluded: tuple[str, ...] = ()

    @property
    def wanted(self) -> Wanted | None:
        """The choice among the sessions of a file that holds many."""
        return None if self == Choice() else Wanted(self._takes, jsontext.text_of(list(self)))

    def takes_project(self, *names: str | None) -> bool:
        """Return whether a folder is chosen.

        Args:
            names: its path, and the name that the product has for it, as far as known.
        """
        known = [*dict.fromkeys(each for name in names if name for each in (name, text.repository_of(name)))]
        if not known and (self.projects or self.excluded):
            return False
        if any(_matches(name, each) or _matches_mangled(name, each) for name in known for each in self.excluded):
            return False
        return not self.projects or any(_matches(name, pattern) for name in known for pattern in self.projects)

    def _takes(self, session: Session) -> bool:
        last_ns = session.ended_ns or session.started_ns
        return last_ns >= self.since_ns and self.takes_project(session.metadata.get("cwd"))


def _matches(project: str, pattern: str) -> bool:
    """Return whether a pattern names a folder, or a folder around it. A pattern without `/` is the name of a folder."""
    pattern = os.path.expanduser(pattern).rstrip("/") or "/"
    if "/" not in pattern:
        return any(fnmatch.fnmatchcase(part, pattern) for part in project.split("/"))
    return fnmatch.fnmatchcase(project, pattern) or fnmatch.fnmatchcase(project, f"{pattern.rstrip('/')}/*")


def _matches_mangled(name: str, pattern: str) -> bool:
    """Return whether a product's name of a folder, in which `-` stands for other characters, may be excluded."""
    if "/" in name:
        return False
    mangled = re.sub(r"[^A-Za-z0-9*?\[\]]", "-", os.path.expanduser(pattern).rstrip("/"))
    start = "" if "/" in pattern else "*-"
    return any(fnmatch.fnmatchcase(f"-{name}-", f"{start}{mangled}{end}") for end in ("-", "-*")) or (
        "/" in pattern and any(fnmatch.fnmatchcase(name, f"{mangled}{end}") for end in ("", "-*"))
    )


def head(source: Source) -> Head:
    """Return the facts in the first bytes of a source's main file."""
    for size in HEAD_BYTES:
        text = first_bytes(source.path, size) or b""
        folder, first = folder_in(text), _TIME.search(text)
        if first is not None and (folder is not None or source.project is not None):
            break
    return Head(folder, None if first is None else _ns_of(first[1].decode()))


def _ns_of(text: str) -> int | None:
    try:
        found = datetime.fromisoformat(text)
        return round(found.timestamp() * 1000) * 1_000_000
    except (ValueError, OverflowError):
        return None


class Place(NamedTuple):
    """A folder or file in which sessions lie, or may lie later. `format` is None if any format may lie there."""

    path: Path
    format: str | None


def places(names: Iterable[str], formats: Mapping[str, Format], environment: Mapping[str, str]) -> list[Place]:
    """Return the places that arguments name: a format, `all`, or a file or folder. No argument names all formats.

    Raises:
        InvalidValue: an argument is neither the name of a format nor a path that exists.
    """
    found: list[Place] = []
    for name in [*names] or [ALL]:
        if _is_path(name, formats):
            found.append(Place(Path(name), None))
            continue
        if name != ALL and name not in formats:
            raise errors.InvalidValue(
                "FORMAT", f"{name} is no file, and no format: {', '.join([*sorted(formats), ALL])}"
            )
        for each in formats if name == ALL else [name]:
            found += [Place(root, each) for root in formats[each].roots(environment)]
    return [*dict.fromkeys(found)]


def _is_path(name: str, formats: Mapping[str, Format]) -> bool:
    """Return whether a name is that of a file or folder. A folder that is named as a format must have sessions."""
    if os.path.isdir(name) and (name == ALL or name in formats):
        return bool(sources_at(Place(Path(name), None), formats))
    return os.path.exists(name)


def sources_at(place: Place, formats: Mapping[str, Format]) -> list[Source]:
    """Return the sources at a place. Of several formats that claim a file, the one that reads its content has it."""
    if not place.path.exists():
        return []
    if place.format is not None:
        return [*formats[place.format].sources(place.path)]
    if not place.path.is_dir():
        return _sources_of(place.path, formats)
    claimed: dict[Path, list[Source]] = {}
    for format in formats.values():
        for source in format.sources(place.path):
            claimed.setdefault(source.path, []).append(source)
    # Of some formats, a folder yields only files with the product's own names.
    known = {file for each in claimed.values() for source in each for file in source.files}
    for file in walk(place.path, *_ENDINGS):
        if file not in known:
            for source in _sources_of(file, formats):
                claimed.setdefault(source.path, []).append(source)
    return [each[0] if len(each) == 1 else _by_content(each, formats) for each in claimed.values()]


def _sources_of(file: Path, formats: Mapping[str, Format]) -> list[Source]:
    """Return the sources of a file, as the first format that claims it has them: those of which it probably is first.

    The others are asked, and imported, only if none of these claims it.
    """
    first = [name for name in likely(file, first_bytes(file, LIKELY_BYTES) or b"") if name in formats]
    found = ([*formats[name].sources(file)] for name in dict.fromkeys([*first, *formats]))
    return next(filter(None, found), [])


def _by_content(claims: Sequence[Source], formats: Mapping[str, Format]) -> Source:
    for source in claims:
        if any(formats[source.format].sources(source.path)):
            return source
    return claims[0]


def chosen_at(places: Iterable[Place], formats: Mapping[str, Format], choice: Choice) -> list[Source]:
    """Return the sources at places, each once, as far as they are chosen."""
    found = {source.path: source for place in places for source in sources_at(place, formats)}
    if choice == Choice():
        return [*found.values()]
    return [source for source in found.values() if is_chosen(source, formats[source.format], choice)]


def is_chosen(source: Source, format: Format, choice: Choice) -> bool:
    """Return whether a source is chosen. With patterns, one whose folder is not known is left out."""
    if choice.since_ns and _last_ns(stamps_of(source, format).values()) < choice.since_ns:
        return False
    if format.lines is None or not (choice.projects or choice.excluded):
        return True  # the sessions of a file that holds many are chosen when it is decoded
    return choice.takes_project(head(source).folder, source.project)


def _last_ns(stamps: Iterable[Stamp]) -> int:
    return max((stamp.changed_ns for stamp in stamps), default=0)


def listed(
    sources: Iterable[Source],
    formats: Mapping[str, Format],
    environment: Mapping[str, str],
    is_imported: Callable[[Source], bool],
    now_ns: int,
    choice: Choice,
) -> list[Listed]:
    """Return the sessions of sources, counted by format and folder, the one with the latest record first.

    Args:
        is_imported: returns whether a source was imported.
        now_ns: the current time in nanoseconds since the epoch.
        choice: of files that hold many sessions, only these are counted.
    """
    rows: dict[tuple[str, str], Listed] = {}
    folders: dict[tuple[str, str], str] = {}
    for source in sources:
        format = formats[source.format]
        stamps = stamps_of(source, format).values()
        if not stamps:
            continue
        found = head(source) if format.lines is not None else Head(None, None)
        project = source.project or found.folder or str(source.path.parent)
        if source.project is not None:
            project = folders.setdefault((source.format, source.project), found.folder or source.project)
        keeps_days = None if format.keeps_days is None else format.keeps_days(environment)
        size, imported = sum(stamp.size for stamp in stamps), is_imported(source)
        for number, each in enumerate(_abouts(source, format, found, _last_ns(stamps), choice)):
            row = Listed(
                format.name,
                format.title,
                text.repository_of(each.project or project),
                1,
                each.first_ns,
                each.last_ns,
                size if number == 0 else 0,  # the size of a file of many sessions counts once
                keeps_days is not None and each.last_ns < now_ns - (keeps_days - SOON_DAYS) * DAY_S * 10**9,
                imported,
            )
            key = row.format, row.project
            rows[key] = _sum(rows[key], row) if key in rows else row
    return sorted(rows.values(), key=lambda row: -row.last_ns)


def _abouts(source: Source, format: Format, found: Head, last_ns: int, choice: Choice) -> Iterator[About]:
    if format.about is None:
        yield About(None, min(found.first_ns or last_ns, last_ns), last_ns)
        return
    for each in format.about(source.path):
        if each.last_ns >= choice.since_ns and choice.takes_project(each.project):
            yield each


def _sum(one: Listed, other: Listed) -> Listed:
    return one._replace(
        first_ns=min(one.first_ns, other.first_ns),
        last_ns=max(one.last_ns, other.last_ns),
        **{name: getattr(one, name) + getattr(other, name) for name in ("sessions", "bytes", "expiring", "imported")},
    )


def in_order(sources: Iterable[Source], importer: Importer, formats: Mapping[str, Format]) -> list[Source]:
    """Return the sources that have something new, the newest first.

    Copies and forks of a session begin at the same time as the session. They come right after it, because steps that
    they share belong to the session that arrives first.
    """
    families: dict[object, list[tuple[int, Source]]] = {}
    for source in sources:
        if importer.is_new(source):
            first_ns = head(source).first_ns if formats[source.format].lines is not None else None
            key = source.path if first_ns is None else (source.format, first_ns)
            families.setdefault(key, []).append((_last_ns(stamps_of(source, formats[source.format]).values()), source))
    newest = sorted(families.values(), key=lambda family: -max(last_ns for last_ns, _ in family))
    return [source for family in newest for _, source in sorted(family, key=lambda each: (each[0], each[1].path))]
