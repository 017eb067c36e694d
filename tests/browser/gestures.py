"""What tests of a page do with it, and look at."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from playwright.sync_api import Page

TOKEN = "s3cret-token"
"""Of servers that want one."""


def press(page: "Page", *keys: str) -> None:
    """Press keys one after the other."""
    for key in keys:
        page.keyboard.press(key)


def selected(page: "Page") -> "Any":
    """The selected row."""
    return page.locator("#tree .row.selected .text")


def expect(locator: Any) -> Any:
    """Playwright's assertions, which wait."""
    from playwright.sync_api import expect as expect_

    return expect_(locator)


def count_of(page: "Page", selector: str) -> int:
    """How many elements there are."""
    return page.locator(selector).count()


EVERYTHING = ("j", "j", "j", "j", "j", "e", "2", "3", "1")
"""Keys that lead to each part of a page."""


def assert_harmless(page: "Page") -> None:
    """Nothing of a payload became an element."""
    assert (
        count_of(page, "#tree img, #tree script, main img, main svg:not(.histogram), main a, [onload], [onerror]") == 0
    )
    assert page.evaluate(
        "[...document.querySelectorAll('*')].flatMap(e => [...e.attributes]).every(a => !/^on/i.test(a.name))"
    )
