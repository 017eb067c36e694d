"""The backend of docs/backends.md: the page shows it whole, it keeps the contract, and it is used by its name."""

import ast
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import agentspan
from agentspan.storage.protocol import Storage
from agentspan.testing import StorageContract
from tests.storage import json_storage
from tests.storage.entry_points import install

SOURCE = Path(json_storage.__file__)
PAGE = Path(__file__).parents[2] / "docs" / "backends.md"


@pytest.fixture(autouse=True)
def jsonfile(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    install(monkeypatch, tmp_path / "installed", "jsonfile", "tests.storage.json_storage:open_json")


@pytest.mark.full
class TestJsonFile(StorageContract):
    @pytest.fixture
    def storage(self, tmp_path: Path) -> Iterator[Storage]:
        storage = agentspan.open(f"jsonfile://{tmp_path}/runs.json").storage
        yield storage
        storage.close()


def test_the_page_shows_the_file() -> None:
    blocks = re.findall(r"^```python\n(.*?)^```$", PAGE.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
    assert SOURCE.read_text(encoding="utf-8") in blocks


def test_it_imports_the_authoring_module_and_nothing_else_of_agentspan() -> None:
    imported = set()
    for node in ast.walk(ast.parse(SOURCE.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            imported |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module is not None:
            imported |= {f"{node.module}.{node.names[0].name}"} if node.module == "agentspan.storage" else {node.module}
    others = {name for name in imported if name.split(".")[0] not in sys.stdlib_module_names}
    assert others == {"agentspan.storage.authoring"}


@pytest.mark.full
def test_it_records_and_is_read_by_its_name(tmp_path: Path) -> None:
    url = f"jsonfile://{tmp_path}/runs.json"
    agentspan.configure(url, raise_errors=True)
    try:
        with agentspan.run("traveller"):
            with agentspan.span("tool", {"name": "search"}) as span:
                span.set_result({"output": "a page about flights"})
            with pytest.raises(ZeroDivisionError), agentspan.span("llm", {"model": "small"}):
                raise ZeroDivisionError
    finally:
        agentspan.shutdown()

    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path)), "PYTHONIOENCODING": "utf-8"}

    def said(*arguments: str) -> str:
        command = [sys.executable, "-m", "agentspan", "--db", url, *arguments]
        done = subprocess.run(command, env=environment, capture_output=True, encoding="utf-8", timeout=60, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout

    runs, shown = said("runs"), said("show", "-")
    assert "traveller" in runs
    assert "passed" in runs
    assert "a page about flights" in shown
    assert "ZeroDivisionError" in shown
