"""Make `build/site` of the documentation: HTML with Zensical, and llms.txt and llms-full.txt for language models.

    python -m pip install zensical
    python docs/make_site.py

The pages lie in `docs`, and some at the top of the checkout, where GitHub looks for them. They are copied beside one
another, their links follow, and each link of the made pages is looked at: one that leads nowhere is an error.
"""

import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

ROOT = Path(__file__).resolve().parents[1]
DOCS = ROOT / "docs"
WORK = ROOT / "build" / "site-work"
SITE = ROOT / "build" / "site"
FROM_THE_TOP = {"README.md": "index.md"} | {
    name: name.lower() for name in ("CHANGELOG.md", "CONTRIBUTING.md", "SECURITY.md", "CODE_OF_CONDUCT.md")
}
_LINK = re.compile(r"(?<=\]\()[^)\s]+(?=\))")
_COMMENT = re.compile(r"^<!-- (?:not run: .*|generated: .*|end) -->\n", re.MULTILINE)


def pages() -> dict[Path, str]:
    """Return the place of each page in the checkout → its place in the site."""
    places = {ROOT / name: place for name, place in FROM_THE_TOP.items()}
    places[ROOT / "benchmarks" / "README.md"] = "benchmarks.md"
    for page in DOCS.rglob("*.md"):
        places[page] = page.relative_to(DOCS).as_posix().replace("README.md", "index.md")
    return places


def moved(page: Path, place: str, places: dict[Path, str], source: str) -> str:
    """Return the text of a page with the links of the site; one to a file that is no page leads to the repository."""
    up = "../" * place.count("/")

    def link(found: re.Match[str]) -> str:
        parts = urlsplit(found[0])
        if parts.scheme or not parts.path:
            return found[0]
        aim = (page.parent / unquote(parts.path)).resolve()
        aim = aim / "README.md" if aim.is_dir() and aim / "README.md" in places else aim
        anchor = f"#{parts.fragment}" if parts.fragment else ""
        if aim in places:
            return f"{up}{places[aim]}{anchor}"
        if aim.is_relative_to(DOCS / "images"):
            return f"{up}{aim.relative_to(DOCS).as_posix()}"
        return f"{source}/blob/main/{aim.relative_to(ROOT).as_posix()}{anchor}"

    return _COMMENT.sub("", _LINK.sub(link, page.read_text(encoding="utf-8")))


def listed(nav: list[Any]) -> Iterator[tuple[str, str]]:
    """Yield the title and the place of each page of the navigation."""
    for entry in nav:
        for title, below in entry.items():
            if isinstance(below, str):
                yield title, below
            else:
                yield from listed(below)


class _Links(HTMLParser):
    """The links and the anchors of a page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.links: list[str] = []
        self.anchors: set[str] = set()
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        found = dict(attrs)
        self.anchors.update(value for name in ("id", "name") if (value := found.get(name)))
        self.links.extend(value for name in ("href", "src") if (value := found.get(name)))


def broken(site: Path) -> list[str]:
    """Return what leads nowhere within the site, and what would be loaded from elsewhere."""
    read = {page: _Links(page.read_text(encoding="utf-8")) for page in site.rglob("*.html") if page.name != "404.html"}
    wrong = []
    for page, found in read.items():
        for link in found.links:
            parts = urlsplit(link)
            if parts.scheme or parts.netloc:
                continue
            aim = (page.parent / unquote(parts.path)).resolve() if parts.path else page
            aim = aim / "index.html" if aim.is_dir() else aim
            if not aim.exists() or (
                parts.fragment and aim in read and unquote(parts.fragment) not in read[aim].anchors
            ):
                wrong.append(f"{page.relative_to(site)}: {link}")
    return wrong


def main() -> int:
    """Make the site; return 1 if a link leads nowhere."""
    settings = tomllib.loads((DOCS / "site.toml").read_text(encoding="utf-8"))["project"]
    places = pages()
    shutil.rmtree(WORK, ignore_errors=True)
    for page, place in places.items():
        target = WORK / "pages" / place
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(moved(page, place, places, settings["extra"]["source"]), encoding="utf-8")
    shutil.copytree(DOCS / "images", WORK / "pages" / "images")
    shutil.copy(DOCS / "site.toml", WORK / "zensical.toml")
    for name in ("site.css", "site.js"):
        shutil.copy(DOCS / name, WORK / "pages" / name)
    subprocess.run([sys.executable, "-m", "zensical", "build", "--clean"], cwd=WORK, check=True)
    shutil.rmtree(SITE, ignore_errors=True)
    shutil.move(WORK / settings["site_dir"], SITE)
    for page in SITE.rglob("*.html"):  # the corner of a table is no heading
        page.write_text(page.read_text(encoding="utf-8").replace("<th></th>", "<td></td>"), encoding="utf-8")
    lines, whole = [f"# {settings['site_name']}", "", f"> {settings['site_description']}", ""], []
    for title, place in listed(settings["nav"]):
        text = (WORK / "pages" / place).read_text(encoding="utf-8")
        shutil.copy(WORK / "pages" / place, SITE / place)
        lines.append(f"- [{title}]({settings['site_url']}{place})")
        whole.append(text)
    (SITE / "llms.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
    (SITE / "llms-full.txt").write_text("\n\n".join(whole), encoding="utf-8")
    wrong = broken(SITE)
    unlisted = sorted({*places.values()} - {place for _, place in listed(settings["nav"])})
    wrong += [f"{place} is not in the navigation" for place in unlisted if not place.startswith("decisions/")]
    sys.stderr.write("".join(f"{each}\n" for each in wrong))
    sys.stdout.write(f"{SITE}: {len(places)} pages, {len(wrong)} faults\n")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
