"""The sizes and times that agentspan works with, in one frozen value for recorders, storages and servers.

Users need not change them: each was measured, and its reason stands beside it. Tests pass smaller values, so that a few
spans reach a limit: `SQLiteStorage(path, tuning=STANDARD._replace(page_rows=2))`.
"""

from typing import Any


class Tuning:
    """Sizes (rows, bytes, characters) and times (names that end with `_s`: seconds)."""

    # No NamedTuple: `help` and mypy would show its seventy numbers in each signature; and it takes 0.35 ms to import.

    # Recording: capture, sinks, the journal, recovery, spans of OpenTelemetry.
    captured_values: int = 100_000
    """The most values that are captured of one payload that is not plain JSON, or in which something is redacted.
    Others become marks with `values`, or with `items`."""
    hashed_bytes: int = 64 * 2**20
    """The most bytes of one payload that are hashed for marks (50 ms). Marks for later bytes have no `sha256`."""
    repeated_elements_bytes: int = 32 * 2**20
    """Bytes of list elements that a run remembers. Beyond this size it remembers those of the latest list only."""

    recording_wait_s: float = 0.25
    """The longest that a recording call waits for the storage. Then the transition waits in memory."""
    backlog_units: int = 10_000
    """The most units that wait in memory because the storage did not accept them. More are lost, and counted."""
    backlog_characters: int = 64 * 2**20
    """The most characters of the units that wait in memory. Further units are lost, and counted."""

    journal_segment_bytes: int = 2**20
    """The size of a journal's first segment: 1,000 spans with 300 bytes in and out."""
    journal_segment_growth: int = 8
    """The size of the largest segment, as a multiple of the first one. So a program that records little needs little
    space and waits less."""
    journal_calls_drain_bytes: int = 256 * 2**20
    """The bytes of full segments above which recording calls drain, too, besides the drain thread."""
    journal_limit_bytes: int = 512 * 2**20
    """The bytes of full segments, including those of other programs in the folder, above which no segment is added:
    the storage accepts nothing. Later transitions wait in memory, as if the disk were full. Transitions for which
    memory has no room are lost, and counted."""
    drain_tick_s: float = 0.02
    """The time between two ticks of the drain thread while records arrive."""
    drain_quiet_ticks: int = 50
    """The number of ticks without a record after which the drain thread ends."""
    drain_portion_bytes: int = 640 * 1024
    """The most bytes of a journal that are committed at once."""
    read_adopts_s: float = 3.0
    """How long a read recovers the journals of dead programs. The rest waits for later reads, and for `doctor`."""
    read_drains_s: float = 1.0
    """How long a read waits for progress while its process's journal is drained. After progress it waits again."""
    derived_spans: int = 50
    """Batch size for deriving spans. Small enough that the decoded records stay in the CPU cache and are freed before
    the garbage collector runs. With 700, it takes a tenth longer until they are in the file."""
    derived_ahead_records: int = 100
    """Records that are derived in one step while a database server commits the records before them. A step takes a
    millisecond, and derives about as many spans as `derived_spans`."""
    batch_histories_characters: int = 8 * 2**20
    """The characters of payloads assembled from parts after which a batch is full. Records of such payloads are small,
    so the size of the records does not limit the batch."""
    termination_look_s: float = 0.1
    """The seconds between two queries whether runs were terminated."""

    budget_look_s: float = 0.1
    """The seconds between two reads of the amounts that other processes used of a budget, or allowed in addition."""
    budget_pause_s: float = 0.2
    """The seconds between two looks of a step that waits because the budget is spent."""

    server_answer_s: float = 30.0
    """How long a program waits for an answer of a server."""
    server_away_s: float = 7 * 24 * 3600.0
    """Seconds that a server may be unreachable. After that, new records are dropped and counted: the server has
    forgotten the program."""
    lease_s: float = 30 * 60.0
    """Seconds that a program may be cut off from its server before its open spans may be closed. An end that arrives
    later replaces the close. A program renews its lease after a third of this time."""

    recovery_batch_records: int = 500
    """Records of a dead program that are committed at once."""
    recovery_batch_bytes: int = 2**20
    """Bytes of a dead program's records that are committed at once; a larger record is committed alone. Between two
    batches, others can write and take the interpreter lock. One call that decodes JSON held the lock for 0.6 s in a
    batch of 87 MB."""
    cached_runs: int = 1000
    """The number of stored runs, and of schema versions, whose span types are cached."""

    otel_grace_s: float = 1.0
    """Seconds after the end of a trace's root until its open spans are closed as abandoned. LangSmith's last spans
    take 0.4 s."""
    otel_portion_bytes: int = 48 * 2**20
    """The approximate bytes of mapped spans of one request after which they are stored. Mapping may make a text 60
    times as large."""
    otel_traces: int = 10_000
    """Traces that are remembered while their spans arrive. Older traces are looked up in the storage."""

    # Storage: SQLite, PostgreSQL, the index, maintenance.

    page_rows: int = 500
    """Rows in one query of a reader that reads a whole table: 50 MB if payloads have 100 kB each."""
    checkpoint_commits: int = 1000
    """Commits between two checkpoints of a file's write-ahead log. A commit of many rows counts as several."""
    checkpoint_restart_pages: int = 8_000
    """Pages of the write-ahead log (32 MB) after which writers wait for a moment, so that the log can restart. It
    cannot restart while writers write without a pause."""
    sync_every_s: float | None = 1.0
    """Seconds between two syncs of recorded data to the disk, by a thread. A power failure loses at most twice this
    time, counted back from it or from a kill that came shortly before. None: the operating system decides when."""
    sqlite_fork_wait_s: float = 5.0
    """How long a fork waits for threads inside SQLite. A child that inherits a locked mutex of SQLite would hang."""
    file_look_s: float = 0.25
    """Seconds between two checks that a writer's file still exists, if it does not check after each commit. A check
    costs 1.5 µs. What is recorded until a check is lost with a file that was deleted."""
    reported_migration_bytes: int = 200 * 2**20
    """The size of a file above which its migration is logged. A migration may take seconds, because SQLite reads the
    whole table that gets a column."""
    known_content_runs: int = 32
    """Runs whose contents a writer remembers, so that it need not query the file."""
    known_content_parts: int = 200_000
    """Parts of contents that a writer remembers (40 MB), not counting those of the latest run."""
    index_pause_s: float = 0.02
    """Seconds between two batches of the index beside a file, in which other processes can lock the index."""
    index_numbers_batch_spans: int = 100_000
    """Spans whose numbers one transaction adds to the index beside a file."""
    index_words_batch_spans: int = 5000
    """Spans whose words one transaction adds to the index beside a file."""
    postgres_write_s: float = 30.0
    """How long PostgreSQL may take to answer one statement of a write, besides waiting for locks."""
    postgres_lock_s: float = 10.0
    """How long a read may wait for a lock in PostgreSQL. Only a migration holds a lock that blocks reads."""
    postgres_statement_s: float = 300.0
    """Seconds after which PostgreSQL ends a statement, or an idle transaction."""
    postgres_answer_s: float = 20.0
    """Seconds that an answer may take beyond `postgres_statement_s`. Without this limit, a program would wait for ever
    for a stopped server that is still connected."""
    postgres_migration_wait_s: float = 10.0
    """The least time to wait for another program that migrates the tables in PostgreSQL."""
    postgres_numbers_batch_spans: int = 50_000
    """Spans whose numbers one transaction adds to the index in PostgreSQL."""
    postgres_numbers_late_spans: int = 1000
    """The most spans missing in the index of numbers that a reader reads from the table instead of indexing them."""
    postgres_words_batch_spans: int = 5000
    """Spans whose words one transaction adds to the index in PostgreSQL."""
    postgres_words_late_spans: int = 20
    """The most spans missing in the index of words that a search reads from the table instead of indexing them."""
    postgres_rare_word_spans: int = 20_000
    """The most likely hits for which a search in PostgreSQL uses the index. For more hits it first looks at this many
    of the latest spans one by one (10 ms)."""
    postgres_sorted_ids: int = 1_000_000
    """The most ids that a search may hold in the memory of a PostgreSQL process: 70 MB."""
    copy_commit_rows: int = 1000
    """Runs and spans that a copy commits together. A copy that is killed repeats at most one such batch."""
    copy_cursor_s: float = 1.0
    """Seconds between two notes of the position that a copy has reached."""
    copy_look_s: float = 1.0
    """The least seconds between two polls of a copy that follows its source."""
    copy_compare_s: float = 300.0
    """The least seconds until a copy that follows its source compares all runs again. The comparison also finds rows
    that were stored late with old times."""
    doctor_s: float = 6.0
    """How long `doctor` recovers the journals of dead programs, also by waiting for other processes that recover them,
    and closes runs. The rest waits for the next `doctor`."""

    # Serving.

    waiting_requests: int = 1000
    """Requests that may wait for other writers at once; further ones are answered with 503 right away."""
    loop_slice_s: float = 0.001
    """How long a group of writes on the event loop accepts further operations. Until all are answered it takes about
    four times as long."""
    idle_thread_s: float = 10.0
    """Seconds after which a server's thread without work ends."""
    adoption_answer_s: float = 0.1
    """How long a request that found a dead program's journal waits for its recovery. Most journals are small, so that
    the answer then includes their records."""
    piece_bytes: int = 2**20
    """The characters of a span, or of a page, above which it is sent in pieces, with its payloads as stored."""
    bulk_answer_bytes: int = 128 * 2**20
    """Bytes of answers after which a bulk request that writes runs no further item, which is `bad_request`: the answers
    are made while the write lock is held."""
    body_pause_s: float = 10.0
    """How long a client may pause while it sends a body."""
    run_list_sums_s: float = 0.5
    """How long the list of runs waits for sums. The first sums over a million spans take seconds."""
    kept_logouts: int = 10_000
    """Logouts that a server remembers. One more ends all sessions, since only a holder of the token can log out so
    often."""

    @property
    def sync_after_s(self) -> float | None:
        """Seconds from one sync to the next: less than `sync_every_s`, because a sync takes time on a busy machine."""
        return None if self.sync_every_s is None else 0.75 * self.sync_every_s

    def _replace(self, **values: Any) -> "Tuning":
        """Return these sizes and times with other values; a TypeError names one that there is not."""
        if unknown := values.keys() - Tuning.__annotations__.keys():
            raise TypeError(f"there is no size or time {', '.join(sorted(unknown))}")
        made, all_values = Tuning(), vars(self) | values
        vars(made).update({name: value for name, value in all_values.items() if value != getattr(Tuning, name)})
        return made

    def __setattr__(self, name: str, value: object) -> None:
        raise AttributeError(f"{name} cannot be set; _replace returns a copy")

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Tuning) and vars(self) == vars(other)

    def __repr__(self) -> str:
        changed = ", ".join(f"{name}={value!r}" for name, value in vars(self).items())
        return f"STANDARD._replace({changed})" if changed else "STANDARD"


STANDARD = Tuning()
"""The default sizes and times."""
