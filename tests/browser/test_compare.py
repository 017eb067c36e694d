"""The page that compares runs, by keys alone."""

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

import agentspan
from tests.browser.conftest import Opener
from tests.browser.gestures import expect
from tests.serve.servers import serving
from tests.waiting import until

if TYPE_CHECKING:
    from playwright.sync_api import Page

pytestmark = pytest.mark.full


@pytest.fixture(scope="module")
def address(browser: object, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The page with two runs that differ in their second and fourth step."""
    path = tmp_path_factory.mktemp("compare") / "runs.db"
    tracer = agentspan.Tracer(path, raise_errors=True)
    ids = []
    for outputs in (["a", "b", "c", "d"], ["a", "B", "c", "D"]):
        with tracer.run("shop") as run:
            for number, output in enumerate(outputs):
                with tracer.span("tool", {"name": "look", "arguments": {"n": number}}) as span:
                    span.set_result({"output": output})
        ids.append(run.id)
    tracer.shutdown()
    with serving(path) as server:
        yield f"{server.url}/compare?a={ids[0]}&b={ids[1]}"


def test_d_goes_from_difference_to_difference(address: str, open_page: Opener) -> None:
    page = open_page(address, ready=False)
    expect(page.locator("li[data-change]")).to_have_count(2)

    def focused(page: "Page") -> str:
        return str(page.evaluate("document.activeElement.innerText.replace(/\\s+/g, ' ')"))

    until(lambda: page.evaluate("document.querySelector('[data-change]') && document.readyState === 'complete'"))
    page.keyboard.press("d")
    assert "then another result" in focused(page)
    page.keyboard.press("d")
    assert "A 2" in focused(page)
    for _ in range(3):  # the last one stays
        page.keyboard.press("d")
    assert "A 4" in focused(page)
    page.keyboard.press("D")
    assert "A 2" in focused(page)
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    page.wait_for_url("**/runs/*#span=*")
