"""What `--help` says of each command, and the names that programs may use."""

import importlib
import inspect
import os
import re
from collections.abc import Iterator
from types import ModuleType
from typing import Any

import pytest
from click.testing import CliRunner

from agentspan.cli import main
from agentspan.cli.app import WAYS
from tests.cli.calling import EVERY
from tests.frozen import frozen

MODULES = (
    "agentspan",
    "agentspan.analysis",
    "agentspan.otel",
    "agentspan.serve",
    "agentspan.sessions",
    "agentspan.storage.authoring",
)
"""Those whose names are public, beside those of `agentspan.testing`, which needs pytest."""


def test_help_says_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if re.match("AGENTSPAN_(?!TEST)", name)]:
        monkeypatch.delenv(name)
    runner = CliRunner(env={"COLUMNS": "80"})
    calls = sorted(WAYS.get(name, name).partition("|")[0].split(" ")[:2] for name in {*EVERY} - {"overview"})
    asked = [["--help"], ["--utc", "--help"], *([*call, "--help"] for call in calls)]
    answers = [runner.invoke(main, each, prog_name="agentspan").output for each in asked]
    shown = [f"$ agentspan {' '.join(each)}\n{answer}" for each, answer in zip(asked, answers, strict=True)]
    frozen.check("help.txt", "\n".join(shown))


def test_the_public_names_are_the_same() -> None:
    frozen.check(
        "names.txt", "\n".join(line for name in MODULES for line in _names(importlib.import_module(name))) + "\n"
    )


def _names(module: ModuleType) -> Iterator[str]:
    """Yield the public names of a module, with the parameters of what is called, and the members of classes."""
    public = getattr(module, "__all__", None) or [name for name in dir(module) if not name.startswith("_")]
    for name in sorted(public):
        value = getattr(module, name)
        if isinstance(value, ModuleType):
            continue
        yield f"{module.__name__}.{name}{_parameters(value)}"
        if inspect.isclass(value):
            yield from (f"    .{member}{_parameters(getattr(value, member, None))}" for member in _members(value))


def _members(of: type) -> list[str]:
    """Return the names that a class has from this package: what Python's own classes have differs by its version."""
    ours = [each for each in of.__mro__ if each.__module__.startswith("agentspan")]
    fields = [field for each in ours for field in getattr(each, "__annotations__", ())]
    return sorted({name for each in ours for name in (*vars(each), *fields) if not name.startswith("_")})


def _parameters(value: Any) -> str:
    """Return the parameters of a function or class as `(a, *, b=)`; nothing for what is not called."""
    if not (inspect.isroutine(value) or inspect.isclass(value)) or getattr(value, "_is_protocol", False):
        return ""
    try:
        parameters = inspect.signature(value).parameters.values()
    except (TypeError, ValueError):
        return "(…)"
    shown, keywords_only = [], False
    for each in parameters:
        if each.kind is each.KEYWORD_ONLY and not keywords_only:
            shown.append("*")
        keywords_only = keywords_only or each.kind in (each.KEYWORD_ONLY, each.VAR_POSITIONAL)
        stars = "*" * (each.kind is each.VAR_POSITIONAL) + "**" * (each.kind is each.VAR_KEYWORD)
        shown.append(f"{stars}{each.name}{'=' if each.default is not each.empty else ''}")
    return f"({', '.join(shown)})"
