"""The pages in narrow windows, on paper and in forced colours; their search; and what axe-core finds in them."""

import os
import re
import subprocess
from base64 import b64encode
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from agentspan.viewer import export
from tests.browser.conftest import Opener
from tests.browser.gestures import count_of, expect, press, selected
from tests.browser.recorded import Recording, at, database, failing_run, hostile_run, long_run
from tests.serve.servers import serving
from tests.waiting import until

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Locator, Page

pytestmark = pytest.mark.full

AXE = "axe-core@4.14.1"
TAGS = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"]
ROWS = 1100
NAME = "invoice-reconciliation-agent-with-a-long-name"


BELOW_OTHERS = """() => {
  const pages = document.querySelector(".pages"), live = document.querySelector(".live-setting");
  const is_cut = getComputedStyle(pages).overflowX === "auto";
  return [pages, ...(is_cut ? [] : pages.children)].map((e) => e.getBoundingClientRect().right)
    .filter((right) => right > live.getBoundingClientRect().left);
}"""
"""The right edges of links in the bar that lie below what stands beside them; links that scroll within it are cut."""


class Pages:
    """The addresses of pages."""

    def __init__(self, runs: str, empty: str, login: str, ids: dict[str, str], file: str) -> None:
        self.runs, self.empty, self.login, self.file = runs, empty, login, file
        addresses = (f"{runs}/runs/{ids[name]}" for name in ids)
        self.failing, self.hostile, self.wide, self.long, self.failed, self.talk = addresses


@pytest.fixture(scope="module")
def pages(browser: object, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pages]:
    """Servers of a file with runs, of an empty one, and of one behind a token; and a file."""
    folder = tmp_path_factory.mktemp("pages")
    with database(folder / "runs.db") as db:
        ids = {"failing": failing_run(db), "hostile": hostile_run(db), "wide": wide_run(db), "long": long_run(db, ROWS)}
        ids["failed"], ids["talk"] = failed_run(db), coding_session(db)
        page = folder / "run.html"
        page.write_text(export.html(db.storage, [ids["failing"], ids["wide"]]), encoding="utf-8")
    database(folder / "empty.db").close()
    with (
        serving(folder / "runs.db") as runs,
        serving(folder / "empty.db") as empty,
        serving(folder / "empty.db", AGENTSPAN_TOKEN="s3cret-token") as guarded,
    ):
        yield Pages(runs.url, empty.url, f"{guarded.url}/login", ids, page.as_uri())


def wide_run(db: Any) -> str:
    """A run whose names and figures take room."""
    run = Recording(db, NAME, metadata={"ticket": "OPS-2", "customer": "Example GmbH & Co. KG"})
    for number in range(12):
        fails = number == 5
        run.span(
            "llm",
            {"model": f"claude-opus-4.1-20260101-{number % 3}", "messages": [{"role": "user", "content": "hi"}]},
            {"error": {"type": "Overloaded", "message": "try later"}}
            if fails
            else {"text": "x", "input_tokens": 1_200_345, "output_tokens": 77, "cost_usd": 11.2345},
            status="failed" if fails else "complete",
            begin=60 * number,
            end=60 * number + 59,
        )
    return run.finish(721)


def coding_session(db: Any) -> str:
    """A session of a coding agent: 26 prompts, each with thinking, an edit and a to-do list; and a sub-agent."""
    metadata = {"session_id": "s", "cwd": "/work/shop", "title": "fix the tests"}
    run = Recording(db, "claude-code", external_identifier="claude:s", session="s", metadata=metadata)
    edit = {"file_path": "/work/shop/main.go", "old_string": "a", "new_string": "a\nb"}
    todos = {"todos": [{"content": "plant", "status": "completed"}, {"content": "water", "status": "pending"}]}
    for begin in range(0, 260, 10):
        run.span("message", {"role": "user", "content": f"step {begin}"}, begin=begin, end=begin + 1)
        said = {"text": "I **look**.", "thinking": "hm", "input_tokens": 7, "cost_usd": 0.5}
        run.span("llm", {"model": "m"}, said, begin=begin + 1, end=begin + 2)
        for name, arguments in (("Edit", edit), ("TodoWrite", todos), ("Bash", {"command": "git diff --stat"})):
            run.span(
                "tool", {"name": name, "arguments": arguments}, {"output": "one\ntwo"}, begin=begin + 2, end=begin + 3
            )
    agent = run.span("agent", {"name": "Explore"}, {"output": "found"}, begin=4, end=6)
    run.span("llm", {"model": "m"}, {"text": "found"}, parent=agent, begin=4, end=5)
    return run.finish(260)


