"""The promises of a release: its public names stay, and deprecated ones until their version has come."""

import ast
import re
import warnings
from pathlib import Path

import pytest

import agentspan
from agentspan import deprecation
from tests.checkout import ROOT
from tests.frozen import frozen

RELEASED = sorted((ROOT / "tests" / "frozen" / "released").glob("*.txt"))
_NAME = re.compile(r"(?P<name>[\w.]+)(?:\((?P<parameters>.*)\))?$")


def stubs(text: str) -> str:
    """Return Python with the classes and functions that a file of public names lists."""
    lines: list[str] = []
    owner = ""
    for line in text.splitlines():
        found = _NAME.match(line.strip())
        assert found, line
        name = found["name"].lstrip(".").replace(".", "_")
        parameters = (
            None if found["parameters"] is None else found["parameters"].replace("=", "=...").replace("…", "*_, **__")
        )
        is_member = line.startswith("    ")
        if not is_member and owner:
            lines.append("    pass")
        if is_member:
            lines.append(f"    {name} = ..." if parameters is None else f"    def {name}({parameters}): ...")
            continue
        owner = name
        lines.append(f"class {name}:")
        if parameters is not None:
            lines.append(f"    def __call__({parameters}): ...")
    return "\n".join([*lines, "    pass", ""])


def broken(before: str, now: str, folder: Path) -> list[str]:
    """Return what a program that uses the names of `before` would miss in `now`."""
    griffe = pytest.importorskip("griffe", reason="needs griffe")
    modules = []
    for name, text in (("before", before), ("now", now)):
        (folder / name).mkdir()
        (folder / name / "api.py").write_text(stubs(text))
        modules.append(griffe.load("api", search_paths=[folder / name], allow_inspection=False))
    found = griffe.find_breaking_changes(*modules)
    return [each.explain(griffe.ExplanationStyle.ONE_LINE).partition(": ")[2] for each in found]


@pytest.mark.full
@pytest.mark.skipif(not RELEASED, reason="does not apply: nothing was released")
def test_no_public_name_of_the_last_release_is_gone(tmp_path: Path) -> None:
    now = (frozen.FOLDER / "names.txt").read_text()
    last = max(RELEASED, key=lambda path: [int(part) for part in path.stem.split(".")])
    assert broken(last.read_text(), now, tmp_path) == []


@pytest.mark.full
def test_a_name_and_a_parameter_that_are_gone_are_found(tmp_path: Path) -> None:
    before = "agentspan.run(name, *, version=, task=)\nagentspan.Run\n    .score(name, value)\n    .id\n"
    now = "agentspan.run(name, *, version=, title)\nagentspan.Run\n    .score(name, value, label=)\n"
    for name in ("fewer", "more"):
        (tmp_path / name).mkdir()
    assert len(broken(before, now, tmp_path / "fewer")) == 3
    assert broken(before, before + "agentspan.more()\n", tmp_path / "more") == []


def test_what_is_deprecated_says_what_to_use_at_the_line_that_uses_it() -> None:
    def old() -> None:
        deprecation.warn("old()", "new()", since="0.3", until="0.5")

    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        old()
    (warning,) = caught
    assert warning.filename == __file__
    assert str(warning.message) == "old() is deprecated since agentspan 0.3, and goes in 0.5; use new()"


def test_nothing_deprecated_is_overdue() -> None:
    now = version(agentspan.__version__)
    calls = [
        (path, node)
        for path in sorted((ROOT / "agentspan").rglob("*.py"))
        if "deprecation" in (text := path.read_text(encoding="utf-8"))
        for node in ast.walk(ast.parse(text))
        if isinstance(node, ast.Call) and ast.unparse(node.func) == "deprecation.warn"
    ]
    until = [
        (path, ast.literal_eval(next(each.value for each in call.keywords if each.arg == "until")))
        for path, call in calls
    ]
    assert [f"{path.name}: {each}" for path, each in until if version(each) <= now] == []


def version(text: str) -> list[int]:
    """Return the numbers of a version."""
    return [int(part) for part in re.findall(r"\d+", text)]
