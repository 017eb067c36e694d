"""Measures how much there is to read, in all and in each room: `python -m tasks measures` prints it."""

import ast
import re
import statistics
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import NamedTuple

import agentspan
from tests.checkout import ROOT

PACKAGE = Path(agentspan.__file__).parent
LONG_FILE = 700
_COUNTED = {
    "idempotency_key": r"\bidempotency_key\b",
    '"""See …': r'"""See [A-Z]',
    "Protocols": r"^class .*Protocol",
    "let_through": r"let_through",
    "guard": r"\bguard\(",
    "except Exception": r"except (?:Base)?Exception",
}
"""Patterns, and the lines that have them, each of which is one thing that is said again."""
IMPORT = "import agentspan"
CALL = """
import agentspan, os, sys
agentspan.configure(sys.argv[1])
call = agentspan.span(lambda: 1)
call()
agentspan.flush()
"""
WAY = """
import sys
from tests.project import ways
print(*ways.{}(sys.argv[1]))
"""
WAYS = {
    "files of an import": "import_of_a_session",
    "files of a finish over HTTP": "finish_over_http",
    "files of show": "show_of_a_run",
}
"""Ways through the house, of which the files that they enter are counted, with the functions of `ways` that go them."""
GROUND_FLOOR = ("leaves", "model", "schemas", "storage", "journal", "recording", "api")
"""The rooms that record, keep and read."""
_OWN = "; import sys; print(*[name for name in sys.modules if name.partition('.')[0] == 'agentspan'])"


class Room(NamedTuple):
    """How much there is to read in one room of the package.

    Attributes:
        lines: net lines: without blank lines, comments, docstrings and imports.
        files: modules.
    """

    lines: int
    files: int


def room_of(path: Path) -> str:
    """Return the room of a module: its folder below the package; `postgres` and `leaves` are rooms of their own."""
    parts = path.relative_to(PACKAGE).parts
    if len(parts) == 1:
        return "leaves"
    return "postgres" if parts[:2] == ("storage", "postgres") else parts[0]


def rooms() -> dict[str, Room]:
    """Return the size of each room, by its name; the ground floor's first."""
    found = dict.fromkeys(GROUND_FLOOR, Room(0, 0))
    for path, lines in _lines().items():
        before = found.get(room_of(path), Room(0, 0))
        found[room_of(path)] = Room(before.lines + lines, before.files + 1)
    return found


@cache
def _lines() -> dict[Path, int]:
    texts = {path: path.read_text() for path in sorted(PACKAGE.rglob("*.py"))}
    return {path: len(_code(text, list(ast.walk(ast.parse(text))))) for path, text in texts.items()}


WINGS = ("cli", "evaluation", "mcp", "otel", "postgres", "serve", "sessions", "viewer")
"""The rooms of which it is counted what they take from others."""


class Taken(NamedTuple):
    """What a wing takes from the rest of the package.

    Attributes:
        names: the names that it imports, each once a module, also in functions and only for types.
        modules: the modules that have them.
    """

    names: int
    modules: int


def taken_by(wing: str) -> dict[str, dict[str, str]]:
    """Return the names that a wing imports from the rest of the package: by module, each with a file."""
    found: dict[str, dict[str, str]] = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        if room_of(path) != wing:
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            for module, name in _imported(node):
                if not _is_of(module, wing) and not _is_of(f"{module}.{name}", wing):
                    found.setdefault(module, {}).setdefault(name, str(path.relative_to(PACKAGE)))
    return found


def _imported(node: ast.AST) -> Iterator[tuple[str, str]]:
    """Yield the modules and names of agentspan that an import names."""
    if isinstance(node, ast.ImportFrom) and (node.module or "").partition(".")[0] == "agentspan":
        yield from ((node.module or "", alias.name) for alias in node.names)
    elif isinstance(node, ast.Import):
        whole = (alias.name.rpartition(".") for alias in node.names)
        yield from ((module, name) for module, _, name in whole if module.partition(".")[0] == "agentspan")


def _is_of(module: str, wing: str) -> bool:
    own = f"agentspan.storage.{wing}" if wing == "postgres" else f"agentspan.{wing}"
    return module == own or module.startswith(f"{own}.")


