"""Scorers: functions that judge a trial, and the ones that are shipped."""

import inspect
import json
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, NamedTuple

from agentspan.ground import Judgement, Source, errors, judgement
from agentspan.judging import Config, StoredRun, as_text, check, gather

ARGUMENTS = ("input", "output", "expected", "run")
"""The arguments of a scorer, by name: the case's input, the returned output, the expected one, the StoredRun."""


class Scorer(NamedTuple):
    """A function that judges a trial.

    Attributes:
        name: the name of the function, which becomes the name of its scores.
        takes: the names of its arguments, of ARGUMENTS.
    """

    name: str
    function: Callable[..., Any]
    takes: frozenset[str]


def scorers_of(functions: Sequence[Callable[..., Any]]) -> list[Scorer]:
    """Return functions as scorers.

    Raises:
        InvalidValue: a function is a lambda, or has an argument that is none of ARGUMENTS; or two have the same name.
    """
    found = [_scorer(each) for each in functions]
    names = [each.name for each in found]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise errors.InvalidValue("scores", f"two scorers are called {twice}: give one a __name__ of its own")
    return found


def _scorer(function: Callable[..., Any]) -> Scorer:
    name = getattr(function, "__name__", type(function).__name__)
    try:
        parameters = inspect.signature(function).parameters.values()
    except (TypeError, ValueError):
        raise errors.InvalidValue("scores", f"{name} is no function whose arguments can be read") from None
    if any(each.kind is each.VAR_KEYWORD for each in parameters):
        return Scorer(name, function, frozenset(ARGUMENTS))
    wanted = [each for each in parameters if each.kind not in (each.VAR_POSITIONAL, each.VAR_KEYWORD)]
    unknown = [each.name for each in wanted if each.name not in ARGUMENTS and each.default is each.empty]
    if unknown:
        raise errors.InvalidValue(
            "scores", f"{name} takes {unknown[0]!r}: the arguments of a scorer are {', '.join(ARGUMENTS)}"
        )
    if name == "<lambda>":
        raise errors.InvalidValue("scores", "a lambda has no name for its score: write a function")
    return Scorer(name, function, frozenset(each.name for each in wanted) & frozenset(ARGUMENTS))


def judged(name: str, value: Any, source: Source) -> Judgement:
    """Return what a scorer returned as the content of a score.

    Args:
        value: True or False, a number, a label, or (value, label, explanation), where two of them may be None.

    Raises:
        InvalidValue, RequiredValue: the value is none of these.
    """
    number, label, explanation = value, None, None
    if isinstance(value, tuple):
        if len(value) != 3:
            raise errors.InvalidValue(
                "scores", f"{name} returned a tuple of {len(value)}: value, label and explanation are 3"
            )
        number, label, explanation = value
    elif isinstance(value, str):
        number, label = None, value
    return judgement(name, number, label=label, explanation=explanation, source=source)


def exact(output: Any, expected: Any) -> bool:
    """Judge whether the output is the expected one. Texts are compared without white space around them."""
    if isinstance(expected, str) and output is not None:
        return (as_text(output) or "").strip() == expected.strip()
    return bool(output == expected)


def contains(output: Any, expected: Any) -> bool:
    """Judge whether the output has the expected text in it, in upper or lower case; of a list, each of its texts."""
    if expected is None:
        raise ValueError("the case has no expected output")
    text = (as_text(output) or "").lower()
    wanted = expected if isinstance(expected, list) else [expected]
    return all((as_text(each) or "").lower() in text for each in wanted)


def json_schema(schema: Mapping[str, Any]) -> Callable[..., Any]:
    """Return a scorer that judges whether the output, or the JSON text that it is, conforms to a JSON Schema.

    Args:
        schema: a JSON Schema (2020-12).

    Raises:
        jsonschema.SchemaError: the schema is not valid.
    """
    from jsonschema import Draft202012Validator

    Draft202012Validator.check_schema(schema)
    validator = Draft202012Validator(schema)

    def json_schema(output: Any) -> tuple[bool, None, str | None]:
        value = output
        if isinstance(output, str):
            try:
                value = json.loads(output)
            except ValueError:
                return False, None, "the output is not JSON"
        error = next(iter(validator.iter_errors(value)), None)
        return error is None, None, None if error is None else f"{error.json_path}: {error.validator}"

    return json_schema


def calls(required: Collection[str] = (), forbidden: Collection[str] = ()) -> Callable[..., Any]:
    """Return a scorer that judges whether the run called each required tool or model, and no forbidden one.

    Args:
        required: labels (types, where spans have no label) that each run must call.
        forbidden: labels that no run may call.
    """
    config = Config({}, required=tuple(required), forbidden=tuple(forbidden))

    def calls(run: StoredRun) -> tuple[bool, None, str]:
        return _checked(run, config)

    return calls


def under(cost_usd: float | None = None, steps: int | None = None, seconds: float | None = None) -> Callable[..., Any]:
    """Return a scorer that judges whether the run used at most so much.

    Args:
        cost_usd: the most that it may cost.
        steps: the largest number of its steps.
        seconds: the longest duration.
    """
    limits = {"cost_usd": cost_usd, "steps": steps, "duration_s": seconds}
    config = Config({name: limit for name, limit in limits.items() if limit is not None})

    def under(run: StoredRun) -> tuple[bool, None, str]:
        return _checked(run, config)

    return under


def _checked(run: StoredRun, config: Config) -> tuple[bool, None, str]:
    """Check one run as `agentspan check` does.

    Raises:
        ValueError: the run recorded nothing that could be checked, such as no cost.
    """
    found = check(gather(run.storage, [run.row], {run.id: None}), config)
    text = "; ".join(finding.text for finding in found.findings)
    if found.verdict == "inconclusive":
        raise ValueError(text)
    return found.verdict == "pass", None, text


SHIPPED: Mapping[str, Callable[..., Any]] = {"exact": exact, "contains": contains}
"""The scorers that need no arguments, which the command line knows by name."""
