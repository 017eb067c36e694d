"""The list of runs: what happened, a range of times that is brushed, marks on several runs, the choice of columns."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.browser.conftest import Opener
from tests.browser.gestures import expect, press
from tests.browser.recorded import database
from tests.serve.servers import Server, serving

AT = [f"2026-11-26T0{hour}:10:00.000000Z" for hour in (1, 1, 2, 5)]


@pytest.fixture(scope="module")
def server(browser: object, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server of four runs: two that began in the same hour, of which one failed, and two later ones."""
    path = tmp_path_factory.mktemp("list") / "runs.db"
    with database(path) as db:
        for number, at in enumerate(AT):
            run = db.agent_instances.register(
                "worker", agent_version={"external_identifier": "1"}, task=f"t{number}"
            ).id
            db.agent_instances.start(run, timestamp=at)
            if number == 1:
                error = {"error": {"type": "RateLimited", "message": "slow down"}}
                db.agent_spans.create(run, "tool", "failed", {"name": "fetch"}, error, started_at=at, finished_at=at)
            db.agent_instances.finish(run, "failed" if number == 1 else "complete", timestamp=at)
    with serving(path) as made:
        yield made
        assert "Traceback" not in made.stderr


def test_a_range_of_times_is_brushed_with_keys_and_with_the_pointer(server: Server, open_page: Opener) -> None:
    page = open_page(server.url, ready=False)
    expect(page.locator("#answer-text")).to_have_text("4 runs in the day up to 2026-11-26 05:10: ✗ 1 failed.")
    bars = page.locator("#answer-bars a")
    bars.first.focus()
    press(page, "Shift+ArrowRight", "Shift+ArrowRight", "Enter")
    page.wait_for_url("**since=2026-11-26T01%3A00%3A00.000000Z&until=2026-11-26T01%3A45**")
    expect(page.locator("#runs tr")).to_have_count(2)
    page.reload()
    expect(page.locator("#runs tr")).to_have_count(2)
    page.go_back()
    expect(page.locator("#runs tr")).to_have_count(4)
    box = page.locator("#answer-bars").bounding_box()
    assert box
    page.mouse.move(box["x"] + box["width"] - 3, box["y"] + 20)
    page.mouse.down()
    page.mouse.move(box["x"] + box["width"] / 3, box["y"] + 20, steps=4)
    page.mouse.up()
    page.wait_for_url("**since=**")
    expect(page.locator("#runs tr")).to_have_count(1)


def test_the_causes_lead_to_their_runs(server: Server, open_page: Opener) -> None:
    page = open_page(server.url, ready=False)
    cause = page.locator("#answer-causes a")
    expect(cause).to_have_text("Tool fetch: RateLimited: slow down")
    cause.click()
    expect(page.locator("#runs tr")).to_have_count(1)
    expect(page.locator("#runs .why")).to_have_text("Tool fetch: RateLimited: slow down")
    page.get_by_role("link", name="Show all runs").first.click()
    expect(page.locator("#runs tr")).to_have_count(4)


def test_selected_runs_are_marked(server: Server, open_page: Opener) -> None:
    page = open_page(server.url, ready=False)
    expect(page.locator("#selection")).to_be_hidden()
    expect(page.locator("#mark-filter")).to_be_hidden()
    press(page, "j", "x", "j", "x")
    expect(page.locator("#selected-count")).to_have_text("2 runs selected")
    page.locator("#mark-selected").click()
    expect(page.locator("#mark-title")).to_have_text("Mark 2 runs")
    page.locator("#mark-label").fill("bad")
    page.locator("#mark-note").fill("it loops")
    page.locator("#mark-form .primary").click()
    expect(page.locator("#selection")).to_be_hidden()
    expect(page.locator("#runs [data-cell=marks]")).to_have_text(["bad", "bad", "", ""])
    press(page, "k", "m")  # the run with the focus
    expect(page.locator("#mark-title")).to_contain_text("Mark ")
    expect(page.locator("#mark-already")).to_have_text("It has a mark, which the new one replaces.")
    page.locator("#mark-label").fill("")
    press(page, "Enter")  # no word: nothing is taken back
    expect(page.locator("#mark-dialog")).to_be_visible()
    page.keyboard.type("good")
    press(page, "Enter")
    expect(page.locator("#runs [data-cell=marks]").first).to_have_text("good")
    press(page, "M")
    page.keyboard.type("goo")
    page.wait_for_url("**/?mark=good")
    expect(page.locator("#runs tr")).to_have_count(1)
    expect(page.locator("#mark-filter")).to_have_value("good")
    press(page, "j", "m")
    page.locator("#mark-withdraw").click()
    expect(page.locator("#mark-dialog")).to_be_hidden()
    expect(page.locator("#runs tr")).to_have_count(0)


def test_selected_runs_are_exported_as_one_file(server: Server, open_page: Opener, tmp_path: Path) -> None:
    page = open_page(server.url, ready=False)
    for row in (0, 1):
        page.locator("#runs input").nth(row).check()
    with page.expect_download() as download:
        page.locator("#export-selected").click()
    assert download.value.suggested_filename == "2-runs.html"
    for key, name in (("o", "2-runs.html"), ("d", "2-runs.jsonl")):
        with page.expect_download() as download:
            press(page, key)
        assert download.value.suggested_filename == name
    page.locator("#clear-selected").click()
    with page.expect_download() as download:
        press(page, "d")
    assert download.value.suggested_filename == "4-runs.jsonl"  # all that the list is of


def test_keys_lead_to_what_failed_and_to_the_longest_and_compare(server: Server, open_page: Opener) -> None:
    page = open_page(server.url, ready=False)
    press(page, "e")
    expect(page.locator("#runs tr.failed a")).to_be_focused()
    press(page, "s")
    page.wait_for_url("**/?sort=duration")
    press(page, "s")
    page.wait_for_url(lambda url: not url.endswith("duration"))
    press(page, "x", "j", "c")
    page.wait_for_url("**/compare?a=*&b=*")
    expect(page.locator(".sides").first.locator("thead th")).to_have_count(2)
    press(page, "1")
    page.wait_for_url(lambda url: "compare" not in url)
    press(page, "Enter")
    page.wait_for_selector("html[data-ready]")
    expect(page.locator("#detail")).to_contain_text("agentspan.open(")


def test_the_choice_of_columns_is_kept_and_titles_sort(server: Server, open_page: Opener) -> None:
    page = open_page(server.url, ready=False)
    expect(page.locator("th[data-col=failed]")).to_be_hidden()
    page.locator("#columns summary").click()
    page.get_by_label("Failed", exact=True).check()
    page.get_by_label("Took", exact=True).uncheck()
    expect(page.locator("th[data-col=failed]")).to_be_visible()
    page.reload()
    expect(page.locator("th[data-col=failed]")).to_be_visible()
    expect(page.locator("th[data-col=took]")).to_be_hidden()
    page.locator("th[data-col=failed] a").click()
    page.wait_for_url("**/?sort=failed")
    expect(page.locator("#runs .why").first).to_have_text("Tool fetch: RateLimited: slow down")
