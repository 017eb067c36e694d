"""The documentation is true: its examples run, and the reference names everything that there is."""

import inspect
import json
import os
import re
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import click
import pytest

import agentspan
from agentspan import errors, testing
from agentspan.analysis import search
from agentspan.analysis import tree as analysis_tree
from agentspan.analysis.search import Hit, Hits
from agentspan.api import agents, bulk, checks
from agentspan.api.facade import AgentInstances, Agents, AgentSchemaVersions, AgentSpans, AgentVersions
from agentspan.api.resources import AgentVersion, AvailableActions, InstanceCounts, Pagination, SpanCounts
from agentspan.cli import main, runs, show
from agentspan.maintenance import prune
from agentspan.maintenance.doctor import Report, RunReport
from agentspan.maintenance.prune import Pruned
from agentspan.recording.capture import capture, plain, values
from agentspan.recording.sinks import commit
from agentspan.schemas import conformance, span_types, templates
from agentspan.schemas.builtin import BUILT_IN
from agentspan.storage import text_search
from agentspan.storage.sums import RunList, RunSummary, RunTotals, Stat
from agentspan.testing import run as testing_run
from agentspan.tuning import STANDARD
from tests.checkout import ROOT
from tests.cli.calling import NAMES, named

DOCS = ROOT / "docs"
PAGES = [page for page in (ROOT / "README.md", *sorted(DOCS.glob("*.md"))) if page.exists()]
REFERENCE = (DOCS / "reference.md").read_text(encoding="utf-8")

FENCE = re.compile(r"(`{3,})(\w*)\n(.*?)^\1$", re.MULTILINE | re.DOTALL)
OPT_OUT = re.compile(r"<!-- not run: \S.* -->\n\Z")

pages = pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)

# Runs in one process a page, so that blocks can use what earlier ones made. A block's line numbers are its page's.
DRIVER = """
import json, os, shlex, sqlite3, subprocess, sys

names = {"__name__": "__main__"}
for page, line, kind, code in json.load(sys.stdin):
    where = f"{page}:{line}"
    print(where, file=sys.stderr, flush=True)
    if kind == "python":
        exec(compile("\\n" * line + code, page, "exec"), names)
    elif kind == "sql":
        if "agentspan" in sys.modules:  # a reader is another program, which comes a moment later
            sys.modules["agentspan"].flush()
        connection = sqlite3.connect(f"file:{os.environ['AGENTSPAN_DB']}?mode=ro", uri=True)
        for statement in filter(str.strip, code.split(";")):
            if not connection.execute(statement).fetchall():
                sys.exit(f"{where}: this query finds nothing, so it shows nothing")
        connection.close()
    else:
        for command in code.splitlines():
            if command.startswith("$ agentspan"):
                arguments = shlex.split(command, comments=True)[2:]
                done = subprocess.run([sys.executable, "-W", "error", "-m", "agentspan", *arguments])
                if done.returncode:
                    sys.exit(f"{where}: {command} exits with {done.returncode}")
"""


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
        [sys.executable, "-W", "error", "-c", DRIVER],
        input=json.dumps(found),
        cwd=folder,
        env=environment,
        capture_output=True,
        encoding="utf-8",
        timeout=60,
    )


@pytest.mark.parametrize(
    "page",
    [pytest.param(page, marks=() if page.name == "README.md" else pytest.mark.full, id=page.name) for page in PAGES],
)
def test_examples_run(page: Path, tmp_path: Path) -> None:
    done = run_blocks(list(blocks(page.read_text(encoding="utf-8"), page.name)), tmp_path)
    assert done.returncode == 0, done.stderr
    assert "recording: " not in done.stderr  # no example runs into a fault that is only logged


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


def section(heading: str) -> str:
    """The reference below a heading, up to the next one of its level."""
    level = heading.split(" ")[0]
    found = re.search(rf"^{re.escape(heading)}\n(.*?)(?=^#{{1,{len(level)}}} |\Z)", REFERENCE, re.MULTILINE | re.DOTALL)
    assert found, f"docs/reference.md has no heading {heading!r}"
    return found[1]


