"""The pages of failures, versions, search and sessions: the HTML that a server answers with."""

import json
import re
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from html import unescape
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, quote, urlencode, urlsplit

import pytest

import agentspan
from agentspan.database import Database
from agentspan.serve import create_app
from agentspan.storage.memory import MemoryStorage
from agentspan.storage.sqlite import SQLiteStorage
from agentspan.viewer.address import Address
from agentspan.viewer.answer import answer
from tests.cli.calling import call
from tests.serve.asgi import Client

HOSTILE = "<script>alert(1)</script>\u202e\"'&"
SESSION = "conv/1 ü%2F?#&=<b>"
MOST_BYTES = 300_000


def record(db: Database) -> dict[str, str]:
    """Record 48 runs of three versions, and return the ids of some by name."""
    named: dict[str, str] = {}
    at = datetime(2026, 11, 20, tzinfo=UTC)
    for number in range(48):
        version = ("1.0", "1.1", "2.0")[number // 16]
        at += timedelta(hours=3)
        failed = number % 4 == 1 or (version == "2.0" and number % 2)
        about: Any = {
            "agent_version": {"external_identifier": version},
            "session": SESSION if number < 3 else f"s{number}",
            "user": HOSTILE,
            "external_identifier": f"ticket-{number}",
            "task": f"case {number % 16} {HOSTILE}" if number % 16 < 3 else None,
        }
        run = db.agent_instances.register("booking", **about)
        db.agent_instances.start(run.id, timestamp=at)
        said = {"role": "user", "content": f"book {number} {HOSTILE}"}
        db.agent_spans.create(run.id, "message", "complete", said, started_at=at, finished_at=at)
        result = {"error": {"type": "Refused", "message": f"gate {HOSTILE}"}} if failed else {"output": "gate open"}
        status: Any = "failed" if failed else "complete"
        end = at + timedelta(seconds=2)
        span = db.agent_spans.create(run.id, "tool", status, {"name": "pay"}, result, started_at=at, finished_at=end)
        db.agent_instances.finish(run.id, status, timestamp=end)
        db.scores.record(run.id, "reward", number % 2)
        named |= {f"run {number}": run.id, f"step {number}": span.id}
    other = db.agent_instances.register(HOSTILE, session="s-other")
    named["other"] = other.id
    return named


@pytest.fixture(scope="module")
def ids() -> dict[str, str]:
    return {}


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("pages") / "runs.db"


@pytest.fixture(scope="module")
def client(path: Path, ids: dict[str, str]) -> Iterator[Client]:
    with agentspan.open(path) as db:
        ids |= record(db)
    storage = SQLiteStorage(path)
    with Client(create_app(storage, token=None)) as made:
        yield made
    storage.close()


@pytest.fixture(scope="module")
def empty(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Client]:
    storage = SQLiteStorage(tmp_path_factory.mktemp("empty") / "runs.db")
    with Client(create_app(storage, token=None)) as made:
        yield made
    storage.close()


def page(client: Client, path: str, **query: str) -> str:
    """Return the HTML of a page; no hostile text in it is markup."""
    response = client.get(f"/{path}?{urlencode(query)}", headers={"accept": "text/html"})
    assert response.status_code == 200, response.text
    assert len(response.content) < MOST_BYTES
    assert "<script>alert" not in response.text
    assert "\u202e" not in re.sub(r'value="[^"]*"', "", response.text)  # a field keeps what was typed
    return response.text


def text_of(html: str) -> str:
    """Return the text that a person reads."""
    return re.sub(r"\s+", " ", unescape(re.sub(r"<[^>]*>", " ", html.partition("<main")[2]))).strip()


def links(html: str) -> list[str]:
    return [unescape(link) for link in re.findall(r'href="([^"]*)"', html.partition("<main")[2])]


def test_the_groups_of_failures_have_their_numbers_and_lead_to_their_runs(client: Client, ids: dict[str, str]) -> None:
    html = page(client, "failures")
    shown = text_of(html)
    assert "16 of 48 runs failed (33%, 22–47%) · 1 more is still open." in shown
    assert "Tool pay: Refused: gate <script>alert(<n>)</script>" in shown
    assert "16 of 16 100%" in shown
    assert "0 of 32" in shown
    assert re.search(r'<svg class="spark bad" role="img" aria-label="runs per 6 hours: [^"]*"', html)
    assert "2.0: 8" in shown
    (runs,) = {link for link in links(html) if link.startswith("./?signature=") and "version" not in link}
    listed = page(client, runs.removeprefix("./?") and "", **dict(parse_qsl(urlsplit(runs).query)))
    assert "16 of 16 runs" in text_of(listed)
    assert f"runs/{ids['run 47']}#span={ids['step 47']}" in links(html)
    assert "of causes of ×" in shown.lower()


def test_the_number_of_failed_runs_leads_to_as_many_runs() -> None:
    storage = MemoryStorage()
    with agentspan.open(storage) as db, Client(create_app(storage, token=None)) as client:
        for status in ("failed", "complete", "complete"):
            run = db.agent_instances.register("a", agent_version={"external_identifier": "v@2"})
            db.agent_instances.start(run.id)
            db.agent_spans.create(run.id, "tool", "failed", {"name": "pay"}, {"error": {"type": "E", "message": "m"}})
            db.agent_instances.finish(run.id, status)
        html = page(client, "failures")
        assert "1 of 1 100% 2 of 2 100%" in text_of(html)
        for runs in [each for each in links(html) if each.startswith("./?signature=")]:
            assert "1 of 1 run" in text_of(page(client, "", **dict(parse_qsl(urlsplit(runs).query)))), runs
        (cause,) = answer(db.storage, Address(), with_causes=True)["causes"]
        assert cause["runs"] == "1"
        assert "1 of 1 run" in text_of(page(client, "", **dict(parse_qsl(urlsplit(cause["href"]).query))))


def test_failed_and_selected_and_filtered_runs_are_the_dataset_that_the_command_writes(
    client: Client, ids: dict[str, str], path: Path
) -> None:
    ways = {
        next(link for link in links(page(client, "failures", version="2.0")) if "dataset" in link): (
            "--version", "2.0", "--status", "failed",
        ),
        next(link for link in links(page(client, "failures", outcome="reward>=1")) if "dataset" in link): (
            "--score", "reward<1",
        ),
        next(link for link in links(page(client, "", task="none")) if "dataset" in link): ("--task", "none"),
        f"export?format=dataset&run={ids['run 3']}&run={ids['run 1']}": (ids["run 3"], ids["run 1"]),
        next(link for link in links(page(client, "")) if "dataset" in link): ("all",),
    }  # fmt: skip
    for link, words in ways.items():
        answer = client.get(f"/{link}")
        written = call(path, "export", "--format", "dataset", *words)
        assert (answer.status_code, answer.content) == (200, written.stdout_bytes), link
    rows = [json.loads(line) for line in client.get("/export?format=dataset&status=failed").text.splitlines()]
    assert (len(rows), rows[0]["input"], rows[0]["signature"] != "") == (16, f"book 1 {HOSTILE}", True)
    assert client.get("/export?format=dataset&since=nonsense").status_code == 422  # not the dataset of all runs


def test_a_signature_shows_its_group_alone_and_a_filter_and_a_rule_hold(client: Client) -> None:
    alone = next(link for link in links(page(client, "failures")) if link.startswith("failures?signature="))
    signature = dict(parse_qsl(urlsplit(alone).query))["signature"]
    shown = text_of(page(client, "failures", signature=signature))
    assert "16 of 48 runs failed" in shown
    assert "What goes with this failure" in shown
    assert re.search(r"none of \d+ tested things goes with this failure", shown)
    assert "No failure and no ending has this signature" in text_of(page(client, "failures", signature="0" * 12))
    html = page(client, "failures", version="2.0", outcome="reward>=1")
    assert "8 of 16 runs failed reward>=1" in text_of(html)
    assert all("version=2.0" in link for link in links(html) if link.startswith(("./?", "failures?sig")))
    assert 'value="reward&gt;=1"' in html
    refused = client.get("/failures?outcome=taste>=1", headers={"accept": "text/html"})
    assert (refused.status_code, "over a score that no run has" in refused.text) == (422, True)


def test_if_no_run_failed_by_its_status_the_rule_that_runs_missed_decides(client: Client) -> None:
    html = page(client, "failures", status="complete")
    assert "24 of 32 runs failed reward>=1" in text_of(html)
    assert "No run failed by its status, so reward>=1 decides: judge by status" in text_of(html)
    assert "No run failed by its status, so" in text_of(page(client, "versions", status="complete"))
    html = page(client, "failures", status="complete", outcome="status")
    assert "None of 32 runs failed by its status." in text_of(html)
    (judge,) = [link for link in links(html) if "outcome=reward" in link]
    assert "runs failed reward>=1" in text_of(page(client, "failures", **dict(parse_qsl(urlsplit(judge).query))))


def test_versions_stand_side_by_side_with_a_verdict(client: Client) -> None:
    html = page(client, "versions")
    shown = text_of(html)
    assert "booking has 3 versions." in shown
    assert "2.0 beside 1.1" in shown
    assert "No evidence of a difference; of drops of" in shown
    to = [dict(parse_qsl(urlsplit(link).query)) for link in links(html) if link.startswith("./?")]
    assert {"agent": "booking", "version": "2.0", "status": "failed"} in to
    assert {"agent": "booking", "version": "1.1", "sort": "duration"} in to
    assert {"agent": "booking", "version": "1.1", "tool": "pay"} in to
    chosen = text_of(page(client, "versions", agent="booking", base="1.0", head="1.1"))
    assert "1.1 beside 1.0" in chosen
    assert "No evidence of a difference; of drops of" in chosen
    judged = page(client, "versions", agent="booking", outcome="reward>=1")
    assert "judged by reward>=1" in text_of(judged)
    assert "score=reward%3C1" in judged
    unmatched = text_of(page(client, "versions", agent="booking", base="9", head="8"))
    assert "Not compared: no run matches 9." in unmatched


def test_cases_stand_below_the_comparison_and_lead_to_their_runs(client: Client) -> None:
    html = page(client, "versions", agent="booking", base="1.0", outcome="reward>=1")
    shown = text_of(html)
    assert "1.0 → 2.0: 0 cases worse, 0 better, 3 equal (1 always passed, 2 never)" in shown
    assert "3 more cases" in shown
    whole = page(client, "versions", agent="booking", base="1.0", outcome="reward>=1", all="1")
    to = [dict(parse_qsl(urlsplit(link).query)) for link in links(whole) if "task=" in link]
    assert {"agent": "booking", "version": "1.1", "task": f"case 2 {HOSTILE}"} in to
    assert "Cases" not in text_of(page(client, "versions", agent="booking", by="model"))


def test_what_cannot_be_compared_is_a_sentence(client: Client) -> None:
    assert "has no version before '1.0'" in text_of(page(client, "versions", agent="booking", head="1.0"))
    assert "By: none of 48 runs has a fingerprint" in text_of(page(client, "versions", agent="booking", by="model"))
    alone = text_of(page(client, "versions", agent=HOSTILE))
    assert "There is no other version to compare with" in alone
    unknown = client.get("/versions?agent=nobody", headers={"accept": "text/html"})
    assert (unknown.status_code, "No agent is named" in unknown.text) == (404, True)


def test_a_search_groups_steps_by_run_and_marks_the_words(client: Client, ids: dict[str, str]) -> None:
    html = page(client, "search", q="gate")
    shown = text_of(html)
    assert "48 steps in 48 runs." in shown
    assert html.count("<mark>gate</mark>") == 20
    assert f"runs/{ids['run 47']}#span={ids['step 47']}" in links(html)
    (older,) = [link for link in links(html) if "offset=" in link]
    assert "21–40 of 48 runs" in text_of(page(client, "search", **dict(parse_qsl(urlsplit(older).query))))
    assert "16 steps in 16 runs." in text_of(page(client, "search", q="gate", version="2.0"))
    assert "has “nowhere” in runs that match the conditions." in text_of(
        page(client, "search", q="nowhere", agent="booking")
    )
    one = page(client, "search", q="gate", run=ids["run 5"])
    assert "1 step in 1 run." in text_of(one)
    assert "Type words" in text_of(page(client, "search"))
    assert f'value="{quote(HOSTILE)}"' not in page(client, "search", q=HOSTILE)


def test_a_search_finds_runs_by_their_own_metadata_and_names(client: Client, ids: dict[str, str]) -> None:
    html = page(client, "search", q="TICKET-1", version="1.0")
    assert "7 runs with it in a name, the metadata, the result or the error" in text_of(html)
    assert f"runs/{ids['run 15']}" in links(html)
    assert "./?version=1.0&grep=TICKET-1" in links(html)
    assert "with it in a name" not in text_of(page(client, "search", q="ticket-47"))  # the run itself is named


def test_an_id_leads_to_its_run_or_step(client: Client, ids: dict[str, str]) -> None:
    step = f"runs/{ids['run 7']}#span={ids['step 7']}"
    for q, link in (
        (ids["run 7"], f"runs/{ids['run 7']}"),
        (ids["step 7"], step),
        ("ticket-7", f"runs/{ids['run 7']}"),
    ):
        html = page(client, "search", q=q)
        assert links(html)[0] == link, q
        assert 'class="opens"' in html


def test_a_session_of_any_characters_has_its_runs_in_order(client: Client, ids: dict[str, str]) -> None:
    html = page(client, "sessions", session=SESSION)
    shown = text_of(html)
    assert f"Session {SESSION} 3 runs · 6 steps · 1 failed step · 6.0 s" in shown
    assert [link for link in links(html) if link.startswith("runs/")] == [f"runs/{ids[f'run {n}']}" for n in range(3)]
    assert "book 0 <script>alert(1)</script>" in shown
    assert f"./?{urlencode({'session': SESSION})}" in links(html)
    assert "missed reward ≥ 1" in text_of(page(client, "sessions", session=SESSION, outcome="reward>=1"))
    assert "book 7 " in text_of(page(client, "sessions/s7"))
    listed = page(client, "sessions")
    assert f"sessions?{urlencode({'session': SESSION})}" in links(listed)
    unknown = client.get("/sessions?session=nobody", headers={"accept": "text/html"})
    assert (unknown.status_code, "No run has the session" in unknown.text) == (404, True)


def test_an_empty_file_says_what_to_do(empty: Client) -> None:
    for path in ("failures", "versions"):
        shown = text_of(page(empty, path))
        assert "Nothing has been recorded here yet." in shown
        assert "agentspan demo" in shown
    assert "Nothing has been recorded here yet." in text_of(page(empty, "compare"))
    assert "session=" in text_of(page(empty, "sessions"))
    assert "no step" in text_of(page(empty, "search", q="gate")).lower()


def test_the_bar_leads_to_the_pages_with_the_same_filter(client: Client) -> None:
    html = page(client, "failures", agent="booking")
    for name in ("failures", "versions"):
        assert f'href="{name}?agent=booking"' in html
    assert 'id="to-failures"' in html


def test_pages_work_where_the_viewer_is_mounted_and_after_a_login(tmp_path: Path) -> None:
    storage = SQLiteStorage(tmp_path / "runs.db")
    with Client(create_app(storage, token="a secret of 12")) as guarded:
        response = guarded.get("/sessions?session=a%2Fb", headers={"accept": "text/html"})
        assert response.status_code == 303
        assert response.headers["location"] == "login?" + urlencode({"next": "sessions?session=a%2Fb"})
    storage.close()
