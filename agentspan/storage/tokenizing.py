"""Splits texts and search queries into tokens, with the same rules for every storage.

A token is a sequence of letters and digits, in lower case, without accents. A term is a sequence of adjacent tokens.
"""

import json
import re
import unicodedata
from collections.abc import Iterable, Sequence

from agentspan.blobs import described
from agentspan.model.rows import AgentSpanRow

TOKEN = re.compile(r"[^\W_]+")
PREFIX = "*"
MAX_TERMS = 32
MAX_TERM = 1000
_ESCAPE = re.compile(r'\\(?:["\\/bfnrt]|u[0-9a-fA-F]{4})')
_PIECE = re.compile(r"[\s\S]{1,65536}[^\W_]*")
"""Matches a piece of a text, up to 65,536 characters and the rest of the last token. No token is split."""
WINDOW = 2**16
"""The number of characters of a text in which a snippet is searched at once."""
_PARTS = re.compile(r'"([^"]*)"?|(\S+)')


def terms(words: str | Sequence[str]) -> list[str]:
    """Return the terms of a search: lower-case tokens separated by blanks. A `*` at the end matches any ending.

    Args:
        words: one text, in which double quotes make several words one term; or several texts, each of them one term.

    Nothing else is syntax, and nothing is an error: a text without letters and digits has no terms.
    """
    parts = [quoted or word for quoted, word in _PARTS.findall(words)] if isinstance(words, str) else list(words)
    found: dict[str, None] = {}
    for part in parts[:MAX_TERMS]:
        tokens = TOKEN.findall(fold(part[:MAX_TERM]))
        if tokens:
            found[" ".join(tokens) + (PREFIX if part.rstrip().endswith(PREFIX) else "")] = None
    return list(found)


class _WithoutAccents(dict[int, int | None]):
    """A table for str.translate that removes accents. It caches each character: a third of the time of a generator."""

    def __missing__(self, code: int) -> int | None:
        self[code] = kept = None if unicodedata.combining(chr(code)) else code
        return kept


_WITHOUT_ACCENTS = _WithoutAccents()


def fold(text: str) -> str:
    """Return a text in lower case and without accents."""
    if text.isascii():
        return text.lower()
    plain = unicodedata.normalize("NFD", text).translate(_WITHOUT_ACCENTS)
    return plain.lower().encode("utf-8", "replace").decode()  # SQLite cannot store a lone surrogate


def of_json(text: str, *, to_show: bool = False) -> str:
    """Return JSON text without escapes, which would become part of words (`\\nOrder`). Blobs become type and size.

    Args:
        to_show: replace the escapes of quotes, slashes and backslashes by these characters; else by a blank.
    """
    text = described(text)
    if "\\" not in text:
        return text
    if "\\u" in text:
        try:
            text = json.dumps(json.loads(text), ensure_ascii=False)
        except (RecursionError, ValueError):
            pass
    return _ESCAPE.sub(_unescaped if to_show else " ", text)


def _unescaped(escape: re.Match[str]) -> str:
    return escape[0][1] if escape[0][1] in '"\\/' else " "


def of_span(summary: str | None, payload: str, result_payload: str | None) -> str:
    """Return the searchable text of a span: its summary, payload and result, in lower case and without accents."""
    return fold(" ".join((summary or "", of_json(payload), of_json(result_payload or ""))))


class Matcher:
    """Checks whether a span contains all terms of a search.

    Args:
        asked: the terms of the search, from `terms`.
    """

    def __init__(self, asked: Iterable[str]) -> None:
        self._needles = [f" {term[:-1]}" if term.endswith(PREFIX) else f" {term} " for term in asked]
        self._first = [needle.split()[0] for needle in self._needles]

    def matches(self, span: AgentSpanRow) -> bool:
        """Return whether the span contains all terms; False if there are no terms."""
        text = of_span(span.summary, span.payload, span.result_payload)
        if not self._needles or not all(token in text for token in self._first):  # fast: most spans fail this check
            return False
        tokens = _tokens(text)
        return all(needle in tokens for needle in self._needles)

    def matches_any(self, json_text: str) -> bool:
        """Return whether a JSON text contains any of the terms."""
        text = fold(of_json(json_text))
        if not any(token in text for token in self._first):
            return False
        tokens = _tokens(text)
        return any(needle in tokens for needle in self._needles)

    def around(self, json_text: str) -> str:
        """Return a part of a long JSON text that contains a term, for a snippet. Return a short text unchanged."""
        if len(json_text) <= WINDOW:
            return json_text
        for start in range(0, len(json_text), WINDOW // 2):
            window = json_text[start : start + WINDOW]
            if self.matches_any(window):
                return window
        return json_text[:WINDOW]


def _tokens(text: str) -> str:
    """Return the tokens of a text, separated by blanks. It works by pieces: one list for 10 MB would take 100 MB."""
    pieces = (" ".join(TOKEN.findall(piece[0])) for piece in _PIECE.finditer(text))
    return f" {' '.join(piece for piece in pieces if piece)} "
