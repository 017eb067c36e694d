"""The documentation is true: its examples run, and the reference names everything that there is."""

import importlib
import json
import os
import re
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

import agentspan
from agentspan import errors
from agentspan.cli.app import called
from tests import airline_conversations
from tests.checkout import ROOT
from tests.cli.calling import EVERY, named
from tests.tiers import OPT_IN

DOCS = ROOT / "docs"
WORKED = DOCS / "worked-example.md"
REFERENCE = {page.stem: page.read_text(encoding="utf-8") for page in sorted((DOCS / "reference").glob("*.md"))}
PAGES = [ROOT / "README.md", *sorted(DOCS.glob("*.md")), *sorted((DOCS / "reference").glob("*.md"))]

FENCE = re.compile(r"(`{3,})(\w*)\n(.*?)^\1$", re.MULTILINE | re.DOTALL)
OPT_OUT = re.compile(r"<!-- not run: \S.* -->\n\Z")


class Block(NamedTuple):
    """A fenced block that is to be run."""

    page: str
    line: int
    kind: str
    code: str


def blocks(text: str, page: str) -> Iterator[Block]:
    for match in FENCE.finditer(text):
        if match[2] in ("python", "sql", "console") and not OPT_OUT.search(text[: match.start()]):
            yield Block(page, text.count("\n", 0, match.start()) + 1, match[2], match[3])


def run_blocks(found: list[Block], folder: Path) -> "subprocess.CompletedProcess[str]":
    environment = {
        **os.environ,
        "AGENTSPAN_DB": str(folder / "agentspan.db"),
        "PYTHONPATH": str(Path(agentspan.__file__).parents[1]),
        "PYTHONIOENCODING": "utf-8",
    }
    return subprocess.run(
        [sys.executable, "-W", "error", "-m", "tests.page_blocks"],
        input=json.dumps(found),
        cwd=folder,
        env=environment,
        capture_output=True,
        encoding="utf-8",
        timeout=60,
    )


@pytest.mark.parametrize(
    "page",
    [
        pytest.param(page, marks=() if page == PAGES[0] else pytest.mark.full, id=str(page.relative_to(ROOT)))
        for page in PAGES
        if page == PAGES[0] or any(blocks(page.read_text(encoding="utf-8"), page.name))
    ],
)
def test_examples_run(page: Path, tmp_path: Path) -> None:
    if page == WORKED:
        airline_conversations.write(tmp_path / "gpt-4o-airline.json")
    done = run_blocks(list(blocks(page.read_text(encoding="utf-8"), page.name)), tmp_path)
    assert done.returncode == 0, done.stderr
    assert "recording: " not in done.stderr  # no example runs into a fault that is only logged


@pytest.mark.nightly
@pytest.mark.skipif("AGENTSPAN_TEST_AIRLINE" not in os.environ, reason=f"{OPT_IN}AGENTSPAN_TEST_AIRLINE")
def test_the_worked_example_shows_what_the_published_runs_give(tmp_path: Path) -> None:
    """AGENTSPAN_TEST_AIRLINE is the path of the file that the page names."""
    (tmp_path / "gpt-4o-airline.json").symlink_to(Path(os.environ["AGENTSPAN_TEST_AIRLINE"]).absolute())
    text = WORKED.read_text(encoding="utf-8")
    done = run_blocks(list(blocks(text, WORKED.name)), tmp_path)
    assert done.returncode == 0, done.stderr
    shown = [block.code for block in blocks(text, WORKED.name) if block.kind == "console"]
    answers = [answer for code in shown for answer in re.split(r"^\$ .*\n", code, flags=re.MULTILINE) if answer]
    assert len(answers) > 5
    at = 0
    for answer in answers:
        found = re.compile(_pattern(answer), re.MULTILINE | re.DOTALL).search(done.stdout, at)
        assert found, f"{answer}\n\nis not in\n\n{done.stdout[at:]}"
        at = found.end()


def _pattern(shown: str) -> str:
    """An answer as a pattern: … is any text, and ids and times are others each time."""
    pattern = re.escape(shown).replace("…\\\n", ".*?").replace("…", ".*?")
    return re.sub(r"\b01m8\w+|\d\d\\-\d\d\\ \d\d:\d\d:\d\d", r"[\\w: -]+", pattern)


@pytest.mark.full
@pytest.mark.parametrize(
    "block",
    ["```python\n1 / 0\n```\n", "```sql\nselect 1 where 0\n```\n", "```console\n$ agentspan show nothing\n```\n"],
    ids=["python", "sql", "console"],
)
def test_an_example_that_fails_is_noticed_unless_it_opts_out(block: str, tmp_path: Path) -> None:
    first = Block("page", 1, "console", "$ agentspan demo\n")
    assert run_blocks([first, *blocks(block, "page")], tmp_path).returncode != 0
    assert list(blocks(f"<!-- not run: it shows a mistake -->\n{block}", "page")) == []


@pytest.mark.parametrize("image", sorted((DOCS / "images").iterdir()), ids=lambda image: image.name)
def test_pictures_are_small_and_shown_somewhere(image: Path) -> None:
    assert image.stat().st_size < 150_000
    assert any(image.name in page.read_text(encoding="utf-8") for page in PAGES)


def section(page: str, heading: str) -> str:
    """The page of the reference below a heading, up to the next one of its level."""
    level = heading.split(" ")[0]
    pattern = rf"^{re.escape(heading)}\n(.*?)(?=^#{{1,{len(level)}}} |\Z)"
    found = re.search(pattern, REFERENCE[page], re.MULTILINE | re.DOTALL)
    assert found, f"docs/reference/{page}.md has no heading {heading!r}"
    return found[1]


