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

    page_rows: int = 500
    """Rows that a reader of all rows asks a storage for at once: 50 MB if payloads have 100 kB each."""
    checkpoint_commits: int = 1000
    """Commits between two checkpoints of a file's write-ahead log; one of many rows counts as several."""
    checkpoint_restart_pages: int = 8_000
    """Pages of the log (32 MB) after which writers wait for a moment, so that the log can restart: it cannot while they
    write without a pause."""
    sqlite_fork_wait_s: float = 5.0
    """How long a fork waits for threads inside SQLite. A child that inherits SQLite's mutexes locked would hang."""
    file_look_s: float = 0.25
    """Between two checks that the writer's file still exists, where it looks seldom. A check costs 1.5 µs."""
    reported_migration_bytes: int = 200 * 2**20
    """Size of a file whose migration is logged. It may take seconds: SQLite reads all of a table that gets a column."""
    known_content_runs: int = 32
    """Runs whose contents a writer knows without asking the file."""
    known_content_parts: int = 200_000
    """Parts that are known, of all those runs but the latest: 40 MB."""
    rewrite_step_spans: int = 500
    """Spans of older versions that one commit of `compact` looks at."""
    index_pause_s: float = 0.02
    """Between two batches of the index beside a file, in which others can lock it."""
    index_numbers_batch_spans: int = 100_000
    """Spans whose numbers one transaction adds to that index."""
    index_words_batch_spans: int = 5000
    """Spans whose words one transaction adds to it."""
    postgres_write_s: float = 30.0
    """How long the answer to one statement of a write may take, besides waiting for locks."""
    postgres_lock_s: float = 10.0
    """How long a read may wait for a lock, which only a migration holds against it."""
    postgres_statement_s: float = 300.0
    """Then the server ends a statement, or a transaction in which nothing happens."""
    postgres_answer_s: float = 20.0
    """How much longer an answer may take. A server that is there, but stopped, would be waited for without an end."""
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
    """Spans that a copy commits together. A copy that is killed in between repeats one such batch."""
    copy_cursor_s: float = 1.0
    """Between two notes of the place that a copy has come to."""
    copy_look_s: float = 1.0
    """Between two looks of a copy that follows its source, at least."""
    copy_compare_s: float = 300.0
    """Until such a copy compares all runs again, at least: it finds also what was stored late with old times."""
    doctor_adopt_wait_s: float = 10.0
    """How long `doctor` waits, in all, for other processes that adopt the journals of dead programs."""

    # Serving.

    waiting_requests: int = 1000
    """Requests that may wait for other writers at once; further ones are answered with 503 right away."""
    loop_slice_s: float = 0.004
    """How long a group of writes on the event loop may grow: after that it takes no further operation."""
    idle_thread_s: float = 10.0
    """Then a thread of the server without work ends."""
    adoption_answer_s: float = 0.1
    """How long the request that found a dead program's journal waits for it. Most journals are small; then the answer
    has what is in them."""
    body_pause_s: float = 10.0
    """How long a client may pause while it sends a body."""
    run_list_sums_s: float = 0.5
    """How long the list of runs waits for sums: those of a million spans that were never asked for take seconds."""
    kept_logouts: int = 10_000
    """One logout more ends all sessions, since only somebody with the token can log in and out so often."""


STANDARD = Tuning()
"""The values that are used where nothing else is passed."""
