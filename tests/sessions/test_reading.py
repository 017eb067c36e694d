"""Compressed session files are read like plain ones: lines from a place on, and the head again after that."""

import gzip
from pathlib import Path

import pytest

from agentspan.sessions.reading import head_hash, lines_of, opened

TEXT = b"".join(b'{"line": %d}\n' % number for number in range(30_000))


def written(path: Path) -> Path:
    """Write the text to a file that is compressed as its name says: by zstd in two frames."""
    if path.suffix == ".zst":
        zstandard = pytest.importorskip("zstandard", reason="needs zstandard")
        path.write_bytes(zstandard.compress(TEXT[:100_000]) + zstandard.compress(TEXT[100_000:]))
    else:
        path.write_bytes(gzip.compress(TEXT) if path.suffix == ".gz" else TEXT)
    return path


@pytest.mark.parametrize("ending", ["", ".gz", ".zst"])
def test_lines_from_a_place_on_and_back_again(tmp_path: Path, ending: str) -> None:
    with opened(written(tmp_path / f"a.jsonl{ending}")) as file:
        lines = list(lines_of(file))
        assert b"".join(line.text + b"\n" for line in lines) == TEXT
        assert list(lines_of(file, lines[20_000].end)) == lines[20_001:]
        hashed = head_hash(file)
        assert list(lines_of(file, lines[9].end))[:2] == lines[10:12]
    with opened(written(tmp_path / "a.jsonl")) as plain:
        assert hashed == head_hash(plain)


def test_broken_data_is_an_error_of_the_file(tmp_path: Path) -> None:
    path = written(tmp_path / "a.jsonl.zst")
    path.write_bytes(b"\xff" * 500)
    with opened(path) as file, pytest.raises(OSError, match="broken"):
        list(lines_of(file))
