"""The sizes and times that agentspan works with: one frozen value, which recorders, storages and servers take.

Users need none of them: each was measured, and its reason stands beside it. Tests pass smaller ones, so that a limit is
reached with a few spans: `SQLiteStorage(path, tuning=replace(STANDARD, page_rows=2))`.
"""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Tuning:
    """Sizes (rows, bytes, characters) and times (names that end with `_s`: seconds)."""

    # Recording: capture, sinks, the journal, recovery, spans of OpenTelemetry.
    captured_values: int = 100_000
    """Values looked at in one payload."""
    hashed_bytes: int = 64 * 2**20
    """Bytes of one payload that are hashed for marks (50 ms); the marks of what comes on top have no `sha256`."""
    repeated_elements_bytes: int = 32 * 2**20
    """Bytes of list elements that are known in a run. Beyond it only those of the latest list are."""

    recording_wait_s: float = 0.25
    """The longest that a recording call waits for the storage."""
    backlog_units: int = 10_000
    """Units that wait in memory because the storage did not take them. Those on top are lost, and counted."""
    backlog_characters: int = 64 * 2**20
    """Characters of their texts; the same."""

    journal_segment_bytes: int = 2**20
    """Bytes of a first segment: 1,000 spans with 300 bytes in and out."""
    journal_segment_growth: int = 8
    """The largest segment, in sizes of the first one. A program that records little needs little space and waits
    less."""
    journal_calls_drain_bytes: int = 256 * 2**20
    """Bytes of full segments from which on the calls that record drain, too."""
    journal_limit_bytes: int = 512 * 2**20
    """Bytes of full segments, those of other programs in the folder included, from which on none is added: the storage
    takes nothing. Later transitions wait in memory, as where the disk is full; those that memory has no room for are
    lost, and counted."""
    drain_tick_s: float = 0.02
    """The time from one tick of the thread that drains to the next, while records come."""
    drain_quiet_ticks: int = 50
    """Ticks without a record after which the thread ends."""
    drain_portion_bytes: int = 640 * 1024
    """Bytes of a journal that are committed at once, at most."""
    read_drains_s: float = 1.0
    """How long a read waits for a round of draining of its process's journal. It goes on while there is progress."""
    derived_spans: int = 50
    """Batch size for deriving spans. Small enough that the decoded records stay in the CPU cache and are freed before
    the garbage collector runs. With 700, it takes a tenth longer until they are in the file."""
    derived_ahead_records: int = 100
    """Records that are derived in one step while a server works: about as many spans as `derived_spans`, which takes a
    millisecond."""
    batch_histories_characters: int = 8 * 2**20
    """Characters of payloads that were put together from parts, after which a batch is full: their records are
    small."""
    termination_look_s: float = 0.1
    """How often the storage is asked whether runs were terminated."""

    server_answer_s: float = 30.0
    """Seconds after which the answer of a server is not waited for any more."""
    server_away_s: float = 7 * 24 * 3600.0
    """Seconds that a server may be away. After that, new records are dropped and counted: the program was forgotten."""
    lease_s: float = 30 * 60.0
    """Seconds that a program may be cut off from its server until its open spans may be closed. An end that comes later
    replaces that. It renews its lease after a third of them."""

    recovery_batch_records: int = 500
    """Records of a dead program that are committed at once."""
    recovery_batch_bytes: int = 2**20
    """Bytes of such records that are committed at once, or one record with more. Others write, and take the interpreter
    lock, in between: a batch of 87 MB held it for 0.6 s in one call that decodes JSON."""
    cached_runs: int = 1000
    """Stored runs, and schema versions, whose span types are cached."""

    otel_grace_s: float = 1.0
    """Seconds after the root of its trace when an open span is closed as abandoned. LangSmith's take 0.4 s."""
    otel_traces: int = 10_000
    """Traces that are remembered while their spans arrive; of older ones the storage is asked."""

    # Storage: SQLite, PostgreSQL, the index, maintenance.

    # Serving.


STANDARD = Tuning()
"""The values that are used where nothing else is passed."""
