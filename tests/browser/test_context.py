"""The panel of a model call shows what it read, and what changed since the call before."""

from pathlib import Path

import pytest

import agentspan
from tests.browser.conftest import Opener
from tests.browser.gestures import expect
from tests.serve.servers import serving
from tests.sessions.steps import Told, arrive, spans_of


@pytest.mark.parametrize("width", [400, 1440])
def test_what_a_call_read(open_page: Opener, tmp_path: Path, width: int) -> None:
    told = Told()
    told.ask("fix the bug")
    told.call("I read it", 1000)
    read = told.tool("Read", {"file_path": "/work/shop/src/parser.py"}, "x = 1\n" * 100)
    told.call("done", 1200)
    with agentspan.open(tmp_path / "a.db") as database:
        (run,) = arrive(database, told)
        call = spans_of(database, run, "llm")[-1].id
        tool = spans_of(database, run, read.type)[0].id
    with serving(tmp_path / "a.db") as server:
        page = open_page(f"{server.url}/runs/{run}#span={call}", width=width)
        page.click("#detail .context summary")
        changes = page.locator("#detail .change .name")
        changes.last.wait_for()
        assert [text.split(" ~")[0] for text in changes.all_inner_texts()] == [
            "1–2 kept",
            "answer",
            "file src/parser.py",
        ]
        assert page.locator("#detail .sources tbody tr").count() == 4
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        changes.last.locator("button").click()
        expect(page.locator("#detail")).to_have_attribute("data-span", tool)
        assert page.locator("#detail .context").count() == 0
