"""Files and databases of before the first release are refused unchanged, with how to bring over what they hold."""

from collections.abc import Mapping

from agentspan.errors import DatabaseUnusable

COMMITS: Mapping[str, tuple[str, ...]] = {
    "file": ("f14858e", "8ae7859", "c00cc3a", "19dc8d0", "2fe1474", "bb472b6", "c19d452", "14c6832", "10eeffb"),
    "schema": ("5f63b95", "256dca1", "75e49a0", "da4d031", "10eeffb"),
}
"""For a file of SQLite and a schema of PostgreSQL, the last commit that wrote each version, from 1 on."""


def refused(place: str, of: str, version: int) -> DatabaseUnusable:
    """Return the error for a file or schema of before the first release.

    Args:
        place: its path or location.
        of: one of COMMITS.
        version: its version, from 1 on.
    """
    commit = COMMITS[of][version - 1]
    return DatabaseUnusable(
        f"{place} was made before the first release ({of} version {version}), and stays as it is; to bring it over, "
        f"install commit {commit} of agentspan in another environment, run `agentspan export` there, and "
        "`agentspan import` here"
    )
