"""Settings of a project for the command line, from `[tool.agentspan]` in its pyproject.toml."""

import tomllib
from pathlib import Path

from agentspan.analysis import outcomes
from agentspan.analysis.outcomes import OutcomeRule
from agentspan.cli.output import Failed
from agentspan.errors import InvalidValue

BY_STATUS = "status"
"""The value of `--outcome` with which the status decides, whatever the project says."""


def outcome_rule(given: str | None) -> OutcomeRule | None:
    """Return the rule of what passed means: as given, else the project's; None if the status decides.

    Raises:
        InvalidValue: `given` is no rule.
        Failed: the project's is none, or its file cannot be read.
    """
    if given is not None:
        return None if given == BY_STATUS else outcomes.parse(given)
    file = _pyproject(Path.cwd())
    if file is None:
        return None
    try:
        with file.open("rb") as read:
            settings = tomllib.load(read).get("tool", {}).get("agentspan", {})
        rule = settings.get("outcome")
        if rule is not None and not isinstance(rule, str):
            raise InvalidValue("outcome", "must be a text, such as 'reward>=1'")
        return None if rule in (None, BY_STATUS) else outcomes.parse(rule)
    except (OSError, ValueError, AttributeError) as error:
        raise Failed(f"cannot use [tool.agentspan] of {file}: {error}") from None


def _pyproject(folder: Path) -> Path | None:
    """Return the pyproject.toml of a folder, or of the nearest one above it."""
    files = (each / "pyproject.toml" for each in (folder, *folder.parents))
    return next((file for file in files if file.is_file()), None)
