"""Groups runs by a part of their fingerprint: those with its newest value, and those with the value before it.

The fingerprint of a run is `fingerprint` in its metadata: an object with an `id`, and `parts` such as `model` and
`instructions`, each a name or a hash. A run without the part is in neither group, because a missing part does not tell
of a change.

Two projects have different instructions, which is no change either. So only the runs of one folder are compared, of the
folder in which the part changed last, except for the parts in ANYWHERE. In the comparison of whole fingerprints, a part
that a run lacks counts as unchanged since the run before it.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from hashlib import sha256
from typing import Any, NamedTuple

from agentspan import jsontext
from agentspan.errors import InvalidValue
from agentspan.model.rows import AgentInstanceRow
from agentspan.text import noun, one_line

WHOLE = "fingerprint"
"""The name by which the id of the fingerprint is compared, which changes with any part."""
ALIASES: Mapping[str, str] = {
    "skill": "skills",
    "tool": "tools",
    "instruction": "instructions",
    "version": "cli_version",
}
ANYWHERE = frozenset({"model", "cli_version", "permission_mode"})
"""The parts that do not belong to a folder."""
LONGEST_VALUE = 30
"""The number of characters of a value in a sentence."""


class OtherPart(NamedTuple):
    """A part whose most frequent value differs between the two groups, too."""

    part: str
    before: str
    newest: str


class PartChange(NamedTuple):
    """The change of a part of the fingerprint, and the runs before and after it.

    Attributes:
        part: the name of the part.
        before, newest: its two values.
        base, head: the ids of the runs with each value.
        since: when the first run with the newest value started, as stored text.
        folder: the folder of the runs; None if runs of all folders are compared.
        others: the parts that changed at the same time.
        unknown: the number of runs of which the part is not known.
        elsewhere: the number of other folders in which the part changed.
    """

    part: str
    before: str
    newest: str
    base: frozenset[str]
    head: frozenset[str]
    since: str
    folder: str | None
    others: tuple[OtherPart, ...]
    unknown: int
    elsewhere: int = 0

    def names(self) -> tuple[str, str]:
        """Return the names of the two groups, such as `model=a`: of the base and of the head."""
        before, newest = (f"{self.part}={one_line(value, LONGEST_VALUE)}" for value in (self.before, self.newest))
        return before, newest


class _Run(NamedTuple):
    """A run with its fingerprint."""

    id: str
    began: str
    agent: str
    folder: str | None
    parts: Mapping[str, str]


def fingerprint_of(metadata: str | None) -> dict[str, str]:
    """Return the parts of the fingerprint in a run's metadata, and its id as WHOLE; empty without a fingerprint."""
    if metadata is None or WHOLE not in metadata:
        return {}
    found = jsontext.decode(metadata)
    fingerprint = found.get(WHOLE) if type(found) is dict else None
    if type(fingerprint) is not dict:
        return {}
    parts = fingerprint.get("parts")
    known = {name: _name(value) for name, value in parts.items()} if type(parts) is dict else {}
    whole = {WHOLE: fingerprint["id"]} if type(fingerprint.get("id")) is str else {}
    return known | whole


def _name(value: Any) -> str:
    return value if type(value) is str else jsontext.encode(value)[0]


def changed_part(runs: Iterable[AgentInstanceRow], part: str) -> PartChange:
    """Return the latest change of a part among runs.

    Args:
        part: `fingerprint`, or the name of a part; `skill` means `skills`.

    Raises:
        InvalidValue: no run has the part, or it has had one value only.
    """
    part = ALIASES.get(part, part)
    read = sorted(map(_read, runs), key=lambda run: (run.began, run.id))
    known = [run for run in read if part in run.parts]
    if not known:
        raise InvalidValue("by", _lacking(read, part))
    groups: dict[tuple[str, str | None], list[_Run]] = {}
    for run in known:
        groups.setdefault((run.agent, None if part in ANYWHERE else run.folder), []).append(run)
    if part == WHOLE:
        groups = {key: _filled(group) for key, group in groups.items()}
    changed = [group for group in groups.values() if len({run.parts[part] for run in group}) > 1]
    if not changed:
        values = {run.parts[part] for run in known}
        only = f"it is {one_line(next(iter(values)), LONGEST_VALUE)} in {noun(len(known), 'run')}"
        why = only if len(values) == 1 else f"it has one value in each of {noun(len(groups), 'folder')}"
        raise InvalidValue("by", f"{part} has not changed: {why}{_unknown_text(len(read) - len(known))}")
    latest = max(changed, key=lambda group: _since(group, part))
    found = _change(latest, part)
    return found._replace(unknown=len(read) - len(known), elsewhere=len(changed) - 1)


