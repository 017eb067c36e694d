"""Make what the pages of `docs/frameworks` show: each runs its program against a model on loopback, with real packages.

    AGENTSPAN_TEST_FRAMEWORKS=/tmp/frameworks python -m tests.otel.frameworks.pages [NAME…]

The folder gets an environment for each page, with the newest versions of what the page says to install. The program,
the output of the page's commands, the picture of that run and the versions are written anew, these also in the index.
Read the difference before you commit it: the sentences about what is recorded may have become untrue. The picture needs
Playwright, and Debian's Chromium and pngquant.
"""

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

import agentspan
from tests.checkout import ROOT
from tests.otel.frameworks.environments import HAS_OTEL, PROGRAMS, python_of
from tests.otel.frameworks.model_server import serving
from tests.serve.servers import serving as serving_file

DOCS = ROOT / "docs" / "frameworks"
INDEX = DOCS / "index.md"
PICTURES = ROOT / "docs" / "images" / "frameworks"
_FENCE = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_PICTURE = re.compile(r"\n\[!\[.*\]\(\.\./images/frameworks/[^)]*\)\n")
_TRIED = re.compile(r"^Tried on .*$", re.MULTILINE)
_STEP = re.compile(r"^ *#(\d+) .*?([✓✗]) (\w+)", re.MULTILINE)
_VERSIONS = (
    "import importlib.metadata as m, json, platform, sys\n"
    "print(json.dumps({n: m.version(n) for n in sys.argv[1:]} | {'Python': platform.python_version()}))"
)


class Page(NamedTuple):
    """A page about a framework.

    Attributes:
        name: the name of the framework, of the page, and of its environment.
        text: the page.
    """

    name: str
    text: str

    @property
    def path(self) -> Path:
        """The file of the page."""
        return DOCS / f"{self.name}.md"

    @property
    def packages(self) -> list[str]:
        """The packages that the page says to install beside agentspan, as pip reads them."""
        found = re.search(r"^\$ pip install (.*)$", self.text, re.MULTILINE)
        return shlex.split(found[1], comments=True)[1:] if found else []

    @property
    def programs(self) -> dict[str, str]:
        """The programs of the page by name; the first one is the one that is run."""
        known = {"weather.py": f"{self.name.replace('-', '_')}_weather.py"}
        known |= {"weather_server.py": "weather_server.py"} if "weather_server.py`" in self.text else {}
        return {name: (PROGRAMS / file).read_text(encoding="utf-8") for name, file in known.items()}

    def blocks(self, heading: str, language: str) -> list[str]:
        """Return the fenced blocks of a language below a heading."""
        section = self.text.partition(f"\n## {heading}\n")[2].partition("\n## ")[0]
        return [found[2] for found in _FENCE.finditer(section) if found[1] == language]

    @property
    def commands(self) -> list[str]:
        """The commands whose output the page shows."""
        return [line[2:] for line in self.blocks("What it shows", "text")[0].splitlines() if line.startswith("$ ")]

    def steps(self) -> list[tuple[str, str, str]]:
        """Return each step that the page shows: its number, its mark, and the first word of its summary."""
        return steps_in(self.blocks("What it shows", "text")[0])


def pages() -> list[Page]:
    """Return all pages, in the order of their names."""
    found = {path.stem: path for path in DOCS.glob("*.md") if path != INDEX}
    return [Page(name, found[name].read_text(encoding="utf-8")) for name in sorted(found)]


def steps_in(output: str) -> list[tuple[str, str, str]]:
    """Return the steps in what `agentspan show` prints: numbers, marks, and first words of summaries."""
    return [found.groups() for found in _STEP.finditer(output)]  # type: ignore[misc]


def environment_of(page: Page) -> Path:
    """Return the Python of the page's environment."""
    return python_of(page.name, [HAS_OTEL, *page.packages])


def lay(page: Page, folder: Path) -> None:
    """Write the programs of a page into a folder."""
    for name, text in page.programs.items():
        (folder / name).write_text(text, encoding="utf-8")


def run_in(folder: Path, python: Path, words: list[str]) -> "subprocess.CompletedProcess[str]":
    """Run a command of a page in the folder with its programs; `python` and `agentspan` are those beside its Python."""
    known = {"AGENTSPAN_DB": "agentspan.db", "COLUMNS": "80", "TZ": "UTC", "PYTHONIOENCODING": "utf-8",
             "LITELLM_LOCAL_MODEL_COST_MAP": "True", "CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC": "1"}  # fmt: skip
    path = f"{python.parent}{os.pathsep}{os.environ['PATH']}"
    with serving() as variables:
        return subprocess.run(
            [shutil.which(words[0], path=path) or words[0], *words[1:]],
            cwd=folder,
            env={**os.environ, **known, **variables, "PATH": path},
            capture_output=True,
            encoding="utf-8",
            timeout=300,
            check=False,
        )


