"""Sets and removes one entry in the text of a settings file: JSON with comments (JSONC), or TOML. Pure: no I/O.

The rest of the text stays as it is, to the byte: comments, order, indentation, line ends, trailing commas. Each result
is parsed, and must have the same values as before except for the entry; else it is refused. A library that keeps
comments would be a dependency for two functions, and none for JSONC keeps the layout of what it does not change.
"""

import json
import re
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from typing import Any, NamedTuple


class NotEditable(Exception):
    """The text cannot be edited: it is invalid, or its form would need another entry to change."""


def set_json(text: str, path: Sequence[str], value: Mapping[str, Any]) -> str:
    """Return a JSONC text with an object at a path. Missing objects on the way to it are added at the end of theirs.

    Raises:
        NotEditable: the text is no JSONC object, or something on the path is no object.
    """
    root = _root(text)
    if root is None:
        newline = "\r\n" if "\r\n" in text else "\n"
        gap = newline if text.strip() and not text.endswith("\n") else ""  # a comment would go on otherwise
        return text + gap + _dumped(_nested(path, value), "", "  ", newline) + newline
    at, depth = root, 0
    while depth < len(path) - 1 and (found := at.member(path[depth])) is not None:
        at = _object(found, path[depth])
        depth += 1
    found = at.member(path[-1]) if depth == len(path) - 1 else None
    unit, newline = _unit(text), "\r\n" if "\r\n" in text else "\n"
    if found is not None and _plain(found.value) == value:
        return text
    if found is not None:
        begin, end = found.begin, found.end
        new = (
            _dumped(value, _indent_at(text, found.key), unit, newline)
            if "\n" in text[at.begin : at.end]
            else json.dumps(value)
        )
    else:
        begin, end, new = _added(text, at, path[depth:], value, unit, newline)
    return _checked_json(text, text[:begin] + new + text[end:], path, dict(value))


def remove_json(text: str, path: Sequence[str]) -> str:
    """Return a JSONC text without the member at a path, and without the objects on the path that are empty then.

    Raises:
        NotEditable: as of `set_json`.
    """
    root = _root(text)
    ways: list[tuple[_Object, _Member]] = []
    at = root
    for key in path:
        member = None if at is None else at.member(key)
        if at is None or member is None:
            return text
        ways.append((at, member))
        at = member.value if isinstance(member.value, _Object) else None
    owner, member = ways.pop()
    while ways and len(owner.members) == 1 and not _has_comment(text, owner, member):
        owner, member = ways.pop()
    begin, end, kept = _extent(text, owner, member)
    return _checked_json(text, text[:begin] + kept + text[end:], path, None)


def json_value(text: str) -> Any:
    """Return the value of a JSONC text; {} of an empty one.

    Raises:
        NotEditable: it is no JSONC object.
    """
    root = _root(text)
    return {} if root is None else root.plain()


class _Member(NamedTuple):
    """A member of an object: where its key and value begin and end, and the value."""

    name: str
    key: int
    begin: int
    end: int
    value: Any


class _Object(NamedTuple):
    """An object: where it begins and ends, its members, and where the comma after the last one ends, if it has one."""

    begin: int
    end: int
    members: list[_Member]
    comma: int | None

    def member(self, name: str) -> _Member | None:
        """Return the member that counts: the last one of the name."""
        return next((each for each in reversed(self.members) if each.name == name), None)

    def plain(self) -> dict[str, Any]:
        """Return the object as Python has it."""
        return {each.name: _plain(each.value) for each in self.members}


def _plain(value: Any) -> Any:
    if isinstance(value, _Object):
        return value.plain()
    return [_plain(each) for each in value] if isinstance(value, list) else value


_SPACE = re.compile(r"(?:[ \t\r\n\ufeff]+|//[^\n]*|/\*.*?\*/)*", re.DOTALL)
_STRING = re.compile(r'"(?:[^"\\\x00-\x1f]|\\.)*"')
_SCALAR = re.compile(r"-?\d[\d.eE+-]*|true|false|null")
_DEEPEST = 200