def _filled(group: Sequence[_Run]) -> list[_Run]:
    """Return runs with the parts that they lack: as in the run before, else in the next run that has them."""
    first: dict[str, str] = {}
    for run in reversed(group):
        first |= run.parts
    found, parts = [], first
    for run in group:
        parts = {**parts, **run.parts}
        parts[WHOLE] = id_of({name: value for name, value in parts.items() if name != WHOLE})
        found.append(run._replace(parts=dict(parts)))
    return found


def id_of(parts: Mapping[str, str]) -> str:
    """Return the id of a fingerprint with these parts: 12 hexadecimal digits."""
    return sha256(repr(dict(sorted(parts.items()))).encode()).hexdigest()[:12]


def _read(row: AgentInstanceRow) -> _Run:
    metadata = jsontext.value_of(row.metadata)
    folder = metadata.get("cwd") if type(metadata) is dict else None
    began = row.started_at or row.inserted_at
    return _Run(row.id, began, row.agent_id, folder if type(folder) is str else None, fingerprint_of(row.metadata))


def _lacking(runs: Sequence[_Run], part: str) -> str:
    names = sorted({name for run in runs for name in run.parts})
    if not names:
        return f"none of {noun(len(runs), 'run')} has a fingerprint; only runs of sessions have one"
    return f"no run's fingerprint has {part[:40]!r}; there are {', '.join(names)}"


def _since(group: Sequence[_Run], part: str) -> str:
    """Return the start of the first run with the value that the latest run of a group has."""
    newest = group[-1].parts[part]
    return next(run.began for run in group if run.parts[part] == newest)


def _change(group: Sequence[_Run], part: str) -> PartChange:
    newest = group[-1].parts[part]
    before = next(run.parts[part] for run in reversed(group) if run.parts[part] != newest)
    base = [run for run in group if run.parts[part] == before]
    head = [run for run in group if run.parts[part] == newest]
    return PartChange(
        part,
        before,
        newest,
        frozenset(run.id for run in base),
        frozenset(run.id for run in head),
        _since(group, part),
        None if part in ANYWHERE else group[-1].folder,
        tuple(_others(base, head, part)),
        0,
    )


def _others(base: Sequence[_Run], head: Sequence[_Run], part: str) -> list[OtherPart]:
    """Return the parts that differ, too. Parts of a folder are compared within a folder that both groups have."""
    names = sorted({name for run in head for name in run.parts} - {part, WHOLE})
    folders = [*dict.fromkeys(run.folder for run in reversed(head))]
    found = []
    for name in names:
        for folder in [None] if name in ANYWHERE else folders:
            own = [[run for run in group if folder is None or run.folder == folder] for group in (base, head)]
            before, newest = (_most_frequent(group, name) for group in own)
            if before is not None and newest is not None and before != newest:
                found.append(OtherPart(name, before, newest))
                break
    return found


def _most_frequent(runs: Sequence[_Run], part: str) -> str | None:
    values = Counter(value for run in runs if (value := run.parts.get(part)) is not None)
    return values.most_common(1)[0][0] if values else None


def sentences(found: PartChange, local: Callable[[str], str] = str) -> list[str]:
    """Return sentences about a change: the two values and their runs, what else changed, and what is not known.

    Args:
        local: returns a stored time as text.
    """
    before, newest = found.names()
    where = "" if found.folder is None else f" in {found.folder}"
    lines = [
        f"{newest} ({noun(len(found.head), 'run')} since {local(found.since)}) against "
        f"{before} ({noun(len(found.base), 'run')}){where}"
    ]
    if found.others:
        cut = (f"{name} ({one_line(a, LONGEST_VALUE)} → {one_line(b, LONGEST_VALUE)})" for name, a, b in found.others)
        what = "what changed" if found.part == WHOLE else "changed at the same time, so each may be the cause"
        lines.append(f"{what}: {', '.join(cut)}")
    elif found.part != WHOLE:
        lines.append("no other part that is known changed at the same time")
    more = []
    if found.unknown:
        more.append(f"{found.part} is unknown in {noun(found.unknown, 'run')}, which count for neither")
    if found.elsewhere:
        more.append(f"it changed in {noun(found.elsewhere, 'other folder')}, too: --project names one")
    return [*lines, *more]


def _unknown_text(number: int) -> str:
    return f", and unknown in {number:,}" if number else ""


def plain_change(found: PartChange) -> dict[str, Any]:
    """Return a change as a JSON object, without the ids of the runs."""
    return {
        **found._asdict(),
        "base": len(found.base),
        "head": len(found.head),
        "others": [each._asdict() for each in found.others],
    }
