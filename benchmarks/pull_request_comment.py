"""Take the picture of the comment that `agentspan check --markdown` writes, in docs/images, with a style like GitHub's.

FILE is as for replay.py: the third run of each task is checked against the first. Needs Chromium, playwright and
markdown-it-py.

    python benchmarks/pull_request_comment.py FILE [--chromium /usr/bin/chromium]
"""

import argparse
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from markdown_it import MarkdownIt
from playwright.sync_api import sync_playwright

ROOT = Path(__file__).parents[1]
IMAGE = ROOT / "docs" / "images" / "comment.png"
CHECK = """
outcome = "reward>=1"
[budget]
steps = 60
[calls]
required = ["get_user_details"]
[baseline]
filter = "meta=trial=0"
"""
PAGE = """<!doctype html><meta charset="utf-8"><style>
body { margin: 0; padding: 16px; background: #fff; color: #1f2328; font: 14px/1.5 system-ui, sans-serif; width: 760px }
article { border: 1px solid #d1d9e0; border-radius: 6px }
header { padding: 8px 16px; background: #f6f8fa; border-bottom: 1px solid #d1d9e0; color: #59636e }
header b { color: #1f2328 } section { padding: 4px 16px 8px }
h1, h2, h3 { font-size: 18px; margin: 12px 0 } table { border-collapse: collapse; margin: 12px 0 }
th, td { border: 1px solid #d1d9e0; padding: 6px 13px; text-align: left; vertical-align: top }
tr:nth-child(2n) { background: #f6f8fa }
code { background: #818b981f; padding: .2em .4em; border-radius: 6px; font: 85% ui-monospace, monospace }
</style><article><header><b>github-actions</b> bot commented</header><section>HTML</section></article>"""


def comment(folder: Path, file: Path) -> str:
    """Return the comment about the runs of a file."""
    environment = {**os.environ, "AGENTSPAN_DB": str(folder / "agentspan.db"), "PYTHONPATH": str(ROOT)}
    replay = [
        sys.executable,
        str(ROOT / "benchmarks" / "replay.py"),
        str(file.absolute()),
        "--db",
        environment["AGENTSPAN_DB"],
    ]
    subprocess.run(replay, check=True, stdout=subprocess.DEVNULL, env=environment, cwd=folder)
    (folder / "check.toml").write_text(CHECK, encoding="utf-8")
    check = [sys.executable, "-m", "agentspan", "check", "meta=trial=2", "--config", "check.toml", "--markdown"]
    return subprocess.run(check, stdout=subprocess.PIPE, text=True, check=False, env=environment, cwd=folder).stdout


def main() -> None:
    """Take the picture."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0] if __doc__ else None)
    parser.add_argument("file", type=Path)
    parser.add_argument("--chromium", default="/usr/bin/chromium")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as driver:
        html = MarkdownIt().enable("table").render(comment(Path(folder), given.file))
        browser = driver.chromium.launch(executable_path=given.chromium, args=["--no-sandbox", "--disable-gpu"])
        page = browser.new_page(viewport={"width": 820, "height": 600})
        page.set_content(PAGE.replace("HTML", html))
        page.locator("article").screenshot(path=IMAGE)
        browser.close()


if __name__ == "__main__":
    main()
