"""Images and the like: commands print type and size, and `export --blobs` writes files."""

import hashlib
import json
import os
import stat
from base64 import b64encode
from pathlib import Path
from random import Random

import pytest

import agentspan
from agentspan.storage.questions import SpansOf
from tests.cli.calling import call

PNG = b"\x89PNG\r\n\x1a\n" + Random(1).randbytes(3000)
B64 = b64encode(PNG).decode()
HTML = b"<script>" + Random(2).randbytes(3000)


@pytest.fixture
def recorded(db: Path) -> Path:
    tracer = agentspan.Tracer(db, raise_errors=True)
    hostile = {"media_type": "text/../../../etc/passwd", "data": b64encode(HTML).decode()}
    with tracer.run("painter", metadata={"logo": PNG[:2000]}):
        image = {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{B64}"}}
        for step in range(3):
            with tracer.span("llm", {"messages": [{"role": "user", "content": [image, hostile, {"n": step}]}]}) as span:
                span.set_result({"output": PNG})
    tracer.shutdown()
    return db


@pytest.fixture
def db(tmp_path: Path) -> Path:
    return tmp_path / "runs.db"


def test_people_read_type_and_size_and_programs_the_base64(recorded: Path) -> None:
    with agentspan.open(recorded, read_only=True) as opened:
        (run,) = opened.agent_instances.list()
        span = next(opened.storage.ask(SpansOf(run.id)))
    shown = call(recorded, "show", span.id).output
    assert '"url": "data:image/png;base64,[image/png, 3.0 kB]"' in shown
    assert '"output": "[image/png, 3.0 kB]"' in shown
    report = call(recorded, "export", "-", "--format", "markdown").output
    for output in (
        shown,
        report,
        call(recorded, "show", "-", "--payloads").output,
        call(recorded, "search", "png").output,
    ):
        assert "image/png, 3.0 kB" in output
        assert B64[:40] not in output
    document = json.loads(call(recorded, "show", span.id, "--json").output)
    assert document["span"]["result_payload"] == {"output": B64}
    assert B64 in call(recorded, "export", "-").output


def test_export_writes_each_blob_once_to_a_file_that_is_named_by_its_hash(recorded: Path, tmp_path: Path) -> None:
    folder = tmp_path / "files"
    run = tmp_path / "run.jsonl"
    names = {f"{hashlib.sha256(data).hexdigest()}.{end}": data for data, end in ((PNG, "png"), (PNG[:2000], "png"))}
    names[f"{hashlib.sha256(HTML).hexdigest()}.bin"] = HTML
    done = call(recorded, "export", "-", "-o", str(run), "--blobs", str(folder))
    assert f"3 blobs in {folder}" in done.output
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == names
    assert {stat.S_IMODE(path.stat().st_mode) for path in folder.iterdir()} == {0o600}
    kept = folder / next(iter(names))
    kept.write_bytes(b"mine")
    document = json.loads(call(recorded, "export", "all", "--blobs", str(folder), "--json").output)
    assert document["blobs"] == 3
    assert kept.read_bytes() == b"mine"
    assert len(os.listdir(folder)) == 3


def test_a_folder_that_cannot_be_made_is_an_error(recorded: Path, tmp_path: Path) -> None:
    done = call(recorded, "export", "-", "--blobs", str(tmp_path / "no" / "folder"))
    assert done.exit_code == 1
    assert "cannot be written" in done.output
