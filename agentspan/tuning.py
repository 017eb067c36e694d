"""The sizes and times that agentspan works with: one frozen value, which recorders, storages and servers take.

Users need none of them: each was measured, and its reason stands beside it. Tests pass smaller ones, so that a limit is
reached with a few spans: `SQLiteStorage(path, tuning=STANDARD._replace(page_rows=2))`.
"""

from typing import NamedTuple


class Tuning(NamedTuple):
    """Sizes (rows, bytes, characters) and times (names that end with `_s`: seconds).

    A NamedTuple takes 0.35 ms of the import, a frozen dataclass 2.1.
    """

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
    otel_portion_bytes: int = 48 * 2**20
    """Bytes that spans of a request may be mapped to until those are stored, about. A text may become 60 times as
    large."""
    otel_traces: int = 10_000
    """Traces that are remembered while their spans arrive; of older ones the storage is asked."""

    # Storage: SQLite, PostgreSQL, the index, maintenance.

    page_rows: int = 500
    """Rows that a reader of all rows asks a storage for at once: 50 MB if payloads have 100 kB each."""
    checkpoint_commits: int = 1000
    """Commits between two checkpoints of a file's write-ahead log; one of many rows counts as several."""
    checkpoint_restart_pages: int = 8_000
    """Pages of the log (32 MB) after which writers wait for a moment, so that the log can restart: it cannot while they
    write without a pause."""
    sync_every_s: float | None = 1.0
    """Seconds between two times that a thread has what was recorded on the disk: a power failure loses at most twice as
    much. None: the operating system writes it when it likes."""
    sqlite_fork_wait_s: float = 5.0
    """How long a fork waits for threads inside SQLite. A child that inherits SQLite's mutexes locked would hang."""
    file_look_s: float = 0.25
    """Time between two checks that the writer's file still exists, where it looks seldom. A check costs 1.5 µs."""
    reported_migration_bytes: int = 200 * 2**20
    """Size of a file whose migration is logged. It may take seconds: SQLite reads all of a table that gets a column."""
    known_content_runs: int = 32
    """Runs whose contents a writer knows without asking the file."""
    known_content_parts: int = 200_000
    """Parts that are known, of all those runs but the latest: 40 MB."""
    index_pause_s: float = 0.02
    """Time between two batches of the index beside a file, in which others can lock it."""
    index_numbers_batch_spans: int = 100_000
    """Spans whose numbers one transaction adds to that index."""
    index_words_batch_spans: int = 5000
    """Spans whose words one transaction adds to it."""
    postgres_write_s: float = 30.0
    """How long the answer to one statement of a write may take, besides waiting for locks."""
    postgres_lock_s: float = 10.0
    """How long a read may wait for a lock, which only a migration holds against it."""
    postgres_statement_s: float = 300.0
    """Time after which the server ends a statement, or a transaction in which nothing happens."""
    postgres_answer_s: float = 20.0
    """Time that an answer may take beyond that. Else a server that is there, but stopped, would be awaited for ever."""
    postgres_migration_wait_s: float = 10.0
    """How long to wait, at least, for another program that migrates the tables."""
    postgres_numbers_batch_spans: int = 50_000
    """Spans whose numbers one transaction adds to the index in PostgreSQL."""
    postgres_numbers_late_spans: int = 1000
    """Spans that a reader of the numbers reads beside the index, instead of adding them to it."""
    postgres_words_batch_spans: int = 5000
    """Spans whose words one transaction adds to the index in PostgreSQL."""
    postgres_words_late_spans: int = 20
    """Spans that a search reads beside the index, instead of adding them to it."""
    postgres_rare_word_spans: int = 20_000
    """Spans that a search looks at one by one (10 ms), and spans that the index finds sooner than that."""
    postgres_sorted_ids: int = 1_000_000
    """Ids that a search may have in the memory of a server process: 70 MB."""
    copy_commit_rows: int = 1000
    """Runs and spans that a copy commits together. A copy that is killed in between repeats one such batch."""
    copy_cursor_s: float = 1.0
    """Time between two notes of the place that a copy has come to."""
    copy_look_s: float = 1.0
    """Least time between two looks of a copy that follows its source."""
    copy_compare_s: float = 300.0
    """Least time until such a copy compares all runs again, which finds also what was stored late with old times."""
    doctor_adopt_wait_s: float = 10.0
    """How long `doctor` waits, in all, for other processes that adopt the journals of dead programs."""

    # Serving.

    waiting_requests: int = 1000
    """Requests that may wait for other writers at once; further ones are answered with 503 right away."""
    loop_slice_s: float = 0.004
    """How long a group of writes on the event loop may grow: after that it takes no further operation."""
    idle_thread_s: float = 10.0
    """Time after which a thread of the server without work ends."""
    adoption_answer_s: float = 0.1
    """How long the request that found a dead program's journal waits for it. Most journals are small; then the answer
    has what is in them."""
    piece_bytes: int = 2**20
    """Characters of a span, or of a page, from which it is sent in pieces, with its payloads as they are stored."""
    bulk_answer_bytes: int = 128 * 2**20
    """Bytes of the answers to a bulk request that writes after which none of its items runs: they are made while the
    write lock is held."""
    body_pause_s: float = 10.0
    """How long a client may pause while it sends a body."""
    run_list_sums_s: float = 0.5
    """How long the list of runs waits for sums: those of a million spans that were never asked for take seconds."""
    kept_logouts: int = 10_000
    """Logouts that a server keeps. One more ends all sessions: only who has the token can log in and out so often."""

    @property
    def sync_after_s(self) -> float | None:
        """The time after a sync at which the next one begins: early, as it takes time and the machine may be busy."""
        return None if self.sync_every_s is None else 0.75 * self.sync_every_s


STANDARD = Tuning()
"""The values that are used where nothing else is passed."""