def failed_run(db: Any) -> str:
    """A run that failed in a step with a traceback, and has a score, beside one of another version that passed."""
    trace = 'Traceback\n  File "a.py", line 1\n  File "/x/site-packages/httpx/b.py", line 2\nLate'
    error = {"error": {"type": "Late", "message": "not paid", "stacktrace": trace}}
    runs = []
    for fails in (False, True):
        version = {"external_identifier": "2.0" if fails else "1.0"}
        run = Recording(db, "payer", task="7", session="chat", agent_version=version)
        around = run.span("agent", {"name": "payer"}, {}, end=3)
        result, status = (error, "failed") if fails else ({"output": 1}, "complete")
        run.span("tool", {"name": "pay", "arguments": {"sum": 4}}, result, status=status, parent=around)  # type: ignore[arg-type]
        db.agent_instances.finish(run.id, "failed" if fails else "complete", timestamp=at(3))
        db.scores.record(run.id, "reward", 1 - fails, explanation="by hand", by="human", identifier="ann")
        runs.append(run.id)
    return runs[-1]


# Search


def test_the_list_finds_what_stands_in_a_payload(pages: Pages, open_page: Opener) -> None:
    page = open_page(f"{pages.runs}/?grep=no+answ", ready=False)  # only in a result
    expect(page.locator("#found-count")).to_have_text("1 step:")
    assert "No run is like that" not in page.inner_text("body")
    expect(page.locator("#nothing")).to_contain_text("in no run's own id, names, metadata, result or error")
    step = page.locator("#found-steps li")
    expect(step).to_contain_text("Tool search_logs(query=timeout)")
    expect(step.locator("mark")).to_have_text(["no", "answer"])
    step.get_by_role("link").click()
    page.wait_for_selector("html[data-ready]")
    expect(selected(page)).to_contain_text("Tool search_logs")
    page.goto(f"{pages.runs}/?grep=no+answ&agent=crawler")
    expect(page.locator("#found-count")).to_contain_text("0 steps")
    page.goto(f"{pages.runs}/?grep=researcher")
    expect(page.locator("#runs tr")).to_have_count(1)
    expect(page.locator("#found-steps li")).to_have_count(1)
    press(page, "j", "j")
    expect(page.locator("#found-steps a")).to_be_focused()


def test_nothing_is_said_to_be_missing_while_the_server_searches(pages: Pages, open_page: Opener) -> None:
    page = open_page(pages.failing)
    held: list[Any] = []
    page.route("**/search?*", lambda route: held.append(route))
    page.evaluate(
        """() => { window.said = new Set(); const found = document.getElementById("found");
        new MutationObserver(() => said.add(found.textContent)).observe(found, {childList: true}); }"""
    )
    with page.expect_request("**/search?*"):
        page.fill("#search", "dimens")  # only in a result; at once: each pause while it is typed would be a search
        page.locator("#search").press("Enter")  # too early: it counts when the answer comes
        expect(page.locator("#found")).to_have_text("searching…")
    page.wait_for_timeout(100)
    expect(page.locator("#found")).to_have_text("searching…")
    (search,) = held
    search.continue_()
    expect(page.locator("#found")).to_have_text("1 of 1")
    expect(selected(page)).to_contain_text("Embed 1 texts")
    assert "no match" not in page.evaluate("[...said]")
    page.unroute("**/search?*")
    page.fill("#search", "nowhere at all")
    expect(page.locator("#found")).to_have_text("no match")


