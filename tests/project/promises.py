"""Reads the promises of the documentation: its sentences, the tables beside this module, and the ways of tests.

A table, `promises/NAME.md`, has sentences of `docs/NAME.md`, below their headings and in their order, a line each.
Below one or several sentences stand the tests of which one would fail if they were untrue, each with the ways in which
it runs. Or there stands a reason (`REASONS`) why no test could show anything. A reason right below a heading is that
of all its sentences. A long sentence may be cut after 40 characters; then it ends in ` …`.
"""

import ast
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import NamedTuple

from tests.checkout import ROOT
from tests.conftest import ON_POSTGRES

FOLDER = Path(__file__).parent / "promises"

PROMISES = re.compile(
    r"\b(always|at (least|most)|bounded|cannot|each|every|exactly|lost|never|neither|no|none|nobody|nothing|not|only"
    r"|refused|sound|stays?|survives?|until|up to|within|without)\b",
    re.IGNORECASE,
)
"""A sentence with one of these words must stand in the table. Others may."""

REASONS = {
    "explains": "it says what a word means, why something is so, or where to read on",
    "advises": "it says what the reader should do, or may expect of software in general",
    "others": "it says what a program of somebody else does",
    "measured": "it is a figure of a benchmark, which `benchmarks/README.md` names",
    "no guarantee": "it says what is not promised: what may be lost, or what somebody else may do",
}
"""Why a sentence of the table has no test."""

WAYS = {
    "journal": r"\"journal\"|\bsegments?\b|spool|\b(Tracer|configure)\((?!storage|made|db\b|Memory|[^()]*durability=)",
    "commit": r"\"commit\"|\bTracer\((storage|made|db)\b",
    "memory": r"MemoryStorage|\":memory:\"",
    "sqlite": r"SQLiteStorage|sqlite3|\.db\b",
    "postgres": r"postgres_location|postgres_server|postgresql:|postgres\.Server",
    "http": r"\bserving\(|create_app\(",
}
"""Ways of recording (journal, commit), storages, and HTTP: a test may run in a way if these words are found in it."""

_FENCE = re.compile(r"^ *(`{3,}).*?^ *\1$", re.MULTILINE | re.DOTALL)
_ITEM = re.compile(r" *(- |\d+\. )")
_END = re.compile(r"(?<=[.!?])(\)?) (?=[A-Z`*\[(0-9\"]|agentspan )")


class Row(NamedTuple):
    """Sentences of a table, with what stands below them."""

    line: int
    heading: str
    sentences: tuple[str, ...]
    tests: tuple[tuple[str, tuple[str, ...]], ...]
    reasons: tuple[str, ...]


def is_beginning(of_row: str, sentence: str) -> bool:
    """Return whether a sentence of the document is meant by a sentence of a table, which may be cut."""
    return sentence.startswith(of_row[:-2]) if of_row.endswith(" …") else sentence == of_row


def sentences(text: str) -> Iterator[tuple[str, str]]:
    """Yield each sentence, and each row of a table, of a document outside of its examples, with its heading.

    They have no links and no bold or italic words, so that a line that is broken elsewhere changes nothing.
    """
    heading, blocks = "", [("", "")]
    for line in re.sub(r"<!--.*?-->", "", _FENCE.sub("", text), flags=re.DOTALL).splitlines():
        if line.startswith("#"):
            heading = line
            blocks.append((heading, ""))
        elif re.fullmatch(r"\|[-|: ]+\|", line):
            blocks.pop()  # the names of the columns
        elif line.startswith("|"):
            blocks.append((heading, line))
        elif not line.strip() or _ITEM.match(line) or blocks[-1][1].startswith("|"):
            blocks.append((heading, _ITEM.sub("", line, count=1)))
        else:
            blocks[-1] = heading, f"{blocks[-1][1]} {line}"
    for heading, block in blocks:
        if block.startswith("|"):
            yield heading, _plain(" | ".join(cell.strip() for cell in re.split(r"(?<!\\)\|", block.strip()[1:-1])))
        elif block.strip():
            yield from ((heading, sentence) for sentence in _END.sub("\\1\n", _plain(block)).split("\n"))


def _plain(text: str) -> str:
    text = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", text).replace("**", "")
    return " ".join(re.sub(r"(?<![\w`*])\*([^*`|]+)\*(?![\w*])", r"\1", text).split())


