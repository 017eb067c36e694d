"""The warning of a deprecated function: `warn("Database.old", "Database.new", since="0.3", until="0.5")`.

docs/stability.md says how long something deprecated stays. A test finds the calls whose version has come.
"""

import warnings


def warn(old: str, new: str, *, since: str, until: str, level: int = 2) -> None:
    """Warn the caller of a deprecated function (DeprecationWarning).

    Args:
        old: the deprecated name, as a user writes it.
        new: the name to use in its place.
        since: the version that deprecated it.
        until: the version that removes it.
        level: how far above the deprecated function's caller is; 2 where the function itself warns.
    """
    text = f"{old} is deprecated since agentspan {since}, and goes in {until}; use {new}"
    warnings.warn(text, DeprecationWarning, stacklevel=level + 1)
