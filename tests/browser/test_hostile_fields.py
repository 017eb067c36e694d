"""Every stored field hostile, in a real browser: nothing of it runs, and nothing of it is hidden."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import quote

import pytest

import agentspan
from agentspan.viewer import export
from tests.browser.conftest import Opener
from tests.browser.hostile import Hostile, is_readable, marked
from tests.browser.recorded import database
from tests.serve.servers import Server, serving

if TYPE_CHECKING:
    from playwright.sync_api import Page

pytestmark = pytest.mark.full


def expect(locator: Any) -> Any:
    """Playwright's assertions, which wait."""
    from playwright.sync_api import expect as expect_

    return expect_(locator)


class Site(NamedTuple):
    """A server, and the run in its file."""

    server: Server
    hostile: Hostile


@pytest.fixture(scope="module")
def site(browser: object, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    path = tmp_path_factory.mktemp("hostile") / "runs.db"
    with database(path) as db:
        hostile = Hostile(db)
    hostile.write(path)
    with serving(path) as server:
        yield Site(server, hostile)
        assert "Traceback" not in server.stderr


SCAN = r"""() => {
    const marked = /B\d{3}|E\d{3}|unseen/, found = [];
    if (window.hit) found.push(`it ran: ${window.hit}`);
    const forbidden = new Set("IMG IFRAME OBJECT EMBED BASE AUDIO VIDEO FORM STYLE SCRIPT LINK".split(" "));
    const forms = new Set(["filters", "allow-form", "terminate-form", "score-form", "mark-form"]);
    const read = new Set(["title", "aria-label", "value"]);
    for (const node of document.querySelectorAll("*")) {
        const name = node.tagName.toUpperCase();
        const isOurs = node.parentElement === document.head || forms.has(node.id) || node.className === "look"
            || (name === "SCRIPT" && (node.type === "application/json" || document.body.dataset.page === "file"));
        if (forbidden.has(name) && !isOurs) found.push(`an element: ${node.outerHTML.slice(0, 90)}`);
        const isPicture = node.namespaceURI.endsWith("svg") && !node.closest(".histogram, .over-time");
        if (isPicture) found.push(`a picture: ${node.outerHTML.slice(0, 90)}`);
        for (const {name: attribute, value} of node.attributes) {
            if (/^on|^srcdoc$|^formaction$/i.test(attribute)) found.push(`a handler: ${attribute}`);
            const said = value.replace(/\b[0-9a-z]{32}\b/g, ""); // an id may look like a mark
            const isData = /javascript:/i.test(said) || (marked.test(said) && said !== "unseen");
            // An address of our own pages, with the filter in its query.
            const isOwn = attribute === "href" && /^(\.\.?\/)*[\w\/-]*(\?[\w%&=.+*~-]*)?$/.test(value);
            if (isData && !isOwn && !read.has(attribute)) found.push(`an attribute: ${attribute}=${value}`);
        }
    }
    return found;
}"""

UNFOLD = r"""async (root) => {
    for (let round = 0; round < 20; round++) {
        const shut = [...root.querySelectorAll("details:not([open])")];
        const more = [...root.querySelectorAll("button.more:not([hidden])")].filter((each) => each.offsetParent);
        if (!shut.length && !more.length) break;
        for (const each of shut) each.open = true;
        for (const each of more) each.click();
        await new Promise((resolve) => setTimeout(resolve));
        await new Promise((resolve) => requestAnimationFrame(resolve));
    }
    // Only texts that a reader sees: not transparent, without a size, tiny, or cut off.
    const walker = document.createTreeWalker(root, NodeFilter.SHOW_TEXT), seen = [];
    for (let node = walker.nextNode(); node; node = walker.nextNode()) {
        const range = document.createRange(), parent = node.parentElement;
        range.selectNodeContents(node);
        const box = range.getBoundingClientRect(), size = parseFloat(getComputedStyle(parent).fontSize);
        const isSeen = parent.checkVisibility({ opacityProperty: true, visibilityProperty: true });
        let isCut = box.width < 1 || box.height < 1;
        for (let around = parent; around !== root && !isCut; around = around.parentElement) {
            if (!/hidden|clip/.test(getComputedStyle(around).overflow)) continue;
            const room = around.getBoundingClientRect();
            isCut = box.right > room.right + 1 || box.bottom > room.bottom + 1;
        }
        if (isSeen && !isCut && size >= 9) seen.push(node.data);
    }
    return seen.join("");
}"""


def assert_harmless(page: "Page") -> None:
    assert page.evaluate(SCAN) == []


def read_whole(page: "Page", selector: str) -> str:
    """All text of a part of the page, after all that is folded was unfolded."""
    shown = str(page.locator(selector).evaluate(UNFOLD))
    assert_harmless(page)
    return shown


def unreadable(value: Any, shown: str) -> list[str]:
    return [attack for attack in marked(value) if not is_readable(attack, shown)]


def assert_nothing_is_hidden(page: "Page", hostile: Hostile) -> None:
    """Read the run's own facts, each span's details and the conversation."""
    assert unreadable(hostile.run, page.inner_text(".top") + read_whole(page, "#detail")) == []
    rows = page.locator("#tree .row:not([hidden])")
    assert rows.count() == len(hostile.spans)
    for value in hostile.spans:
        page.keyboard.press("j")
        page.wait_for_selector("#detail[aria-busy=false] .payload")
        assert unreadable(value, read_whole(page, "#detail")) == []
        page.evaluate(
            "document.querySelectorAll('#detail .payload button[aria-pressed=false]').forEach((b) => b.click())"
        )
        assert_harmless(page)
    assert_the_conversation_hides_nothing(page, hostile)
    page.keyboard.press("3")
    page.wait_for_selector("#stats tr")
    assert_harmless(page)


def assert_the_conversation_hides_nothing(page: "Page", hostile: Hostile) -> None:
    page.keyboard.press("2")
    page.wait_for_selector(".turn")
    assert unreadable(hostile.said, read_whole(page, "#turns")) == []


def test_no_field_of_a_run_is_executed_or_hidden(site: Site, open_page: Opener) -> None:
    page = open_page(f"{site.server.url}/runs/{site.hostile.recording.id}")
    assert_nothing_is_hidden(page, site.hostile)
    for attack in marked(site.hostile.said)[:12]:
        page.locator("#search").fill(attack)
    expect(page.locator("#found")).to_have_text(re.compile("1|no match"))
    assert_harmless(page)


def test_no_field_is_executed_in_lists_and_on_pages_of_problems(site: Site, open_page: Opener) -> None:
    page = open_page(site.server.url, ready=False)
    agent, reason = site.hostile.run["agent"], site.hostile.reason
    assert unreadable([agent], page.inner_text("#runs")) == []
    with page.expect_response("**/runs.json*"):  # with which the page's script updates what the server wrote
        pass
    expect(page.locator("#runs tr")).to_have_count(2)
    assert unreadable([agent, reason], page.inner_text("#runs")) == []
    assert_harmless(page)
    page.expected = ("404",)  # type: ignore[attr-defined]
    for path in (
        f"?agent={quote(agent)}&grep={quote(reason)}",
        f"runs/{quote(agent, safe='')}",
        f"login?next={quote(agent)}",
    ):
        page.goto(f"{site.server.url}/{path}")
        assert_harmless(page)
    page.goto(f"{site.server.url}/runs/{site.hostile.terminated.id}")
    page.wait_for_selector("html[data-ready]")
    assert unreadable([reason], read_whole(page, "#detail")) == []


def test_no_field_is_executed_or_hidden_in_an_exported_file(site: Site, open_page: Opener, tmp_path: Path) -> None:
    with agentspan.open(site.server.db, read_only=True) as db:
        ids = [site.hostile.recording.id, site.hostile.terminated.id]
        (tmp_path / "run.html").write_text(export.html(db.storage, ids), encoding="utf-8")
    page = open_page((tmp_path / "run.html").as_uri())
    for _ in site.hostile.spans:
        page.keyboard.press("j")
        assert_harmless(page)
    assert_the_conversation_hides_nothing(page, site.hostile)
