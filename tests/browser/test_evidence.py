"""What was recorded is shown as it was recorded, in a real browser. Pages are exported files and need no server."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from agentspan import text
from agentspan.viewer import export
from tests.browser.conftest import Opener
from tests.browser.recorded import Recording, database

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Locator, Page

pytestmark = pytest.mark.full


def expect(locator: Any) -> Any:
    """Playwright's assertions, which wait."""
    from playwright.sync_api import expect as expect_

    return expect_(locator)


class Pages:
    """Runs that are recorded and shown."""

    def __init__(self, folder: Path, open_page: Opener) -> None:
        self.db = database(folder / "runs.db")
        self.folder = folder
        self.open_page = open_page

    def recording(self, agent: str = "a") -> Recording:
        return Recording(self.db, agent)

    def show(self, run: Recording, view: str = "tree", **options: Any) -> "Page":
        path = self.folder / f"{run.id}.html"
        path.write_text(export.html(self.db.storage, [run.finish(100)]), encoding="utf-8")
        return self.open_page(f"{path.as_uri()}#view={view}", **options)


@pytest.fixture
def pages(tmp_path: Path, open_page: Opener) -> Pages:
    return Pages(tmp_path, open_page)


def detail_of(page: "Page", row: int) -> "Locator":
    page.locator("#tree .row:not([hidden])").nth(row).click()
    return page.locator("#detail")


def test_only_a_failure_gets_the_box_of_a_failure(pages: Pages) -> None:
    run = pages.recording()
    nothing: tuple[Any, ...] = (False, None, "", {}, [])
    for number, error in enumerate(nothing):
        run.span("step", {"n": number}, {"error": error}, begin=number)
    run.span("step", {"n": 5}, {"error": {"type": "Late", "message": {"2": 1, "1": 2}}}, begin=5)
    run.span("step", {"n": 6}, {"error": False}, status="failed", begin=6)
    page = pages.show(run)
    for row in range(5):
        detail = detail_of(page, row)
        expect(detail.locator(".payload")).to_have_count(2)
        expect(detail.locator(".failure")).to_have_count(0)
    expect(detail_of(page, 5).locator(".failure")).to_have_text('Late{"2":1,"1":2}')
    expect(detail_of(page, 6).locator(".failure")).to_have_text("Errorfalse")


def test_json_has_the_order_and_the_numbers_of_the_text(pages: Pages) -> None:
    run = pages.recording()
    told = '{"to": "a", "to": "b", "n": [1e400, 12345678901234567890, 1.50]}'
    run.span("step", {"10": 1, "2": 2, "b": 3, "1": 4, "text": told})
    detail = detail_of(pages.show(run), 0)
    expect(detail.locator(".members").first.locator(".key")).to_have_text(
        ["10", "2", "b", "1", "text", "to", "to", "n"]
    )
    expect(detail.locator(".members").last.locator(".number")).to_have_text(["1e400", "12345678901234567890", "1.50"])


def conversation(pages: Pages) -> Recording:
    """Two agents at the same time; a step that differs from what was asked, and an answer that differs from it."""
    run = pages.recording()
    system, question = {"role": "system", "content": "Be kind."}, {"role": "user", "content": "Pay bob."}
    for number, name in enumerate(("left", "right")):
        agent = run.span("agent", {"name": name}, begin=1, end=30)
        call = {
            "id": f"c{number}",
            "function": {"name": "pay", "arguments": '{"to":"bob","body":{"text":"x","bcc":"y"}}'},
        }
        asked = {"text": "I pay.", "tool_calls": [call]}
        messages: list[dict[str, Any]] = [system, question]
        run.span("llm", {"model": "m", "messages": messages}, asked, parent=agent, begin=2 + number, end=5)
        arguments = {"to": ("bob", "eve")[number], "body": {"text": "x", "bcc": "y"}}
        step = {"name": "pay", "arguments": arguments, "call_id": f"c{number}"}
        run.span("tool", step, {"output": "paid"}, parent=agent, begin=6, end=7)
        told = {"role": "tool", "tool_call_id": f"c{number}", "content": ("paid", "paid twice")[number]}
        messages = [*messages, {"role": "assistant", "content": "I pay.", "tool_calls": [call]}, told]
        messages.append({"role": "critic unseen", "content": "Hm."})
        run.span("llm", {"model": "m", "messages": messages}, {"text": "Done."}, parent=agent, begin=8, end=9 + number)
    return run


