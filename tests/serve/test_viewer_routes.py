"""The viewer over HTTP: who may see what, what pages may do, and the data behind them, over each storage."""

import gzip
import json
import re
import time
from collections.abc import Callable, Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from urllib.parse import urljoin

import httpx
import pytest
from fastapi import FastAPI

import agentspan
from agentspan.database import Database
from agentspan.errors import DatabaseBusy
from agentspan.model.rows import AgentInstanceRow
from agentspan.serve import create_app, viewer_runs
from agentspan.serve.viewer_routes import HEADERS
from agentspan.storage.protocol import Storage
from agentspan.tuning import STANDARD, Tuning
from agentspan.viewer import conversation, data, export
from agentspan.viewer.listing import listing
from tests.serve.asgi import Client
from tests.serve.servers import Server, details, refusal
from tests.waiting import until

TOKEN = "s3cret-token"
HTML = {"Accept": "text/html,application/xhtml+xml"}
SAME = {"Sec-Fetch-Site": "same-origin"}
HOSTILE = "<script>alert(1)</script>\"'><img src=x onerror=alert(1)>"

Make = Callable[..., Client]


@pytest.fixture
def make(db: Database) -> Iterator[Make]:
    """Clients of applications over the storage, whose list waits for its sums on a machine that is busy, too."""
    opened: list[Client] = []
    patient = STANDARD._replace(run_list_sums_s=60)

    def make_(*, base: str = "http://localhost", tuning: Tuning = patient, **options: Any) -> Client:
        client = Client(create_app(db, tuning=tuning, **options), base)
        opened.append(client)
        return client

    yield make_
    for client in opened:
        client.close()


@pytest.fixture(scope="module")
def in_memory() -> Iterator[Database]:
    """A file for what no backend can change: the login, and requests that are refused before anything is read."""
    with Database(agentspan.MemoryStorage()) as opened:
        yield opened


@pytest.fixture(scope="module")
def apps(in_memory: Database) -> dict[str | None, FastAPI]:
    """The applications over it, without a token and with one."""
    return {token: create_app(in_memory, token=token) for token in (None, TOKEN)}


@pytest.fixture
def at_login(apps: dict[str | None, FastAPI]) -> Iterator[Client]:
    """A client that has no session yet."""
    with Client(apps[TOKEN]) as client:
        yield client


@pytest.fixture
def run(db: Database) -> str:
    """A run with a span in it, under way."""
    made = db.agent_instances.register("researcher", agent_version={}, agent_schema_version={}, metadata={"a": HOSTILE})
    db.agent_instances.start(made.id)
    db.agent_spans.create(made.id, "llm", "complete", {"model": "m", "messages": []}, {"text": "gardens"})
    return made.id


@pytest.fixture
def span(db: Database, run: str) -> str:
    return db.agent_spans.list(run)[0].id


def log_in(client: Client) -> httpx.Response:
    return client.post("/login", json={"token": TOKEN}, headers=SAME)


def test_quotes_in_a_cookie_take_no_longer_than_other_characters(at_login: Client) -> None:
    """Before, Python's own reader took 10 s for one of 60 kB."""
    took = []
    for value in ("", "a" * 60_000, '"' + '\\"' * 30_000 + '"'):
        began = time.process_time()
        assert at_login.get("/login", headers={"Cookie": f"agentspan_theme={value}"}).status_code == 200
        took.append(time.process_time() - began)
    assert took[2] < 20 * took[1]


# The list


def test_the_list_begins_with_what_happened(make: Make, db: Database, run: str) -> None:
    assert 'id="answer-text"' in make().get("/").text
    db.agent_instances.finish(run, "failed")
    client = make()
    answer = client.get("/answer.json").json()
    assert (answer["head"], [part["text"] for part in answer["parts"]]) == ("1 run in the last day", ["1 failed"])
    (part,) = answer["parts"]
    assert client.get(f"/runs.json{part['href'].removeprefix('./')}").json()["total"] == 1
    assert client.get("/answer.json?agent=other&status=failed").json()["head"] == "No run"
    (bar,) = answer["bars"]
    assert client.get(f"/runs.json{bar['href'].removeprefix('./')}").json()["total"] == 1
    assert (bar["failed"], bar["passed"]) == ([0.0, 44.0], [0.0, 0.0])


def test_the_list_is_sorted_by_a_column_of_the_address(make: Make, db: Database, run: str) -> None:
    busy = db.agent_instances.register("a", agent_version={}, agent_schema_version={}).id
    db.agent_instances.start(busy)
    for _ in range(3):
        db.agent_spans.create(busy, "tool", "complete", {"name": "dig"}, {})
    later = db.agent_instances.register("a", agent_version={}, agent_schema_version={}).id
    client = make()

    def ids(query: str) -> list[str]:
        return [row["id"] for row in client.get(f"/runs.json{query}").json()["runs"]]

    assert ids("") == ids("?sort=nonsense") == [later, busy, run]
    assert ids("?sort=spans") == [busy, run, later]
    page = client.get("/?sort=spans&agent=a").text
    assert 'aria-sort="descending"><a href="./?agent=a&amp;sort=spans">Steps' in page
    assert '<a href="./?agent=a">Started' in page
    assert f'href="runs/{busy}?agent=a"' in page  # so that the way back keeps the filter
    assert 'href=".././?agent=a"' in client.get(f"/runs/{busy}?agent=a", headers=HTML).text


