"""The paths of files that the arguments of a tool name, and how a path that a person types is compared with them."""

import re
from collections.abc import Iterator
from typing import Any

from agentspan import jsontext
from agentspan.schemas.builtin import built_in_part

PATHS = ("file_path", "path", "notebook_path", "filePath", "absolute_path", "filename", "target_file")
"""The arguments of tools that name a file."""
CHANGES = "changes"
"""The argument whose members are named by the files that change."""
TOOLS = frozenset({"tool", "mcp"})
"""The built-in span types whose payloads have arguments."""
_PATCHED = re.compile(r"^\*\*\* (?:(?:Add|Update|Delete) File|Move to): (.+?)\s*$", re.MULTILINE)
_DEPTH = 4


def path_in(arguments: Any) -> str | None:
    """Return the first path that arguments name directly; None without one."""
    if type(arguments) is not dict:
        return None
    return next((path for name in PATHS if type(path := arguments.get(name)) is str and path), None)


def paths_of(schema_name: str, payload: str) -> Iterator[str]:
    """Yield the paths that a call of a tool names: in its arguments, and in the headers of a patch.

    Args:
        schema_name: the name of the span's type; a span of another type names none.
        payload: the span's payload, as JSON text.
    """
    if built_in_part(schema_name) not in TOOLS:
        return
    found = jsontext.decode(payload)
    if type(found) is dict:
        yield from _paths(found.get("arguments"), _DEPTH)


def _paths(value: Any, depth: int) -> Iterator[str]:
    if type(value) is str:
        if "*** " in value:
            yield from _PATCHED.findall(value)
    elif type(value) is list and depth:
        for each in value:
            yield from _paths(each, depth - 1)
    elif type(value) is dict and depth:
        for name, each in value.items():
            if name in PATHS and type(each) is str:
                yield each
            elif name == CHANGES and type(each) is dict:
                yield from each
            else:
                yield from _paths(each, depth - 1)


def normal(path: str) -> str:
    """Return a path with `/` between its parts, without `./` before it and `/` behind it."""
    path = path.replace("\\", "/")
    while path.startswith("./"):
        path = path[2:]
    return path.rstrip("/") or "/"


def is_path(named: str, asked: str) -> bool:
    """Return whether a tool named the asked path: the same one, or one of both is the end of the other, whole parts.

    Args:
        named: the path that the tool named, in its normal form.
        asked: the path that a person typed, in its normal form.
    """
    if named == asked:
        return True
    if named.endswith(f"/{asked}"):
        return True
    return not named.startswith("/") and asked.endswith(f"/{named}")


def touches(schema_name: str, payload: str, asked: str) -> bool:
    """Return whether a span is a call of a tool that names the asked path.

    Args:
        asked: in its normal form.
    """
    return any(is_path(normal(path), asked) for path in paths_of(schema_name, payload))


def needle(asked: str) -> str:
    """Return a text that the JSON of each payload has that names the asked path: its last part, as JSON writes it."""
    return jsontext.encode(normal(asked).rsplit("/", 1)[-1])[0][1:-1]
