"""Real runs: what agents recorded into a file, to make assertions on."""

import os

from agentspan.recovery.opening import see_journals
from agentspan.storage.sqlite import SQLiteStorage
from agentspan.testing.runs import CapturedRuns


class _File(SQLiteStorage):
    """Closes itself when nobody has it any more: Python 3.13 warns of connections that nobody closed."""

    def __del__(self) -> None:
        if hasattr(self, "_connections"):
            self.close()


def load(path: str | os.PathLike[str]) -> CapturedRuns:
    """Open a file that agents recorded into, to make assertions on real runs. It is only read.

    Args:
        path: the file. Runs that are recorded into it meanwhile are seen.

    Returns:
        Its runs; `with load("runs.db") as runs:` closes the file at the end, else that happens by itself.

    Raises:
        DatabaseUnusable: there is no such file, or it is no database of agentspan's.
    """
    return CapturedRuns(see_journals(_File(path, read_only=True), read_only=True))
