"""The tree of a run in a real browser: a large one, keys, what a screen reader hears, details of a span, and time."""

import re

import pytest

from tests.browser.conftest import SPANS, Opener, Site
from tests.browser.gestures import expect, press, selected

pytestmark = pytest.mark.full

# Large runs


def test_ten_thousand_spans_take_few_elements_wherever_one_scrolls(site: Site, open_page: Opener) -> None:
    page = open_page(site.long)
    expect(page.locator("#fact-spans")).to_have_text("10,000")
    room = page.evaluate("document.getElementById('tree-room').offsetHeight")
    assert room == SPANS * 26
    for part in (0, 0.5, 1):
        page.evaluate(
            "part => { const t = document.getElementById('tree'); t.scrollTop = part * t.scrollHeight; }", part
        )
        number = round(part * (SPANS - 1))
        expect(page.locator(f"#row-{number}")).to_be_visible()
        assert page.evaluate("document.querySelectorAll('*').length") < 1000


# The keyboard, and who does not see


def test_a_screen_reader_hears_a_tree(site: Site, open_page: Opener) -> None:
    page = open_page(site.failing)
    press(page, "j", "j", "j", "j")
    expect(selected(page)).to_contain_text("Tool search_logs")
    tree = page.locator("#tree")
    assert tree.get_attribute("role") == "tree"
    row = page.locator(f"#{tree.get_attribute('aria-activedescendant')}")
    expect(row).to_have_attribute("role", "treeitem")
    expect(row).to_have_attribute("aria-level", "2")
    expect(row).to_have_attribute("aria-posinset", "3")
    expect(row).to_have_attribute("aria-setsize", "7")
    expect(row).to_have_attribute("aria-selected", "true")
    expect(row).to_have_attribute(
        "aria-label", re.compile(r"^#[0-9]+ Tool search_logs.*, TimeoutError: no answer, 30\.0 s, failed$")
    )
    assert tree.get_attribute("tabindex") == "0"
    press(page, "Enter")
    expect(page.locator("#detail")).to_be_focused()
    press(page, "Escape")
    expect(tree).to_be_focused()


def test_every_control_has_a_name(site: Site, open_page: Opener) -> None:
    for url in (site.failing, site.server.url):
        page = open_page(url, ready=False)
        page.wait_for_load_state()
        nameless = page.evaluate(
            """() => [...document.querySelectorAll("button, input, select, a")].filter((e) => !e.hidden)
            .filter((e) => !(e.textContent.trim() || e.ariaLabel || e.labels?.length)).map((e) => e.outerHTML)"""
        )
        assert nameless == []


def test_the_keys_are_explained(site: Site, open_page: Opener) -> None:
    page = open_page(site.failing)
    press(page, "?")
    expect(page.locator("#help-dialog")).to_be_visible()
    press(page, "j")
    expect(page.locator("#tree .row.selected")).to_have_count(0)
    press(page, "Escape")
    expect(page.locator("#help-dialog")).to_be_hidden()


# What is shown


def test_a_span_shows_what_went_in_and_what_came_out(site: Site, open_page: Opener) -> None:
    page = open_page(site.failing)
    press(page, "j", "j", "j")
    detail = page.locator("#detail")
    expect(detail.locator("h2")).to_contain_text("LLM gpt-4.1")
    expect(detail.locator(".message.user")).to_contain_text("Why are invoices late?")
    expect(detail.locator(".message.assistant")).to_contain_text("I will look.")
    expect(detail.locator(".call")).to_have_text("search_logs(query=timeout)")
    expect(detail).to_contain_text("812 in, 95 out")
    expect(detail.locator(".payload").first).to_contain_text("messages")


def test_numbers_are_not_rounded(site: Site, open_page: Opener) -> None:
    page = open_page(site.failing)
    press(page, "e", "e")
    expect(page.locator("#detail .json .number").first).to_have_text(str(2**63 + 1))


def test_json_folds_also_within_a_text(site: Site, open_page: Opener) -> None:
    page = open_page(site.failing)
    press(page, *"jjjjjj")
    result = page.locator("#detail .payload").nth(1)
    expect(result).to_contain_text('told"{1}"')
    expect(result.locator(".number", has_text="1")).to_be_visible()
    result.locator("summary", has_text="told").click()
    expect(result.locator(".number", has_text="1")).to_be_hidden()
    result.get_by_role("button", name="Text").click()
    expect(result.locator(".source")).to_contain_text('"told": "{\\"a\\": [{\\"b\\": 1}]}"')


def test_time_is_zoomed_and_moved(site: Site, open_page: Opener) -> None:
    page = open_page(site.failing)
    ruler = "[...document.querySelectorAll('#axis .ruler span')].map((mark) => mark.textContent + mark.style.left)"
    before = page.evaluate(ruler)
    assert [mark.split(" s")[0] for mark in before[1:2]] == ["15"]
    press(page, "e", "z")
    expect(page.locator("#axis .brush")).to_be_visible()
    expect(page.locator(".row.selected .bar")).to_be_visible()  # the rows are drawn anew
    width = page.evaluate(
        "document.querySelector('.row.selected .bar').offsetWidth / document.querySelector('.lane').offsetWidth"
    )
    assert 0.7 < width < 1
    assert page.evaluate(ruler) != before
    press(page, "0")
    expect(page.locator("#axis .brush")).to_be_hidden()
    assert page.evaluate(ruler) == before
