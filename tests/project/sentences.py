"""The sentences of a page in Markdown, as a reader meets them: without code blocks, tables, headings and pictures."""

import re
from collections.abc import Iterator

LEFT_OUT = re.compile(r"^(`{3,}).*?^\1 *$|<!--.*?-->|^ *\|.*?$|^#+ .*?$|^---$.*?^---$", re.MULTILINE | re.DOTALL)
PICTURE = re.compile(r"!\[[^]]*\]\([^)]*\)")
LINK = re.compile(r"\[([^]]*)\]\([^)]*\)")
BLOCK = re.compile(r"\n\s*\n|\n(?= *(?:[-*]|\d+\.) )")
END = re.compile(r"(?<=[.!?])[\"'*_)]*\s+(?=[\"'*_(`\[]*[A-Z0-9`‘“])")


def sentences(text: str) -> Iterator[str]:
    """Yield each sentence; an item of a list is at least one. A colon and a semicolon end none."""
    plain = LINK.sub(r"\1", PICTURE.sub("", LEFT_OUT.sub("", text)))
    for block in BLOCK.split(plain):
        for sentence in END.split(" ".join(block.split()).lstrip("-* ")):
            if re.search(r"\w", sentence):
                yield sentence


def words(sentence: str) -> int:
    """Count the words of a sentence; what stands in backticks has its words, too."""
    return sum(1 for word in sentence.split() if re.search(r"\w", word))
