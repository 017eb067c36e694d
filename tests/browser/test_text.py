"""The page's modules that need no page, in a real browser: what is visible, where a text is cut, how JSON is read."""

import json
from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

from agentspan import text
from agentspan.viewer import assets

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

FAMILY = "👩\u200d👩\u200d👧"


@pytest.fixture(scope="module")
def page(browser: "Browser") -> Iterator["Page"]:
    """An empty page whose window has what the script's modules export, each module by its name."""
    page = browser.new_page()
    names = ", ".join(f"{name}: module_{name}" for name in assets.MODULES if f"const module_{name} " in assets.script())
    script = assets.script().partition("// main.js")[0]  # which starts a page
    page.evaluate(f"(() => {{ {script}; Object.assign(window, {{ {names} }}); }})()")
    yield page
    page.close()


def test_the_browser_and_python_agree_on_what_is_visible(page: "Page") -> None:
    found = page.evaluate(
        "() => Array.from({length: 0x110000}, (_, n) => n).filter((n) => {"
        "  const text = `a${String.fromCodePoint(n)}b`; return visible.visible(text) !== text; })"
    )
    spelled = [n for n in range(0x110000) if text.visible(f"a{chr(n)}b") != f"a{chr(n)}b"]
    assert found == spelled
    texts = [f"{a}{b}{c}" for a in SEEN for b in SEEN for c in SEEN]
    assert page.evaluate("(texts) => texts.map(visible.visible)", texts) == [text.visible(each) for each in texts]


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
def test_a_cut_halves_no_character(page: "Page", given: str, shown: str) -> None:
    assert page.evaluate("(text) => visible.cut(text, 10)", given) == shown


def test_a_half_of_a_pair_is_spelled_out(page: "Page") -> None:
    assert page.evaluate("visible.visible('a\\ud83d')") == "a\\ud83d"


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
def test_json_is_shown_as_it_was_recorded(page: "Page", written: str) -> None:
    assert page.evaluate("(text) => jsontext.write(jsontext.parse(text))", written) == written
    spread = written.replace(",", " ,\n").replace("[", "[\t").replace("}", " }")
    assert page.evaluate("(text) => jsontext.write(jsontext.parse(text))", spread) == written
    indented = page.evaluate("(text) => jsontext.write(jsontext.parse(text), '  ')", written)
    if '"to"' not in written and len(written) < 500:  # Python keeps one of two members of a name
        assert json.loads(indented) == json.loads(written)


@pytest.mark.parametrize(
    "text",
    ["", "{", '{"a"}', "[1,]", "[01]", "[1 2]", "nul", '"a', '"a\n"', "{1:2}", "[1]]", "NaN", "+1", "1.", '"\\x"'],
)
def test_what_is_no_json_is_not_read_as_json(page: "Page", text: str) -> None:
    assert page.evaluate("(text) => jsontext.parse(text) === undefined", text)


def test_json_is_read_as_python_reads_it(page: "Page") -> None:
    given = [json.dumps(value) for value in VALUES]
    written = page.evaluate("(texts) => texts.map((text) => jsontext.write(jsontext.parse(text)))", given)
    assert [json.loads(each) for each in written] == VALUES


VALUES = [
    {"a": [1, 2.5, None, True, 'x\n"\\'], "b": {"c": {}}},
    [[], [[]], {"": ""}],
    10**30,
    -1e-7,
    "\u2028",
    {"x": "y" * 10_000},
]