class _Reader:
    """Parses JSONC, and keeps where each member stands."""

    def __init__(self, text: str) -> None:
        self._text = text

    def root(self) -> _Object | None:
        at = self._space(0)
        if at == len(self._text):
            return None
        value, end = self._value(at, 0)
        if self._space(end) != len(self._text):
            raise self._wrong(end)
        if not isinstance(value, _Object):
            raise NotEditable("is no JSON object")
        return value

    def _wrong(self, at: int) -> NotEditable:
        return NotEditable(f"is no valid JSON (line {self._text.count(chr(10), 0, at) + 1})")

    def _space(self, at: int) -> int:
        found = _SPACE.match(self._text, at)
        return at if found is None else found.end()

    def _value(self, at: int, depth: int) -> tuple[Any, int]:
        begins = self._text[at : at + 1]
        if depth > _DEEPEST:
            raise self._wrong(at)
        if begins == "{":
            return self._object(at, depth)
        if begins == "[":
            return self._list(at, depth)
        found = _STRING.match(self._text, at) if begins == '"' else _SCALAR.match(self._text, at)
        if found is None:
            raise self._wrong(at)
        try:
            return json.loads(found[0]), found.end()
        except ValueError:
            raise self._wrong(at) from None

    def _object(self, begin: int, depth: int) -> tuple[_Object, int]:
        members: list[_Member] = []
        at, comma = self._space(begin + 1), None
        while self._text[at : at + 1] != "}":
            if members and comma is None:
                raise self._wrong(at)
            found = _STRING.match(self._text, at)
            colon = at if found is None else self._space(found.end())
            if found is None or self._text[colon : colon + 1] != ":":
                raise self._wrong(at)
            name, first = self._value(at, depth)[0], self._space(colon + 1)
            value, end = self._value(first, depth + 1)
            members.append(_Member(name, at, first, end, value))
            at, comma = self._space(end), None
            if self._text[at : at + 1] == ",":
                comma = at + 1
                at = self._space(comma)
        return _Object(begin, at + 1, members, comma), at + 1

    def _list(self, begin: int, depth: int) -> tuple[list[Any], int]:
        values: list[Any] = []
        at, comma = self._space(begin + 1), True
        while self._text[at : at + 1] != "]":
            if not comma:
                raise self._wrong(at)
            value, end = self._value(at, depth + 1)
            values.append(value)
            at = self._space(end)
            comma = self._text[at : at + 1] == ","
            at = self._space(at + 1) if comma else at
        return values, at + 1


def _root(text: str) -> _Object | None:
    return _Reader(text).root()


def _object(member: _Member, name: str) -> _Object:
    if not isinstance(member.value, _Object):
        raise NotEditable(f"has a {name} that is no object")
    return member.value


def _unit(text: str) -> str:
    """Return one step of indentation, as the text has it."""
    found = re.search(r"\n([ \t]+)\S", text)
    return "  " if found is None else "\t" if found[1].startswith("\t") else found[1]


def _indent_at(text: str, at: int) -> str:
    line = text.rfind("\n", 0, at) + 1
    return text[line : line + len(text[line:at]) - len(text[line:at].lstrip(" \t"))]


def _dumped(value: Mapping[str, Any], indent: str, unit: str, newline: str) -> str:
    lines = json.dumps(value, indent=unit, ensure_ascii=False).split("\n")
    return f"{newline}{indent}".join(lines)


def _nested(path: Sequence[str], value: Mapping[str, Any]) -> Mapping[str, Any]:
    for key in reversed(path):
        value = {key: value}
    return value


def _member(path: Sequence[str], value: Mapping[str, Any], indent: str, unit: str, newline: str) -> str:
    """Return a member `"key": value` as text."""
    return f"{json.dumps(path[0], ensure_ascii=False)}: {_dumped(_nested(path[1:], value), indent, unit, newline)}"


def _added(
    text: str, at: _Object, path: Sequence[str], value: Mapping[str, Any], unit: str, newline: str
) -> tuple[int, int, str]:
    """Return the range of the text that a new member of an object replaces, and the new text: (start, end, text)."""
    outer = _indent_at(text, at.begin)
    if not at.members:
        inside = text[at.begin + 1 : at.end - 1]
        indent = outer + unit
        new = f"{newline}{indent}{_member(path, value, indent, unit, newline)}"
        if inside.strip():  # comments alone: they stay, before the member
            stays = at.begin + 1 + len(inside.rstrip())
            return stays, at.end - 1, f"{new}{newline}{outer}"
        return at.begin + 1, at.end - 1, f"{new}{newline}{outer}"
    last = at.members[-1]
    if "\n" not in text[at.begin : at.end]:
        new = f"{json.dumps(path[0])}: {json.dumps(_nested(path[1:], value))}"
        return (last.end, last.end, f", {new}") if at.comma is None else (at.comma, at.comma, f" {new},")
    indent = _indent_at(text, last.key)
    new = f"{newline}{indent}{_member(path, value, indent, unit, newline)}"
    if at.comma is not None:
        return at.comma, at.comma, f"{new},"
    # A comment may follow the last value on its line; the comma goes before it, the member after the line.
    line_end = text.find("\n", last.end)
    comment = re.compile(r"[ \t]*(?://[^\n]*|/\*(?:(?!\*/)[^\n])*\*/)?[ \t]*\r?(?=\n)").match(text, last.end)
    if comment is None or line_end == -1 or not comment[0].strip():
        return last.end, last.end, f",{new}"
    kept = comment[0].removesuffix("\r")
    return last.end, last.end + len(kept), f",{kept}{new}"


