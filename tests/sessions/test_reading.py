"""Compressed session files are read like plain ones: lines from a place on, and the head again after that."""

import gzip
from pathlib import Path

import pytest

from agentspan.sessions.reading import Line, head_hash, lines_of, opened

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


def test_lines_of_any_length_are_read_whole(tmp_path: Path) -> None:
    block = 2**18
    texts = [b"x" * size for size in (0, 1, block - 2, 0, block - 1, block, block + 1, 3, 5 * block, 2)]
    ends = [b"\n", b"\r\n"]
    path = tmp_path / "a.jsonl"
    path.write_bytes(b"".join(text + ends[at % 2] for at, text in enumerate(texts)) + b'{"last": true}')
    with opened(path) as file:
        found = list(lines_of(file))
        assert [line.text for line in found] == [*texts, b'{"last": true}']
        assert found[-1].end == path.stat().st_size
        assert [list(lines_of(file, line.end)) for line in found] == [found[at + 1 :] for at in range(len(found))]


@pytest.mark.parametrize(("last", "is_read"), [("{}", True), ('{"\\ud800": 1}', True), ("{", False), ("[]", False)])
def test_a_last_line_without_an_end_counts_if_it_is_an_object(tmp_path: Path, last: str, is_read: bool) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text(f"a\n{last}")
    with opened(path) as file:
        assert list(lines_of(file)) == [Line(2, b"a"), *([Line(2 + len(last), last.encode())] if is_read else [])]


def test_lines_before_damage_are_read(tmp_path: Path) -> None:
    path = written(tmp_path / "a.jsonl.gz")
    path.write_bytes(path.read_bytes()[:-20_000])
    found: list[Line] = []
    with opened(path) as file, pytest.raises(EOFError):
        found.extend(lines_of(file))
    assert len(found) > 20_000
    assert TEXT.startswith(b"\n".join(line.text for line in found))
