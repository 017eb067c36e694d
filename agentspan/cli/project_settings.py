"""Settings of a project for the command line, from `[tool.agentspan]` in its pyproject.toml."""

import tomllib
from pathlib import Path

from agentspan.analysis.check import check_settings
from agentspan.analysis.outcomes import OutcomeRule, rule_of
from agentspan.cli.output import Failed
from agentspan.errors import InvalidValue


def outcome_rule(given: str | None) -> OutcomeRule | None:
    """Return the rule of what passed means: as given, else the project's; None if the status decides.

    Raises:
        InvalidValue: `given` is no rule.
        Failed: the project's is none, or its file cannot be read.
    """
    if given is not None:
        return rule_of(given)
    file = pyproject()
    if file is None:
        return None
    try:
        with file.open("rb") as read:
            settings = tomllib.load(read).get("tool", {}).get("agentspan", {})
        check_settings(settings)
        rule = settings.get("outcome")
        if rule is not None and not isinstance(rule, str):
            raise InvalidValue("outcome", "must be a text, such as 'reward>=1'")
        return rule_of(rule)
    except (OSError, ValueError, AttributeError) as error:
        raise Failed(f"cannot use [tool.agentspan] of {file}: {error}") from None


def pyproject() -> Path | None:
    """Return the pyproject.toml of the working folder, or of the nearest one above it."""
    folder = Path.cwd()
    files = (each / "pyproject.toml" for each in (folder, *folder.parents))
    return next((file for file in files if file.is_file()), None)
