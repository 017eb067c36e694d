"""The error for files and databases from before the first release, with the commands that convert them.

They are refused and stay unchanged.
"""

from collections.abc import Mapping

from agentspan.errors import DatabaseUnusable

COMMITS: Mapping[str, tuple[str, ...]] = {
    "file": ("f14858e", "8ae7859", "c00cc3a", "19dc8d0", "2fe1474", "bb472b6", "c19d452", "14c6832", "10eeffb"),
    "schema": ("5f63b95", "256dca1", "75e49a0", "da4d031", "10eeffb"),
}
"""The last commit that wrote each version of an SQLite file and of a PostgreSQL schema. The first is version 1."""


def refused(place: str, of: str, version: int) -> DatabaseUnusable:
    """Return the error for a file or schema from before the first release.

    Args:
        place: the path of the file, or the location of the schema.
        of: a key of COMMITS: `file` or `schema`.
        version: the version of the file or schema, from 1 on.
    """
    commit = COMMITS[of][version - 1]
    return DatabaseUnusable(
        f"{place} was made before the first release ({of} version {version}), and stays as it is; to bring it over, "
        f"install commit {commit} of agentspan in another environment, run `agentspan export` there, and "
        "`agentspan import` here"
    )
