"""Finds the exit code of a tool call, whether it ran tests, and whether they failed. Pure functions."""

import re
from typing import Any

from agentspan.schemas.failing import is_error

_BEFORE = (
    r"(?:cd [^;&|\n]+(?:&&|;)\s*)?(?:\w+=\S*\s+)*(?:timeout \S+\s+)?"
    r"(?:(?:uv|poetry|pipenv|hatch|rye|pdm) run\s+|npx\s+|bunx\s+|bundle exec\s+|\S*python[\d.]* -m\s+)*"
)
_RUNNERS = (
    r"\S*pytest|unittest|tox|nox|(?:npm|pnpm|yarn|bun)(?: run)? test|npm t|cargo (?:nextest|test)|go test|deno test|"
    r"make (?:test|check)|mix test|rspec|jest|vitest|mocha|ctest|phpunit|dotnet test|swift test|mvn (?:test|verify)|"
    r"(?:gradle|\./gradlew) (?:test|check)|(?:\S*python[\d.]* )?\S*manage\.py test"
)
_TESTS = re.compile(rf"\s*{_BEFORE}(?:{_RUNNERS})(?![\w-])")
"""Matches a shell command that begins with a run of tests, after a change of folder, variables and starters."""
COMMANDS = ("command", "cmd", "script")
"""The arguments of tools that are a shell command."""


def command_of(arguments: Any) -> str | None:
    """Return the shell command in the arguments of a tool; None without one."""
    if type(arguments) is not dict:
        return None
    for name in COMMANDS:
        value = arguments.get(name)
        if type(value) is str:
            return value
        if type(value) is list and value and all(type(word) is str for word in value):
            is_shell = len(value) == 3 and value[1] in ("-c", "-lc")  # ["bash", "-lc", "pytest -q"]
            return str(value[2]) if is_shell else " ".join(value)
    return None


def runs_tests(arguments: Any) -> bool:
    """Return whether the arguments of a tool are a command that begins with a run of tests."""
    command = command_of(arguments)
    return command is not None and _TESTS.match(command) is not None


def exit_code_of(result: Any) -> int | None:
    """Return the exit code in the decoded result of a tool; None without one."""
    code = result.get("exit_code") if type(result) is dict else None
    return code if type(code) is int else None


def has_failed(status: str, result: Any) -> bool:
    """Return whether a call of a tool failed: by its exit code, else by its own error, else by its status."""
    code = exit_code_of(result)
    if code is not None:
        return code != 0
    return status == "failed" or is_error(result)
