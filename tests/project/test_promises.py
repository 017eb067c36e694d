"""Each promise of the documentation has a test that would fail if it were untrue, or says why it has none."""

import difflib
import re
from pathlib import Path

import pytest

from agentspan import blobs, host
from agentspan.api import bulk
from agentspan.cli import serve
from agentspan.journal import writers
from agentspan.model import spans
from agentspan.recording import tracer
from agentspan.recording.capture import plain
from agentspan.recording.capture.values import Limits
from agentspan.recording.sinks import commit, facts, journal_work
from agentspan.schemas import conformance, liquid_engine, templates
from agentspan.serve import app, connections, logins, responses, router, writes
from agentspan.storage import access, text_search
from agentspan.storage.postgres import connections as postgres_connections
from agentspan.storage.postgres import partitions
from agentspan.tuning import STANDARD
from tests.checkout import ROOT
from tests.project.promises import FOLDER, PROMISES, REASONS, is_beginning, rows, sentences, ways_of

TABLES = sorted(FOLDER.glob("*.md"))
tables = pytest.mark.parametrize("table", TABLES, ids=lambda table: table.name)


def faults(document: str, table: str) -> list[str]:
    """Return what is wrong between a document and its table."""
    said = list(sentences(document))
    listed = list(rows(table))
    latest, found = -1, list[str]()
    for row in listed:
        for sentence in row.sentences:
            at = [place for place, (_, other) in enumerate(said) if is_beginning(sentence, other)]
            later = [place for place in at if place > latest and said[place][0] == row.heading]
            if later:
                latest = later[0]
            elif at:
                found.append(f"line {row.line}: not the order, or the heading, of the document: {sentence}")
            else:
                found.append(f"line {row.line}: the document does not say this any more: {sentence}")
                near = difflib.get_close_matches(sentence, [other for _, other in said], 1, 0.5)
                found += [f"    the nearest that it says: {other}" for other in near]
            if sentence.endswith(" …") and len(sentence) < 42:
                found.append(f"line {row.line}: a sentence may be cut after 40 characters only: {sentence}")
        found += [
            f"line {row.line}: neither a test nor a reason: {text}" for text in row.reasons if text not in REASONS
        ]
        if bool(row.tests) == bool(row.reasons) or (row.tests and not row.sentences):
            found.append(f"line {row.line}: sentences need either tests or a reason: {' '.join(row.sentences)}")
    reasoned = {row.heading for row in listed if not row.sentences}
    covered = [sentence for row in listed for sentence in row.sentences]
    for heading, other in said:
        is_promise = heading not in reasoned and PROMISES.search(other) is not None
        if is_promise and not any(is_beginning(sentence, other) for sentence in covered):
            found.append(f"no row has, below {heading!r}: {other}")
    return found


@tables
def test_each_promise_has_a_test(table: Path) -> None:
    document = (ROOT / "docs" / table.name).read_text(encoding="utf-8")
    found = faults(document, table.read_text(encoding="utf-8"))
    assert found == [], "\n".join(found)


@tables
def test_the_tests_are_there(table: Path) -> None:
    wanted = {test for row in rows(table.read_text(encoding="utf-8")) for test, _ in row.tests}
    names: dict[str, set[str]] = {}
    for file, _, name in sorted(test.partition("::") for test in wanted):
        names.setdefault(file, set()).add(name)
    missing = []
    for file, some in names.items():
        text = (ROOT / file).read_text(encoding="utf-8") if (ROOT / file).is_file() else ""
        there = re.findall(r"^(?:async def|def|class) (\w+)|^(Test\w+) = ", text, re.MULTILINE)
        missing += [f"{file}::{name}" for name in some - {each for pair in there for each in pair}]
    assert missing == []


@pytest.mark.full
@tables
def test_a_test_runs_in_the_ways_that_are_named(table: Path) -> None:
    others = [
        f"line {row.line}: {test} ({way})"
        for row in rows(table.read_text(encoding="utf-8"))
        for test, ways in row.tests
        for way in set(ways) - ways_of(test)
    ]
    assert others == []


