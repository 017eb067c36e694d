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