def rows(table: str) -> Iterator[Row]:
    """Yield the rows of a table."""
    heading = ""
    for block in re.finditer(r"(?:^.+\n?)+", table, re.MULTILINE):
        lines = block[0].splitlines()
        if lines[0].startswith("#"):
            heading = lines[0]
        said = tuple(line for line in lines if not line.startswith(("#", "- ")))
        below = [line[2:] for line in lines if line.startswith("- ")]
        found = [(text, re.fullmatch(r"(tests/\S+::\w+)(?: \(([\w, ]+)\))?", text)) for text in below]
        if said or below:
            yield Row(
                table.count("\n", 0, block.start()) + 1,
                heading,
                said,
                tuple((test[1], tuple(test[2].split(", ")) if test[2] else ()) for _, test in found if test),
                tuple(text for text, test in found if not test),
            )


def ways_of(test: str) -> set[str]:
    """Return the ways in which a test may run, by its fixtures and the words in it and in what it uses of `tests`.

    Raises:
        LookupError: there is no such test.
    """
    file, _, name = test.partition("::")
    if name not in _parts(ROOT / file):
        raise LookupError(test)
    parts, fixtures = _used(ROOT / file, name)
    found = {way for part in parts for way in _ways_in(*part)}
    if fixtures & {"storage", "db", "tracer"}:  # those of `tests/conftest.py`
        found |= {"memory", "sqlite"} | ({"commit"} if "tracer" in fixtures else set())
        found |= {"postgres"} if file.removeprefix("tests/").startswith(ON_POSTGRES) else set()
    return found | ({"http"} if file.startswith("tests/serve/") else set())


class Part(NamedTuple):
    """A function, class or constant of a file: its text, the words in it, and the names of its parameters."""

    text: str
    words: frozenset[str]
    parameters: frozenset[str]


def _used(path: Path, name: str) -> tuple[set[tuple[Path, str]], set[str]]:
    """Return a test, its fixtures and what they use in `tests`, as files and names; and its fixtures of all tests."""
    todo, seen, shared = [(path, name, True)], set[tuple[Path, str]](), set[str]()
    while todo:
        file, name, is_fixture = todo.pop()
        if (file, name) in seen:
            continue
        seen.add((file, name))
        part = _parts(file)[name]
        for word in part.words:
            is_wanted = is_fixture and word in part.parameters
            if word in _parts(file):
                todo.append((file, word, is_wanted))
            elif is_wanted and word in _parts(path.parent / "conftest.py"):
                todo.append((path.parent / "conftest.py", word, True))
            elif is_wanted:
                shared.add(word)
            elif word in _imports(file):
                todo.append((*_imports(file)[word], False))
        for module in re.findall(r"\btests\.\w+\.\w+", part.text):  # a program that is started
            seen |= {(_file_of(module), each) for each in _parts(_file_of(module))}
    return seen, shared


@cache
def _ways_in(path: Path, name: str) -> tuple[str, ...]:
    return tuple(way for way, words in WAYS.items() if re.search(words, _parts(path)[name].text))


def _file_of(module: str) -> Path:
    return ROOT / (module.replace(".", "/") + ".py")


@cache
def _tree_of(path: Path) -> tuple[str, ast.Module]:
    text = path.read_text(encoding="utf-8") if path.is_file() else ""
    return text, ast.parse(text)


@cache
def _parts(path: Path) -> dict[str, Part]:
    text, tree = _tree_of(path)
    lines, found = text.splitlines(), {}
    for node in tree.body:
        begin = min([node.lineno, *(each.lineno for each in getattr(node, "decorator_list", ()))])
        source = "\n".join(lines[begin - 1 : node.end_lineno])
        arguments = [*node.args.args, *node.args.kwonlyargs] if isinstance(node, ast.FunctionDef) else []
        parameters = frozenset(each.arg for each in arguments)
        for target in node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", node)]:
            name = getattr(target, "name", None) or getattr(target, "id", None)
            if name:
                found[name] = Part(source, frozenset(re.findall(r"\w+", source)) - {name}, parameters)
    return found


@cache
def _imports(path: Path) -> dict[str, tuple[Path, str]]:
    return {
        name.asname or name.name: (_file_of(node.module), name.name)
        for node in _tree_of(path)[1].body
        if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("tests.")
        for name in node.names
        if name.name in _parts(_file_of(node.module))
    }
