"""What results, runs and databases show of themselves in a notebook, as HTML and as text."""

import json
import re
from collections.abc import Callable, Iterator
from dataclasses import asdict
from html import unescape
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

import agentspan
from agentspan import text
from agentspan.analysis.stored_run import StoredRun
from agentspan.database import Database
from agentspan.storage.sums import RunList
from agentspan.viewer import blocks, export, notebook_run
from tests.browser.hostile import ATTACKS, Hostile, Texts
from tests.browser.recorded import Recording, at, failing_run, long_run

MOST_BYTES = 2_000_000
"""Of a run's output: what its viewer and the payloads in it may take."""
ALLOWED = {
    "div",
    "style",
    "p",
    "table",
    "thead",
    "tbody",
    "tr",
    "th",
    "td",
    "code",
    "details",
    "summary",
    "pre",
    "iframe",
}
TEXTS_OF_FRAME = {"sandbox", "title", "width", "height", "srcdoc"}


class Tags(HTMLParser):
    """The tags and attributes of a document, and its text."""

    def __init__(self, document: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(document)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text += data

    @property
    def frames(self) -> list[dict[str, str | None]]:
        return [attributes for tag, attributes in self.tags if tag == "iframe"]


def html_of(result: Any) -> str:
    """Return what a notebook shows of a result; only its class when it is run has the method."""
    html: str = result._repr_html_()
    return html


def check_static(document: str) -> Tags:
    """Check that a document has no tags but those of tables and frames, and no attributes that could run or load."""
    found = Tags(document)
    assert {tag for tag, _ in found.tags} <= ALLOWED
    assert {name for tag, attributes in found.tags for name in attributes} <= {"class", *TEXTS_OF_FRAME}
    assert all(frame["sandbox"] == "allow-scripts" for frame in found.frames)
    return found


@pytest.fixture
def failing(db: Database) -> str:
    return failing_run(db)


RESULTS: dict[str, Callable[[Database, str], Any]] = {
    "overview": lambda db, run: db.overview(),
    "runs": lambda db, run: db.runs(),
    "run": lambda db, run: db.run(run),
    "steps": lambda db, run: db.run(run).steps,
    "stats": lambda db, run: db.stats(),
    "costs": lambda db, run: db.costs("tool"),
    "stats_by_version": lambda db, run: db.stats_by_version(),
    "search": lambda db, run: db.search("e*"),
    "why": lambda db, run: db.why(),
    "why a run": lambda db, run: db.why(run),
    "diff": lambda db, run: db.diff(run, db.runs().runs[0].run.id),
    "drift": lambda db, run: db.drift("status=failed", "all"),
    "database": lambda db, run: db,
}


@pytest.mark.parametrize("name", RESULTS)
def test_each_result_shows_itself_as_html_and_as_short_text(db: Database, failing: str, name: str) -> None:
    failing_run(db)
    result = RESULTS[name](db, failing)
    shown = check_static(result._repr_html_())
    assert shown.text.strip()
    lines = repr(result).splitlines()
    assert 0 < len(lines) <= blocks.MOST_LINES
    assert max(map(len, lines)) <= blocks.MAX_SENTENCE


def test_results_keep_their_fields_and_classes(db: Database, failing: str) -> None:
    found = db.runs()
    assert isinstance(found, RunList)
    runs, total, totals = found
    assert (len(runs), total, totals.spans) == (1, 1, runs[0].spans)
    assert isinstance(db.stats(), list)
    assert asdict(db.why(failing))["run_id"] == failing
    assert isinstance(db.run("-"), StoredRun)


def test_a_run_has_its_facts_steps_tree_and_reason(db: Database, failing: str) -> None:
    run = db.run(failing[:20])
    assert (run.id, run.agent, run.version, run.status) == (failing, "researcher", "1.2", "complete")
    assert run.spans == len(run.steps)
    assert run.failed == sum(step.status == "failed" for step in run.steps)
    assert [step.number for step in run.steps] == [*range(1, run.spans + 1)]
    failed = next(step for step in run.steps if step.status == "failed")
    assert (failed.label, failed.depth, failed.error) == ("search_logs", 1, "TimeoutError: no answer")
    assert failed.parent_span_id == run.steps[0].span_id
    tree = run.tree().splitlines()
    assert tree[0] == f"run {failing}"
    assert "✓ researcher 1.2 · passed" in tree[1]
    assert any(line.startswith("└─✓ Agent researcher") for line in tree)
    assert any("├─✗ Tool search_logs" in line for line in tree)
    assert sum("TimeoutError: no answer" in line for line in tree) == 1
    assert max(map(len, run.tree(width=60).splitlines())) <= 60
    assert run.why().run_id == failing
    assert repr(run).startswith(f"run {failing}\n✓ researcher 1.2 · passed")


def test_the_reason_of_a_run_is_told_with_the_words_of_the_command(db: Database) -> None:
    ids = []
    for name, status in (("find", "complete"), ("buy", "failed")):
        ids.append(id := db.agent_instances.register("shop").id)
        db.agent_instances.start(id)
        result = {"output": 1} if status == "complete" else {"error": {"type": "E", "message": "sold"}}
        db.agent_spans.create(id, "tool", status, {"name": name}, result)  # type: ignore[arg-type]
        db.agent_instances.finish(id, status)  # type: ignore[arg-type]
    shown = repr(db.why(ids[1])).splitlines()
    assert shown[:3] == [f"run {ids[1]} shop", "✗ failed · 1 step, 1 failed", "✗ step #1: Tool buy()"]
    assert "error: E: sold" in shown
    assert any(line.endswith(" elsewhere: in no other run of this agent") for line in shown)
    assert f"the passing run of this agent: {ids[0]}" in shown
    assert any(re.fullmatch("passing +this one", line) for line in shown)
    assert shown[-1] == f"compare them: agentspan diff {ids[0]} {ids[1]}"


def test_the_tree_folds_equal_steps_until_asked(db: Database) -> None:
    run = Recording(db, "worker")
    for n in range(6):
        run.span("tool", {"name": "fetch", "arguments": {"n": n}}, {"output": n}, begin=n, end=n + 0.5)
    stored = db.run(run.finish(9))
    assert [line for line in stored.tree().splitlines() if "fetch" in line] == ["└─✓ Tool fetch × 6"]
    assert sum("fetch" in line for line in stored.tree(full=True).splitlines()) == 6


def test_a_run_is_the_viewer_in_a_sandboxed_frame_with_the_facts_beside_it(db: Database, failing: str) -> None:
    run = db.run(failing)
    shown = check_static(html_of(run))
    (frame,) = shown.frames
    assert frame["height"] == "420"
    assert frame["srcdoc"] == export.html(db.storage, [failing])
    assert "researcher 1.2 · passed" in shown.text
    assert "├─✗ Tool search_logs" in shown.text
    assert "agentspan export" not in shown.text  # nothing was left out


def test_no_text_of_a_payload_becomes_markup(tmp_path: Path) -> None:
    path = tmp_path / "runs.db"
    with agentspan.open(path) as db:
        hostile = Hostile(db)
        hostile.write(path)
        results = [result(db, hostile.recording.id) for result in RESULTS.values()]
        for document in (result._repr_html_() for result in results):
            for frame in check_static(document).frames:
                # Only the viewer's own script runs in the frame: every other one is data.
                scripts = [attributes for tag, attributes in Tags(frame["srcdoc"] or "").tags if tag == "script"]
                assert [each["type"] for each in scripts if each["type"] != "application/json"] == ["module"]
        for shown in map(repr, results):
            assert text.printable(shown, keep="\n") == shown


def test_each_attack_can_be_read_and_none_is_markup() -> None:
    attack = Texts()
    texts = [attack() for _ in ATTACKS]
    table = blocks.flat(("a", "b"), [(text, "x") for text in texts], codes=("a",))
    document = blocks.html([*texts, table])
    assert check_static(document).tags
    assert document.count("<style>") == 1
    for number in range(1, len(texts) + 1):
        assert Tags(document).text.count(f"B{number:03}") == 2


def test_a_frame_is_the_whole_document_whatever_it_says() -> None:
    document = '<p title="a">it\'s &amp; &#39; "</p>\'></iframe><script>1</script>'
    (frame,) = check_static(notebook_run.frame(document, "a 'title' <b>")).frames
    assert frame["srcdoc"] == document
    assert frame["title"] == "a 'title' <b>"


def blocks_of(frame: dict[str, str | None]) -> Iterator[tuple[str, Any]]:
    """Yield the JSON blocks of an exported file by the first word of their id."""
    for id, value in re.findall(
        r'<script id="([a-z]+)[^"]*" type="application/json">(.*?)</script>', frame["srcdoc"] or "", re.DOTALL
    ):
        yield id, json.loads(unescape(value))


def test_a_long_run_shows_its_first_steps_and_its_last_failures(db: Database) -> None:
    run = db.run(long_run(db, 3000))
    assert run.spans == 3000
    document = html_of(run)
    assert len(document.encode()) < MOST_BYTES
    shown = check_static(document)
    data = dict(blocks_of(shown.frames[0]))
    columns = data["spans"]["columns"]
    assert len(columns["id"]) == len(data["details"]) == notebook_run.MOST_STEPS
    assert "the frame has 500 of 3,000 steps" in shown.text
    path = db.storage.capabilities().location
    name = "" if path is None or path.path is None else f"--db {path.path.name} "
    assert f"agentspan export {run.id} {name}--format html -o run.html" in shown.text
    ids = [step.span_id for step in run.steps if step.status == "failed"]
    assert set(ids[-notebook_run.MOST_FAILED :]) <= set(columns["id"])
    assert data["data"][0]["spans"]["total"] == 3000
    assert len(run.steps._repr_html_()) < 100_000  # type: ignore[attr-defined]


def test_large_payloads_are_left_out_of_a_frame_and_named(db: Database) -> None:
    run = Recording(db, "reader")
    for n in range(30):
        run.span("tool", {"name": "read", "arguments": {"n": n}}, {"text": "x" * 40_000}, begin=n, end=n + 0.5)
    large = run.span(
        "tool",
        {"name": "read", "arguments": {"text": "y" * 3_000_000}},
        {"error": {"message": "no"}},
        status="failed",
        begin=31,
        end=32,
    )
    stored = db.run(run.finish(40))
    document = html_of(stored)
    assert len(document.encode()) < MOST_BYTES
    shown = check_static(document)
    data = dict(blocks_of(shown.frames[0]))
    left_out = [each for each in data["details"] if "left_out" in each["payload"]]
    assert f"the payloads of {len(left_out)} steps are left out" in shown.text
    detail = next(each for each in left_out if each["id"] == large)
    assert json.loads(detail["payload"]) == {"left_out": f"3.0 MB: agentspan show {large}"}
    assert json.loads(detail["result_payload"]) == {"error": {"message": "no"}}
    assert len(repr(stored.steps)) < 5000


def test_a_long_list_says_how_many_it_leaves_out(db: Database) -> None:
    for n in range(blocks.MOST_ROWS + 5):
        Recording(db, "worker").finish(n)
    shown = check_static(db.runs(limit=None)._repr_html_())  # type: ignore[attr-defined]
    assert sum(tag == "tr" for tag, _ in shown.tags) == 1 + blocks.MOST_ROWS
    assert "and 5 more" in shown.text
    assert repr(db.runs()).splitlines()[-1] == "… and 33 more lines"


def test_a_database_shows_its_latest_runs_and_says_where_it_is(tmp_path: Path) -> None:
    path = tmp_path / "a & b.db"
    with agentspan.open(path) as db:
        assert repr(db) == f"<agentspan.Database {path}>"
        assert "nothing has been recorded here yet" in db._repr_html_()
        assert not path.exists()
        run = failing_run(db)
        shown = check_static(db._repr_html_())
        assert "a & b.db" in shown.text
        assert str(path) not in shown.text
        assert run in shown.text
        assert "researcher 1.2" in shown.text
    with agentspan.open(agentspan.MemoryStorage()) as db:
        assert repr(db) == "<agentspan.Database in memory>"


def test_what_is_shown_has_no_address_and_no_colour_of_its_own(db: Database, failing: str) -> None:
    """Nothing in it needs a network; and text has the colour of the notebook, light or dark."""
    for name, result in RESULTS.items():
        document = re.sub("srcdoc='[^']*'", "", result(db, failing)._repr_html_())
        assert "http" not in document, name
        assert not re.search(r"(?<!-)color: #|background: [^n]", document)


def test_times_of_open_runs_are_shown(db: Database) -> None:
    run = Recording(db, "worker")
    run.span("tool", {"name": "wait"}, status="active", begin=1)
    stored = db.run(run.id)
    assert stored.tree().splitlines()[-1].endswith("active")
    assert stored.duration_ms is None
    assert at(0).strftime("%m-%d %H:%M") in db.runs()._repr_html_()  # type: ignore[attr-defined]