def test_a_conversation_shows_what_differs_and_leads_to_what_is_equal(pages: Pages) -> None:
    page = pages.show(conversation(pages), "conversation")
    turns = page.locator(".turn")
    expect(page.locator("#turns .agent button")).to_have_text(["left", "right"])
    assert [text.split("\n")[0] for text in page.locator(".turn .message > header b").all_inner_texts()] == [
        *("system", "user", "assistant", "pay", "critic unseen", "assistant"),
        *("system", "user", "assistant", "pay", "tool", "critic unseen", "assistant"),
    ]
    expect(turns.nth(2).locator(".call")).to_have_text("pay same as turn 4")
    expect(turns.nth(3).locator(".args")).to_have_text('(to=bob, body={"text":"x","bcc":"y"})')
    turns.nth(5).get_by_text("4 messages as before").click()
    expect(turns.nth(5)).to_contain_text("Read again: turns 1–4")
    expect(turns.nth(8).locator(".differs")).to_have_text("differs from the tool's step, turn 10")
    expect(turns.nth(9).locator(".differs")).to_have_text(
        "differs from what the model asked or was told, turn 9, turn 11"
    )
    expect(turns.nth(10).locator(".differs")).to_have_text("differs from the tool's step, turn 10")
    expect(turns.nth(10)).to_contain_text("paid twice")
    turns.nth(12).get_by_text("3 messages as before").click()
    for class_name in page.locator(".turn, .message").evaluate_all("(nodes) => nodes.map((node) => node.className)"):
        assert "critic" not in class_name
        assert "unseen" not in class_name
    expect(page.locator(".from-other .message.other")).to_have_count(2)
    turns.nth(12).get_by_role("button", name="turns 7–9").click()
    expect(turns.nth(6)).to_be_focused()
    turns.nth(3).get_by_role("button", name="m", exact=True).click()
    expect(page.locator("#tree .row.selected .text")).to_contain_text("LLM m")


def test_a_part_that_is_no_text_can_be_read(pages: Pages) -> None:
    run = pages.recording()
    image = {"type": "image_url", "image_url": {"url": "data:" + "x" * 100}}
    run.span("message", {"role": "user", "content": [image], "mood": "bad", "long": "y" * 25_000})
    turn = pages.show(run, "conversation").locator(".turn")
    expect(turn.locator(".chip")).to_have_text("mood bad")
    turn.locator("summary", has_text="image_url").click()
    expect(turn.locator(".part .json")).to_contain_text("data:xxx")
    turn.locator("summary", has_text="long").click()
    turn.get_by_role("button", name="Show all").click()
    expect(turn.locator(".part .source")).to_contain_text("5,002 more characters in the span")


# The modules that need no page

FAMILY = "👩\u200d👩\u200d👧"


@pytest.fixture(scope="module")
def modules(browser: "Browser") -> Iterator["Page"]:
    """An empty page whose window has what the script's modules export, each module by its name."""
    page = browser.new_page()
    names = ", ".join(
        f"{name}: module_{name}" for name in export.modules() if f"const module_{name} " in export.script()
    )
    script = export.script().partition("// main.js")[0]  # which starts a page
    page.evaluate(f"(() => {{ {script}; Object.assign(window, {{ {names} }}); }})()")
    yield page
    page.close()


