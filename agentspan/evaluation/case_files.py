"""The cases of an evaluation: read back from a dataset that `export --format dataset` wrote, or made from dicts."""

import json
import os
from collections.abc import Iterable, Iterator, Mapping
from hashlib import sha256
from pathlib import Path
from typing import Any, NamedTuple

from agentspan.ground import errors, jsontext, text
from agentspan.judging import EXPECTED, INPUT


class Case(NamedTuple):
    """One input of an evaluation, with the expected output if it is known.

    Attributes:
        id: the name of the case. It becomes the `task` of its runs, so that they are compared case by case.
        input: the argument of the evaluated function: any JSON value.
        expected: the expected output; None without one.
    """

    id: str
    input: Any
    expected: Any = None

    @property
    def content(self) -> str:
        """A hash of input and expected output, by which a later evaluation finds the trials of the same case."""
        return sha256(jsontext.encode([self.input, self.expected])[0].encode("utf-8", "surrogatepass")).hexdigest()[:16]

    def metadata(self, trial: int, evaluation: Mapping[str, str]) -> dict[str, Any]:
        """Return the metadata of the run of a trial, by which a later evaluation finds it.

        Args:
            trial: its number, from 1.
            evaluation: how it is judged, and against what: see EvaluationFacts in analysis.cases.
        """
        facts = {
            "input": self.input, "expected": self.expected, "trial": trial, "case": self.content,
            "evaluation": evaluation,
        }  # fmt: skip
        return {name: value for name, value in facts.items() if value is not None}


def cases(source: "str | os.PathLike[str] | Iterable[Case | Mapping[str, Any]]") -> list[Case]:
    """Return cases, each id once, in their order.

    A dict has an `input` (or `inputs`, `question`, `query`, `prompt`). It may have an `id`, else its id is a hash of
    the input, and `expected` (or `expected_output`, `reference` …). A row of a dataset has a `task`, which is its id
    if it is not empty; its input and expected output are texts, of which JSON objects and lists are decoded. Of rows
    of the same task, such as two failed runs, the first one is the case.

    Args:
        source: a file with one JSON object per line, or cases and dicts.

    Raises:
        InvalidValue: the file cannot be read, a line is no case, an id stands for two different cases, or there are
            none. The message names the file and the line.
    """
    found: dict[str, Case] = {}
    places: dict[str, str] = {}
    for where, value in _values(source):
        try:
            case = value if isinstance(value, Case) else _case(value, where)
            case = case._replace(id=text.one_line(str(case.id), 200))
            is_other = case.content != found.get(case.id, case).content
        except errors.InvalidValue:
            raise
        except ValueError as error:
            raise errors.InvalidValue("cases", f"{where} {error}") from None
        if is_other and not _is_row(value):
            raise errors.InvalidValue(
                "cases", f"{where}: {text.one_line(case.id, 60)!r} is another case at {places[case.id]}"
            )
        found.setdefault(case.id, case)
        places.setdefault(case.id, where)
    if not found:
        raise errors.InvalidValue(
            "cases", f"{source if isinstance(source, str | os.PathLike) else 'the list'} has no case"
        )
    return [*found.values()]


def _values(source: "str | os.PathLike[str] | Iterable[Case | Mapping[str, Any]]") -> Iterator[tuple[str, Any]]:
    """Yield each value with its place, such as `failures.jsonl, line 3`."""
    if not isinstance(source, str | os.PathLike):
        yield from ((f"case {number}", value) for number, value in enumerate(source, start=1))
        return
    path = Path(source)
    try:
        with path.open(encoding="utf-8-sig") as file:
            for number, line in enumerate(file, start=1):
                if line.strip():
                    yield f"{path}, line {number}", _decoded(line, f"{path}, line {number}")
    except OSError as error:
        raise errors.InvalidValue("cases", f"{path} cannot be read: {error.strerror}") from None
    except UnicodeDecodeError:
        raise errors.InvalidValue("cases", f"{path} is not text in UTF-8") from None


def _decoded(line: str, where: str) -> Any:
    try:
        return json.loads(line.rstrip())
    except (RecursionError, ValueError) as error:
        column = f", column {error.colno}" if isinstance(error, json.JSONDecodeError) else ""
        raise errors.InvalidValue("cases", f"{where}{column} is not JSON: write one object per line") from None


def _case(value: Any, where: str) -> Case:
    if not isinstance(value, Mapping):
        raise errors.InvalidValue("cases", f"{where} is no object with an input")
    is_row = _is_row(value)
    given = next((value[name] for name in INPUT if value.get(name) is not None), None)
    if given is None:
        raise errors.InvalidValue("cases", f"{where} has no input: write one of {', '.join(INPUT)}")
    expected = next((value[name] for name in EXPECTED if value.get(name) is not None), None)
    if is_row:
        given, expected = _from_text(given), _from_text(expected)
    id = (value.get("task") if is_row else None) or value.get("id")
    if id is None:
        id = sha256(jsontext.encode(given)[0].encode("utf-8", "surrogatepass")).hexdigest()[:12]
    if not isinstance(id, str | int) or isinstance(id, bool) or id == "":
        raise errors.InvalidValue("cases", f"{where}: the id must be text")
    return Case(str(id), given, expected)


def _is_row(value: Any) -> bool:
    """Return whether a value is a row of a dataset, not a case that somebody wrote."""
    return isinstance(value, Mapping) and {"id", "agent", "messages"} <= value.keys()


def _from_text(value: Any) -> Any:
    """Return a text decoded if it is a JSON object or list, as a dataset writes inputs that are no text."""
    if not isinstance(value, str) or not value.startswith(("{", "[")):
        return value
    try:
        return json.loads(value)
    except (RecursionError, ValueError):
        return value
