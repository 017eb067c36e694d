"""Images and audio of payloads in the viewer: seen, played, or offered as a download, and never run."""

import struct
import zlib
from base64 import b64encode
from collections.abc import Iterator
from random import Random
from typing import TYPE_CHECKING, Any

import pytest

from agentspan.viewer import export
from tests.browser.conftest import Opener
from tests.browser.gestures import count_of, expect
from tests.browser.recorded import Recording, database
from tests.serve.servers import serving
from tests.waiting import until

if TYPE_CHECKING:
    from playwright.sync_api import Page

pytestmark = pytest.mark.full

SIDE = 1000
"""Pixels; an image of random ones has 3 MB."""


def png(side: int) -> bytes:
    """A picture that a browser can show."""
    rows = b"".join(b"\0" + Random(row).randbytes(3 * side) for row in range(side))
    head = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    chunks = ((b"IHDR", head), (b"IDAT", zlib.compress(rows, 0)), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data)) for kind, data in chunks
    )


def url(media_type: str, data: bytes) -> str:
    return f"data:{media_type};base64,{b64encode(data).decode()}"


SVG = b"<svg xmlns='http://www.w3.org/2000/svg' onload='alert(1)'><script>alert(2)</script></svg>"
ATTACK = SVG + Random(1).randbytes(1000)
HEAD = struct.pack("<I", 2036) + b"WAVEfmt " + struct.pack("<IHHIIHH", 16, 1, 1, 8000, 8000, 1, 8)
WAV = b"RIFF" + HEAD + b"data" + struct.pack("<I", 2000) + Random(2).randbytes(2000)


@pytest.fixture(scope="module")
def pages(browser: object, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, str, str]]:
    """The addresses of a run's page and of its file, and the span of the last step."""
    folder = tmp_path_factory.mktemp("blobs")
    with database(folder / "runs.db") as db:
        run = Recording(db, "painter")
        said: list[Any] = [
            {
                "role": "user",
                "content": [
                    {"type": "text", "text": "What is this?"},
                    {"type": "image_url", "image_url": {"url": url("image/png", png(SIDE))}},
                    {"type": "image_url", "image_url": {"url": url("image/svg+xml", ATTACK)}},
                    {"type": "image_url", "image_url": {"url": url("text/html", ATTACK[1:])}},
                    {"type": "input_audio", "input_audio": {"data": b64encode(WAV).decode(), "format": "wav"}},
                ],
            }
        ]
        for step in range(3):
            answer = f"a picture {step}"
            last = run.span("llm", {"model": "m", "messages": said}, {"text": answer}, begin=step, end=step + 1)
            said = [*said, {"role": "assistant", "content": answer}, {"role": "user", "content": f"no {step}"}]
        run.span("tool", {"name": "paint"}, {"output": b64encode(png(20)).decode()}, begin=9, end=10)
        id = run.finish(10)
        page = folder / "run.html"
        page.write_text(export.html(db.storage, [id]), encoding="utf-8")
    with serving(folder / "runs.db") as server:
        yield f"{server.url}/runs/{id}", page.as_uri(), last


def sizes(page: "Page", box: str) -> list[int]:
    """The widths of the images in an element, when they are loaded."""
    loaded = "all => all.length && all.every((one) => one.complete && one.naturalWidth)"
    until(lambda: page.locator(f"{box} .blob img").evaluate_all(loaded))
    widths: list[int] = page.locator(f"{box} .blob img").evaluate_all("all => all.map((one) => one.naturalWidth)")
    return widths


def test_images_are_seen_and_nothing_of_them_is_run(pages: tuple[str, str, str], open_page: Opener) -> None:
    address, file, span = pages
    page = open_page(f"{address}#span={span}")
    assert sizes(page, "#detail") == [SIDE]
    expect(page.locator("#detail .blob figcaption").nth(0)).to_have_text("image/png, 3.0 MB")
    expect(page.locator("#detail .blob figcaption").nth(1)).to_have_text("image/svg+xml, 1.1 kB")
    assert count_of(page, "#detail .blob audio") == 1
    told = page.evaluate("async (at) => (await (await fetch(at)).text()).length", f"{address}/spans/{span}")
    assert told < 10_000
    with page.expect_download() as download:
        page.locator("#detail .blob a").nth(1).click()
    assert download.value.suggested_filename.endswith(".svg")
    page = open_page(f"{address}#view=conversation")
    assert sizes(page, "#panel-conversation") == [SIDE, 20]
    page = open_page(f"{file}#view=conversation")
    assert sizes(page, "#panel-conversation") == [SIDE, 20]
    assert count_of(page, "#panel-conversation .blob") == 5