def row(text: str, first: str) -> str:
    """The row of a Markdown table whose first cell begins with these whole words."""
    found = [line for line in text.splitlines() if re.match(rf"\| {re.escape(first)}(?!\w)", line)]
    assert len(found) == 1, f"{len(found)} rows begin with {first!r}"
    return found[0]


@pytest.fixture(scope="module")
def generator() -> Any:
    pytest.importorskip("griffe", reason="needs griffe")
    return importlib.import_module("make_reference")


@pytest.mark.full
def test_the_reference_is_that_of_the_code(generator: Any) -> None:
    assert generator.main(["--check"]) == 0, "python -m tasks reference writes it anew"


@pytest.mark.full
def test_every_parameter_and_every_member_of_the_reference_is_described(generator: Any) -> None:
    assert generator.Reference().undescribed() == []


@pytest.mark.parametrize(
    "module", ["agentspan", "agentspan.otel", "agentspan.serve", "agentspan.sessions", "agentspan.testing"]
)
def test_the_reference_names_every_public_name(module: str) -> None:
    named = set(re.findall(rf"\b{module}\.(\w+)", "\n".join(MARKERS)))
    named |= {"__version__", *re.findall(r"^\| `(\w+)` \|", REFERENCE["errors"], re.MULTILINE)}
    assert [name for name in importlib.import_module(module).__all__ if name not in named] == []


MARKERS = re.findall(r"^<!-- generated: .* -->$", "\n".join(REFERENCE.values()), re.MULTILINE)
ERRORS = [cls for cls in vars(errors).values() if isinstance(cls, type) and issubclass(cls, agentspan.AgentspanError)]


@pytest.mark.parametrize("cls", ERRORS, ids=lambda cls: cls.__name__)
def test_the_reference_has_every_error_with_its_code(cls: type[agentspan.AgentspanError]) -> None:
    cells = [cell.strip() for cell in row(REFERENCE["errors"], f"`{cls.__name__}`").split("|")]
    assert cells[3] == f"`{cls.code}`"
    for name in re.findall(r"`(\w+)`", cells[4]):
        assert name in [base.__name__ for base in cls.__mro__]


@pytest.mark.parametrize("name", EVERY)
def test_the_reference_has_every_command_and_its_document(name: str) -> None:
    assert f"<!-- generated: command {name} -->" in MARKERS
    if any("--json" in parameter.opts for parameter in named(name).params):
        row(REFERENCE["json"], f"`{called(name) or 'agentspan'}` | `{{")


def test_the_reference_has_every_environment_variable() -> None:
    texts = [path.read_text(encoding="utf-8") for path in (ROOT / "agentspan").rglob("*.py")]
    read = {name for text in texts for name in re.findall(r"[\"'](AGENTSPAN_[A-Z_]+)[\"']", text)}
    own = {"AGENTSPAN_RECORD", "AGENTSPAN_RECORD_NOTES"}  # which agentspan sets for itself
    assert read > own
    for name in read - own:
        row(section("limits", "## Environment variables"), f"`{name}`")


def test_the_reference_describes_the_whole_database(tmp_path: Path) -> None:
    with agentspan.open(tmp_path / "fresh.db") as db:
        assert db.agent_instances.register("a")
        run = db.agent_instances.list()[0]
        db.agent_instances.start(run.id)
        db.agent_instances.finish(run.id)
        assert db.prune(older_than="9999-01-01T00:00:00Z").runs == 1  # makes the table that is made when needed
    connection = sqlite3.connect(tmp_path / "fresh.db")
    made = connection.execute("select type, name from sqlite_master where name not like 'sqlite_%'").fetchall()
    assert {type_ for type_, _ in made} == {"table", "view", "index"}
    views = section("database", "## Views")
    for type_, name in made:
        if type_ == "index":
            assert f"`{name}`" in section("database", "## Indexes")
            continue
        is_view = type_ == "view"
        text = views.split(f"`{name}` has a row for each")[1] if is_view else section("database", f"## Table `{name}`")
        described = re.findall(r"^\| `(\w+)` \| (\w+)( \?)? \|", text, re.MULTILINE)
        columns = connection.execute('select name, type, "notnull" or pk from pragma_table_info(?)', (name,)).fetchall()
        names, stored_names = [column for column, _, _ in described], [column for column, _, _ in columns]
        if name == "spans":  # its other columns are those of the table: all that its text does not name
            text = text.split("## ")[0]
            of_table = re.findall(r"^\| `(\w+)` \|", section("database", "## Table `agent_spans`"), re.MULTILINE)
            own = re.findall(r"^\| `(\w+)` \|", text, re.MULTILINE)
            assert {*own, *(column for column in of_table if f"`{column}`" not in text)} == {*stored_names}
        elif is_view:
            assert [column for column in stored_names if f"`{column}`" not in text.split("`spans` has")[0]] == []
        else:
            assert names == stored_names
        if type_ == "table":
            assert len(described) == len(columns)
            for (column, shown, optional), (_, stored, required) in zip(described, columns, strict=True):
                assert (shown.replace("JSON", "TEXT"), bool(optional)) == (stored, not required), column
    for pragma in ("application_id", "user_version", "journal_mode", "auto_vacuum"):
        (value,) = connection.execute(f"pragma {pragma}").fetchone()
        assert str(value) in row(section("database", "## Pragmas and versions"), f"`{pragma}`")
    connection.close()
