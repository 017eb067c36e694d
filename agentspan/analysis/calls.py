"""Calls of tools as people read them: one line for each, an edit as a diff, a to-do list as a list.

The arguments are those of the tools of coding agents. A call whose arguments have another form is one line, too.
"""

import re
from collections.abc import Iterable, Iterator
from difflib import SequenceMatcher
from itertools import islice
from typing import Any, NamedTuple

from agentspan import jsontext
from agentspan.model.rows import AgentSpanRow
from agentspan.schemas.builtin import built_in_part
from agentspan.schemas.file_paths import CHANGES, TOOLS, path_in
from agentspan.schemas.templates import arguments_text, inline
from agentspan.storage.row_by_row import has_failed
from agentspan.text import cut, dotted, one_line

MAX_LINE = 160
"""The largest number of characters of the line of a call."""
MAX_TEXT = 2_000
"""The same for a line of an edit or a list."""
MOST_LINES = 400
"""The most lines of an edit or a list that are returned; `Shown.more` counts the others."""
MOST_COMPARED = 1_000
"""The most lines of a text that are compared with those of another: it takes their product of steps."""
_SUBJECTS = (
    "command", "cmd", "pattern", "query", "url", "subject", "description", "skill", "objective", "message", "prompt"
)  # fmt: skip
"""The arguments that say best what a call is about, the best first."""
_REPLACED = (("old_string", "new_string"), ("oldString", "newString"), ("old_str", "new_str"))
_WRITTEN = ("content", "file_text")
_MARKS = {"completed": "✓", "in_progress": "▸", "cancelled": "✗"}
_PATCH = "*** Begin Patch"
_HEADING = re.compile(r"\*\*\* (?:(Add|Update|Delete) File|Move to): (.+?)\s*$")


class Edited(NamedTuple):
    """A file that a call edits, and the numbers of lines that it adds and removes."""

    path: str
    added: int
    removed: int

    def __str__(self) -> str:
        """Return `main.go +25 −4`."""
        return _changed_text(self)


class Shown(NamedTuple):
    """A call of a tool.

    Attributes:
        line: the name of the tool, and what it was asked for: `Bash git diff --stat`, `Edit main.go +25 −4`.
        lines: of an edit the lines of a diff, each with its sign: `+`, `-`, a space, `@` for a heading; of a to-do list
            its entries, with `✓`, `▸` (under way), `✗` or `○`.
        more: the number of lines that are left out.
        edited: the files that it edits.
    """

    line: str
    lines: list[tuple[str, str]]
    more: int
    edited: list[Edited]


def _changed_text(file: "Edited | File") -> str:
    changed = (f"{mark}{number:,}" for mark, number in (("+", file.added), ("−", file.removed)) if number)
    return " ".join([name_of(file.path), *changed])


def name_of(path: str) -> str:
    """Return the last part of a path."""
    return re.split(r"[/\\]", path.rstrip("/\\"))[-1] or path


def shown_call(name: str, arguments: Any) -> Shown:
    """Return a call of a tool as people read it.

    Args:
        arguments: the decoded arguments, or JSON text.
    """
    is_json = type(arguments) is str and arguments[:1] in ("{", "[")
    value = jsontext.decoded(arguments, arguments) if is_json else arguments
    found = _todos(value)
    subject, edited = "", list[Edited]()
    if found:
        subject = f"{sum(mark == '✓' for mark, _ in found)} of {len(found)} done"
    else:
        for path, lines in _edits(value):
            edited.append(Edited(path, *(sum(mark == each for mark, _ in lines) for each in "+-")))
            found += [("@", path), *lines]
        subject = dotted(*(str(each) for each in edited[:3]), f"{len(edited) - 3} more" if len(edited) > 3 else "")
    line = one_line(f"{name} {subject or _subject(value)}", MAX_LINE)
    lines = [(mark, cut(text, MAX_TEXT)) for mark, text in found[:MOST_LINES]]
    return Shown(line, lines, len(found) - len(lines), edited)


class File(NamedTuple):
    """A file that calls of tools edited: the lines that were added and removed, and the step of the first edit."""

    path: str
    added: int
    removed: int
    edits: int
    span_id: str

    def __str__(self) -> str:
        """Return `main.go +25 −4`."""
        return _changed_text(self)


def files_of(spans: Iterable[AgentSpanRow]) -> list[File]:
    """Return the files that the calls of tools in a run edited, in the order of their first edits.

    Calls that failed, or that a person refused, do not count.
    """
    found: dict[str, File] = {}
    for span in spans:
        if built_in_part(span.schema_name) not in TOOLS or has_failed(span) or span.status == "cancelled":
            continue
        payload = jsontext.decode(span.payload)
        for path, added, removed in shown_call("", payload.get("arguments")).edited if type(payload) is dict else ():
            known = found.get(path) or File(path, 0, 0, 0, span.id)
            found[path] = File(path, known.added + added, known.removed + removed, known.edits + 1, known.span_id)
    return list(found.values())