def _has_comment(text: str, owner: _Object, member: _Member) -> bool:
    around = text[owner.begin + 1 : member.key] + text[member.end : owner.end - 1]
    return bool(around.replace(",", "").strip())


def _extent(text: str, owner: _Object, member: _Member) -> tuple[int, int, str]:
    """Return the range of the text to remove for a member, with a comma, and the comment in that range that stays."""
    number = owner.members.index(member)
    following = _SPACE.match(text, member.end)
    assert following is not None
    comma = following.end() + 1 if text[following.end() : following.end() + 1] == "," else None
    line = text.rfind("\n", 0, member.key) + 1
    is_own_line = not text[line : member.key].strip()
    if number + 1 < len(owner.members):
        assert comma is not None
        rest = re.compile(r"[ \t]*(\r?\n)?").match(text, comma)
        assert rest is not None
        if is_own_line and rest[1]:
            return line, rest.end(), ""
        return member.key, comma + len(rest[0]), ""
    end = member.end if comma is None else comma
    if number:  # the last of several: the comma before it goes, unless the text has a trailing comma
        before = owner.members[number - 1]
        between = text[before.end : member.key]
        at = before.end + _comma_in(between)
        note = text[at + 1 : member.key].rstrip(" \t\r\n") if is_own_line else ""
        return (at + 1 + len(note), end, "") if comma is not None else (at, end, note)
    if not text[owner.begin + 1 : member.key].strip() and not text[end : owner.end - 1].strip():
        return owner.begin + 1, owner.end - 1, ""  # it is empty then: {}
    begin = member.key - (len(text[line : member.key]) if is_own_line else 0)
    rest = re.compile(r"[ \t]*(\r?\n)?").match(text, end)
    return begin, end if rest is None or not is_own_line else rest.end(), ""


def _comma_in(between: str) -> int:
    """Return where the comma is in the text between two members, which may have comments with commas."""
    at = 0
    while True:
        found = _SPACE.match(between, at)
        at = at if found is None else found.end()
        if between[at] == ",":
            return at
        at += 1


def _checked_json(old: str, new: str, path: Sequence[str], value: Any) -> str:
    """Return the new text, if its values are those of the old one with the entry set, or removed."""
    return _checked(json_value(old), json_value(new), path, value, new)


def _checked(before: Any, after: Any, path: Sequence[str], value: Any, new: str) -> str:
    if _without(before, path) != _without(after, path) or _at(after, path) != value:
        raise NotEditable("has a form in which the entry cannot be changed safely; change it by hand")
    return new


def _at(values: Any, path: Sequence[str]) -> Any:
    for key in path:
        if not isinstance(values, dict) or key not in values:
            return None
        values = values[key]
    return values


def _without(values: Any, path: Sequence[str]) -> Any:
    """Return values without the member at a path, and without the objects on the path that are empty then."""
    if not isinstance(values, dict) or path[0] not in values:
        return values
    rest = {key: each for key, each in values.items() if key != path[0]}
    if len(path) == 1:
        return rest
    inner = _without(values[path[0]], path[1:])
    return rest if inner == {} else {**rest, path[0]: inner}


def set_toml(text: str, path: Sequence[str], value: Mapping[str, Any]) -> str:
    """Return a TOML text with a table at a path, at the end of the text if it is new.

    Raises:
        NotEditable: the text is no TOML, or the table cannot be set without a change of another one.
    """
    newline = "\r\n" if "\r\n" in text else "\n"
    lines = [f"[{'.'.join(path)}]", *(f"{key} = {_toml(each)}" for key, each in value.items())]
    block = "".join(line + newline for line in lines)
    found = _tables(text, path)
    if found:
        kept = text[found[-1][1] :]
        rest = "".join(text[end:begin] for (_, end), (begin, _) in pairwise(found))
        new = text[: found[0][0]] + block + (newline if (rest + kept).strip() else "") + rest + kept
    else:
        gap = "" if not text.strip() else newline if text.endswith("\n") else 2 * newline
        new = text + gap + block
    return _checked_toml(text, new, path, dict(value))