def row(text: str, first: str) -> str:
    """The row of a Markdown table whose first cell begins with these whole words."""
    found = [line for line in text.splitlines() if re.match(rf"\| {re.escape(first)}(?!\w)", line)]
    assert len(found) == 1, f"{len(found)} rows begin with {first!r}"
    return found[0]


def test_the_reference_names_every_public_name() -> None:
    assert [name for name in agentspan.__all__ if not re.search(rf"\b{name}\b", REFERENCE)] == []
    assert [name for name in testing.__all__ if not re.search(rf"\b{name}\b", TESTING)] == []


@pytest.mark.parametrize(
    ("cls", "heading"),
    [
        (agentspan.Run, "### `Run`"),
        (agentspan.Span, "### `Span`"),
        (agentspan.Database, "## Opening a database"),
        (agentspan.Tracer, "### `Tracer`"),
    ],
    ids=["Run", "Span", "Database", "Tracer"],
)
def test_a_class_shows_what_the_reference_names(cls: type, heading: str) -> None:
    cells = re.findall(r"^\| (`.*?) \|", section(heading), re.MULTILINE)
    named = {name for cell in cells for name in re.findall(r"`(\w+)[`(]", cell)}
    assert {name for name in (*dir(cls), *inspect.get_annotations(cls)) if not name.startswith("_")} == named


RECORDING = section("## Recording")
TESTING = section("## Testing")
FUNCTIONS: list[tuple[str, Any]] = [
    *(
        (RECORDING, getattr(agentspan, name))
        for name in ("configure", "flush", "propagate", "run", "shutdown", "span", "span_type", "Tracer")
    ),
    (section("## Opening a database"), agentspan.open),
    *(
        (section("## Reading"), getattr(agentspan.Database, name))
        for name in ("runs", "run", "stats", "stats_by_version", "search", "diff", "why", "drift", "dataframe")
    ),
    (section("### `Database.doctor`"), agentspan.Database.doctor),
    (section("### `Database.prune`"), agentspan.Database.prune),
    (section("### `Database.bulk`, `Database.pfids`"), agentspan.Database.bulk),
    (section("### `Database.bulk`, `Database.pfids`"), agentspan.Database.pfids),
    *((TESTING, getattr(testing, name)) for name in ("capture", "deterministic", "load", "snapshot")),
    *(
        (text, method)
        for text, owner in (
            (section("### `Run`"), agentspan.Run),
            (section("### `Span`"), agentspan.Span),
            (section("### `Tracer`"), agentspan.Tracer),
            (section("### `CapturedRuns`"), testing.CapturedRuns),
            (section("### `CapturedRun`"), testing.CapturedRun),
            (section("### `Database.agent_spans`"), AgentSpans),
            (section("### `Database.agent_instances`"), AgentInstances),
            (section("### `Database.agents`"), Agents),
            (section("### `Database.agent_versions`"), AgentVersions),
            (section("### `Database.agent_schema_versions`"), AgentSchemaVersions),
        )
        for name, method in vars(owner).items()
        if callable(method) and not name.startswith("_")
    ),
]


@pytest.mark.parametrize(("text", "function"), FUNCTIONS, ids=lambda value: getattr(value, "__qualname__", ""))
def test_the_reference_names_every_parameter(text: str, function: Any) -> None:
    assert re.search(rf"\b{function.__name__}\b", text)
    given = function.__qualname__ in ("Tracer.span", "Tracer.run")  # "as the functions above"
    wanted = [name for name in inspect.signature(function).parameters if name != "self" and not name.startswith("_")]
    assert [name for name in wanted if not re.search(rf"\b{name}\b", text)] == [] or given


def test_the_reference_names_every_field_of_the_resources() -> None:
    text = section("## Resources")
    for model in (
        agentspan.AgentSpan,
        agentspan.AgentInstance,
        agentspan.Agent,
        AgentVersion,
        agentspan.AgentSchemaVersion,
    ):
        described = row(text, f"`{model.__name__}`")
        table = re.findall(r"`(\w+)`", described)[2]
        known = described + section(f"### Table `{table}`")
        assert [field for field in model.model_fields if f"`{field}`" not in known and field != "type"] == []
    for counts in (AvailableActions, InstanceCounts):
        assert [name for name in counts.model_fields if f"`{name}`" not in text] == []
    for name in (*SpanCounts.model_fields, *Pagination.model_fields, *agentspan.Page.__dataclass_fields__):
        assert f"`{name}`" in text


