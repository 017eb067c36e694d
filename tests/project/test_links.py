"""Every link in the documentation leads to an existing file, or heading of a page."""

import re
from pathlib import Path
from urllib.parse import unquote

import pytest

from tests.checkout import ROOT

PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), *(ROOT / "benchmarks").glob("*.md")])
NEEDED = ("README.md", "CHANGELOG.md", "CONTRIBUTING.md", "SECURITY.md", "docs/architecture.md")

FENCE = re.compile(r"^(`{3,})[^\n]*\n.*?^\1$", re.MULTILINE | re.DOTALL)
CODE = re.compile(r"`[^`\n]+`")
INLINE = re.compile(r"\]\(\s*<?([^)\s>]+)>?(?:\s+\"[^\"]*\")?\s*\)")
REFERENCE = re.compile(r"^\[[^\]]+\]: +<?(\S+?)>?$", re.MULTILINE)
HTML = re.compile(r"<(?:a|img)\b[^>]*\b(?:href|src)=\"([^\"]+)\"")


def targets(text: str) -> list[str]:
    """Return the targets of a page's links, outside of examples."""
    prose = CODE.sub("", FENCE.sub("", text))
    return [target for form in (INLINE, REFERENCE, HTML) for target in form.findall(prose)]


def anchors(text: str) -> set[str]:
    """Return the anchors that GitHub gives to a page's headings: the second of the same name ends in -1."""
    found: dict[str, int] = {}
    for heading in re.findall(r"^#+ (.+?)\s*#*$", FENCE.sub("", text), re.MULTILINE):
        plain = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading)
        anchor = re.sub(r"[^\w\- ]", "", plain.lower()).replace(" ", "-")
        number = found.get(anchor, -1) + 1
        found[anchor] = number
        if number:
            found[f"{anchor}-{number}"] = 0
    return set(found) | set(re.findall(r"<a (?:id|name)=\"([^\"]+)\"", text))


def broken(page: Path) -> list[str]:
    """Return the links of a page that lead nowhere."""
    missing = []
    for target in targets(page.read_text(encoding="utf-8")):
        if re.match(r"[a-z]+:", target):
            continue  # another site, which a test does not ask
        file, _, anchor = unquote(target).partition("#")
        aim = page.parent / file if file else page
        leads = aim.exists() and (not anchor or anchor in anchors(aim.read_text(encoding="utf-8")))
        if not leads:
            missing.append(target)
    return missing


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_resolve(page: Path) -> None:
    assert broken(page) == []


def test_the_pages_that_people_look_for_are_there() -> None:
    assert [name for name in NEEDED if not (ROOT / name).is_file()] == []


def test_every_page_is_linked_from_another_one() -> None:
    linked = {
        (page.parent / target.partition("#")[0]).resolve()
        for page in PAGES
        for target in targets(page.read_text(encoding="utf-8"))
        if not re.match(r"[a-z]+:|#", target)
    }
    # The folder's own index, which GitHub shows, is linked as the folder.
    linked |= {folder / "README.md" for folder in linked if folder.is_dir()}
    assert [str(page.relative_to(ROOT)) for page in PAGES if page not in linked and page.name != "README.md"] == []


def test_a_link_that_leads_nowhere_is_found(tmp_path: Path) -> None:
    (tmp_path / "other.md").write_text("# A *day*, twice\n\n# Notes\n\n# Notes\n", encoding="utf-8")
    page = tmp_path / "page.md"
    good = "[a](other.md#a-day-twice) [b](other.md#notes-1) [c](#here) `[d](e)` [f](https://example.com/#g)"
    page.write_text(f"# Here\n{good}\n```\n[h](i)\n```\n", encoding="utf-8")
    assert broken(page) == []
    page.write_text('[a](none.md) [b](other.md#night) [c](#here)\n\n[d]: none\n<img src="none.png">', encoding="utf-8")
    assert broken(page) == ["none.md", "other.md#night", "#here", "none", "none.png"]
