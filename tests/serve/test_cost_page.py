"""The page of costs: sums, rows, links to their runs, and what caches saved."""

import re
from collections.abc import Iterator
from html import unescape
from pathlib import Path

import pytest

import agentspan
from agentspan.database import Database
from agentspan.serve import create_app
from tests.serve.asgi import Client

SONNET = "claude-sonnet-4-5"


@pytest.fixture
def client(tmp_path: Path) -> Iterator[Client]:
    with agentspan.open(tmp_path / "a.db") as db:
        record(db)
        with Client(create_app(db)) as client:
            yield client


def record(db: Database) -> None:
    tracer = agentspan.Tracer(db.storage, raise_errors=True)
    for agent, model in (("shop", SONNET), ("blog", "claude-haiku-4-5"), ("<b>blog", "unheard-of")):
        with tracer.run(agent) as run, tracer.span("llm", {"model": model}) as span:
            span.set_result({"input_tokens": 100_000, "output_tokens": 0, "cached_tokens": 50_000})
        assert run.id
    assert tracer.flush()


def text_of(html: str) -> str:
    return " ".join(unescape(re.sub(r"<[^>]*>", " ", html)).split())


def test_it_shows_the_sums_what_has_no_price_and_what_caches_saved(client: Client) -> None:
    text = text_of(client.get("/cost").text)
    assert "$0.2200: 3 runs, 3 calls of models, 300.0k tokens in, 0 out." in text
    assert "Not in it: 1 call with 100.0k tokens of unheard-of" in text
    assert "unheard-of 1 1 100.0k 0 –" in text
    assert "What caches saved Caches: 150.0k tokens were read from one, which saved $0.1800" in text


@pytest.mark.parametrize("by", ["model", "day", "agent", "project", "tool", "version", "session"])
def test_each_number_leads_to_its_runs(client: Client, by: str) -> None:
    html = client.get(f"/cost?by={by}&agent=shop").text
    assert f'aria-current="true">{by}</a>' in html
    rows = re.findall(r"<tr data-row>.*?</tr>", html, re.DOTALL)
    assert len(rows) == 1
    for link, text in re.findall(r'data-name="runs"><a href="([^"]*)">(.*?)</a>', rows[0]):
        assert text == "1"
        assert "agent=shop" in link
        listed = client.get(f"/{unescape(link).removeprefix('./')}").text
        assert len(re.findall(r'<tr data-run="[^"]', listed)) == 1, link


def test_a_link_stays_within_the_times_of_the_filter(client: Client) -> None:
    began = min(row["titles"]["started"] for row in client.get("/runs.json").json()["runs"])
    html = client.get(f"/cost?by=day&since={began}").text
    link = re.search(r'data-name="runs"><a href="\./\?([^"]*)"', html)
    assert link is not None
    assert "T" in dict(pair.split("=") for pair in unescape(link[1]).split("&"))["since"]  # not the whole day


def test_names_are_escaped_and_another_by_is_refused(client: Client) -> None:
    html = client.get("/cost?by=agent").text
    assert "&lt;b&gt;blog" in html
    assert "<b>blog" not in html
    refused = client.get("/cost?by=%3Cb%3E", headers={"Accept": "text/html"})
    assert refused.status_code == 422
    assert "By: must be one of model, day" in text_of(refused.text)


def test_an_empty_file_says_what_to_do(tmp_path: Path) -> None:
    with agentspan.open(tmp_path / "a.db") as db, Client(create_app(db)) as client:
        assert "agentspan import" in client.get("/cost").text
        assert "No run matches these conditions." in client.get("/cost?tool=none").text


def test_a_prompt_leads_to_its_step_and_the_runs_page_has_its_use(tmp_path: Path) -> None:
    with agentspan.open(tmp_path / "a.db") as db:
        tracer = agentspan.Tracer(db.storage, raise_errors=True)
        with tracer.run("a") as run:
            with tracer.span("message", {"role": "user", "content": "<b>go"}) as asked:
                pass
            with tracer.span("llm", {"model": SONNET}) as span:
                span.set_result({"input_tokens": 100_000, "output_tokens": 0})
        assert tracer.flush()
        with Client(create_app(db)) as client:
            html = client.get("/cost?by=prompt").text
            assert f'runs/{run.id}#span={asked.id}">&lt;b&gt;go</a>' in html
            assert "Prompt Step Calls Tokens in Out Cost Share <b>go #1 1 100.0k 0 $0.3000 100%" in text_of(html)
            (use,) = client.get(f"/runs/{run.id}/stats").json()["prompts"]
            assert (use["name"], use["span"], use["calls"], use["cost_usd"]) == ("<b>go", asked.id, 1, 0.3)
