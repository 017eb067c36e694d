"""Take the pictures in docs/images: the demo's run, a replayed conversation, and two of them compared, in the viewer.

FILE is as for replay.py. Needs Chromium, playwright, and the extra `serve`.

    python benchmarks/screenshots.py FILE [--only answer] [--chromium /usr/bin/chromium] [--font Inter]
"""

import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from playwright.sync_api import Browser, Page, Route, sync_playwright

import agentspan

ROOT = Path(__file__).parents[1]
IMAGES = ROOT / "docs" / "images"
SIZE = {"width": 1120, "height": 600}
NARROW = {"answer": {"width": 860, "height": 318}, "dark": {"width": 1080, "height": 540}}
"""Sizes of pictures that are shown small, or have many colours; what README shows leaves room for how to begin."""


def record(folder: Path, file: Path) -> tuple[Path, dict[str, str]]:
    """Return a database and the addresses of pages: the demo's run, a conversation with a failed tool, a pair of runs.

    A copy of the package records, so that tracebacks do not show where this checkout lies.
    """
    db, garden = folder / "agentspan.db", folder / "garden"
    for name in ("agentspan", "benchmarks"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copytree(ROOT / "docs", garden / "docs", ignore=shutil.ignore_patterns("images"))
    for name in ("README.md", "CHANGELOG.md", "pyproject.toml"):
        shutil.copy(ROOT / name, garden)
    environment = {**os.environ, "AGENTSPAN_DB": str(db), "PYTHONPATH": str(folder)}
    replay = [sys.executable, str(folder / "benchmarks" / "replay.py"), str(file.absolute()), "--db", str(db)]
    for command in (replay, [sys.executable, "-m", "agentspan", "demo"]):
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL, env=environment, cwd=garden)
    with agentspan.open(db, read_only=True) as opened:
        newest = opened.agent_instances.list(sorting="-id", page_size=100)
        failing = [run for run in newest[1:] if run.span_counts.failed and run.span_counts.total < 40]
        pair = opened.overview(agent="airline-agent").pair
        assert pair is not None
        compare = f"compare?a={pair[0]}&b={pair[1]}"
        return db, {"demo": f"runs/{newest[0].id}", "talk": f"runs/{failing[-1].id}", "pair": compare}


def page_of(browser: Browser, font: str, scheme: str, size: dict[str, int]) -> Page:
    """Return a page in which the system's font is the one that was asked for."""
    page = browser.new_page(viewport=size, color_scheme=scheme)  # type: ignore[arg-type]

    def with_font(route: Route) -> None:
        response = route.fetch()
        route.fulfill(response=response, body=response.text().replace("system-ui,", f"{font}, system-ui,"))

    if font:
        page.route("**/viewer.css*", with_font)
    return page


def take(url: str, pages: dict[str, str], only: str | None, chromium: str, font: str) -> None:
    """Take the pictures, or only one of them."""
    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=chromium, args=["--no-sandbox", "--disable-gpu"])
        for name, scheme, address, keys in (
            ("tree", "light", "demo", "e"),
            ("conversation", "light", "talk", "e2"),
            ("dark", "dark", "talk", "e"),
            ("answer", "light", "pair", ""),
        ):
            if only not in (None, name):
                continue
            page = page_of(browser, font, scheme, NARROW.get(name, SIZE))
            page.goto(f"{url}/{pages[address]}", wait_until="networkidle")
            for key in keys:
                page.wait_for_selector("html[data-ready]")
                page.keyboard.press(key)
                page.wait_for_selector("#detail[aria-busy=false] h2")
            if "2" in keys:
                page.wait_for_selector(".turn")
                page.locator(".turn .message.failed").scroll_into_view_if_needed()
                page.locator(".turn .message.failed .error-text").hover()
            page.screenshot(path=IMAGES / f"{name}.png")
            print(f"{name}.png: {(IMAGES / f'{name}.png').stat().st_size / 1000:.0f} kB")
        browser.close()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file", type=Path)
    parser.add_argument("--only", help="the name of the one picture to take")
    parser.add_argument("--chromium", default="/usr/bin/chromium")
    parser.add_argument("--font", default="", help="what to show in place of the system's font")
    options = parser.parse_args()
    IMAGES.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="agentspan-") as folder:
        db, pages = record(Path(folder), options.file)
        serve = [sys.executable, "-m", "agentspan", "serve", "--db", str(db), "--port", "0", "--create"]
        server = subprocess.Popen(serve, stdout=subprocess.PIPE, text=True)
        try:
            assert server.stdout is not None
            found = re.search(r"http://\S+", server.stdout.readline())
            assert found
            take(found[0], pages, options.only, options.chromium, options.font)
        finally:
            server.terminate()
            server.communicate()


if __name__ == "__main__":
    main()
