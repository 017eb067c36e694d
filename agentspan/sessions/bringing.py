"""Imports many sources: a session before its sub-agents, with progress; a fault stops only its own file."""

from collections.abc import Callable, Iterator, Mapping, Sequence

from agentspan.sessions.arriving import ParentMissing
from agentspan.sessions.formats import Format, Source
from agentspan.sessions.importing import Importer
from agentspan.sessions.machine import stamps_of

Progress = Callable[[int, int], None]


def bring_all(
    importer: Importer, sources: Sequence[Source], formats: Mapping[str, Format], progress: Progress | None = None
) -> Iterator[Source]:
    """Import sources in their order, and yield each when it is stored.

    The file of a sub-agent waits for the session that started it. If that is in no file, it becomes a run of its own.

    Args:
        progress: called with the bytes that are done, and with all bytes.

    Raises:
        StorageError: the storage cannot be written. What was committed stays, and the next call goes on.
    """
    sizes = [sum(stamp.size for stamp in stamps_of(source, formats[source.format])) for source in sources]
    total, done = max(1, sum(sizes)), 0
    late: list[Source] = []
    for source, size in zip(sources, sizes, strict=True):
        try:
            importer.bring_in(source, waits=True)
            yield source
        except ParentMissing:
            late.append(source)
        done += size
        if progress is not None:
            progress(done, total)
    yield from _bring_late(importer, late)


def _bring_late(importer: Importer, late: Sequence[Source]) -> Iterator[Source]:
    """Import sub-agents whose sessions were missing. Each one that is stored may be the session of another."""
    while late:
        waiting: list[Source] = []
        for source in late:
            try:
                importer.bring_in(source, waits=True)
                yield source
            except ParentMissing:
                waiting.append(source)
        if len(waiting) == len(late):
            importer.bring_in(waiting[-1])  # the one that has waited since the oldest file
            yield waiting.pop()
        late = waiting
