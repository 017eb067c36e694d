"""The conversation in a browser: sections that fold, the selected step, Markdown on request, images of any size."""

import re
from base64 import b64encode
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from tests.browser.conftest import Opener
from tests.browser.gestures import count_of, expect, press
from tests.browser.recorded import Recording, database
from tests.serve.servers import Server, serving
from tests.viewer.recorded import assistant, user

PIXEL = (
    b"\x89PNG\r\n\x1a\n\x00\x00\x00\rIHDR\x00\x00\x00\x01\x00\x00\x00\x01\x08\x06\x00\x00\x00\x1f\x15\xc4\x89"
    b"\x00\x00\x00\rIDATx\x9cc\xf8\xcf\xc0\xf0\x1f\x00\x05\x00\x01\xff\x89\x99=\x1d\x00\x00\x00\x00IEND\xaeB`\x82"
)
MARKDOWN = """# Plan

1. **Read** the `log`
2. See [the page](https://docs.example/a)

| step | took |
|------|-----:|
| read | 2 s  |

```sh
echo <b>no</b>
```
[x](javascript:alert(1)) <img src=x onerror=alert(1)>"""


class Site(NamedTuple):
    """A server, and the addresses of its runs."""

    server: Server
    nested: str
    said: str
    session: str


def nested(db: Any) -> str:
    """An agent that calls another one of 30 calls, which calls a third."""
    run = Recording(db, "outer")
    outer = run.span("agent", {"name": "outer"}, begin=0, end=900)
    run.span("llm", {"model": "m", "messages": [user("Do it")]}, {"text": "I ask."}, parent=outer, begin=1, end=2)
    inner = run.span("agent", {"name": "inner"}, parent=outer, begin=3, end=500)
    for number in range(30):
        run.span(
            "llm",
            {"model": "m", "messages": [user(f"part {number}")]},
            {"text": f"inner {number}", "input_tokens": 100, "output_tokens": 10, "cost_usd": 0.01},
            parent=inner,
            begin=4 + 3 * number,
            end=5 + 3 * number,
        )
    deep = run.span("agent", {"name": "deep"}, parent=inner, begin=200, end=300)
    run.span("tool", {"name": "dig", "arguments": {}}, {"output": "gold"}, parent=deep, begin=201, end=202)
    history = [user("Do it"), assistant("I ask.")]
    for number in range(100):
        history += [user(f"again {number}"), assistant(f"reply {number}")]
        run.span(
            "llm",
            {"model": "m", "messages": history[:-1]},
            {"text": f"reply {number}"},
            parent=outer,
            begin=600 + number,
            end=600.5 + number,
        )
    return run.id


