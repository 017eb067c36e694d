"""Findings, each declared once for all surfaces: a command, a page, notebooks, HTTP, and a tool over MCP.

The recipe is in CONTRIBUTING.md. A module is imported when its finding is asked for: each command reads this list.
"""

from collections.abc import Mapping
from datetime import UTC
from importlib import import_module
from typing import TYPE_CHECKING

from agentspan.errors import InvalidValue

if TYPE_CHECKING:
    from agentspan.answers.finding import Asked, Finding

FINDINGS = {"cost": "agentspan.answers.cost"}
"""The modules of the findings by their names, each with a `FINDING`."""


def finding_of(name: str) -> "Finding":
    """Return a finding by its name."""
    found: Finding = import_module(FINDINGS[name]).FINDING
    return found


def asked_in(name: str, kind: str, limit: int | None = None) -> "tuple[Finding, Asked]":
    """Return a finding, and what it is asked where days are those of UTC; its first kind if `kind` is "".

    Raises:
        InvalidValue: no finding has the name.
    """
    if name not in FINDINGS:
        raise InvalidValue("name", f"must be one of {', '.join(FINDINGS)}")
    from agentspan.answers.finding import Asked

    finding = finding_of(name)
    return finding, Asked(kind or next(iter(finding.kinds), ""), limit, UTC)


def tools() -> "Mapping[str, Finding]":
    """Return the findings that are tools over MCP."""
    return {name: each for name in FINDINGS if (each := finding_of(name)).tool}
