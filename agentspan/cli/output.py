"""How the commands speak: a terminal's width and colours, text that cannot command the terminal, one JSON document."""

import json
import os
import shutil
import sys
import unicodedata
from typing import Any

import click

from agentspan.text import one_line, printable

MARKS = {"pending": "◌", "active": "●", "complete": "✓", "failed": "✗", "cancelled": "○", "terminated": "■"}
COLORS = {"active": "yellow", "complete": "green", "failed": "red", "cancelled": "bright_black", "terminated": "red"}


def width() -> int:
    """Return how many columns there are: COLUMNS, the terminal's, or 80."""
    return max(40, shutil.get_terminal_size((80, 24)).columns)


def colored() -> bool:
    """Tell whether to use colours: on a terminal, unless NO_COLOR is set (https://no-color.org)."""
    return sys.stdout.isatty() and not os.environ.get("NO_COLOR")


def style(text: str, **how: Any) -> str:
    """Colour a text, if colours are used."""
    return click.style(text, **how) if colored() else text


def status_style(text: str, status: str) -> str:
    """Colour a text as its status."""
    return style(text, fg=COLORS.get(status))


def safe(text: str) -> str:
    """Make a payload's text fit for a terminal, over several lines."""
    return printable(text.replace("\t", "    "), keep="\n")


def document(value: Any) -> None:
    """Print the one JSON document that `--json` promises."""
    click.echo(json.dumps(value, indent=2, ensure_ascii=True))


def columns_of(text: str) -> int:
    """Count the columns that a printable text takes: wide characters take two, combining ones none."""
    if text.isascii():
        return len(text)
    return sum(_columns(character) for character in text)


def _columns(character: str) -> int:
    if unicodedata.combining(character) or unicodedata.category(character) == "Cf":
        return 0
    return 2 if unicodedata.east_asian_width(character) in "WF" else 1


def fit(text: str, columns: int) -> str:
    """Put a text on one line of at most so many columns, cut with `…`."""
    text = one_line(text, 4 * columns)
    if columns_of(text) <= columns:
        return text
    used, end = 0, 0
    for end, character in enumerate(text):  # noqa: B007 (the index is used after the loop)
        used += _columns(character)
        if used > columns - 1:
            break
    return text[:end].rstrip() + "…"


def pad(text: str, columns: int, *, right: bool = False) -> str:
    """Fill a text up to so many columns."""
    blanks = " " * max(0, columns - columns_of(text))
    return blanks + text if right else text + blanks
