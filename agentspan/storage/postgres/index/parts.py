"""The parts of finished spans (see storage.first_said): for each, the span that says it first, and how many have it."""

from collections.abc import Collection, Iterable, Mapping, Sequence

from agentspan.storage.first_said import SpanParts
from agentspan.storage.postgres.connection import Connection
from agentspan.storage.postgres.lending import rows_of

_OF_RUNS = "select agent_instance_id, part, id, spans from index_parts where agent_instance_id = any(%s)"
_COUNT = """
insert into index_parts (agent_instance_id, part, id, spans)
select * from unnest(%s::text[], %s::bigint[], %s::text[], %s::bigint[])
on conflict (agent_instance_id, part) do update set id = excluded.id, spans = excluded.spans
"""


class Parts:
    """The parts of runs while spans are added to the index, and while hits are looked at.

    Args:
        connection: one that sees the index and the spans in one state.
    """

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._runs: dict[str, dict[int, tuple[str, int]]] = {}
        self._changed: set[tuple[str, int]] = set()
        self.outdated: set[tuple[str, str]] = set()
        """(run, id) of spans that no longer say first what they did when they were added: earlier ones came later."""

    def read(self, runs: Collection[str]) -> None:
        """Read the parts of these runs, all at once."""
        new = [run for run in runs if run not in self._runs]
        self._runs |= {run: {} for run in new}
        for run, part, id, spans in rows_of(self._connection, _OF_RUNS, (new,)) if new else ():
            self._runs[run][part] = id, spans

    def add(self, parts: SpanParts) -> None:
        """Count the parts of a finished span of a run that was read."""
        run, id = parts.span.agent_instance_id, parts.span.id
        entries = self._runs[run]
        for key in parts.keys:
            first, spans = entries.get(key, (id, 0))
            if id < first:
                self.outdated.add((run, first))
                first = id
            entries[key] = first, spans + 1
            self._changed.add((run, key))

    def said_before(self, parts: SpanParts) -> Collection[int]:
        """Return the parts of a span that an earlier one says."""
        entries = self._runs[parts.span.agent_instance_id]
        id = parts.span.id
        return {key for key in parts.keys if key in entries and entries[key][0] < id}

    def counts(self, run: str, keys: Iterable[int]) -> Mapping[int, int]:
        """Return how many finished spans have these parts."""
        entries = self._runs[run]
        return {key: entries[key][1] for key in keys if key in entries}

    def write(self) -> None:
        """Store what was added."""
        if self._changed:
            rows: Sequence[tuple[object, ...]] = [(run, key, *self._runs[run][key]) for run, key in self._changed]
            self._connection.execute(_COUNT, tuple(list(column) for column in zip(*rows, strict=True)))
            self._changed = set()