def test_the_browser_and_python_agree_on_what_is_visible(modules: "Page") -> None:
    codes = [*range(0x20000), *range(0xE0000, 0xE2000)]
    script = """(codes) => codes.filter((n) => {
        const text = `a${String.fromCodePoint(n)}`;
        return visible.visible(text) !== text;
    })"""
    found = modules.evaluate(script, codes)
    assert found == [n for n in codes if text.visible(f"a{chr(n)}") != f"a{chr(n)}"]
    texts = [f"{a}{b}{c}" for a in SEEN for b in SEEN for c in SEEN]
    assert modules.evaluate("(texts) => texts.map(visible.visible)", texts) == [text.visible(each) for each in texts]


# No halves of pairs: the browser's driver cannot send those.
SEEN = ["a", "1", "👋", "❤", "م", "क", "\u200d", "\ufe0f", "\u20e3", "\U0001f3fd", "\U0001f3f4", "\U000e0067\U000e0062",
        "\U000e0065\U000e006e\U000e0067\U000e007f", "\r\n", "\u202e"]  # fmt: skip


@pytest.mark.parametrize(
    ("given", "shown"),
    [
        ("plain", "plain"),
        ("0123456789abc", "012345678…"),
        ("01234567👋abc", "01234567…"),
        ("01234567e\u0301\u0301abc", "01234567…"),
        (f"012345{FAMILY}", "012345…"),
        ("a" + "\u0301" * 200, "a" + "\u0301" * 8 + "…"),
    ],
)
def test_a_cut_halves_no_character(modules: "Page", given: str, shown: str) -> None:
    assert modules.evaluate("(text) => visible.cut(text, 10)", given) == shown


def test_a_half_of_a_pair_is_spelled_out(modules: "Page") -> None:
    assert modules.evaluate("visible.visible('a\\ud83d')") == "a\\ud83d"


AS_WRITTEN = [
    '{"10":1,"2":2,"b":{"1":0},"a":[]}',
    '{"to":"a","to":"b"}',
    '{"__proto__":1,"toJSON":2,"":{}}',
    "[1e400,-0,-0.0,1.50,12345678901234567890,1E+2,0.1,7,-7]",
    r'["a\"b\\","\\","\u0000","é","\ud83d"]',
    "null",
    '"text"',
    "[" * 500 + "]" * 500,
]


@pytest.mark.parametrize("written", AS_WRITTEN)
def test_json_is_shown_as_it_was_recorded(modules: "Page", written: str) -> None:
    assert modules.evaluate("(text) => jsontext.write(jsontext.parse(text))", written) == written
    spread = written.replace(",", " ,\n").replace("[", "[\t").replace("}", " }")
    assert modules.evaluate("(text) => jsontext.write(jsontext.parse(text))", spread) == written
    indented = modules.evaluate("(text) => jsontext.write(jsontext.parse(text), '  ')", written)
    if '"to"' not in written and len(written) < 500:  # Python keeps one of two members of a name
        assert json.loads(indented) == json.loads(written)


@pytest.mark.parametrize(
    "text",
    ["", "{", '{"a"}', "[1,]", "[01]", "[1 2]", "nul", '"a', '"a\n"', "{1:2}", "[1]]", "NaN", "+1", "1.", '"\\x"'],
)
def test_what_is_no_json_is_not_read_as_json(modules: "Page", text: str) -> None:
    assert modules.evaluate("(text) => jsontext.parse(text) === undefined", text)


def test_json_is_read_as_python_reads_it(modules: "Page") -> None:
    given = [json.dumps(value) for value in VALUES]
    written = modules.evaluate("(texts) => texts.map((text) => jsontext.write(jsontext.parse(text)))", given)
    assert [json.loads(each) for each in written] == VALUES


VALUES = [
    {"a": [1, 2.5, None, True, 'x\n"\\'], "b": {"c": {}}},
    [[], [[]], {"": ""}],
    10**30,
    -1e-7,
    "\u2028",
    {"x": "y" * 10_000},
]