def test_an_empty_file_says_how_to_record_a_run(pages: Pages, open_page: Opener) -> None:
    page = open_page(pages.empty, ready=False)
    expect(page.locator("#nothing")).to_contain_text("agentspan.run(")
    expect(page.locator("#nothing")).to_contain_text("agentspan demo")
    page.goto(f"{pages.empty}/?status=failed")
    expect(page.locator("#nothing")).to_contain_text("No run matches these filters")


# Narrow, low, touch

CLIPPED = """() => [...document.querySelectorAll("#runs :is(td, a), #stats tbody :is(th, td)")]
  .filter((e) => e.offsetParent && (e.scrollWidth > e.clientWidth + 1 && getComputedStyle(e).display !== "inline"
    || e.getBoundingClientRect().right > innerWidth + 1 || e.getBoundingClientRect().left < 0))
  .map((e) => e.outerHTML)"""


WINDOWS = [(320, 700), (400, 900), (560, 800), (640, 360)]
"""The last one is a window of 1280 × 720 at 200 %."""


def test_nothing_is_clipped_in_a_narrow_window(pages: Pages, open_page: Opener) -> None:
    page = open_page(pages.runs, ready=False)
    row = page.locator("#runs tr", has_text=NAME)
    expect(row).to_contain_text("$123.58")
    for width, height in WINDOWS:
        page.set_viewport_size({"width": width, "height": height})
        name, figures = (row.locator(f"[data-cell={cell}]").bounding_box() for cell in ("agent", "tokens"))
        assert name
        assert figures
        assert name["width"] > 150
        assert name["y"] < figures["y"]
        assert page.evaluate(CLIPPED) == [], width
        assert page.evaluate("document.documentElement.scrollWidth") <= width
    page.goto(f"{pages.wide}#view=stats")
    label = page.locator("#stats th", has_text="claude-opus").first
    for width, height in WINDOWS:
        page.set_viewport_size({"width": width, "height": height})
        page.locator("#tab-stats").click()
        expect(label).to_be_visible()
        assert label.evaluate("(e) => e.offsetHeight") < 45  # two lines
        assert page.evaluate(CLIPPED) == [], width
        page.locator("#tab-tree").click()
        cut = """() => [...document.querySelectorAll(".run-head :is(dd, dt, button), #detail h2")]
          .filter((e) => e.offsetParent)
          .filter((e) => e.getBoundingClientRect().right > innerWidth || e.scrollWidth > e.clientWidth + 1)
          .map((e) => e.outerHTML)"""
        assert page.evaluate(cut) == [], width
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        assert page.evaluate("document.getElementById('tree').clientHeight") > 100
        assert page.evaluate("document.querySelector('.row:not([hidden]) .text').clientWidth") > 100
        page.locator("#tree").focus()
        press(page, "g", "G")
        expect(page.locator(".row.selected")).to_be_in_viewport(ratio=0.9)


def test_the_head_of_a_run_leaves_a_narrow_window_to_the_steps(pages: Pages, open_page: Opener) -> None:
    for address in (pages.failing, pages.wide, pages.failed, pages.long):
        page = open_page(address, width=400)
        head = page.locator(".run-head").bounding_box()
        assert head
        assert head["y"] + head["height"] <= 120
        assert page.locator("#tree .row:not([hidden]) .place").first.inner_text() == "#1"
        places = ["#updates", "#help", "#theme"]
        at_run = [page.locator(place).bounding_box() for place in places]
        page.goto(pages.runs)
        assert [page.locator(place).bounding_box() for place in places] == at_run


