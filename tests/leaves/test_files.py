"""Private files: what is at a path, and files that are replaced whole."""

import os
import stat
from pathlib import Path

import pytest

from agentspan import files


def test_a_missing_file_has_no_properties_and_no_text(tmp_path: Path) -> None:
    assert files.stat_of(tmp_path / "a") is None
    assert files.text_of(tmp_path / "a") is None
    assert files.text_of(tmp_path) is None


def test_a_link_is_followed_unless_it_is_asked_about_itself(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tmp_path / "file")
    itself = files.stat_of(tmp_path / "link", follow_symlinks=False)
    assert itself is not None
    assert stat.S_ISLNK(itself.st_mode)
    assert files.stat_of(tmp_path / "link") is None
    (tmp_path / "file").write_bytes(b"text")
    found = files.stat_of(tmp_path / "link")
    assert found is not None
    assert found.st_size == 4


def test_a_file_that_is_no_text_has_none(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"a\xff")
    assert files.text_of(tmp_path / "file") is None
    assert files.text_of(tmp_path / "file", errors="replace") == "a\ufffd"


def test_a_file_is_replaced_whole_or_not_at_all(tmp_path: Path) -> None:
    path = tmp_path / "file"
    with files.replacing(path, encoding="utf-8") as file:
        file.write("first")
    with pytest.raises(UnicodeEncodeError), files.replacing(path, encoding="ascii") as file:
        file.write("\u00e9")
    assert path.read_text() == "first"
    assert os.listdir(tmp_path) == ["file"]


def test_a_new_file_is_private_unless_it_keeps_the_mode_of_the_old_one(tmp_path: Path) -> None:
    path = tmp_path / "file"
    with files.replacing(path):
        pass
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    path.chmod(0o644)
    with files.replacing(path, keeps_mode=True):
        pass
    assert stat.S_IMODE(path.stat().st_mode) == 0o644
    with files.replacing(path):
        pass
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
