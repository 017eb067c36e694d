"""What a new user reads first is short: sentences of README and the pages after it, counted in words."""

import re
from statistics import median

import pytest

from tests.checkout import ROOT
from tests.project.sentences import sentences, words

NAMES = ("quickstart", "reading", "evaluation", "coding-agents", "sessions")
README = (ROOT / "README.md").read_text(encoding="utf-8")
PAGES = ["README.md", *(f"docs/{name}.md" for name in NAMES)]
DENSE = {"architecture", "backends", "concepts", "http", "opentelemetry", "postgresql"}
"""Pages for those who look up one thing. Their longest sentences list what belongs together."""
GUIDES = [
    page.relative_to(ROOT).as_posix()
    for page in (*(ROOT / "docs").glob("*.md"), *(ROOT / "docs" / "frameworks").glob("*.md"))
    if page.stem not in {*NAMES, *DENSE}
]


def of(page: str) -> list[str]:
    return list(sentences((ROOT / page).read_text(encoding="utf-8")))


@pytest.mark.parametrize("page", sorted([*PAGES, *GUIDES]))
def test_no_sentence_is_long(page: str) -> None:
    assert [sentence for sentence in of(page) if words(sentence) > 35] == []


@pytest.mark.parametrize("page", PAGES)
def test_what_is_read_first_has_short_sentences(page: str) -> None:
    assert median(map(words, of(page))) <= 16


def test_the_readme_is_read_in_a_minute() -> None:
    first = README.partition("\n## Read on\n")[0]
    assert first != README
    assert len(first.split()) <= 600
    assert [sentence for sentence in sentences(README) if words(sentence) > 25] == []
    assert len(re.findall(r"^!\[", first, re.MULTILINE)) == 1


def test_sentences_are_counted_as_they_are_read() -> None:
    page = "\n".join(
        (
            "# A heading. With two sentences.",
            "One two, three: [four](x.md) `five six`; seven",
            "eight. *Nine* ten! Is 2.5 one word?",
            "",
            "| a table | of words |",
            "- an item",
            "- (another one)",
            "  that goes on",
            "```python",
            "code = 1",
            "```",
            "![a picture](x.png)",
            "<!-- a comment -->",
        )
    )
    found = list(sentences(page))
    assert [words(sentence) for sentence in found] == [8, 2, 4, 2, 5]
