"""Forwards the finished spans of a storage to any OpenTelemetry backend, and resumes after the last accepted span.

A file beside the database records the spans that each target has accepted. If either side dies before a span is
recorded there, the span is sent again with the same ids, and agentspan as the target stores it once. Scores are sent
with their span; a score that is added later is sent as a log record.

Requests are retried with growing pauses until the target accepts them. This is the only module outside of `serve` that
imports network modules; a test checks this.
"""

import gzip
import hashlib
import http.client
import json
import os
import re
import sqlite3
import ssl
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import closing, suppress
from itertools import islice
from pathlib import Path
from typing import NamedTuple
from urllib.parse import urlsplit

from agentspan import files
from agentspan.errors import AgentspanError, InvalidValue
from agentspan.journal.opening import open_storage
from agentspan.model.changes import OPEN
from agentspan.model.rows import AgentInstanceRow, AgentRow, AgentSpanRow, AgentVersionRow, ScoreRow
from agentspan.otel import writing
from agentspan.otel.otlp.requests import log_request, trace_request
from agentspan.otel.writing import OutgoingRun
from agentspan.storage.access import instances, scan
from agentspan.storage.location import Location
from agentspan.storage.protocol import Storage
from agentspan.storage.questions import Counts, Find, Outlines, SpansOf, Tags
from agentspan.storage.row_by_row import history

_NOT_SERVED = frozenset({404, 405, 501})
_AGAIN = frozenset({429, 502, 503, 504})
"""The HTTP statuses after which a request is retried, from OTLP's specification."""
FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.5, 30.0
_ADDRESS = re.compile(r"[!-~]+")
_NAME = re.compile(r"[!-9;-~]+")
_VALUE = re.compile(r"[\t -~\x80-\xff]*")


class _Stopped(Exception):
    """The caller wants no further attempt."""


class ForwardingFailed(AgentspanError):
    """A target did not accept a request. Nothing is lost: the next `forward` sends the request's spans again."""

    code = "unknown"


class NotServed(ForwardingFailed):
    """The target does not serve the address of the request, such as `/v1/logs` (HTTP 404, 405 or 501)."""


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """Follows no redirects: headers with a token must go to the configured target only."""

    def redirect_request(self, *_: object) -> None:
        return None


def address(to: str) -> str:
    """Return the address for traces: the target's address, with `/v1/traces` appended unless it ends so.

    Raises:
        InvalidValue: `to` is no http or https address, or has a user, a query or a fragment.
    """
    try:
        parts = urlsplit(to if _ADDRESS.fullmatch(to) else "")
        is_whole = bool(parts.hostname) and parts.port != 0 and "@" not in parts.netloc
    except ValueError:
        is_whole = False
    if not is_whole or parts.scheme not in ("http", "https") or parts.query or parts.fragment:
        raise InvalidValue("to", "must be an address such as http://127.0.0.1:4318")
    return to if parts.path.endswith("/v1/traces") else f"{to.rstrip('/')}/v1/traces"