def test_a_row_has_the_verdict_the_first_prompt_and_the_cause(make: Make, db: Database) -> None:
    made = db.agent_instances.register("a", agent_version={"external_identifier": "2"}, task="t").id
    db.agent_instances.start(made)
    db.agent_spans.create(made, "message", "complete", {"role": "user", "content": "Book\na flight"}, None)
    error = {"error": {"type": "SoldOut", "message": "no seat"}}
    db.agent_spans.create(made, "tool", "failed", {"name": "book"}, error)
    db.agent_instances.finish(made, "complete")
    db.scores.record(made, "reward", 0)
    db.scores.record(made, "mark", label="bad", by="human")
    good = db.agent_instances.register("a", agent_version={"external_identifier": "2"}).id
    db.agent_instances.start(good)
    db.agent_instances.finish(good, "complete")
    db.scores.record(good, "reward", 1)
    passed, missed = make().get("/runs.json").json()["runs"]
    assert (passed["mark"], passed["cells"]["status"], passed["cells"]["why"]) == ("complete", "passed", "")
    cells = missed["cells"]
    assert (missed["mark"], cells["status"], cells["marks"]) == ("missed", "missed reward ≥ 1", "bad")
    assert (cells["about"], cells["why"]) == ("t: Book a flight", "Tool book: SoldOut: no seat")
    assert missed["titles"]["status"] == "complete; reward 0 (by code); mark bad (by human)"


def test_runs_are_marked_and_the_marks_taken_back(make: Make, db: Database, run: str) -> None:
    other = db.agent_instances.register("a", agent_version={}, agent_schema_version={}).id
    client = make()
    assert "<label hidden><span>Mark</span>" in client.get("/").text
    form: dict[str, Any] = {"runs": [run, other], "label": "bad", "note": "it loops"}
    assert client.post("/marks", json=form, headers=SAME).json() == {"marked": 2}
    (score,) = db.scores.list(run)
    assert (score.name, score.label, score.explanation, score.source) == ("mark", "bad", "it loops", "human")
    assert db.runs(mark="bad").total == 2
    shown = client.get("/?mark=bad").text
    assert re.search(r'<label><span>Mark</span>.*<option value="bad" selected>bad</option>', shown, re.DOTALL)
    assert client.post("/marks", json={"runs": [run], "label": ""}, headers=SAME).json() == {"marked": 1}
    assert db.runs(mark="bad").total == 1
    refused: list[dict[str, Any]] = [{}, {"runs": []}, {"runs": run, "label": "x"}, {"runs": ["x"] * 101, "label": "x"}]
    for wrong in refused:
        assert client.post("/marks", json=wrong, headers=SAME).status_code == 422
    assert client.post("/marks", json={"runs": ["none"], "label": "x"}, headers=SAME).status_code == 404


def test_only_our_own_pages_may_mark(make: Make, db: Database, run: str) -> None:
    form = {"runs": [run], "label": "bad"}
    for headers in ({}, {"Sec-Fetch-Site": "cross-site"}, {"Origin": "https://evil.example"}):
        assert refusal(make().post("/marks", json=form, headers=headers)) == (403, "not_permitted")
    assert refusal(make(token=TOKEN).post("/marks", json=form, headers=SAME))[0] == 401
    assert refusal(make(read_only=True).post("/marks", json=form, headers=SAME)) == (403, "not_permitted")
    assert "mark-selected" not in make(read_only=True).get("/").text
    assert db.scores.list(run) == []


def test_several_runs_are_exported_as_one_file(make: Make, db: Database, run: str) -> None:
    other = db.agent_instances.register("other agent", agent_version={}, agent_schema_version={}).id
    client = make()
    answer = client.get(f"/export?run={run}&run={other}")
    assert answer.headers["content-disposition"] == 'attachment; filename="2-runs.html"'
    assert "other agent" in answer.text
    assert client.get("/export").status_code == 422
    assert client.get("/export?run=none").status_code == 404


@pytest.mark.parametrize("said", ["agentspan_theme=dark", "=; a=b;agentspan_theme=light; agentspan_theme = dark ;c"])
def test_a_cookie_is_found_among_others(at_login: Client, said: str) -> None:
    assert 'data-theme="dark"' in at_login.get("/login", headers={"Cookie": said}).text
    assert 'data-theme="dark"' not in at_login.get("/login", headers={"Cookie": f"x{said.replace('; ', '')}"}).text


def pages_of(run: str) -> list[str]:
    return ["/", f"/runs/{run}"]


def data_of(run: str) -> list[str]:
    names = ("facts", "spans", "conversation", "stats", "why", "own-times", "search?q=a", "export")
    across = [
        "/runs.json",
        "/answer.json",
        "/steps.json?grep=a",
        f"/export?run={run}",
        f"/export?format=dataset&run={run}",
    ]
    return [*across, *(f"/runs/{run}/{name}" for name in names)]


# Headers


def test_every_answer_forbids_what_the_viewer_does_not_need(make: Make, run: str, span: str) -> None:
    client = make()
    for path in (
        *pages_of(run),
        *data_of(run),
        f"/runs/{run}/spans/{span}",
        "/login",
        "/static/viewer.js",
        "/runs/none",
    ):
        response = client.get(path, headers=HTML)
        for name, value in HEADERS.items():
            if name != "Cache-Control" or not path.startswith("/static"):
                assert response.headers[name] == value, path


def test_the_policy_lets_no_page_run_or_load_what_is_not_ours() -> None:
    policy = dict(part.split(" ", 1) for part in HEADERS["Content-Security-Policy"].split("; "))
    assert policy == {
        "default-src": "'none'",
        "script-src": "'self'",
        "style-src": "'self'",
        "connect-src": "'self'",
        "img-src": "'self' data:",
        "media-src": "'self'",
        "frame-ancestors": "'none'",
        "base-uri": "'none'",
        "form-action": "'self'",
    }


