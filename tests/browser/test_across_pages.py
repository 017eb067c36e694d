"""The pages across runs, in a real browser: by keys alone, and in windows of each width."""

from collections.abc import Iterator
from pathlib import Path

import pytest

import agentspan
from tests.browser.conftest import Opener
from tests.browser.gestures import expect, press
from tests.serve.servers import Server, serving

SESSION = "chat/1 ü%2F?#&"
PAGES = (
    "",
    "failures",
    "failures?outcome=reward%3E%3D1",
    "versions",
    "search?q=gate",
    "sessions?session=chat%2F1+%C3%BC%252F%3F%23%26",
    "sessions",
)


@pytest.fixture(scope="module")
def server(browser: object, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server of 24 runs of two versions, of which 12 failed."""
    path = tmp_path_factory.mktemp("across") / "runs.db"
    with agentspan.open(path) as db:
        for number in range(24):
            version = {"external_identifier": "1.0" if number < 12 else "2.0"}
            session = SESSION if number < 2 else None
            run = db.agent_instances.register("booking", agent_version=version, session=session)
            day = f"2026-11-{number + 1:02}T10:00"
            db.agent_instances.start(run.id, timestamp=f"{day}:00Z")
            failed = number % 2 == 0
            result = {"error": {"type": "Refused", "message": "no " * 40}} if failed else {"output": "gate " * 40}
            times = {"started_at": f"{day}:00Z", "finished_at": f"{day}:02Z"}
            status = "failed" if failed else "complete"
            db.agent_spans.create(run.id, "tool", status, {"name": "pay"}, result, **times)  # type: ignore[arg-type]
            db.scores.record(run.id, "reward", number % 3 != 0)
            db.agent_instances.finish(run.id, status, timestamp=f"{day}:05Z")  # type: ignore[arg-type]
    with serving(path) as made:
        yield made
        assert "Traceback" not in made.stderr


def test_failures_and_the_search_are_walked_with_keys(server: Server, open_page: Opener, shots: Path) -> None:
    page = open_page(f"{server.url}/failures", ready=False)
    expect(page.locator(".answer").first).to_contain_text("12 of 24 runs failed")
    expect(page.locator(".blocks").first.locator("tbody tr")).to_have_count(1)
    page.screenshot(path=shots / "failures.png")
    press(page, "j", "Enter")
    page.wait_for_url("**/?signature=*")
    expect(page.locator("#count")).to_contain_text("12 of 12 runs")
    failed = page.url.replace("/?", "/failures?")
    page.keyboard.press("Control+k")
    page.keyboard.type("gat")
    page.keyboard.press("Enter")
    page.wait_for_url(lambda url: "grep=gat" in url and "signature=" in url)  # one search field: the list is searched
    page.goto(failed)
    page.keyboard.press("Control+k")
    page.keyboard.type("gat")
    page.keyboard.press("Enter")
    page.wait_for_url("**/search?q=gat*")
    expect(page.locator("main")).to_contain_text("No step")  # the filter holds: these runs all failed
    page.locator(".words a").first.click()
    page.wait_for_url(lambda url: "signature" not in url)
    page.locator(".words a").click()
    page.wait_for_url(lambda url: "status" not in url)
    expect(page.locator(".answer")).to_have_text("12 steps in 12 runs.")
    press(page, "j", "Enter")
    page.wait_for_url("**/runs/*#span=*")
    page.wait_for_selector("html[data-ready]")


def test_a_run_leads_to_its_session_and_the_session_to_its_runs(server: Server, open_page: Opener) -> None:
    page = open_page(f"{server.url}/sessions", ready=False)
    press(page, "j", "Enter")
    page.wait_for_url("**/sessions?session=*")
    expect(page.locator("h1.title")).to_have_text(f"Session {SESSION}")
    expect(page.locator(".blocks tbody tr")).to_have_count(2)
    press(page, "j", "j", "Enter")
    page.wait_for_selector("html[data-ready]")
    page.get_by_role("link", name=SESSION).click()
    expect(page.locator("h1.title")).to_have_text(f"Session {SESSION}")


def test_versions_are_compared_as_chosen(server: Server, open_page: Opener) -> None:
    page = open_page(f"{server.url}/versions", ready=False)
    expect(page.locator("h2")).to_contain_text(["2.0 beside 1.0"])
    assert page.locator(".answer").first.inner_text().startswith("No evidence of a difference")
    page.select_option("[name=base]", "2.0")
    page.select_option("[name=head]", "1.0")
    page.get_by_role("button", name="Compare").click()
    expect(page.locator("h2")).to_contain_text(["1.0 beside 2.0"])
    page.locator(".blocks td[data-name=failed] a").first.click()
    page.wait_for_url("**/?agent=booking&version=2.0&status=failed")


@pytest.mark.full
@pytest.mark.parametrize("address", PAGES)
def test_no_page_is_wider_than_its_window(server: Server, open_page: Opener, address: str) -> None:
    page = open_page(f"{server.url}/{address}", ready=False)
    expect(page.locator(".answer").first).to_be_visible()
    page.evaluate("document.querySelectorAll('.further').forEach((each) => { each.open = true; })")
    for width in (320, 400, 1440, 3840):
        page.set_viewport_size({"width": width, "height": 800})
        wide = "document.querySelector('main').scrollWidth > document.querySelector('main').clientWidth"
        assert not page.evaluate(f"{wide} || document.documentElement.scrollWidth > innerWidth"), (address, width)
        out = "[...document.querySelectorAll('label')].some((each) => each.getBoundingClientRect().right > innerWidth)"
        assert not page.evaluate(out), (address, width)
