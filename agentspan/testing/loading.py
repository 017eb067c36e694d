"""Opens the runs of a file, to make assertions on them."""

import os

from agentspan.recovery.opening import see_journals
from agentspan.storage.sqlite import SQLiteStorage
from agentspan.testing.runs import CapturedRuns


class _File(SQLiteStorage):
    """Closes itself when its last reference is gone: Python 3.13 warns of connections that were not closed."""

    def __del__(self) -> None:
        if hasattr(self, "_connections"):
            self.close()


def load(path: str | os.PathLike[str]) -> CapturedRuns:
    """Open a file for reading only, to make assertions on its runs.

    Args:
        path: the file. Other processes may record into it at the same time.

    Returns:
        Its runs. `with load("runs.db") as runs:` closes the file at the end; else garbage collection closes it.

    Raises:
        DatabaseUnusable: the file does not exist, or is not a database of agentspan.
    """
    return CapturedRuns(see_journals(_File(path, read_only=True), read_only=True))