class Elements(HTMLParser):
    """The elements of a page, with their attributes."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))


def test_pages_have_no_inline_script_or_style(make: Make, run: str) -> None:
    client = make()
    for path in (*pages_of(run), "/runs/nothing"):
        elements = Elements(client.get(path, headers=HTML).text).found
        assert elements[0][0] == "html"
        for tag, attributes in elements:
            assert tag != "style", path
            assert not [name for name in attributes if name.startswith("on") or name == "style"], path
            assert not (attributes.get("href") or "").startswith("javascript:")
            if tag == "script":
                assert "src" in attributes or attributes["type"] == "application/json"


def test_files_are_kept_by_the_browser_until_they_change(make: Make) -> None:
    client = make(token=TOKEN)  # nobody has to log in for them
    page = client.get("/login", headers=HTML).text
    for address in re.findall(r'(?:src|href)="(static/[^"]+)"', page):
        response = client.get(f"/{address}")
        assert response.status_code == 200
        assert "immutable" in response.headers["cache-control"]
        assert "immutable" not in client.get(f"/{address.partition('?')[0]}?v=old").headers["cache-control"]
    assert client.get("/static/viewer.js").text == export.script()
    assert client.get("/static/viewer.css").headers["content-type"].startswith("text/css")
    assert refusal(client.get("/static/../app.py")) == (404, "not_found")
    assert refusal(client.get("/static/dom.js")) == (404, "not_found")


# Escaping


def test_what_a_payload_says_is_escaped(make: Make, db: Database) -> None:
    made = db.agent_instances.register(HOSTILE, agent_version={}, agent_schema_version={}, metadata={HOSTILE: HOSTILE})
    client = make()
    for path in (f"/?agent={HOSTILE}&grep={HOSTILE}", *pages_of(made.id)):
        page = client.get(path, headers=HTML).text
        assert "<script>alert" not in page
        assert "<img" not in page
    data = re.search(r'<script id="data" type="application/json">(.*?)</script>', page, re.DOTALL)
    assert data
    assert json.loads(data[1])["agent"] == HOSTILE


def test_no_page_hides_characters_that_a_name_holds(make: Make, db: Database) -> None:
    name = "a\u202eb\u200bc\U000e0041d\u00ade"
    shown = "a\\u202eb\\u200bc\\u{e0041}d\\u00ade"
    made = db.agent_instances.register(name, agent_version={}, agent_schema_version={}, metadata={"m": f"meta {name}"})
    listed, page = (make().get(path, headers=HTML).text for path in ("/", f"/runs/{made.id}"))
    assert f">{shown}</span>" in listed
    assert f'<option value="{name}">{shown}</option>' in listed  # what is chosen is the name as it is
    assert f"m=meta {shown}" in listed
    assert f"<title>{shown} " in page
    assert f"<title>{shown}</title>" in export.html(db.storage, [made.id])


def test_a_path_that_is_not_there_is_said_without_repeating_it_as_markup(make: Make) -> None:
    response = make().get("/runs/<script>alert(1)<", headers=HTML)
    assert response.status_code == 404
    assert response.headers["content-type"].startswith("text/html")
    assert "<script>alert" not in response.text


def test_a_file_that_is_in_use_is_said_to_people_and_to_scripts(
    make: Make, db: Database, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def busy(*given: Any) -> Any:
        raise DatabaseBusy("/secret/runs.db is locked")

    monkeypatch.setattr(viewer_runs, "listing", busy)
    client = make()
    page = client.get("/", headers=HTML)
    assert page.status_code == 503
    assert "Not now" in page.text
    assert "secret" not in page.text
    assert refusal(client.get("/runs.json")) == (503, "unknown")
    assert "runs.db is locked" in caplog.text


# Data


def test_the_list_has_filters_and_says_how_many_of_how_many(make: Make, db: Database, run: str) -> None:
    for number in range(60):
        db.agent_instances.register(
            "many", agent_version={}, agent_schema_version={}, external_identifier=f"no-{number}-"
        )
    client = make()

    def count(query: str) -> str:
        return str(client.get(f"/runs.json?{query}").json()["count"])

    assert count("").startswith("50 of 61 runs")
    assert count("offset=50").startswith("51–61 of 61 runs")
    assert count("agent=researcher").startswith("1 of 1 run")
    assert count("status=active").startswith("1 of 1 run")
    assert count("failed=1").startswith("0 of 0 runs")
    assert count("grep=no-42-").startswith("1 of 1 run")
    assert count("git_commit=ab").startswith("0 of 0 runs")
    assert count("since=24h").startswith("50 of 61")
    assert count("status=nonsense&since=ever&offset=-3").startswith("50 of 61")
    assert count("version=none").startswith("0 of 0")
    assert count("until=2999-01-01&meta=&meta=nonsense").startswith("50 of 61")
    assert count("since=yesterday&meta=no=1").startswith("0 of 0")
    db.scores.record(run, "reward", 1)
    assert count("score=reward==true").startswith("1 of 1 run")
    assert count("score=reward==good").startswith("0 of 0")  # a label, where there are numbers
    page = client.get("/?agent=many").text
    assert len(re.findall(r"<tr data-run=", page)) == 50 + 1  # and the one to make new rows of
    assert 'href="./?agent=many&amp;offset=50"' in page
    assert 'href="./?agent=many"' in client.get("/?agent=many&offset=50").text


def test_steps_with_a_text_are_found_in_runs_that_match_the_other_filters(make: Make, db: Database, run: str) -> None:
    other = db.agent_instances.register("other", agent_version={}, agent_schema_version={}).id
    db.agent_instances.start(other)
    for _ in range(40):
        db.agent_spans.create(other, "tool", "complete", {"name": "dig", "arguments": {"where": "garden"}}, {})
    client = make()

    def found(query: str) -> tuple[str, int]:
        answer = client.get(f"/steps.json?grep={query}").json()
        return answer["count"], len(answer["steps"])

    assert found("gard") == ("the latest 30 of 41 steps", 30)
    assert found("garden&agent=researcher") == ("1 step", 1)
    assert found("garden&agent=other") == ("the latest 30 of 40 steps", 30)
    assert found("garden&status=complete") == ("0 steps", 0)
    assert found("nowhere") == ("0 steps", 0)
    assert found("") == ("0 steps", 0)
    (step,) = client.get("/steps.json?grep=garden&agent=researcher").json()["steps"]
    assert (step["run"], step["agent"]) == (run, "researcher")
    assert step["parts"][1::2] == ["gardens"]
    assert step["repeats"] == 0
    page = client.get("/", params={"grep": "<img src=x>"}).text
    assert "<img src=x>" not in page
    assert (
        "“&lt;img src=x&gt;” is in no run&#39;s own id" in page or "“&lt;img src=x&gt;” is in no run's own id" in page
    )
    for _ in range(170):
        db.agent_spans.create(other, "tool", "complete", {"name": "dig", "arguments": {"where": "garden"}}, {})
    assert found("garden&agent=researcher") == ("0 of the latest 200 steps with this text (211 in the file)", 0)
    assert found("garden&failed=1") == ("0 of the latest 200 steps with this text (211 in the file)", 0)


def test_a_run_is_found_by_the_beginning_of_its_id(make: Make, run: str) -> None:
    client = make()
    for typed in (run[:12], "-"):
        assert client.get(f"/runs/{typed}", headers=HTML).headers["location"] == run


def test_data_of_a_run(make: Make, run: str, span: str) -> None:
    client = make()
    spans = client.get(f"/runs/{run}/spans").json()
    assert spans["columns"]["id"] == [span]
    assert client.get(f"/runs/{run}/facts").json()["spans"]["total"] == 1
    assert client.get(f"/runs/{run}/spans?after={span}").json()["columns"]["id"] == []
    later = client.get(f"/runs/{run}/spans?since=2999").json()
    assert (later["columns"]["id"], later["run"]["spans"]["total"]) == ([], 1)
    assert client.get(f"/runs/{run}/spans?since=").json()["columns"]["id"] == [span]
    assert client.get(f"/runs/{run}/spans/{span}").json()["payload"] == '{"model":"m","messages":[]}'
    said = client.get(f"/runs/{run}/conversation").json()
    assert (said["total"], said["offset"], said["sections"][""]["turns"]) == (1, 0, 1)
    page = client.get(f"/runs/{run}/conversation?offset=1").json()
    assert (page["turns"], page["total"], page["offset"], page["place"]) == ([], 1, 1, None)
    assert client.get(f"/runs/{run}/conversation?span={span}").json()["place"] == 0
    assert client.get(f"/runs/{run}/search?q=garden*").json() == {"ids": [span], "total": 1}
    assert client.get(f"/runs/{run}/stats").json()["stats"][0]["schema_name"] == "llm"


def test_a_conversation_is_read_once_until_its_run_changes(
    make: Make, db: Database, run: str, span: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    reads: list[str] = []
    read = conversation.stored
    monkeypatch.setattr(conversation, "stored", lambda storage, row: reads.append(row.id) or read(storage, row))
    client = make()

    def shown(query: str = "") -> tuple[int, int, list[str]]:
        page = client.get(f"/runs/{run}/conversation{query}").json()
        return page["total"], page["offset"], [turn["text"] for turn in page["turns"]]

    opened = db.agent_spans.create(run, "message", "active", {"role": "user", "content": "more"}).id
    assert shown() == (2, 0, ["gardens", "more"])
    db.agent_spans.finish(opened, "complete")
    db.agent_spans.create(run, "llm", "complete", {"messages": []}, {"text": "said"})
    db.agent_instances.finish(run, "complete")
    assert shown("?offset=2") == (3, 2, ["said"])
    assert reads == [run] * 2
    other = db.agent_instances.register("other", agent_version={}, agent_schema_version={}).id
    db.agent_spans.create(other, "message", "complete", {"role": "user", "content": "of another run"})
    assert shown("?offset=1") == (3, 1, ["more", "said"])
    assert shown(f"?span={span}") == (3, 0, ["gardens", "more", "said"])
    assert reads == [run] * 2


def test_what_is_not_there_is_not_found(make: Make, db: Database, run: str, span: str) -> None:
    client = make()
    other = db.agent_instances.register("other", agent_version={}, agent_schema_version={}).id
    for path in (f"/runs/{span}/spans", "/runs/zzz/stats", f"/runs/{other}/spans/{span}", f"/runs/{run}/spans/{run}"):
        assert client.get(path).status_code in (404, 422), path
        assert refusal(client.get(path))[1] in ("not_found", "unexpected_ref_type")


def test_much_is_compressed_for_who_takes_that(make: Make, db: Database, run: str) -> None:
    for _ in range(1500):
        db.agent_spans.create(run, "step", "active", {"a": "x" * 40})
    client = make()
    plain = client.get(f"/runs/{run}/spans", headers={"Accept-Encoding": "identity"})
    assert "content-encoding" not in plain.headers
    packed, raw = client.raw(f"/runs/{run}/spans", headers={"Accept-Encoding": "gzip"})
    assert packed.headers["content-encoding"] == "gzip"
    assert len(raw) < len(plain.content) / 3
    assert json.loads(gzip.decompress(raw))["columns"] == plain.json()["columns"]


def test_an_export_is_a_file_to_keep(make: Make, db: Database, run: str) -> None:
    response = make().get(f"/runs/{run}/export")
    assert response.headers["content-disposition"] == f'attachment; filename="run-{run}.html"'
    assert response.text == export.html(db.storage, [run])


# Who may see


def test_without_the_session_there_is_only_the_login(make: Make, run: str, span: str) -> None:
    client = make(token=TOKEN)
    for path in (*pages_of(run), *data_of(run), f"/runs/{run}/spans/{span}", "/runs/nothing"):
        page = client.get(path, headers=HTML)
        assert page.status_code == 303, path
        assert "login" in page.headers["location"]
        assert refusal(client.get(path)) == (401, "not_authenticated")
        assert run not in client.get(path).text
    assert refusal(client.post(f"/runs/{run}/terminate", json={"reason": "no"}, headers=SAME)) == (
        401,
        "not_authenticated",
    )


def test_one_comes_back_to_where_one_wanted_to_go(make: Make, run: str) -> None:
    client = make(token=TOKEN)
    first = client.get(f"/runs/{run}?a=1", headers=HTML).headers["location"]
    assert first.startswith("../login?next=runs%2F")
    page = client.get(f"/{first.removeprefix('../')}", headers=HTML).text
    (onward,) = re.findall(r'data-next="([^"]*)"', page)
    assert onward == f"runs/{run}?a=1"
    response = client.post("/login", json={"token": TOKEN, "next": onward}, headers=SAME)
    assert response.json() == {"next": f"runs/{run}?a=1"}


@pytest.mark.parametrize(
    "where",
    [
        "https://evil.example/",
        "//evil.example",
        "javascript:alert(1)",
        "runs//evil",
        "runs/\\evil",
        "runs/../../x",
        "runs/x/../../../x",
        "runs/%2e%2e/%2E./x",
        "runs/.%2e/x",
        "runs/%252e%252e/x",
        "runs/.",
        "./../x",
        "././../x",
        "runs/..;/x",
        "runs/x/..",
        "runs",
        "",
        "runs/\ud800",
        7,
        None,
        ["runs/x"],
        {"runs": "x"},
        "https:evil.example",
        "http:runs/x",
        "/\\evil.example",
        "\\\\evil.example",
        "/runs/x",
        "///evil.example",
        " //evil.example",
        "\t//evil.example",
        "\t/\t/evil.example",
        "java\tscript:alert(1)",
        "data:text/html,x",
        "runs/x\r\nLocation: //evil.example",
        "runs/x\n",
        "runs/%0d%0aX: 1",
        "runs/%2e%2e/%2e%2e/x",
        "%2e%2e/x",
        "%2f%2fevil.example",
        "runs/%5c%5cevil.example",
        "runs/x?to=//evil.example",
        "runs/x?\\evil.example",
        "?//evil.example",
        "\uff0f\uff0fevil.example",
        "runs/\u2215\u2215evil.example",
        "runs/\u202ex",
        "runs/x#//evil.example",
        "\x00",
        "runs/x\x00",
        "login",
        "logout",
        "api/v1/ping",
        "static/viewer.js",
    ],
)
def test_the_login_leads_nowhere_else(at_login: Client, where: Any) -> None:
    body = json.dumps({"token": TOKEN, "next": where}).encode()
    response = at_login.post("/login", content=body, headers={**SAME, "Content-Type": "application/json"})
    assert response.json() == {"next": "./"}


@pytest.mark.parametrize(
    "where", ["runs/x?a=\r\nLocation: /evil", "?a=\r\nb", "runs/x?\u202e\x00", "runs/" + "x" * 9000]
)
def test_what_the_login_leads_to_is_one_line_of_ascii_within_the_viewer(at_login: Client, where: str) -> None:
    response = at_login.post("/login", json={"token": TOKEN, "next": where}, headers=SAME)
    onward = response.json()["next"]
    assert onward.isascii()
    assert onward.isprintable()
    assert " " not in onward
    assert len(onward) < 3 * 2100
    assert urljoin("http://localhost/login", onward).startswith(("http://localhost/runs/x", "http://localhost/?a="))


def test_a_login_with_a_very_long_address_is_refused(at_login: Client) -> None:
    response = at_login.post("/login", json={"token": TOKEN, "next": "runs/" + "x" * 100_000}, headers=SAME)
    assert refusal(response) == (422, "invalid_value")


@pytest.mark.parametrize("given", ["wrong", "", None, 7, TOKEN + "x", TOKEN.upper(), "\ud800"])
def test_a_wrong_token_gives_no_session(in_memory: Database, given: Any) -> None:
    body = json.dumps({"token": given}).encode()
    with Client(create_app(in_memory, token=TOKEN)) as client:  # its own, since guesses are counted
        response = client.post("/login", content=body, headers={**SAME, "Content-Type": "application/json"})
        assert refusal(response) == (403, "bad_authtoken")
        assert "set-cookie" not in response.headers
        assert client.get("/", headers=HTML).status_code == 303


@pytest.mark.parametrize("body", [b"", b"[]", b"{", b"[" * 20_000])
def test_a_login_that_is_no_object_is_refused(at_login: Client, body: bytes) -> None:
    response = at_login.post("/login", content=body, headers={**SAME, "Content-Type": "application/json"})
    assert response.status_code == 422


@pytest.mark.full
def test_the_session_is_a_cookie_that_says_nothing_and_that_no_script_gets(make: Make, run: str) -> None:
    client = make(token=TOKEN)
    cookie = log_in(client).headers["set-cookie"]
    assert TOKEN not in cookie
    assert "HttpOnly" in cookie
    assert "SameSite=strict" in cookie
    assert "Path=/" in cookie
    assert "Secure" not in cookie
    for path in (*pages_of(run), *data_of(run)):
        assert client.get(path, headers=HTML if path in pages_of(run) else {}).status_code == 200, path
    assert "Secure" in log_in(make(token=TOKEN, base="https://localhost")).headers["set-cookie"]
    behind_a_proxy = {**SAME, "Origin": "https://runs.example"}
    assert "Secure" in client.post("/login", json={"token": TOKEN}, headers=behind_a_proxy).headers["set-cookie"]


def test_a_session_that_was_changed_or_is_of_another_token_is_none(make: Make) -> None:
    client = make(token=TOKEN)
    log_in(client)
    ((name, value),) = client.cookies.items()
    said, _, signature = value.rpartition(".")
    expires, _, nonce = said.partition(".")
    for forged in (
        f"{int(expires) + 1}.{nonce}.{signature}", f"{said}.{'0' * 64}", f"{said}.", f".{signature}", "", TOKEN, "a.b",
    ):  # fmt: skip
        client.cookies.clear()
        client.cookies.set(name, forged)
        assert client.get("/", headers=HTML).status_code == 303, forged
    other = make(token="another-token")
    other.cookies.set(name, value)
    assert other.get("/", headers=HTML).status_code == 303


@pytest.mark.full
def test_a_session_ends_after_a_while(make: Make) -> None:
    from freezegun import freeze_time

    client = make(token=TOKEN)
    with freeze_time("2026-11-24") as clock:
        log_in(client)
        ((name, value),) = client.cookies.items()
        for days, status in ((29, 200), (31, 303)):
            clock.move_to(f"2026-{11 if days < 7 else 12}-{days - 6:02d}")
            assert client.get("/", headers={**HTML, "Cookie": f"{name}={value}"}).status_code == status


def test_who_logs_out_is_out_also_with_the_cookie_that_was_kept(make: Make) -> None:
    client = make(token=TOKEN)
    log_in(client)
    ((name, value),) = client.cookies.items()
    assert refusal(client.post("/logout", json={}, headers={"Sec-Fetch-Site": "cross-site"})) == (403, "not_permitted")
    assert client.get("/", headers=HTML).status_code == 200
    assert client.post("/logout", json={}, headers=SAME).status_code == 200
    assert not client.cookies
    client.cookies.set(name, value)
    assert client.get("/", headers=HTML).status_code == 303


def test_without_a_token_there_is_no_login(make: Make, run: str) -> None:
    client = make()
    assert client.get("/login", headers=HTML).headers["location"] == "./"
    assert "Log out" not in client.get("/", headers=HTML).text
    assert "set-cookie" not in client.post("/login", json={}, headers=SAME).headers


def test_the_session_is_none_of_the_api(make: Make, run: str) -> None:
    client = make(token=TOKEN)
    log_in(client)
    assert refusal(client.get(f"/api/v1/agent_instance/{run}")) == (401, "not_authenticated")
    body = {"reason": "no"}
    assert refusal(client.post(f"/api/v1/agent_instance/{run}/terminate", json=body, headers=SAME))[0] == 401
    allowed = client.get(f"/api/v1/agent_instance/{run}", headers={"Authorization": f"Bearer {TOKEN}"})
    assert details(allowed)["status"] == "active"


def test_the_token_of_the_api_is_none_of_the_viewer(make: Make) -> None:
    response = make(token=TOKEN).get("/runs.json", headers={"Authorization": f"Bearer {TOKEN}"})
    assert refusal(response) == (401, "not_authenticated")


def test_a_host_that_is_not_ours_sees_nothing(make: Make, run: str) -> None:
    client = make(base="http://rebound.example")
    for path in (*pages_of(run), *data_of(run), "/static/viewer.js"):
        assert refusal(client.get(path)) == (403, "not_permitted")


# Terminating


@pytest.mark.parametrize("headers", [SAME, {"Origin": "http://localhost"}])  # the second: without Sec-Fetch-Site
def test_our_own_page_may_terminate(make: Make, run: str, headers: Any) -> None:
    for token in (None, TOKEN):
        client = make(token=token)
        if token:
            log_in(client)
        response = client.post(f"/runs/{run}/terminate", json={"reason": "it loops"}, headers=headers)
        if token is None:
            assert response.json()["run"]["termination_reason"] == "it loops"
        else:
            assert refusal(response) == (409, "invalid_action")  # it was terminated before


@pytest.mark.parametrize(
    "headers",
    [
        {"Sec-Fetch-Site": "cross-site", "Origin": "http://localhost"},
        {"Sec-Fetch-Site": "same-site"},
        {"Sec-Fetch-Site": "none"},
        {"Origin": "http://evil.example"},
        {"Origin": "null"},
        {"Origin": "http://localhost:81"},
        {},
    ],
)
def test_no_other_page_may_terminate(apps: dict[str | None, FastAPI], in_memory: Database, headers: Any) -> None:
    run = in_memory.agent_instances.register("a").id
    in_memory.agent_instances.start(run)
    for token, app in apps.items():
        with Client(app) as client:
            if token:
                log_in(client)
            response = client.post(f"/runs/{run}/terminate", json={"reason": "it loops"}, headers=headers)
            assert refusal(response) == (403, "not_permitted")
            assert in_memory.agent_instances.get(run).status == "active"


def test_our_own_page_may_allow_more_of_a_budget(make: Make, db: Database, tmp_path: Path) -> None:
    budget = {"budget": {"usd": 5, "on_spent": "pause"}}
    run = db.agent_instances.register("a", metadata=budget).id
    body = {"limit": "usd", "amount": "+2"}
    assert refusal(make().post(f"/runs/{run}/allow", json=body, headers={"Sec-Fetch-Site": "cross-site"}))[0] == 403
    assert refusal(make(read_only=True).post(f"/runs/{run}/allow", json=body, headers=SAME))[0] == 403
    facts = make().post(f"/runs/{run}/allow", json=body, headers=SAME).json()["run"]
    assert facts["budget"]["text"] == "$0 of $7.00 · viewer allowed usd +2"
    assert facts["scores"] == []
    for wrong in (
        {},
        {"limit": "usd", "amount": "-1"},
        {"limit": "steps", "amount": "5"},
        {"limit": "usd", "amount": "x"},
    ):
        assert make().post(f"/runs/{run}/allow", json=wrong, headers=SAME).status_code == 422
    db.agent_instances.start(run)
    db.agent_instances.finish(run)
    assert refusal(make().post(f"/runs/{run}/allow", json=body, headers=SAME)) == (409, "invalid_action")


def test_a_form_of_another_site_cannot_terminate(make: Make, db: Database, run: str) -> None:
    client = make()
    for kind in ("text/plain", "application/x-www-form-urlencoded", "multipart/form-data"):
        headers = {**SAME, "Content-Type": kind}
        response = client.post(f"/runs/{run}/terminate", content=b'{"reason":"no"}', headers=headers)
        assert response.status_code == 415
    assert db.agent_instances.get(run).status == "active"


def test_a_reason_is_needed(make: Make, run: str) -> None:
    client = make()
    for body in ({}, {"reason": ""}, {"reason": 7}):
        assert client.post(f"/runs/{run}/terminate", json=body, headers=SAME).status_code == 422


def test_a_server_that_only_reads_terminates_nothing_and_offers_nothing(make: Make, db: Database, run: str) -> None:
    client = make(read_only=True)
    assert 'data-read-only="true"' in client.get(f"/runs/{run}", headers=HTML).text
    response = client.post(f"/runs/{run}/terminate", json={"reason": "no"}, headers=SAME)
    assert refusal(response) == (403, "not_permitted")
    assert db.agent_instances.get(run).status == "active"
    assert 'data-read-only="true"' not in make().get(f"/runs/{run}", headers=HTML).text


def test_a_file_that_is_opened_for_reading_only_is_not_written(tmp_path: Path) -> None:
    with agentspan.open(tmp_path / "runs.db") as db:
        run = db.agent_instances.register("a", agent_version={}, agent_schema_version={}).id
        db.agent_instances.start(run)
    with (
        agentspan.open(tmp_path / "runs.db", read_only=True) as db,
        Client(create_app(db)) as client,
    ):
        response = client.post(f"/runs/{run}/terminate", json={"reason": "no"}, headers=SAME)
        assert refusal(response) == (403, "not_permitted")


# Scores, marks and notes


def test_our_own_page_may_judge_a_run_or_a_step_and_take_it_back(make: Make, db: Database, run: str, span: str) -> None:
    client = make()

    def send(**form: Any) -> list[tuple[str, str]]:
        answer = client.post(f"/runs/{run}/scores", json=form, headers=SAME)
        assert answer.status_code == 200, answer.text
        return [(score["text"], score["by"]) for score in answer.json()["run"]["scores"]]

    assert send(mark="bad", note="it loops") == [("mark bad: it loops", "human")]
    assert send(name="reward", value="0.5", identifier="ann")[1:] == [("reward 0.5", "human ann")]
    assert send(mark="good")[-1] == ("mark good", "human")  # the newest counts
    assert send(name="mark", remove=True) == [("reward 0.5", "human ann")]
    assert send(name="reward", identifier="ann", remove=True) == []
    assert send(span_id=span, note="look here") == []
    (note,) = client.get(f"/runs/{run}/spans/{span}").json()["scores"]
    assert (note["name"], note["text"]) == ("note", "note: look here")
    assert [(score.label, score.explanation, score.source) for score in db.scores.list(span)] == [
        (None, "look here", "human")
    ]
    send(span_id=span, mark="odd")
    (found,) = client.get("/runs.json?mark=odd").json()["runs"]
    assert (found["id"], found["cells"]["marks"]) == (run, "odd (a step)")
    assert client.get("/runs.json?mark=*").json()["total"] == db.runs(mark="odd").total == 1
    send(span_id=span, name="mark", remove=True)
    assert client.get("/runs.json?mark=odd").json()["total"] == 0


@pytest.mark.parametrize(
    "form",
    [{}, {"name": "a"}, {"name": "a", "mark": "good"}, {"name": "a", "value": 1}, {"note": 7}, {"note": "x" * 10_001}],
)
def test_a_judgement_that_says_nothing_or_too_much_is_refused(make: Make, db: Database, run: str, form: Any) -> None:
    assert make().post(f"/runs/{run}/scores", json=form, headers=SAME).status_code == 422
    assert db.scores.list(run) == []


def test_only_steps_of_the_run_are_judged(make: Make, db: Database, run: str, span: str) -> None:
    other = db.agent_instances.register("other", agent_version={}, agent_schema_version={}).id
    for body in ({"note": "x", "span_id": span}, {"note": "x", "span_id": other}, {"note": "x", "span_id": "none"}):
        assert make().post(f"/runs/{other}/scores", json=body, headers=SAME).status_code in (404, 422)
    assert db.scores.list(span) == []


def test_no_other_page_and_no_reading_server_judges(make: Make, db: Database, run: str) -> None:
    body = {"mark": "bad"}
    for headers in ({"Sec-Fetch-Site": "cross-site"}, {"Origin": "http://evil.example"}, {}):
        assert refusal(make().post(f"/runs/{run}/scores", json=body, headers=headers)) == (403, "not_permitted")
    assert refusal(make(read_only=True).post(f"/runs/{run}/scores", json=body, headers=SAME)) == (403, "not_permitted")
    assert refusal(make(token=TOKEN).post(f"/runs/{run}/scores", json=body, headers=SAME)) == (401, "not_authenticated")
    assert db.scores.list(run) == []


# What an address of JSON shows a person, and why a run failed


def test_an_address_of_json_leads_a_person_to_the_page_with_that_view(make: Make, run: str, span: str) -> None:
    client = make()
    for path, place in {
        "stats": "#view=stats",
        "conversation": "#view=conversation",
        "why": "",
        "facts": "",
        "own-times": "",
        f"spans/{span}": f"#span={span}",
    }.items():
        page = client.get(f"/runs/{run}/{path}", headers=HTML)
        assert page.status_code == 303, path
        assert urljoin(f"http://localhost/runs/{run}/{path}", page.headers["location"]) == (
            f"http://localhost/runs/{run}{place}"
        )
        assert client.get(f"/runs/{run}/{path}").headers["content-type"] == "application/json"


def test_why_a_run_failed_is_computed_once_until_the_run_changes(
    make: Make, db: Database, run: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []
    why = data.why

    def slow(storage: Storage, row: AgentInstanceRow) -> dict[str, Any]:
        asked.append(row.id)
        time.sleep(0.2)  # an answer is kept for some times of what it took, in which a busy machine asks again
        return why(storage, row)

    monkeypatch.setattr(data, "why", slow)
    client = make()
    assert client.get(f"/runs/{run}/why").json() == {"why": None}
    db.agent_instances.finish(run, "failed")
    for _ in range(2):
        assert client.get(f"/runs/{run}/why").json()["why"]["sentence"].startswith("No step failed.")
    assert len(asked) == 2
    db.scores.record(run, "reward", 1)
    client.get(f"/runs/{run}/why")
    assert len(asked) == 3


# Below another application


@pytest.mark.full
@pytest.mark.parametrize("prefix", ["/recorder/here", "/api", "/api/v1", "/apitrace"])
def test_it_works_below_a_prefix(db: Database, run: str, span: str, prefix: str) -> None:
    outer = FastAPI()
    outer.mount(prefix, create_app(db, token=TOKEN))
    with Client(outer, follow_redirects=True) as client:
        at = client.get(f"{prefix}/", headers=HTML)
        assert str(at.url) == f"http://localhost{prefix}/login?next="
        assert client.get(f"{prefix}/runs/{run}", headers=HTML).url.path == f"{prefix}/login"
        response = client.post(f"{prefix}/login", json={"token": TOKEN}, headers=SAME)
        assert f"Path={prefix}/" in response.headers["set-cookie"]
        page = client.get(f"{prefix}/", headers=HTML)
        (link,) = re.findall(r'href="(runs/\w+)"', page.text)
        below = client.get(str(page.url.join(link)), headers=HTML)
        assert below.url.path == f"{prefix}/runs/{run}"
        assert client.get(str(below.url.join(f"{run}/spans/{span}"))).json()["id"] == span
        for address in re.findall(r'(?:src|href)="([^":]*static/[^"]+)"', page.text + below.text):
            base = page.url if address.startswith("static") else below.url
            assert client.get(str(base.join(address))).status_code == 200, address
        for wrong in ("runs/none", "runs/none/export"):
            problem = client.get(f"{prefix}/{wrong}", headers=HTML)
            (link,) = re.findall(r'<a href="([^"]*)">All runs', problem.text)
            assert problem.url.join(link).path == f"{prefix}/"
        terminated = client.post(f"{prefix}/runs/{run}/terminate", json={"reason": "x"}, headers=SAME)
        assert terminated.json()["run"]["status"] == "terminated"
        assert refusal(client.get(f"{prefix}/api/v1/ping")) == (401, "not_authenticated")
        right = {"Authorization": f"Bearer {TOKEN}"}
        assert details(client.get(f"{prefix}/api/v1/agent_instance/{run}/", headers=right))["id"] == run


# A real server


def test_the_server_says_where_the_viewer_is(server: Server) -> None:
    assert server.url in server.said
    assert "in a browser" in server.said
    assert httpx.get(server.url, headers=HTML, timeout=30).text.startswith("<!doctype html>")


def test_a_list_whose_sums_take_long_comes_without_them(make: Make, run: str, monkeypatch: pytest.MonkeyPatch) -> None:
    import threading

    added_up, asked = threading.Event(), []

    def slow(*given: Any) -> Any:
        asked.append(given)
        added_up.wait(20)
        return listing(*given)

    monkeypatch.setattr(viewer_runs, "listing", slow)
    with make(tuning=STANDARD._replace(run_list_sums_s=0.01)) as client:
        page = client.get("/", headers=HTML).text
        assert 'data-preparing="true"' in page
        assert f'href="runs/{run}"' in page
        assert "0 of 0" not in client.get("/?status=failed", headers=HTML).text
        added_up.set()
        assert client.get("/runs.json").json()["runs"][0]["cells"]["spans"] == "1"
        until(lambda: 'data-preparing="true"' not in client.get("/", headers=HTML).text)
    assert len(asked) >= 2