def remove_toml(text: str, path: Sequence[str]) -> str:
    """Return a TOML text without the table at a path, and without the tables below it.

    Raises:
        NotEditable: the text is no TOML, or has the table in another form than `[a.b]`.
    """
    new = text
    for begin, end in reversed(_tables(text, path)):
        before = new[:begin]
        if not new[end:].strip():  # it is the last one: the empty line before it goes, too
            before = before.rstrip("\r\n") + ("\r\n" if before.rstrip("\n").endswith("\r") else "\n") if before else ""
        new = before + new[end:]
    return _checked_toml(text, new, path, None)


def toml_value(text: str) -> dict[str, Any]:
    """Return the values of a TOML text.

    Raises:
        NotEditable: it is no TOML.
    """
    try:
        return tomllib.loads(text.removeprefix("\ufeff"))
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        raise NotEditable(f"is no valid TOML ({error})") from None


_TOKEN = re.compile(
    r'"""(?:[^\\]|\\.)*?"{3,5}|' r"'''.*?'{3,5}|" r'"(?:[^"\\\n]|\\.)*"|' r"'[^'\n]*'|" r"\#[^\n]*|[\[\]{}\n]",
    re.DOTALL,
)
_HEADER = re.compile(r"[ \t]*\[\[?[ \t]*([^\]\n]*?)[ \t]*\]\]?[ \t]*(?:\#[^\n]*)?(?=\r?\n|\Z)")
_KEY = re.compile(r"\"((?:[^\"\\]|\\.)*)\"|'([^']*)'|([A-Za-z0-9_-]+)")


def _headers(text: str) -> Iterator[tuple[int, tuple[str, ...]]]:
    """Yield where each table's header begins, and its keys. Strings and lists of several lines have none."""
    at, depth = 0, 0
    while at <= len(text):
        if depth == 0 and (found := _HEADER.match(text, at)) is not None:
            keys = [
                tomllib.loads(f'key = "{basic}"')["key"] if basic else literal or bare
                for basic, literal, bare in _KEY.findall(found[1])
            ]
            yield at, tuple(keys)
            at = found.end()
        while True:  # to the end of the line, or of the value that goes on over several lines
            token = _TOKEN.search(text, at)
            if token is None:
                return
            at = token.end()
            depth += {"[": 1, "{": 1, "]": -1, "}": -1}.get(token[0], 0)
            if token[0] == "\n" and depth == 0:
                break


def _tables(text: str, path: Sequence[str]) -> list[tuple[int, int]]:
    """Return the ranges of the text with the table at a path and those below it, without comments on the next table."""
    toml_value(text)
    heads = [*_headers(text)]
    ends = [*(begin for begin, _ in heads[1:]), len(text)]
    found = []
    for (begin, keys), end in zip(heads, ends, strict=False):
        if keys[: len(path)] != tuple(path):
            continue
        lines = text[begin:end].splitlines(keepends=True)
        while end < len(text) and len(lines) > 1 and (not lines[-1].strip() or lines[-1].lstrip().startswith("#")):
            end -= len(lines.pop())
        # The empty lines between this table and the comment of the next one go with this table.
        while end < len(text) and text[end : end + 1] in "\r\n":
            end += 1
        found.append((begin, end))
    return found


def _toml(value: Any) -> str:
    if isinstance(value, list):
        return f"[{', '.join(map(_toml, value))}]"
    if isinstance(value, dict):
        return f"{{{', '.join(f'{json.dumps(key)} = {_toml(each)}' for key, each in value.items())}}}"
    if not isinstance(value, (str, int, float)):
        raise NotEditable("has an entry with a date; change it by hand")
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")  # a basic string, a number, true or false


def _checked_toml(old: str, new: str, path: Sequence[str], value: Any) -> str:
    before = toml_value(old)
    try:
        after = toml_value(new)
    except NotEditable:  # another form declares the table already, such as `mcp_servers = {…}`
        after = {}
    return _checked(before, after, path, value, new)
