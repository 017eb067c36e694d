"""Each framework has a page with all of its parts. What the pages show is compared with real packages elsewhere."""

import re

import pytest

from agentspan.otel.instruments.known import LIMITS
from tests.checkout import ROOT
from tests.otel.frameworks.pages import INDEX, PICTURES, Page, pages

PARTS = ["Install", "Record", "A program", "What it shows", "What is recorded", "What is missing", "Versions"]
every_page = pytest.mark.parametrize("page", pages(), ids=lambda page: page.name)


def test_each_framework_has_a_row_and_is_in_the_navigation() -> None:
    names = [page.name for page in pages()]
    index, site = INDEX.read_text(encoding="utf-8"), (ROOT / "docs" / "site.toml").read_text(encoding="utf-8")
    assert len(names) == 13
    assert sorted(re.findall(r"^\| \[.*\]\(([\w-]+)\.md\) .* \| [\w-]+ \d[\d.]+ \|$", index, re.MULTILINE)) == names
    assert sorted(set(re.findall(r'"frameworks/([\w-]+)\.md"', site)) - {"index"}) == names


def test_the_known_limits_of_frameworks_without_a_page_are_those_that_record_lists() -> None:
    listed = re.findall(r"^- `([\w-]+)`: (.*)\.$", INDEX.read_text(encoding="utf-8"), re.MULTILINE)
    assert dict(listed) == LIMITS
    assert LIMITS.keys().isdisjoint(page.name for page in pages())


@every_page
def test_a_page_has_all_its_parts(page: Page) -> None:
    assert re.findall(r"^## (.*)$", page.text, re.MULTILINE) == PARTS
    assert len(page.text.splitlines()) <= 124
    assert page.packages
    tried = re.search(r"^Tried on \d{4}-\d\d-\d\d with (.*)\.$", page.text, re.MULTILINE)
    assert tried
    assert [name.partition(" ")[0] for name in tried[1].split(", ")] == [
        *(package.partition("[")[0] for package in page.packages),
        "Python",
    ]


@every_page
def test_the_code_of_a_page_is_that_of_the_tests_and_compiles(page: Page) -> None:
    assert page.blocks("A program", "python") == [*page.programs.values()]
    for code in (*page.blocks("A program", "python"), *page.blocks("Record", "python")):
        compile(code, page.name, "exec")
    assert "agentspan.instrument()" in page.text or "agentspan record -- python weather.py" in page.commands


@every_page
def test_what_a_page_shows_is_a_run_with_a_step_that_failed(page: Page) -> None:
    (shown,) = page.blocks("What it shows", "text")
    assert page.commands[1] == "agentspan show -"
    assert {mark for _, mark, _ in page.steps()} == {"✓", "✗"}
    assert [line for line in shown.splitlines() if len(line) > 88 and not line.startswith("$ ")] == []
    assert "/tmp" not in shown
    assert page.text.count(f"](../images/frameworks/{page.name}.png)\n") == 1
    assert (PICTURES / f"{page.name}.png").stat().st_size <= 60_000