class Sender:
    """Sends OTLP requests to one target.

    Args:
        to: the address of the target; `/v1/traces` is appended unless the address ends so.
        headers: HTTP headers to send with each request.
        tries: the most attempts for a request; None for no limit.
        timeout_s: the timeout of one attempt.
        pause: sleeps for a number of seconds.

    Raises:
        InvalidValue: `to` is no address, or a header has characters that HTTP does not allow.
    """

    def __init__(
        self,
        to: str,
        headers: Mapping[str, str],
        *,
        tries: int | None = 8,
        timeout_s: float = 30.0,
        pause: Callable[[float], object] = time.sleep,
    ) -> None:
        self.to = address(to)
        if not all(_NAME.fullmatch(name) and _VALUE.fullmatch(value) for name, value in headers.items()):
            raise InvalidValue("headers", "have a character that HTTP does not allow")
        self._logs_to = f"{self.to.removesuffix('/v1/traces')}/v1/logs"
        self._headers = {"Content-Type": "application/x-protobuf", "Content-Encoding": "gzip", **headers}
        self._tries, self._timeout_s, self._pause = tries, timeout_s, pause
        self._opener = urllib.request.build_opener(_NoRedirect)

    def send(self, body: bytes, *, are_logs: bool = False) -> None:
        """Send a request in protobuf; return when the target has accepted it.

        Args:
            are_logs: whether the body has log records instead of spans.

        Raises:
            ForwardingFailed: the target refused the request, or all `tries` failed.
            NotServed: the target does not serve the address of the request.
        """
        to = self._logs_to if are_logs else self.to
        data, wait_s, tried = gzip.compress(body, 1), FIRST_PAUSE_S, 0
        while True:
            tried += 1
            why, asked_s = self._try(to, data)
            if why is None:
                return
            if self._tries is not None and tried >= self._tries:
                raise ForwardingFailed(f"{to} {why}; tried {tried} times")
            self._pause(min(max(wait_s, asked_s), LONGEST_PAUSE_S))
            wait_s = min(2 * wait_s, LONGEST_PAUSE_S)

    def _try(self, to: str, data: bytes) -> tuple[str | None, float]:
        """Send a request once; return the reason of a failure or None, and the seconds of the target's Retry-After.

        Raises:
            ForwardingFailed: the failure is permanent, so a retry is useless.
        """
        request = urllib.request.Request(to, data, self._headers, method="POST")
        try:
            with self._opener.open(request, timeout=self._timeout_s) as answer:
                answer.read()
                return None, 0.0
        except urllib.error.HTTPError as error:
            with error:
                if error.code not in _AGAIN:
                    kind = NotServed if error.code in _NOT_SERVED else ForwardingFailed
                    raise kind(f"{to} refused it with {error.code}") from None
                asked = error.headers.get("Retry-After", "")
                return f"answered with {error.code}", float(asked) if asked.isdigit() else 0.0
        except ssl.SSLCertVerificationError as error:
            raise ForwardingFailed(f"{to} has no valid certificate: {error.verify_message}") from None
        except (TimeoutError, OSError, http.client.HTTPException) as error:
            return f"could not be reached ({type(error).__name__})", 0.0


_TABLE = """
create table if not exists sent (
    target text not null, run text not null, spans blob not null, has_run integer not null, primary key (target, run)
) without rowid
"""
_SCORES = """
create table if not exists sent_scores (
    target text not null, run text not null, scores blob not null, primary key (target, run)
) without rowid
"""
_SIZE = 10
"""The bytes that are stored for each span or score: the start of a hash of its id."""


class SentOfRun(NamedTuple):
    """The forwarded part of a run.

    Attributes:
        spans: hashes of the ids of the forwarded spans.
        has_run: whether the root span for the run itself was forwarded.
    """

    spans: frozenset[bytes] = frozenset()
    has_run: bool = False


def hashed(id: str) -> bytes:
    """Return the stored hash of the id of a span or score."""
    return hashlib.sha256(id.encode()).digest()[:_SIZE]