def test_the_reference_names_every_field_of_what_is_returned() -> None:
    doctor = section("### `Database.doctor`")
    for text, names in (
        (section("### `agentspan.health`"), agentspan.Health._fields),
        (section("### `agentspan.Limits`"), agentspan.Limits._fields),
        (doctor, (*Report.__dataclass_fields__, *RunReport.__dataclass_fields__)),
        (section("### `Database.prune`"), Pruned._fields),
        (section("### `RunList`"), (*RunList._fields, *RunTotals._fields, *RunSummary._fields)),
        (section("### `Stat`"), (*Stat.__dataclass_fields__, "ran", "error_rate")),
        (section("### `Hits`"), (*Hits._fields, *Hit._fields)),
        (section("### `CapturedSpan`"), testing.CapturedSpan.__dataclass_fields__),
    ):
        assert [name for name in names if f"`{name}`" not in text] == []


ERRORS = [cls for cls in vars(errors).values() if isinstance(cls, type) and issubclass(cls, agentspan.AgentspanError)]


@pytest.mark.parametrize("cls", ERRORS, ids=lambda cls: cls.__name__)
def test_the_reference_has_every_error_with_its_code(cls: type[agentspan.AgentspanError]) -> None:
    cells = [cell.strip() for cell in row(section("## Errors"), f"`{cls.__name__}`").split("|")]
    assert cells[2] == f"`{cls.code}`"
    for name in re.findall(r"`(\w+)`", cells[3]):
        assert name in [base.__name__ for base in cls.__mro__]


@pytest.mark.parametrize("built_in", BUILT_IN, ids=lambda built_in: built_in.name)
def test_the_reference_has_every_built_in_type_as_it_is(built_in: Any) -> None:
    cells = [cell.strip() for cell in row(section("## Built-in span types"), f"`{built_in.name}`").split(" | ")]
    for schema, cell in ((built_in.payload, cells[2]), (built_in.result, cells[3])):
        fields = {
            name: (name in schema.get("required", ()), field.get("type", ""))
            for name, field in schema.get("properties", {}).items()
        }
        shown = re.findall(r"`(\w+)`(\\\*)? ?(\w*)", cell)
        assert {name: (bool(star), type_) for name, star, type_ in shown} == fields
    assert cells[4].strip(" |") == (f"`{built_in.label}`" if built_in.label else "–")


@pytest.mark.parametrize("name", ["", *NAMES])
def test_the_reference_names_every_command_with_its_options(name: str) -> None:
    command = named(name) if name else main
    text = section("## Command line")
    described = row(text, f"`agentspan {name}" if name else "`agentspan`")
    if "[filters](#filters-of-runs)" in described:
        described += section("### Filters of runs")
    for parameter in command.params:
        if isinstance(parameter, click.Option) and parameter.hidden:
            continue
        if isinstance(parameter, click.Option):
            assert all(re.search(rf"`{option}\b", described) for option in parameter.opts), parameter.opts
        else:
            assert str(parameter.human_readable_name).upper() in described
    if any("--json" in parameter.opts for parameter in command.params):
        row(text, f"`{name}` | `{{")