def _subject(value: Any) -> str:
    if type(value) is not dict:
        return inline(value, MAX_LINE) if value else ""
    for name in _SUBJECTS:
        text = value.get(name)
        text = text[-1] if type(text) is list and text else text  # ["bash", "-lc", command]
        if type(text) is str and text.strip():
            path = path_in(value)
            return f"{text} in {name_of(path)}" if name in ("pattern", "query") and path else text
    return name_of(path) if (path := path_in(value)) else str(arguments_text(value))


def _todos(value: Any) -> list[tuple[str, str]]:
    """Return the entries of a to-do list; none for other arguments."""
    entries = next((value[name] for name in ("todos", "plan") if name in value), None) if type(value) is dict else None
    if type(entries) is not list or not all(type(each) is dict and "status" in each for each in entries):
        return []
    words = ("content", "step", "description", "title")
    texts = (next((each[name] for name in words if type(each.get(name)) is str), "") for each in entries)
    marks = (_MARKS.get(each["status"], "○") if type(each["status"]) is str else "○" for each in entries)
    return list(zip(marks, texts, strict=True))


def _edits(value: Any) -> Iterator[tuple[str, list[tuple[str, str]]]]:
    """Yield the files that a call edits, each with the lines of its diff."""
    if type(value) is dict and type(patch := value.get("command", value.get("input"))) in (str, list):
        patch = patch[-1] if type(patch) is list and patch else patch
        value = patch if type(patch) is str and _PATCH in patch else value
    if type(value) is str and _PATCH in value:
        yield from _patched(value)
    if type(value) is not dict:
        return
    if type(changes := value.get(CHANGES)) is dict:
        for path, change in changes.items():
            yield path, list(_changed(change))
    elif path := path_in(value):
        edits = value["edits"] if type(value.get("edits")) is list else [value]
        pairs = [pair for each in edits if type(each) is dict and (pair := _pair(each))]
        if pairs:
            yield path, [line for before, after in pairs for line in compared(before, after)]


def _pair(edit: dict[str, Any]) -> tuple[str, str] | None:
    """Return the text that an edit replaces, and the new one; None for other arguments."""
    for old, new in _REPLACED:
        before, after = edit.get(old, ""), edit.get(new)
        if type(before) is str and type(after) is str:
            return before, after
    written = next((edit[name] for name in _WRITTEN if type(edit.get(name)) is str), None)
    return None if written is None else ("", written)


def compared(before: str, after: str) -> Iterator[tuple[str, str]]:
    """Yield the lines of two texts as a diff."""
    old, new = before.splitlines(), after.splitlines()
    if max(len(old), len(new)) > MOST_COMPARED or not old:
        yield from (("-", line) for line in old)
        yield from (("+", line) for line in new)
        return
    for kind, a, b, c, d in SequenceMatcher(None, old, new, autojunk=False).get_opcodes():
        if kind == "equal":
            yield from ((" ", line) for line in old[a:b])
        else:
            yield from (("-", line) for line in old[a:b])
            yield from (("+", line) for line in new[c:d])


def _patched(patch: str) -> Iterator[tuple[str, list[tuple[str, str]]]]:
    """Yield the files of a patch as Codex writes it."""
    path, lines = "", list[tuple[str, str]]()
    for line in patch[patch.index(_PATCH) :].splitlines()[1:]:
        if line.startswith("*** End Patch"):
            break
        if heading := _HEADING.match(line):
            if path and heading[1]:
                yield path, lines
                lines = []
            path = heading[2]
        elif path and not line.startswith("***"):
            lines += _diff([line], has_head=False)
    if path:
        yield path, lines


def _changed(change: Any) -> Iterator[tuple[str, str]]:
    if type(change) is dict and type(diff := change.get("unified_diff")) is str:
        yield from _diff(islice(diff.splitlines(), MOST_LINES * 10))
    elif type(change) is dict and (pair := _pair(change)):
        yield from compared(*pair)


def _diff(lines: Iterable[str], *, has_head: bool = True) -> Iterator[tuple[str, str]]:
    """Yield the lines of a unified diff with their signs; its head ends before the first `@@`."""
    for line in lines:
        if line.startswith("@@"):
            has_head = False
            if line.strip("@ "):
                yield "@", line.strip("@ ")
        elif not line.startswith(("--- ", "+++ ", "\\") if has_head else "\\"):
            yield (line[0], line[1:]) if line[:1] in ("+", "-", " ") and line else (" ", line)
