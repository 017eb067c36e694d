"""The sizes and times that agentspan works with: one frozen value, which recorders, storages and servers take.

Users need none of them: each was measured, and its reason stands beside it. Tests pass smaller ones, so that a limit is
reached with a few spans: `SQLiteStorage(path, tuning=replace(STANDARD, page_rows=2))`.
"""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Tuning:
    """Sizes (rows, bytes, characters) and times (names that end with `_s`: seconds)."""

    # Recording: capture, sinks, the journal, recovery, spans of OpenTelemetry.

    # Storage: SQLite, PostgreSQL, the index, maintenance.

    # Serving.


STANDARD = Tuning()
"""The values that are used where nothing else is passed."""