LIMITS = [
    (checks, "MAX_KEY", "idempotency key"),
    (checks, "MAX_TEXT", "names, descriptions"),
    (checks, "MAX_DEPTH", "payloads, metadata"),
    (checks, "MAX_PAGE", "page"),
    (bulk, "MAX_ITEMS", "items of `bulk`"),
    (bulk, "MIN_KEY", "items of `bulk`"),
    (checks, "MAX_PFIDS", "ids of `pfids`"),
    (span_types, "MAX_QUALITY_SCHEMAS", "quality schemas"),
    (span_types, "MAX_NAME", "`schema_name`"),
    (span_types, "MAX_NAME", "an agent's name"),
    (templates, "MAX_TEMPLATE", "template"),
    (templates, "MAX_TAGS", "template"),
    (templates, "MAX_ITEMS", "items of an array"),
    (templates, "MAX_INLINE", "`_inline`"),
    (templates, "MAX_SUMMARY", "summary"),
    (span_types, "MAX_LABEL", "label"),
    (conformance, "MAX_SCHEMA", "JSON Schema"),
    (conformance, "MAX_SCHEMA_DEPTH", "JSON Schema"),
    (conformance, "MAX_PATTERNS", "JSON Schema"),
    (conformance, "MAX_STEPS", "a conformance check"),
    (conformance, "MAX_VIOLATIONS", "violations stored"),
    (agents, "MAX_TYPES", "span types in"),
    (runs, "LATEST_RUNS", "runs listed"),
    (text_search, "MAX_TERMS", "words of a search"),
    (text_search, "MAX_TERM", "words of a search"),
    (search, "SNIPPET", "a snippet"),
    (analysis_tree, "FOLD_FROM", "siblings that"),
    (show, "PAYLOAD_LINES", "lines of a payload"),
    (prune, "BATCH_SPANS", "spans removed"),
    (capture, "MAX_FRAMES", "stack trace"),
    (capture, "MAX_STACKTRACE", "stack trace"),
    (capture, "MAX_MESSAGE", "the message of an exception"),
    (capture, "MAX_MEMBERS", "members of a group"),
    (agentspan.Limits(), "value", "a text in a payload"),
    (agentspan.Limits(), "payload", "a payload, or result"),
    (agentspan.Limits(), "blob", "an image, audio or other bytes"),
    (agentspan.Limits(), "depth", "containers within"),
    (plain, "MAX_DEPTH", "containers within"),
    (agentspan.Limits(), "items", "members of a list"),
    (agentspan.Limits(), "items", "items kept of a generator"),
    (agentspan.Limits(), "payload", "items kept of a generator"),
    (STANDARD, "hashed_bytes", "hashed for the marks"),
    (values, "START", "a text in a payload"),
    (STANDARD, "captured_values", "values in a payload"),
    (plain, "MAX_NAME", "the name of a member"),
    (plain, "MAX_REPR", "`repr` of an object"),
    (STANDARD, "checkpoint_commits", "commits between two checkpoints"),
    (commit, "BATCH", "writing what waits"),
    (testing_run, "MAX_LINES", "lines that an assertion"),
    (STANDARD, "backlog_units", "transitions that wait"),
    (STANDARD, "backlog_characters", "transitions that wait"),
]


@pytest.mark.parametrize(("module", "name", "what"), LIMITS)
def test_the_reference_has_the_limits_of_the_code(module: Any, name: str, what: str) -> None:
    assert re.search(rf"\b{getattr(module, name):,}\b", row(section("## Limits"), what))


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
    views = section("### Views")
    for type_, name in made:
        if type_ == "index":
            assert f"`{name}`" in section("### Indexes")
            continue
        text = views.split(f"`{name}` has a row for each")[1] if type_ == "view" else section(f"### Table `{name}`")
        described = re.findall(r"^\| `(\w+)` \| (\w+)( \?)? \|", text, re.MULTILINE)
        columns = connection.execute('select name, type, "notnull" or pk from pragma_table_info(?)', (name,)).fetchall()
        names, stored_names = [column for column, _, _ in described], [column for column, _, _ in columns]
        if name == "spans":  # its other columns are those of the table: all that its text does not name
            text = text.split("### ")[0]
            of_table = re.findall(r"^\| `(\w+)` \|", section("### Table `agent_spans`"), re.MULTILINE)
            own = re.findall(r"^\| `(\w+)` \|", text, re.MULTILINE)
            assert {*own, *(column for column in of_table if f"`{column}`" not in text)} == {*stored_names}
        else:
            assert names[: len(columns)] == stored_names
        if type_ == "table":
            assert len(described) == len(columns)
            for (column, shown, optional), (_, stored, required) in zip(described, columns, strict=True):
                assert (shown.replace("JSON", "TEXT"), bool(optional)) == (stored, not required), column
    for pragma in ("application_id", "user_version", "journal_mode", "auto_vacuum"):
        (value,) = connection.execute(f"pragma {pragma}").fetchone()
        assert str(value) in row(section("### Pragmas and versions"), f"`{pragma}`")
    connection.close()
