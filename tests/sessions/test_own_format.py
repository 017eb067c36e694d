"""The format of one's own in docs/sessions.md is imported by its entry point, as the page says."""

import json
import re
import subprocess
import sys
from pathlib import Path

from tests.checkout import ROOT
from tests.sessions.installed import environment

PAGE = (ROOT / "docs" / "sessions.md").read_text(encoding="utf-8")
FIRST = {"chat": "7", "at": "2026-11-24T10:00:00Z", "ask": "hi", "answer": "hello", "tokens": [9, 5]}
LATER = {"chat": "7", "at": "2026-11-24T10:00:05Z", "ask": "and?", "answer": "bye"}


def write(home: Path, *lines: object) -> Path:
    path = home / "7.jsonl"
    path.write_text("".join(f"{line if isinstance(line, str) else json.dumps(line)}\n" for line in lines))
    return path


def test_the_format_of_the_page_is_imported_by_its_path(tmp_path: Path) -> None:
    blocks = re.findall(r"^```python\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
    (code,) = (block for block in blocks if "def decode(" in block)
    (entry,) = re.findall(r'^my-agent = "(.*)"$', PAGE, re.MULTILINE)
    where = environment(tmp_path)
    module, _, _ = entry.partition(":")
    package, _, name = module.partition(".")
    folder = tmp_path / "packages"
    (folder / package).mkdir()
    (folder / package / "__init__.py").touch()
    (folder / package / f"{name}.py").write_text(code)
    points = folder / "toyformat-1.0.dist-info" / "entry_points.txt"
    points.write_text(f"[agentspan.sessions]\nmy-agent = {entry}\n")

    def importing(path: Path) -> dict[str, object]:
        command = [sys.executable, "-m", "agentspan", "--db", str(tmp_path / "a.db"), "import", str(path), "--json"]
        done = subprocess.run(command, env=where, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        found: dict[str, object] = json.loads(done.stdout)
        return {name: found[name] for name in ("runs", "steps", "not_understood")}

    assert importing(write(tmp_path, FIRST)) == {"runs": 1, "steps": 1, "not_understood": {}}
    grown = write(tmp_path, FIRST, LATER, "{broken")
    assert importing(grown) == {"runs": 0, "steps": 1, "not_understood": {"a line that is no chat": 1}}


def test_decoders_of_0_2_0_find_the_records_under_their_old_name() -> None:
    from agentspan.arriving import records
    from agentspan.sessions import records as old

    assert {name: getattr(old, name) for name in old.__all__} == {name: getattr(records, name) for name in old.__all__}
    assert {"Record", "Session", "Step", "Unread"} <= {*old.__all__}