class Cursor:
    """Stores, in a SQLite file, which spans and scores one target has accepted.

    Args:
        path: the path of the file, which is created if it is missing.
        target: the address of the target.

    Raises:
        InvalidValue: the file cannot be written, or is no file of SQLite.
    """

    def __init__(self, path: Path, target: str) -> None:
        self._path, self._target = path, target
        try:
            files.ensure(path)
            with closing(self._open()) as connection:
                connection.execute(_TABLE)
                connection.execute(_SCORES)
        except (OSError, sqlite3.Error) as error:
            raise InvalidValue("state", f"{path} cannot be used: {error}") from None

    def counts(self) -> dict[str, tuple[int, bool]]:
        """Return, by run, the number of forwarded spans and whether the run's own root span was forwarded."""
        sql = "select run, length(spans), has_run from sent where target = ?"
        with closing(self._open()) as connection:
            rows = connection.execute(sql, (self._target,)).fetchall()
        return {run: (size // _SIZE, bool(has_run)) for run, size, has_run in rows}

    def of(self, run: str) -> SentOfRun:
        """Return the forwarded part of a run; an empty one if nothing of the run was forwarded."""
        sql = "select spans, has_run from sent where target = ? and run = ?"
        with closing(self._open()) as connection:
            row = connection.execute(sql, (self._target, run)).fetchone()
        return SentOfRun() if row is None else SentOfRun(_hashes(row[0]), bool(row[1]))

    def scores(self) -> dict[str, set[bytes]]:
        """Return the hashes of the ids of the forwarded scores, by run."""
        sql = "select run, scores from sent_scores where target = ?"
        with closing(self._open()) as connection:
            return {run: {*_hashes(found)} for run, found in connection.execute(sql, (self._target,))}

    def add(self, run: str, spans: Iterable[str], *, with_run: bool, scores: Iterable[str] = ()) -> None:
        """Store durably that the target has accepted spans and scores of a run.

        Args:
            with_run: whether the root span for the run itself was accepted, too.
        """
        sql = (
            "insert into sent values (?, ?, ?, ?) on conflict do update "
            "set spans = cast(spans || excluded.spans as blob), has_run = max(has_run, excluded.has_run)"
        )
        of_scores = (
            "insert into sent_scores values (?, ?, ?) on conflict do update "
            "set scores = cast(scores || excluded.scores as blob)"
        )
        hashes = b"".join(map(hashed, scores))
        with closing(self._open()) as connection:
            connection.execute("begin immediate")
            connection.execute(sql, (self._target, run, b"".join(map(hashed, spans)), int(with_run)))
            if hashes:
                connection.execute(of_scores, (self._target, run, hashes))
            connection.execute("commit")

    def _open(self) -> sqlite3.Connection:
        connection = sqlite3.connect(self._path, isolation_level=None, timeout=30)
        connection.execute("pragma synchronous = full")
        return connection


def _hashes(found: bytes) -> frozenset[bytes]:
    return frozenset(found[at : at + _SIZE] for at in range(0, len(found), _SIZE))


BATCH = 500
ENDS = 10
"""The most steps of a run of which one may have the run's input, and of which one may have its output."""
MAX_BYTES = 4 * 2**20
"""The characters of all payloads of one request, about."""
POLL_S = 1.0
SETTLED_S = 600.0
"""The seconds for which an ended run is still checked for new spans while following.

Its last spans may be in a journal that is drained later.
"""


class Forwarded(NamedTuple):
    """The numbers of runs, spans and scores that a target has accepted.

    Attributes:
        runs: the number of completely forwarded runs.
        spans: the number of forwarded spans, without the root spans for the runs.
        late_scores: the number of scores sent as log records, because they were added after their span was sent.
        left_scores: the number of scores that were not sent, because the target has no `/v1/logs`.
    """

    runs: int
    spans: int
    late_scores: int = 0
    left_scores: int = 0


def forward(
    to: str,
    db: "str | os.PathLike[str] | Location | Storage | None" = None,
    *,
    headers: Mapping[str, str] | None = None,
    follow: bool = False,
    state: "str | os.PathLike[str] | None" = None,
    tries: int | None = None,
    stop: Callable[[], bool] = lambda: False,
) -> Forwarded:
    """Send all finished spans that a target has not accepted yet, as OTLP over HTTP.

    Args:
        to: the address of the target, such as `http://127.0.0.1:6006`; `/v1/traces` is appended.
        db: a file, `NAME://…` or a Storage; AGENTSPAN_DB, else ./agentspan.db, when left out.
        headers: HTTP headers to send with each request, such as `{"Authorization": "Bearer …"}`.
        follow: whether to keep sending spans as they finish, until `stop` returns true.
        state: the file that records the accepted spans; `NAME-forward` beside the database when left out.
        tries: the most attempts for a request. When left out: 8, or no limit with `follow`.
        stop: called about once a second with `follow`.

    Raises:
        InvalidValue: `to` is no address, a header is none of HTTP, `state` cannot be used, or the storage is no file
            and `state` is left out.
        ForwardingFailed: the target did not accept a request. The spans accepted before are recorded in `state`.
    """

    def pause(seconds: float) -> None:
        until_s = time.monotonic() + seconds
        while (left_s := until_s - time.monotonic()) > 0:
            if stop():
                raise _Stopped
            time.sleep(min(left_s, POLL_S))

    sender = Sender(to, headers or {}, tries=tries if tries is not None or follow else 8, pause=pause)
    is_ours = db is None or isinstance(db, (str, os.PathLike, Location))
    storage = open_storage(db, read_only=True)
    try:
        cursor = Cursor(_state_of(storage, state), sender.to)
        forwarder = _Forwarder(storage, sender, cursor)
        with suppress(_Stopped):
            forwarder.look(scan(storage, AgentInstanceRow))
            forwarder.look_at_scores()
            since_s = time.monotonic()
            while follow and not stop():
                time.sleep(POLL_S)
                is_old = time.monotonic() - since_s > SETTLED_S
                since_s = time.monotonic() if is_old else since_s
                forwarder.look(scan(storage, AgentInstanceRow) if is_old else forwarder.recent())
                forwarder.look_at_scores(only_new=not is_old)
        return Forwarded(forwarder.runs, forwarder.spans, forwarder.late_scores, forwarder.left_scores)
    finally:
        if is_ours:
            storage.close()


def _state_of(storage: Storage, state: "str | os.PathLike[str] | None") -> Path:
    if state is not None:
        return Path(state)
    location = storage.capabilities().location
    if location is None or location.path is None:
        raise InvalidValue("state", "names no file; this storage is none beside which one could be made")
    return location.path.with_name(f"{location.path.name}-forward")


class _Forwarder:
    def __init__(self, storage: Storage, sender: Sender, cursor: Cursor) -> None:
        self._storage, self._sender, self._cursor = storage, sender, cursor
        self._counts = cursor.counts()
        self._looked: dict[str, float] = {}
        self._takes_logs = True
        self._last = self._last_score = ""
        self._sent_scores = cursor.scores()
        self.runs = self.spans = self.late_scores = self.left_scores = 0

    def recent(self) -> Iterator[AgentInstanceRow]:
        """Yield the new runs, and the runs that were open or first checked in the last SETTLED_S seconds."""
        now_s = time.monotonic()
        self._looked = {id: at_s for id, at_s in self._looked.items() if now_s - at_s < SETTLED_S}
        ids = iter([*self._looked])
        while batch := list(islice(ids, BATCH)):
            for _, row in self._storage.ask(Find(*batch)).rows.values():
                if isinstance(row, AgentInstanceRow):
                    yield row
        yield from scan(self._storage, AgentInstanceRow, after=self._last)

    def look(self, runs: Iterator[AgentInstanceRow]) -> None:
        """Send the finished spans of runs that were not sent yet."""
        while batch := list(islice(runs, BATCH)):
            counts = self._storage.ask(Counts([run.id for run in batch]))
            for run in batch:
                self._last = max(self._last, run.id)
                is_open, found = run.status in OPEN, counts.get(run.id)
                if is_open or run.id not in self._looked:
                    self._looked[run.id] = time.monotonic()
                finished = 0 if found is None else found.finished
                if self._counts.get(run.id, (0, False)) != (finished, not is_open) and run.status != "pending":
                    self._send_run(run, is_open=is_open)

    def _send_run(self, row: AgentInstanceRow, *, is_open: bool) -> None:
        run, sent = named(self._storage, row), self._cursor.of(row.id)
        unsent = (
            span
            for span in self._storage.ask(SpansOf(row.id))
            if span.status not in OPEN and hashed(span.id) not in sent.spans
        )
        total = len(sent.spans)
        for batch in _parts(unsent):
            self._send(run, batch, with_run=False)
            total += len(batch)
        with_run = not is_open and not sent.has_run
        if with_run:
            self._send(_with_ends(self._storage, run), [], with_run=True)
            self.runs += 1
        self._counts[row.id] = (total, sent.has_run or with_run)

    def _send(self, run: OutgoingRun, spans: list[AgentSpanRow], *, with_run: bool) -> None:
        targets = {span.id for span in spans} | ({run.row.id} if with_run else set())
        scores = [score for score in history(self._storage, run.row.id) if score.target_id in targets]
        self._sender.send(trace_request(writing.request(run, spans, with_run=with_run, scores=scores)))
        self._note(run, scores, spans=spans, with_run=with_run)
        self.spans += len(spans)

    def look_at_scores(self, *, only_new: bool = False) -> None:
        """Send the scores that were added after their run or span was sent.

        Args:
            only_new: whether to check only scores with ids greater than all that were checked. Another process may
                store a score with a smaller id later, so the caller sometimes passes False.
        """
        unsent: dict[str, list[ScoreRow]] = {}
        for score in scan(self._storage, ScoreRow, after=self._last_score if only_new else ""):
            self._last_score = max(self._last_score, score.id)
            if hashed(score.id) not in self._sent_scores.get(score.agent_instance_id, ()):
                unsent.setdefault(score.agent_instance_id, []).append(score)
        self.left_scores = 0 if not only_new else self.left_scores
        for id, scores in unsent.items():
            sent = self._cursor.of(id)
            late = [score for score in scores if self._is_sent(score, sent)]
            _, row = self._storage.ask(Find(id, instance_id=id)).rows.get(id, (None, None))
            if late and isinstance(row, AgentInstanceRow):
                self._send_scores(named(self._storage, row), late)

    @staticmethod
    def _is_sent(score: ScoreRow, sent: SentOfRun) -> bool:
        """Return whether the target run or span of a score was sent; if not, the score will be sent with it."""
        return sent.has_run if score.target_type == "agent_instance" else hashed(score.target_id) in sent.spans

    def _send_scores(self, run: OutgoingRun, scores: Sequence[ScoreRow]) -> None:
        for at in range(0, len(scores), BATCH):
            part = scores[at : at + BATCH]
            if not self._takes_logs:
                self.left_scores += len(part)
                continue
            try:
                self._sender.send(log_request(writing.log_request(run, part)), are_logs=True)
            except NotServed:
                self._takes_logs = False
                self.left_scores += len(part)
                continue
            self._note(run, part)
            self.late_scores += len(part)

    def _note(
        self,
        run: OutgoingRun,
        scores: Sequence[ScoreRow],
        *,
        spans: Sequence[AgentSpanRow] = (),
        with_run: bool = False,
    ) -> None:
        ids = [score.id for score in scores]
        self._cursor.add(run.row.id, [span.id for span in spans], with_run=with_run, scores=ids)
        self._sent_scores.setdefault(run.row.id, set()).update(map(hashed, ids))


def named(storage: Storage, row: AgentInstanceRow) -> OutgoingRun:
    """Return a stored run as an OutgoingRun, with the names of its agent and version, and its tags."""
    found = storage.ask(Find(row.agent_id, row.agent_version_id)).rows
    agent, version = found[row.agent_id][1], found[row.agent_version_id][1]
    assert isinstance(agent, AgentRow)
    assert isinstance(version, AgentVersionRow)
    tags = storage.ask(Tags([row.id]))[row.id]
    return OutgoingRun(row, agent.external_identifier or agent.name, version.external_identifier, tags)


def _with_ends(storage: Storage, run: OutgoingRun) -> OutgoingRun:
    """Return a run with its first and its last steps, the outermost of them first."""
    steps = storage.ask(Outlines(run.row.id, bare=True))
    steps.sort(key=lambda row: (row.started_at or row.inserted_at, row.id))
    first, last = (
        [row.id for row in sorted(each, key=lambda row: row.parent_span_id is not None)[:ENDS]]
        for each in (steps, steps[::-1])
    )
    found = storage.ask(Find(*{*first, *last}, instance_id=run.row.id)).rows
    rows = {id: row for id, (_, row) in found.items() if isinstance(row, AgentSpanRow)}
    return run._replace(first=[rows[id] for id in first if id in rows], last=[rows[id] for id in last if id in rows])


def _parts(spans: Iterator[AgentSpanRow]) -> Iterator[list[AgentSpanRow]]:
    """Yield spans in parts of at most BATCH spans, and about MAX_BYTES characters of payloads."""
    part: list[AgentSpanRow] = []
    size = 0
    for span in spans:
        more = len(span.payload) + len(span.result_payload or "")
        if part and (len(part) >= BATCH or size + more > MAX_BYTES):
            yield part
            part, size = [], 0
        part.append(span)
        size += more
    if part:
        yield part


def lines(storage: Storage, runs: list[str]) -> Iterator[str]:
    """Yield runs as OTLP in JSON, one request a line, the format of the OpenTelemetry Collector's file exporter.

    Open spans are left out: OTLP has finished spans only. The text is ASCII, so it cannot move a terminal's cursor.
    """
    for row in instances(storage, runs):
        run, scores = named(storage, row), history(storage, row.id)
        finished = (span for span in storage.ask(SpansOf(row.id)) if span.status not in OPEN)
        for part in _parts(finished):
            yield json.dumps(writing.request(run, part, with_run=False, scores=scores))
        if row.status not in OPEN:
            yield json.dumps(writing.request(_with_ends(storage, run), [], with_run=True, scores=scores))
