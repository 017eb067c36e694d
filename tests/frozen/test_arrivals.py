"""What real session files and recordings of OpenTelemetry become in a file: a hash of the rows of each run.

`AGENTSPAN_TEST_SESSIONS` and `AGENTSPAN_TEST_OTEL` name their folders; without them these tests are skipped. Only what
depends on the file or on the time of storing is left out of a hash.
"""

import json
import os
import random
from collections.abc import Iterable, Iterator, Sequence
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

import agentspan
from agentspan.api.context import Context
from agentspan.cli import main
from agentspan.model.rows import AgentInstanceRow, ScoreRow
from agentspan.otel.receiving import Receiver, import_spans
from agentspan.otel.span import Log, OtelSpan
from agentspan.recording.capture.plain import SentRedaction
from agentspan.storage.access import scan
from agentspan.storage.memory import MemoryStorage
from agentspan.storage.protocol import Storage
from agentspan.storage.questions import SpansOf
from tests.frozen import frozen
from tests.otel.whole import logs_of, paths, spans_of, whole

SESSIONS = os.environ.get("AGENTSPAN_TEST_SESSIONS")
BY_CHANCE = ("inserted_at", "updated_at", "agent_id", "agent_version_id", "agent_schema_version_id", "closed_at")
OF_FILE = 16
"""The characters of an id that depend on the file: its time and the file's partition."""


def comparable(row: Any, run: str) -> str:
    """Return the values of a row that are the same in each file, as a text; also of ids in payloads."""
    values = {name: value for name, value in row._asdict().items() if name not in BY_CHANCE}
    return json.dumps(values, sort_keys=True).replace(run[:OF_FILE], "")


def hashes(storage: Storage, name: str) -> Iterator[str]:
    """Yield a line for each run: its name in the source, its spans and scores, and the hash of all their rows."""
    scores = [row for row in scan(storage, ScoreRow) if isinstance(row, ScoreRow)]
    for run in scan(storage, AgentInstanceRow):
        own = [each._replace(id="") for each in scores if each.agent_instance_id == run.id]
        spans = list(storage.ask(SpansOf(run.id)))
        rows = sorted(comparable(row, run.id) for row in (run, *spans, *own))
        digest = sha256("\n".join(rows).encode()).hexdigest()[:16]
        yield f"{name} {run.external_identifier or run.id[OF_FILE:]} {len(spans)}+{len(own)} {digest}"


def text_of(lines: Iterable[str]) -> str:
    return "".join(f"{line}\n" for line in sorted(lines))


@pytest.mark.skipif(SESSIONS is None, reason="opt-in: AGENTSPAN_TEST_SESSIONS names a folder with session files")
def test_sessions_become_the_same_rows_and_a_second_reading_adds_none(tmp_path: Path) -> None:
    lines: list[str] = []
    for folder in sorted(each for each in Path(SESSIONS or "").iterdir() if each.is_dir()):
        file = str(tmp_path / f"{folder.name}.db")
        results = []
        for _ in range(2):
            done = CliRunner().invoke(main, ["import", str(folder), "--db", file])
            with agentspan.open(file) as database:
                results.append(list(hashes(database.storage, folder.name)))
            assert done.exception is None or isinstance(done.exception, SystemExit), done.output
        assert results[0] == results[1]
        lines += results[0]
    frozen.check("arrivals/sessions.txt", text_of(lines))


def pieces(spans: Sequence[OtelSpan], logs: Sequence[Log], count: int) -> Storage:
    """Return a storage that was sent spans in pieces, each followed by its part of the logs."""
    storage = MemoryStorage()
    receiver = Receiver(Context(storage, redacts=SentRedaction()))
    for number in range(count):
        receiver.store(spans[number::count], logs[number::count])
    return storage


def imported(spans: Sequence[OtelSpan], logs: Sequence[Log]) -> Storage:
    """Return a storage that has imported spans at once."""
    storage = MemoryStorage()
    import_spans(Context(storage, redacts=SentRedaction()), spans, logs)
    return storage


@whole
def test_recordings_become_the_same_rows_in_each_order_and_in_pieces() -> None:
    lines: list[str] = []
    for path in paths():
        spans, logs = list(spans_of(path)), list(logs_of(path))
        shuffled = random.Random(7).sample(spans, len(spans))
        ways = {"order": imported(spans, logs), "shuffled": imported(shuffled, logs), "pieces": pieces(spans, logs, 3)}
        for way, storage in ways.items():
            lines += hashes(storage, f"{path.name.partition('.')[0]} {way}")
    frozen.check("arrivals/otel.txt", text_of(lines))