STALLED_MS = re.findall(
    r"(STALLED_MS) = ([\d_]+);", (ROOT / "agentspan/viewer/static/run.js").read_text(encoding="utf-8")
)[0]
FIGURES = {
    "concepts.md": [
        ("moves them into the file {} ms later", STANDARD.drain_tick_s * 1000),
        ("Other processes see a change after some {} ms", STANDARD.drain_tick_s * 1000),
        ("a short-lived thread does it after every {} commits", STANDARD.checkpoint_commits),
        ("files of {} MB, in a burst", STANDARD.journal_segment_bytes / 2**20),
        ("in a burst of up to {} MB", STANDARD.journal_segment_growth * STANDARD.journal_segment_bytes / 2**20),
        ("(more than {} records a second)", journal_work.BURST / STANDARD.drain_tick_s),
        ("From {} MB on, recording calls do a part", STANDARD.journal_calls_drain_bytes / 2**20),
        ("At {} MB no segment is added", STANDARD.journal_limit_bytes / 2**20),
        ("Nothing is lost until the journal has {} MB", STANDARD.journal_limit_bytes / 2**20),
        ("All that takes up to {} s", STANDARD.doctor_s),
        ("A read recovers journals for up to {} s", STANDARD.read_adopts_s),
        ("a recording call waits at most {} ms", STANDARD.recording_wait_s * 1000),
        ("With a journal it waits for the file for at most {} ms", STANDARD.recording_wait_s * 1000),
        ("and the call waits for that, at most {} ms", STANDARD.recording_wait_s * 1000),
        ("in transactions of {}. A thread", commit.BATCH),
        ("it tries again after {} ms", commit.PAUSE_S * 1000),
        ("recording calls try, too, at most every {} ms", facts.RETRY_NS / 1e6),
        ("At most {} transitions, or", STANDARD.backlog_units),
        ("({}) characters of text", STANDARD.backlog_characters),
        ("or {} Mi (", STANDARD.backlog_characters / 2**20),
        ("`configure` waits up to {} s and then raises", tracer.CONFIGURE_WAIT_S),
        ("Without a journal it looks every {} ms", STANDARD.file_look_s * 1000),
        ("the `repr` is stored, at most {} characters of it", plain.MAX_REPR),
        ("texts there of {} characters and more, are stored once in a run", text_search.LONG_TEXT),
        ("Base64 of {} characters and more in a payload is a blob", blobs.LEAST),
        ("a text of more than {} characters", Limits().value),
        ("other bytes or base64 of more than {} MB", Limits().blob / 2**20),
        ("a list or object with more than {} members", Limits().items),
        ("more than {} lists and objects within each other", Limits().depth),
        ("a payload of more than {} characters", Limits().payload),
        ("A summary has at most {} characters", templates.MAX_SUMMARY),
        ("A `timestamp` may be up to {} s before `started_at`", spans.CLOCK_SKEW_MS / 1000),
        ("A check stops after {} steps", conformance.MAX_STEPS),
        ("and stops after {} steps. Templates", liquid_engine.MAX_LIQUID_STEPS),
        ("imports a module for agentspan, at most {} s each", STANDARD.sqlite_fork_wait_s),
        ("imports a module for agentspan, at most {} s each", host.IMPORT_WAIT_S),
    ],
    "http.md": [
        ("A token has at least {} characters", logins.LEAST),
        ("{} of them different", logins.DIFFERENT),
        ("An address that gave {} wrong tokens", logins.OF_AN_ADDRESS.at_once),
        ("but for one in {} s", logins.OF_AN_ADDRESS.then_every_s),
        ("A body of more than {} MiB", app.MAX_BODY / 2**20),
        ("A client has {} s to send the head", connections.Limits().head_s),
        ("of a request ({} KiB at most, and as much behind its body)", connections.Limits().head_bytes / 2**10),
        ("{} s for its body without a pause", app.BODY_S),
        ("without a pause of {} s", STANDARD.body_pause_s),
        ("and {} s to read what has been sent", connections.Limits().read_s),
        ("{} connections may be open", connections.Limits().open),
        ("and {} of one address", connections.Limits().of_peer),
        ("the body did not arrive within {} s", app.BODY_S),
        ("a request waits for at most {} s. Requests", writes.WAIT_S),
        ("A shared commit accepts requests for {} ms", STANDARD.loop_slice_s * 1000),
        ("Bulk requests of more than {} items", router.AT_ONCE),
        ("above {} KiB run in threads", responses.LARGE / 2**10),
        ("the answer that found it waits for at most {} s", STANDARD.adoption_answer_s),
        ("sent while it is read, at most {} MB and one span", access.PAGE_BYTES / 2**20),
        ("So are a page of more than {} MB", STANDARD.piece_bytes / 2**20),
        ("Once they have {} MiB, the next item", STANDARD.bulk_answer_bytes / 2**20),
        ("runs up to {} items in order", bulk.MAX_ITEMS),
        ("items of {} KiB share one", responses.PART / 2**10),
        ("that are being served (for at most {} s)", serve.END_S),
    ],
    "postgresql.md": [
        ("and after {} s says so", int(STALLED_MS[1].replace("_", "")) / 1000),
        ("up to {} at the same time. OTLP", postgres_connections.MOST - 4),
        ("a call waits for it for at most {} ms", STANDARD.recording_wait_s * 1000),
        ("with a time limit of {} s. It is", STANDARD.postgres_statement_s),
        ("fewer than {} spans gets none", partitions.MANY),
        ("An answer that takes longer than {} s is not waited for", STANDARD.server_answer_s),
        ("takes {} MB of a host's disk", STANDARD.journal_limit_bytes / 2**20),
        ("of all programs together, and {} days", STANDARD.server_away_s / 86_400),
        ("{} transitions wait in memory first", STANDARD.backlog_units),
        ("of 1 to {} MB", STANDARD.journal_segment_bytes * STANDARD.journal_segment_growth / 2**20),
        ("it renews it every {} minutes", STANDARD.lease_s / writers.RENEWALS / 60),
        ("minutes, for {} minutes, by the server's clock", STANDARD.lease_s / 60),
        ("may be cut off from the server for {} minutes", STANDARD.lease_s / 60),
        ("Each process keeps up to {} connections", postgres_connections.MOST),
        ("(reads: {} s)", STANDARD.postgres_lock_s),
        ("statements and idle transactions {} s", STANDARD.postgres_statement_s),
        ("is given up after {} s by writes", STANDARD.postgres_write_s),
        ("after {} s by reads", STANDARD.postgres_statement_s + STANDARD.postgres_answer_s),
        ("are tried again, up to {} times", postgres_connections.ATTEMPTS),
    ],
}
"""Words of the documents around a figure that stands in the code."""