def shown(page: Page, python: Path, folder: Path) -> str:
    """Return what the commands of a page print in a folder, one after the other, each below its command."""
    lines: list[str] = []
    lay(page, folder)
    for command in page.commands:
        done = run_in(folder, python, shlex.split(command))
        lines += [f"$ {command}", *map(str.rstrip, done.stdout.replace(f"{python.parent}/", "").splitlines())]
        if "agentspan show" in command and done.returncode:
            raise SystemExit(f"{page.name}: {command}: {done.stderr}")
    return "\n".join(lines) + "\n"


def pictured(page: Page, db: Path) -> str:
    """Take the picture of the newest run, its last failed step open; return the lines that show it.

    The traceback is closed: it has the paths of this machine. 48 colours make 35 kB of 130, and look the same.
    """
    from playwright.sync_api import sync_playwright

    with agentspan.open(db, read_only=True) as opened:
        run = opened.agent_instances.list(sorting="-id")[0]
    with serving_file(db) as server, sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path="/usr/bin/chromium", args=["--no-sandbox", "--disable-gpu"])
        tab = browser.new_page(viewport={"width": 1440, "height": 700})
        tab.goto(f"{server.url}/runs/{run.id}")
        tab.wait_for_selector("html[data-ready]")
        tab.locator("#tree .row.failed").last.click()
        tab.wait_for_selector("#detail[aria-busy=false] h2")
        for trace in tab.locator("#detail details[open]:has(.trace) > summary").all():
            trace.click()
        tab.locator("#detail h2").hover()
        step, error = (tab.locator(f"#detail {place}").inner_text() for place in ("h2", ".failure h3"))
        PICTURES.mkdir(exist_ok=True)
        picture = PICTURES / f"{page.name}.png"
        tab.screenshot(path=picture)
        browser.close()
    subprocess.run(["pngquant", "--force", "--nofs", "--strip", "--output", picture, "48", picture], check=True)
    seen = f"{run.span_counts.total} steps in a tree with a time line, beside them the failed one, {step}: {error}"
    seen, at = re.sub(r"([\[\]])", r"\\\1", seen), f"../images/frameworks/{page.name}.png"
    return f"\n[![This run in the viewer: {seen}]({at})]({at})\n"


def made(page: Page) -> tuple[str, str]:
    """Return the page with what its packages show now, and the cell of the index with the framework's version."""
    python, text = environment_of(page), page.text
    names = [name.partition("[")[0] for name in page.packages]
    asked = subprocess.run([python, "-c", _VERSIONS, *names], capture_output=True, text=True, check=True)
    versions = json.loads(asked.stdout)
    for program, code in zip(page.blocks("A program", "python"), page.programs.values(), strict=True):
        text = text.replace(f"```python\n{program}```", f"```python\n{code}```")
    output = page.blocks("What it shows", "text")[0]
    with tempfile.TemporaryDirectory() as folder:
        text = _PICTURE.sub("", text).replace(output, shown(page, python, Path(folder)))
        picture = pictured(page, Path(folder) / "agentspan.db")
    text = text.replace("\n## What is recorded", f"{picture}\n## What is recorded")
    tried = ", ".join(f"{name} {version}" for name, version in versions.items())
    text = _TRIED.sub(f"Tried on {time.strftime('%Y-%m-%d')} with {tried}.", text)
    return text, next(f"{name} {version}" for name, version in versions.items())


def main(names: list[str]) -> None:
    """Write the pages of these names, or all."""
    for page in pages():
        if names and page.name not in names:
            continue
        text, version = made(page)
        page.path.write_text(text, encoding="utf-8")
        index = INDEX.read_text(encoding="utf-8")
        row = re.compile(rf"^(\| \[.*\]\({page.name}\.md\) .*\| )[^|]* \|$", re.MULTILINE)
        INDEX.write_text(row.sub(rf"\g<1>{version} |", index), encoding="utf-8")
        sys.stdout.write(f"{page.path.relative_to(ROOT)}: {version}\n")


if __name__ == "__main__":
    main(sys.argv[1:])
