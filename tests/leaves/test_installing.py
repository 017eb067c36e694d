"""Commands that install packages name the pip of the running Python."""

import sys
from pathlib import Path

import pytest

from agentspan import installing


@pytest.fixture
def environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An environment in the current folder that is not active, and has no pip."""
    folder = tmp_path / "my env" / "bin"
    folder.mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "executable", str(folder / "python"))
    monkeypatch.setattr(sys, "path", [])
    monkeypatch.delitem(sys.modules, "pip", raising=False)
    monkeypatch.setenv("PATH", "")
    return folder


def test_pip_is_named_by_its_path_unless_the_environment_is_active(
    environment: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (environment / "pip").touch(0o755)
    assert installing.extra("serve") == "'my env/bin/pip' install \"agentspan-sqlite[serve]\""
    monkeypatch.setenv("PATH", str(environment))
    assert installing.command("pandas", "polars") == "pip install pandas polars"
    (environment / "elsewhere").mkdir()
    monkeypatch.chdir(environment / "elsewhere")
    monkeypatch.setenv("PATH", "")
    assert installing.command("pandas") == f"'{environment / 'pip'}' install pandas"


def test_without_a_program_pip_the_module_or_uv_is_named(environment: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert installing.command("pandas") == "uv pip install --python 'my env/bin/python' pandas"
    (environment / "pip.py").touch()
    monkeypatch.setattr(sys, "path", [str(environment)])
    assert installing.command("pandas") == "'my env/bin/python' -m pip install pandas"