@pytest.mark.parametrize("name", FIGURES)
def test_figures_are_those_of_the_code(name: str) -> None:
    document = " ".join(sentence for _, sentence in sentences((ROOT / "docs" / name).read_text(encoding="utf-8")))
    written = [words.format(f"{figure:,.10g}") for words, figure in FIGURES[name]]
    assert [words for words in written if words not in document] == []


DOCUMENT = """# Page

Some words. It *never* forgets, see [more](page.md).
In `a|b` it

- stays. It goes on.
- ends (at most twice). `x` is said.

| when | what |
|---|---|
| always | [it](page.md) sleeps \\| dreams |

## Rest
```console
it never runs
```
<!-- it never shows -->
"""
"""A document with promises in a paragraph, a list and a table."""

TABLE = """# Page

It never forgets, see more.
- tests/project/test_promises.py::test_each_promise_has_a_test

stays.
- explains

ends (at most twice).
- others

always | it sleeps \\| dreams
- measured
"""


def test_sentences_are_those_outside_of_examples() -> None:
    assert [sentence for _, sentence in sentences(DOCUMENT)] == [
        "Some words.",
        "It never forgets, see more.",
        "In `a|b` it",
        "stays.",
        "It goes on.",
        "ends (at most twice).",
        "`x` is said.",
        "always | it sleeps \\| dreams",
    ]
    assert {heading for heading, _ in sentences(DOCUMENT)} == {"# Page"}


@pytest.mark.parametrize(
    ("document", "table", "fault"),
    [
        (DOCUMENT, TABLE, ""),
        (DOCUMENT.replace("forgets, see", "forgets,\nsee"), TABLE, ""),
        (DOCUMENT.replace("Some words", "No words"), TABLE, "no row has, below '# Page': No words."),
        (DOCUMENT.replace("forgets", "remembers"), TABLE, "the document does not say this any more: It never forgets"),
        (DOCUMENT, TABLE.replace("- measured", ""), "sentences need either tests or a reason: always"),
        (DOCUMENT, TABLE.replace("- measured", "- obvious"), "neither a test nor a reason: obvious"),
        (DOCUMENT, TABLE.replace("forgets, see more.", "forgets, …"), "cut after 40 characters only"),
    ],
)
def test_a_promise_without_a_row_and_a_row_without_its_promise_are_found(document: str, table: str, fault: str) -> None:
    found = "\n".join(faults(document, table))
    assert fault in found
    assert bool(found) == bool(fault)


@pytest.mark.full
def test_the_ways_of_a_test_are_those_that_its_words_and_fixtures_tell() -> None:
    assert ways_of("tests/recording/test_deleted_files.py::test_a_run_whose_file_is_deleted_goes_on_in_a_new_one") >= {
        "journal",
        "commit",
    }
    assert ways_of("tests/api/test_agents.py::test_only_an_agent_without_instances_is_deleted") >= {"postgres"}
    assert "http" in ways_of("tests/serve/test_paths.py::test_a_slash_at_the_end_changes_nothing_and_redirects_nobody")
    assert ways_of("tests/leaves/test_ids.py::test_what_is_no_text_is_no_id") == set()
    with pytest.raises(LookupError):
        ways_of("tests/leaves/test_ids.py::test_no_such")