@pytest.mark.parametrize("width", [704, 860, 1120, 1440])
def test_the_links_of_the_bar_do_not_run_below_what_stands_beside_them(
    pages: Pages, open_page: Opener, width: int
) -> None:
    page = open_page(pages.failing, width=width)
    for address in (pages.failing, pages.runs):
        page.goto(address)
        assert page.evaluate(BELOW_OTHERS) == []


def test_open_span_is_visible_without_a_pointer_that_hovers(pages: Pages, browser: "Browser") -> None:
    with browser.new_context(viewport={"width": 400, "height": 800}, is_mobile=True, has_touch=True) as context:
        page = context.new_page()
        page.goto(f"{pages.failing}#view=conversation")
        button = page.locator(".turn button", has_text="Open span").nth(2)
        expect(button).to_have_css("opacity", "1")
        button.tap()
        expect(selected(page)).to_contain_text("Tool search_logs")


# Keys


def test_keys_of_one_character_can_be_turned_off(pages: Pages, open_page: Opener) -> None:
    page = open_page(pages.failing)
    press(page, "j")
    expect(selected(page)).to_contain_text("Agent researcher")
    page.get_by_role("button", name="Keys").click()
    page.get_by_label("Keys of one character").uncheck()
    page.get_by_role("button", name="Close").click()
    page.locator("#tree").focus()
    press(page, "j", "3", "/", "?")
    expect(selected(page)).to_contain_text("Agent researcher")
    expect(page.locator("#panel-tree")).to_be_visible()
    expect(page.locator("#tree")).to_be_focused()
    press(page, "ArrowDown")
    expect(selected(page)).to_contain_text("user: Why are invoices late?")
    page.goto(pages.runs)  # the setting is this browser's, for every page
    press(page, "j", "/", "?")
    assert page.evaluate("document.activeElement === document.body")
    press(page, "ArrowDown")
    assert page.evaluate("document.activeElement.closest('tr') !== null")
    page.get_by_role("button", name="Keys").click()
    page.get_by_label("Keys of one character").check()
    press(page, "Escape", "/")
    expect(page.locator("#look")).to_be_focused()


def test_the_splitters_say_where_they_are_and_are_kept(pages: Pages, open_page: Opener) -> None:
    page = open_page(pages.failing)
    for name, key, width in (("#splitter", "ArrowLeft", "#detail"), ("#lane-splitter", "ArrowLeft", "#axis")):
        splitter = page.locator(name)
        before = int(page.eval_on_selector(width, "(e) => e.offsetWidth"))
        expect(splitter).to_have_attribute("aria-valuenow", str(before))
        splitter.focus()
        press(page, key)
        expect(splitter).to_have_attribute("aria-valuenow", str(before + 32))
        assert page.eval_on_selector(width, "(e) => e.offsetWidth") == before + 32
    page.reload()
    page.wait_for_selector("html[data-ready]")
    for name, width in (("#splitter", "#detail"), ("#lane-splitter", "#axis")):
        kept = page.locator(name).get_attribute("aria-valuenow")
        assert kept == str(page.eval_on_selector(width, "(e) => e.offsetWidth"))
        page.locator(name).focus()
        press(page, *["ArrowRight"] * 12)
        expect(page.locator(name)).to_have_attribute(
            "aria-valuenow", str(page.locator(name).get_attribute("aria-valuemin"))
        )
    page.locator("#splitter").dblclick()  # back to the width that fits
    expect(page.locator("#splitter")).to_have_attribute("aria-valuenow", "384")


def test_a_wide_window_has_three_panes(pages: Pages, open_page: Opener) -> None:
    page = open_page(pages.failing, width=3840)
    press(page, "e")
    expect(page.locator("#tree")).to_be_visible()
    expect(page.locator("#detail .failure")).to_be_visible()
    expect(page.locator("#turns .turn.current")).to_contain_text("search_logs")
    places = "(e) => [e.getBoundingClientRect().left, e.getBoundingClientRect().right]"
    panes = [page.eval_on_selector(name, places) for name in ("#panel-tree", "#detail", "#panel-conversation")]
    assert panes[0][1] <= panes[1][0] < panes[1][1] <= panes[2][0]
    assert min(right - left for left, right in panes) > 800
    press(page, "2", "j")
    expect(page.locator("#tree .row.selected .text")).to_contain_text("LLM gpt-4.1: 20")
    page.set_viewport_size({"width": 1280, "height": 800})
    expect(page.locator("#panel-tree")).to_be_hidden()
    expect(page.locator("#panel-conversation")).to_be_visible()