def said(db: Any) -> str:
    run = Recording(db, "writer")
    image = {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{b64encode(PIXEL).decode()}"}}
    run.span("message", {"role": "user", "content": [{"type": "text", "text": "see"}, image]}, begin=0, end=1)
    run.span("message", {"role": "assistant", "content": MARKDOWN}, begin=2, end=3)
    run.span("message", {"role": "assistant", "content": "**so** " * 5000}, begin=4, end=5)
    return run.id


def session(db: Any) -> str:
    """A session of 26 prompts; the last one edits a file, and makes a list."""
    about = {"session_id": "s", "title": "tidy up", "cwd": "/work/shop"}
    run = Recording(db, "claude-code", metadata=about, session="s", external_identifier="claude:s")
    for number in range(26):
        at = 100 * number
        run.span("message", {"role": "user", "content": f"step {number}", "source": "typed"}, begin=at, end=at)
        told = {"text": f"**Doing** {number}", "response_id": f"msg_{number}", "input_tokens": 5, "cost_usd": 0.5}
        run.span("llm", {"model": "m"}, {**told, "thinking": "hm"}, begin=at + 1, end=at + 9)
        shell = {"name": "Bash", "arguments": {"command": "git diff --stat"}}
        run.span("tool", shell, {"output": "one\ntwo"}, begin=at + 9, end=at + 11)
    edit = {"file_path": "/work/shop/main.go", "old_string": "a\nb", "new_string": "a\nc\n" + "d\n" * 24}
    run.span("tool", {"name": "Edit", "arguments": edit}, {"output": "ok"}, begin=2520, end=2521)
    todos = {"todos": [{"content": "tidy", "status": "completed"}, {"content": "go", "status": "pending"}]}
    run.span("tool", {"name": "TodoWrite", "arguments": todos}, {"output": "ok"}, begin=2522, end=2523)
    return run.id


@pytest.fixture(scope="module")
def site(browser: object, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    path = tmp_path_factory.mktemp("conversation") / "runs.db"
    with database(path) as db:
        runs = nested(db), said(db), session(db)
    with serving(path) as server:
        yield Site(server, *(f"{server.url}/runs/{id}" for id in runs))


def test_sections_fold_and_say_what_they_took(site: Site, open_page: Opener) -> None:
    page = open_page(f"{site.nested}#view=conversation")
    line = page.locator("#turns .agent", has_text="inner")
    expect(line).to_contain_text("61 turns")
    expect(line).to_contain_text("3.3k tok")
    expect(line).to_contain_text("$0.30")
    button = line.get_by_role("button")
    expect(button).to_have_attribute("aria-expanded", "false")
    expect(page.get_by_text("inner 29")).to_have_count(0)
    expect(page.locator("#turns .agent", has_text="outer, continued")).to_be_visible()
    button.focus()
    press(page, "Enter")
    expect(button).to_have_attribute("aria-expanded", "true")
    expect(button).to_be_focused()
    expect(page.get_by_text("inner 0", exact=True)).to_be_visible()
    page.get_by_role("button", name="Fold sub-agents").click()
    expect(page.get_by_text("inner 0", exact=True)).to_have_count(0)
    expect(page.get_by_text("reply 0", exact=True)).to_be_visible()


def test_the_chapters_of_a_session_stand_beside_it_and_lead_to_its_edits(site: Site, open_page: Opener) -> None:
    page = open_page(site.server.url, width=1440, ready=False)
    page.set_viewport_size({"width": 1440, "height": 900})
    page.get_by_role("link", name="Sessions").click()
    page.get_by_role("link", name="shop: tidy up").click()
    prompts = page.locator("#chapters .prompt")
    expect(prompts).to_have_count(26)
    expect(prompts.last).to_be_in_viewport(ratio=1)
    expect(page.locator("#chapters-line")).to_have_text("26 prompts, 1 file edited")
    first = page.locator("#turns .chapter").first
    expect(first).to_contain_text("11.0 s")
    expect(first).to_contain_text("$0.50")
    words = page.locator("#turns .turn.from-assistant").first
    expect(words.locator("strong")).to_have_text("Doing")
    expect(words).not_to_contain_text("msg_0")
    expect(words.locator("summary").first).to_have_text("Thinking")
    line = page.locator("#turns .used").first
    expect(line).to_have_text("Bash git diff --stat → 2 lines")
    page.get_by_role("button", name=re.compile("main.go")).click()
    edited = page.locator(".turn.current")
    expect(edited.locator(".used")).to_have_text("Edit main.go +25 −1")
    expect(edited).to_be_in_viewport()
    expect(edited.locator(".lines > .del")).to_have_text("-b")
    expect(edited.locator(".lines > .add").first).to_have_text("+c")
    expect(page.locator("#chapters [aria-current]")).to_contain_text("step 25")
    expect(page.locator("#turns .entry")).to_have_text(["✓tidy", "○go"])
    prompts.first.click()
    expect(first).to_be_in_viewport()
    page.set_viewport_size({"width": 400, "height": 800})
    assert page.evaluate("document.documentElement.scrollWidth") == 400


def test_the_conversation_opens_at_the_selected_step_and_follows_it(site: Site, open_page: Opener) -> None:
    page = open_page(site.nested)
    press(page, "L", "/")
    page.keyboard.type("dig")
    expect(page.locator("#found")).to_have_text("1")
    press(page, "Enter", "Escape", "2")
    current = page.locator(".turn.current")
    expect(current).to_contain_text("dig")
    expect(current).to_be_in_viewport()
    press(page, "j")
    expect(current).to_contain_text("again 0")
    page.wait_for_url("**view=conversation")
    again = open_page(page.url)
    expect(again.locator(".turn.current")).to_be_in_viewport()
    expect(again.locator("#detail h2")).to_contain_text("reply 0")
    press(page, "G")
    expect(current).to_contain_text("reply 99")
    press(page, "k", "g")
    expect(current).to_contain_text("Do it")
    press(page, "1")
    expect(page.locator("#tree .row.selected")).to_be_in_viewport()
    expect(page.locator("#tree .row.selected")).to_contain_text("I ask.")


def test_what_was_sent_again_is_one_line(site: Site, open_page: Opener) -> None:
    page = open_page(f"{site.nested}#view=conversation")
    turn = page.locator(".turn", has=page.get_by_text("reply 2", exact=True)).last
    again = turn.locator(".again")
    expect(again.locator("summary")).to_have_text("6 messages as before")
    again.locator("summary").click()
    again.get_by_role("button").first.click()
    expect(page.locator(".turn:focus")).to_be_in_viewport()


def test_markdown_is_shown_on_request_and_kept(site: Site, open_page: Opener, shots: Path) -> None:
    page = open_page(f"{site.said}#view=conversation")
    turn = page.locator(".turn").nth(1)
    expect(turn).to_contain_text("**Read** the `log`")
    page.get_by_role("button", name="Markdown").click()
    expect(turn.locator("ol li strong")).to_have_text("Read")
    expect(turn.locator("td").first).to_have_text("read")
    expect(turn.locator("pre")).to_have_text("echo <b>no</b>")
    links = turn.locator(".markdown a")
    expect(links).to_have_count(1)
    assert links.first.get_attribute("rel") == "noreferrer"
    expect(turn).to_contain_text("the page https://docs.example/a")
    expect(turn).to_contain_text("[x](javascript:alert(1)) <img src=x onerror=alert(1)>")
    assert count_of(page, "#turns :is(script, [onerror], [onclick])") == 0
    page.screenshot(path=shots / "markdown.png")
    page.locator(".turn").nth(1).locator("header").click()
    details = page.locator("#detail")
    expect(details).to_contain_text("**Read** the `log`")
    details.get_by_role("button", name="Markdown").click()
    expect(details.locator("ol li strong")).to_have_text("Read")
    long = page.locator(".turn").nth(2)
    long.get_by_role("button", name=re.compile("Show all")).click()
    expect(long.locator("strong")).to_have_count(2857)  # the text of a turn is cut at 20,000 characters
    page.reload()
    page.wait_for_selector("html[data-ready]")
    expect(page.locator("#turns-markdown")).to_have_attribute("aria-pressed", "true")
    expect(turn.locator("ol li strong")).to_have_text("Read")


def test_a_small_image_is_seen(site: Site, open_page: Opener) -> None:
    page = open_page(f"{site.said}#view=conversation")
    image = page.locator(".turn .blob img")
    expect(image).to_have_count(1)
    expect(image).to_have_js_property("naturalWidth", 1)