def taken() -> dict[str, Taken]:
    """Return how much each wing takes from the rest of the package."""
    found = {wing: taken_by(wing) for wing in WINGS}
    return {wing: Taken(sum(map(len, names.values())), len(names)) for wing, names in found.items()}


def measures(folder: Path) -> dict[str, float]:
    """Return what there is, by its name.

    Args:
        folder: where a program may record.
    """
    texts = {path: path.read_text() for path in sorted(PACKAGE.rglob("*.py"))}
    nodes = {path: list(ast.walk(ast.parse(text))) for path, text in texts.items()}
    functions = [_length(node) for each in nodes.values() for node in each if isinstance(node, _FUNCTIONS)]
    found: dict[str, float] = {
        "files": len(texts),
        "lines of code": sum(_lines().values()),
        "median of functions": statistics.median(functions),
        "median of files": statistics.median(text.count("\n") for text in texts.values()),
        f"files over {LONG_FILE} lines": sum(text.count("\n") > LONG_FILE for text in texts.values()),
    }
    for name, pattern in _COUNTED.items():
        found[name] = sum(len(re.findall(f"^.*(?:{pattern})", text, re.MULTILINE)) for text in texts.values())
    found["own modules at import"] = len(_modules(IMPORT, folder))
    _modules(CALL, folder)  # makes the file
    called = _modules(CALL, folder)
    found["own modules of a call"] = len(called)
    found |= {name: len(files_of(name, folder)) for name in WAYS}
    found["lines of a call"] = sum(lines for path, lines in _lines().items() if _name_of(path) in called)
    return found


def files_of(way: str, folder: Path) -> list[str]:
    """Return the files that one of WAYS enters."""
    (own := folder / WAYS[way]).mkdir()
    return _printed(WAY.format(WAYS[way]), own)


def _name_of(path: Path) -> str:
    return ".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts).removesuffix(".__init__")


_FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)


def _length(function: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    """Return the lines of a function from its name to its end, without its docstring."""
    docstring = _docstring(function)
    end = function.end_lineno or function.lineno
    return end - function.lineno + 1 - (len(docstring) if docstring else 0)


def _docstring(node: ast.AST) -> range | None:
    body = getattr(node, "body", None)
    first = body[0] if isinstance(body, list) and body else None
    if isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant) and isinstance(first.value.value, str):
        return range(first.lineno, (first.end_lineno or first.lineno) + 1)
    return None


def _code(text: str, nodes: list[ast.AST]) -> set[int]:
    """Return the numbers of the lines that have code: no blanks, comments, texts that stand alone, imports."""
    found = {number for number, line in enumerate(text.split("\n"), 1) if line.strip() and line.lstrip()[0] != "#"}
    return found - {line for node in nodes for line in _not_counted(node)}


def _not_counted(node: ast.AST) -> Iterator[int]:
    is_text = isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)
    if isinstance(node, (ast.Import, ast.ImportFrom)) or is_text:
        yield from range(node.lineno, (node.end_lineno or node.lineno) + 1)  # type: ignore[attr-defined]


def _modules(program: str, folder: Path) -> list[str]:
    """Return the names of the modules of agentspan that a program has when it ends."""
    return _printed(program + _OWN.lstrip("; " if program.endswith("\n") else ""), folder)


def _printed(program: str, folder: Path) -> list[str]:
    command = [sys.executable, "-c", program, str(folder / "a.db")]
    return subprocess.run(command, check=True, capture_output=True, text=True, cwd=ROOT).stdout.split()


if __name__ == "__main__":
    import tempfile

    for each, room in rooms().items():
        sys.stdout.write(f"{each:<28}{room.lines:>10,}{room.files:>6}\n")
    for each, size in taken().items():
        sys.stdout.write(f"{each + ' takes':<28}{size.names:>10,}{size.modules:>6}\n")
    floor = [rooms()[each] for each in GROUND_FLOOR]
    sys.stdout.write(f"{'ground floor':<28}{sum(r.lines for r in floor):>10,}{sum(r.files for r in floor):>6}\n\n")
    with tempfile.TemporaryDirectory() as temporary:
        for name, value in measures(Path(temporary)).items():
            sys.stdout.write(f"{name:<28}{value:>10,.0f}\n")