# Paper


def on_paper(page: "Page") -> None:
    """Show a page as it is printed."""
    page.emulate_media(media="print")
    page.evaluate("dispatchEvent(new Event('beforeprint'))")


def test_a_print_has_all_rows_or_says_what_it_lacks(pages: Pages, open_page: Opener, tmp_path: Path) -> None:
    page = open_page(pages.long)
    expect(page.locator("#fact-spans")).to_have_text(f"{ROWS:,}")
    expect(page.locator("#loaded")).to_be_hidden()
    on_paper(page)
    assert count_of(page, "#tree .row:not([hidden])") == 1000
    expect(page.locator("#on-paper")).to_contain_text("Only the first 1,000 of 1,100 rows are printed here.")
    assert page.evaluate("document.getElementById('tree').scrollHeight") >= 1000 * 26
    places = "[...document.querySelectorAll('#tree .row')].map((row) => row.getBoundingClientRect().top)"
    tops = page.evaluate(places)
    assert tops == sorted(set(tops))  # one below the other
    page.emulate_media(media="screen")
    page.evaluate("dispatchEvent(new Event('afterprint'))")
    expect(page.locator("#on-paper")).to_be_hidden()
    until(lambda: count_of(page, "#tree .row") < 100)
    press(page, "H")
    on_paper(page)
    expect(page.locator("#on-paper")).to_contain_text("1,000 spans in folded rows are not printed.")
    page.goto(pages.failing)
    page.wait_for_selector("html[data-ready]")
    on_paper(page)
    assert page.inner_text("#on-paper") == ""
    assert count_of(page, "#tree .row:not([hidden])") == 9
    assert page.evaluate("document.getElementById('run').scrollHeight <= document.getElementById('run').clientHeight")


# Forced colours

VANISHED = """() => [...document.querySelectorAll(".mark, .kind, .bar, .fold.wide, .fold.shut")]
  .filter((e) => e.offsetParent && getComputedStyle(e).borderTopWidth === "0px")
  .filter((e) => {
    const behind = getComputedStyle(e.closest(".row.selected") ?? document.body).backgroundColor;
    return ["rgba(0, 0, 0, 0)", behind].includes(getComputedStyle(e).backgroundColor);
  }).map((e) => e.className)"""


@pytest.mark.full
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_bars_and_marks_are_painted_in_forced_colours(pages: Pages, browser: "Browser", scheme: Any) -> None:
    """What a computed style says is not what is painted: the pixels tell."""
    with browser.new_context(forced_colors="active", color_scheme=scheme) as context:
        page = context.new_page()
        page.goto(pages.failing)
        page.wait_for_selector("html[data-ready]")
        page.keyboard.press("j")
        for name in (".row .bar", ".row .mark.failed", ".row .mark.complete", ".row .kind", "#axis canvas"):
            for part in page.locator(f"{name}:visible").all()[:4]:
                assert len(colours_of(page, part)) > 1 or name == ".row .bar", name
        bars = page.locator(".row:not(.selected) .bar:visible").all()[:3]
        behind = "getComputedStyle(document.body).backgroundColor"
        channels = tuple(int(each) for each in re.findall(r"\d+", page.evaluate(behind))[:3])
        assert bars
        assert all(colours_of(page, bar) - {channels} for bar in bars)


