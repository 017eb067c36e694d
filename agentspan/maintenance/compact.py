"""Makes a file smaller: what was said is stored once in a run, and free space is returned to the system."""

from collections.abc import Callable
from typing import NamedTuple

from agentspan.errors import StorageError
from agentspan.model.rows import AgentInstanceRow
from agentspan.operations.context import Context
from agentspan.storage.scanning import count, scan


class Compacted(NamedTuple):
    """The outcome of compacting a file.

    Attributes:
        spans: how many were rewritten.
        bytes_before, bytes_after: the size of the file, including its write-ahead log.
    """

    spans: int
    bytes_before: int
    bytes_after: int


def compact(ctx: Context, progress: Callable[[int, int], None] | None = None) -> Compacted:
    """Rewrite the finished spans of older versions as spans are stored today, in short commits; then shrink the file.

    It may be interrupted at any time. What is rewritten stays so, and the next call goes on with the rest.

    Args:
        progress: called with how many spans were looked at, and of how many.

    Raises:
        StorageError: the storage has no file that can shrink.
    """
    storage = ctx.storage
    can = storage.capabilities()
    if can.file is None:
        raise StorageError(f"the storage {can.backend!r} has no file that can shrink")
    before = can.file.file_bytes()
    seen = changed = 0
    if can.rewriting is not None:
        total = count(storage, "agent_span")
        for run in scan(storage, AgentInstanceRow):
            after: str | None = ""
            while after is not None:
                done = can.rewriting.rewrite(run.id, after, ctx.wait_s)
                after, seen, changed = done.last, seen + done.seen, changed + done.changed
                if progress is not None:
                    progress(seen, max(seen, total))
    can.file.compact(ctx.wait_s)
    return Compacted(changed, before, can.file.file_bytes())