def colours_of(page: "Page", part: "Locator") -> set[tuple[int, int, int]]:
    """The colours of an element as it is painted."""
    shot = b64encode(part.screenshot()).decode()
    read = """async (shot) => {
      const image = await createImageBitmap(await (await fetch(`data:image/png;base64,${shot}`)).blob());
      const context = new OffscreenCanvas(image.width, image.height).getContext("2d");
      context.drawImage(image, 0, 0);
      const { data } = context.getImageData(0, 0, image.width, image.height);
      return [...new Set(Array.from({ length: data.length / 4 }, (_, n) => data.slice(4 * n, 4 * n + 3).join()))];
    }"""
    blank = page.context.new_page()  # without the policy of the viewer's pages
    found = blank.evaluate(read, shot)
    blank.close()
    return {tuple(map(int, each.split(","))) for each in found}  # type: ignore[misc]


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_nothing_vanishes_in_forced_colours(pages: Pages, open_page: Opener, scheme: str) -> None:
    page = open_page(pages.failing, color_scheme=scheme)
    page.emulate_media(forced_colors="active")
    press(page, "e")
    expect(page.locator("#detail .failure")).to_be_visible()
    assert count_of(page, ".bar:visible") >= 9
    assert page.evaluate(VANISHED) == []
    colours = "[...document.querySelectorAll('.row:not([hidden])')].map((row) => getComputedStyle(row).backgroundColor)"
    backgrounds = page.evaluate(colours)
    assert len(set(backgrounds)) == 2, "the selected row looks like the others"
    tabs = "[...document.querySelectorAll('.tabs button')].map((tab) => getComputedStyle(tab).borderBottomColor)"
    assert len(set(page.evaluate(tabs))) == 2
    before = "getComputedStyle(document.querySelector('#detail .json summary'), '::before').backgroundColor"
    press(page, "k")
    expect(page.locator("#detail .json summary").first).to_be_visible()
    assert page.evaluate(before.replace("#detail summary", "#detail .json summary")) not in (
        "rgba(0, 0, 0, 0)",
        backgrounds[0],
    )
    page.goto(pages.runs)
    assert page.evaluate(VANISHED) == []


def test_the_chapters_are_on_one_screen_and_lead_to_an_edit(pages: Pages, open_page: Opener) -> None:
    page = open_page(f"{pages.runs}/sessions", ready=False)
    page.set_viewport_size({"width": 1440, "height": 900})
    page.get_by_role("link", name="shop: fix the tests").click()
    chapters = page.locator("#chapters-list .prompt")
    expect(chapters).to_have_count(26)
    expect(chapters.last).to_be_in_viewport()
    page.locator("#chapters-list").get_by_text("main.go").first.click()
    expect(page.locator("#turns").get_by_text("Edit main.go").first).to_be_in_viewport()


def test_an_edit_is_three_steps_from_the_first_page_in_a_narrow_window(pages: Pages, open_page: Opener) -> None:
    page = open_page(pages.runs, ready=False, width=400)
    page.locator("[data-col=name] a").filter(has_text="claude-code").click()
    page.locator("#chapters summary").click()
    page.locator("#chapters-list").get_by_text("main.go").click()
    expect(page.locator("#turns").get_by_text("Edit main.go").first).to_be_in_viewport()


# axe-core


@pytest.fixture(scope="module")
def axe() -> str:
    """The source of axe-core. npx downloads it into its own cache, as it does TypeScript for `python -m tasks js`."""
    if not os.environ.get("AGENTSPAN_TEST_AXE"):
        if os.environ.get("CI"):
            pytest.fail("AGENTSPAN_TEST_AXE is not set")
        pytest.skip("opt-in: AGENTSPAN_TEST_AXE=1 fetches axe-core from npm")
    command = ["npx", "--yes", "--prefer-offline", f"--package={AXE}", "-c", 'echo "$PATH"']
    found = subprocess.run(command, capture_output=True, text=True, check=True, timeout=120).stdout
    binaries = Path(found.split(":")[0])  # npx puts the folder of the package's programs first
    return (binaries.parent / "axe-core" / "axe.min.js").read_text(encoding="utf-8")


def states(pages: Pages) -> Iterator[tuple[str, str, tuple[str, ...]]]:
    """Pages, and the keys that lead to a state of them; without an address, from the state before."""
    failing, wide, failed = (each[-32:] for each in (pages.failing, pages.wide, pages.failed))
    yield "runs", pages.runs, ()
    yield "mark", "", ("x", "m")
    yield "found", f"{pages.runs}/?grep=timeout", ()
    yield "empty", pages.empty, ()
    yield "login", pages.login, ()
    yield "problem", f"{pages.runs}/runs/none", ()
    yield "failures", f"{pages.runs}/failures", ()
    yield "versions", f"{pages.runs}/versions?agent=payer", ()
    yield "search by run", f"{pages.runs}/search?q=payer", ()
    yield "sessions", f"{pages.runs}/sessions", ()
    yield "session", f"{pages.runs}/sessions/chat", ()
    yield "cost", f"{pages.runs}/cost", ()
    yield "compare", f"{pages.runs}/compare?a={failing}&b={wide}", ()
    yield "compare several", f"{pages.runs}/compare?runs={failing},{wide},{failed}", ()
    yield "nothing to compare", f"{pages.empty}/compare", ()
    yield "tree", pages.failing, ()
    yield "detail", "", ("j", "j", "j")
    yield "search", "", ("/", *"time", "Enter")
    yield "conversation", "", ("Escape", "2")
    yield "chapters", f"{pages.talk}#view=conversation", ()
    yield "turns of a session", "", ("j", "e", "j", "e", "j", "e", "j", "e")
    yield "keys", "", ("?",)
    yield "error", pages.hostile, ("e",)
    yield "stats", pages.wide, ("3",)
    yield "why", pages.failed, ()
    yield "leaf", "", ("e", "f")
    yield "score", "", ("m",)
    yield "file", pages.file, ("e",)


def test_axe_finds_no_violation(pages: Pages, browser: "Browser", axe: str) -> None:
    """Every rule in both layouts, wide and narrow; contrast in dark and forced colours, which change nothing else."""
    run = """(only) => axe.run(document, { resultTypes: ["violations"], runOnly: only,
      rules: only.type === "tag" ? { "label-content-name-mismatch": { enabled: true } } : {} })
      .then((found) => found.violations.map((each) => [each.id, each.nodes.map((node) => node.html.slice(0, 120))]))"""
    everything, colours = {"type": "tag", "values": TAGS}, {"type": "rule", "values": ["color-contrast"]}
    found: list[Any] = []
    looked = set()
    with browser.new_context(viewport={"width": 1440, "height": 900}) as context:
        page = context.new_page()

        def look(name: str, how: str, rules: Any, **media: Any) -> None:
            page.emulate_media(**{"color_scheme": "light", "forced_colors": "none", **media})
            found.extend((name, how, *each) for each in page.evaluate(run, rules))

        for name, url, keys in states(pages):
            if url:
                page.goto(url)
                page.evaluate(axe)
            if page.locator("[data-page=run], [data-page=file]").count():
                page.wait_for_selector("html[data-ready]")
            press(page, *keys)
            expect(page.locator("[aria-busy=true]")).to_have_count(0)
            if name == "search":
                expect(page.locator("#found")).to_have_text("2 of 2")
            if name == "found":
                expect(page.locator("#found-steps li")).to_have_count(2)
            look(name, "dark", colours, color_scheme="dark")
            look(name, "forced", colours, forced_colors="active")
            look(name, "1440", everything)
            if name == "detail":  # three panes
                page.set_viewport_size({"width": 3840, "height": 900})
                look(name, "3840", everything)
            page.set_viewport_size({"width": 400, "height": 900})
            look(name, "400", everything)
            page.set_viewport_size({"width": 1440, "height": 900})
            looked.add(name)
    assert found == [], "\n".join(map(str, found))
    assert len(looked) == 28
