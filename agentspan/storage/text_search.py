"""The search for terms in spans, as pure functions that every storage uses, so that all have the same results.

A token is a sequence of letters and digits, in lower case, without accents. A term is a sequence of adjacent tokens.

An agent sends its whole history with every call. A search finds a message in the first span that contains it, and
counts the later spans that repeat it. A part of a span is a long text that is a direct member of its payload or result,
or an element of a list that is one. Two parts are equal if their JSON texts are equal. "Earlier" means a lower id.
Parts of open spans still count as new in later spans, because open spans may change.
"""

import json
import re
import unicodedata
from collections import deque
from collections.abc import Collection, Iterable, Mapping, Sequence
from hashlib import blake2b
from json.decoder import scanstring  # type: ignore[attr-defined]
from typing import NamedTuple

from agentspan.blobs import described
from agentspan.model.changes import OPEN
from agentspan.model.rows import AgentSpanRow
from agentspan.storage.sums import FoundSpan

TOKEN = re.compile(r"[^\W_]+")
PREFIX = "*"
MAX_TERMS = 32
"""The most words of a search; others are left out."""
MAX_TERM = 1000
"""The most characters of a word of a search."""
_ESCAPE = re.compile(r'\\(?:["\\/bfnrt]|u[0-9a-fA-F]{4})')
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


_BEYOND_ASCII = re.compile(r"[^\x00-\x7f]+")


def fold(text: str) -> str:
    """Return a text in lower case and without accents.

    Only what is beyond ASCII is normalized: one arrow in 2,000 characters would take 0.1 ms.
    """
    if text.isascii():
        return text.lower()
    plain = _BEYOND_ASCII.sub(_without_accents, text)
    return plain.lower().encode("utf-8", "replace").decode()  # SQLite cannot store a lone surrogate


def _without_accents(found: re.Match[str]) -> str:
    return unicodedata.normalize("NFD", found[0]).translate(_WITHOUT_ACCENTS)


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
    return _ESCAPE.sub(_unescaped, text) if to_show else without_escapes(text)


def without_escapes(text: str) -> str:
    """Return JSON text with a blank in the place of each escape."""
    return _ESCAPE.sub(" ", text) if "\\" in text else text


def _unescaped(escape: re.Match[str]) -> str:
    return escape[0][1] if escape[0][1] in '"\\/' else " "


def of_span(summary: str | None, payload: str, result_payload: str | None) -> str:
    """Return the searchable text of a span: its summary, payload and result, in lower case and without accents."""
    return " ".join(map(fold, (summary or "", of_json(payload), of_json(result_payload or ""))))


class Matcher:
    """Checks whether a span contains all terms of a search.

    Args:
        asked: the terms of the search, from `terms`.
    """

    def __init__(self, asked: Iterable[str]) -> None:
        self._terms = [Term(term) for term in asked]

    def matches(self, span: AgentSpanRow) -> bool:
        """Return whether the span contains all terms; False if there are no terms."""
        text = of_span(span.summary, span.payload, span.result_payload)
        return bool(self._terms) and all(term.is_in(text) for term in self._terms)

    def matches_any(self, json_text: str) -> bool:
        """Return whether a JSON text contains any of the terms."""
        text = fold(of_json(json_text))
        return any(term.is_in(text) for term in self._terms)

    def around(self, json_text: str) -> str:
        """Return a part of a long JSON text that contains a term, for a snippet. Return a short text unchanged."""
        if len(json_text) <= WINDOW:
            return json_text
        for start in range(0, len(json_text), WINDOW // 2):
            window = json_text[start : start + WINDOW]
            if self.matches_any(window):
                return window
        return json_text[:WINDOW]


class Term:
    """A term, to be found in a text that was folded.

    Args:
        term: tokens separated by blanks, perhaps with PREFIX at the end.

    Attributes:
        first: its first token.
    """

    def __init__(self, term: str) -> None:
        tokens = term.removesuffix(PREFIX).split()
        self.first = tokens[0]
        self._adjacent = re.compile(r"[\W_]+".join(map(re.escape, tokens)))
        self._is_whole = not term.endswith(PREFIX)

    def is_in(self, text: str) -> bool:
        """Return whether the tokens of the text include those of the term, one after the other."""
        at = text.find(self.first)  # four times as fast as the pattern
        while at >= 0 and (found := self._adjacent.search(text, at)) is not None:
            start, end = found.span()
            begins = not start or not text[start - 1].isalnum()
            if begins and not (self._is_whole and end < len(text) and text[end].isalnum()):
                return True
            at = start + 1
        return False


LONG_TEXT = 512
"""The shortest text that is a part, in characters of JSON."""
ELEMENT = 32
"""The least average length of list elements that are parts, so that tags and numbers are no parts."""

DECODED = 2**20
"""The number of remaining characters from which on a list or object is scanned and not decoded, to save memory."""

_decode = json.JSONDecoder().raw_decode
_MARK = re.compile(r'"[^"\\]*+(?:\\.[^"\\]*+)*+"|[][{}]')
"""Matches a JSON string, or the bracket at the beginning or end of an object or a list."""


class Part(NamedTuple):
    """A part of a payload: a hash of its JSON text, and its place in the payload. Equal hashes count as equal texts."""

    key: int
    start: int
    end: int
    is_element: bool


class SpanParts:
    """The parts of a span's payload and result.

    Attributes:
        span: the span.
        keys: the keys of all parts.
    """

    def __init__(self, span: AgentSpanRow) -> None:
        self.span = span
        self._payload = parts_of(span.payload)
        self._result = [] if span.result_payload is None else parts_of(span.result_payload)
        self.keys = frozenset(part.key for part in (*self._payload, *self._result))

    def without(self, keys: Collection[int]) -> AgentSpanRow:
        """Return the span without the parts in `keys`: long texts become empty, and list elements are removed."""
        result = self.span.result_payload
        return self.span._replace(
            payload=_without(self.span.payload, self._payload, keys),
            result_payload=None if result is None else _without(result, self._result, keys),
        )

    def matched(self, matcher: Matcher, earlier: Collection[int]) -> set[int]:
        """Return the keys of the parts that contain any of the terms, except those in `earlier`."""
        texts = [(self.span.payload, self._payload), (self.span.result_payload or "", self._result)]
        return {
            part.key
            for text, parts in texts
            for part in parts
            if part.key not in earlier and matcher.matches_any(text[part.start : part.end])
        }


def search_run(spans: Iterable[AgentSpanRow], matcher: Matcher, most: int) -> tuple[list[FoundSpan], int]:
    """Return the latest spans of a run whose new parts contain all terms, and the number of all such spans.

    Args:
        spans: all spans of the run, by id.
        most: the largest number of spans to return.
    """
    counts: dict[int, int] = {}
    latest: deque[tuple[AgentSpanRow, set[int]]] = deque(maxlen=most)
    total = 0
    for span in spans:
        parts = SpanParts(span)
        new = parts.without(counts.keys())
        if matcher.matches(new):
            total += 1
            latest.append((to_show(new, matcher), parts.matched(matcher, counts.keys())))
        if span.status not in OPEN:
            for key in parts.keys:
                counts[key] = counts.get(key, 0) + 1
    return [FoundSpan(span, repeats(span, keys, counts)) for span, keys in latest], total


def to_show(span: AgentSpanRow, matcher: Matcher) -> AgentSpanRow:
    """Return a span with only the part of each payload that a snippet needs, because a page of spans is in memory."""
    result = span.result_payload
    shown = None if result is None else matcher.around(result)
    return span._replace(payload=matcher.around(span.payload), result_payload=shown)


def repeats(span: AgentSpanRow, keys: Iterable[int], counts: Mapping[int, int]) -> int:
    """Return how many other finished spans repeat the span: the number for its most frequent part.

    Args:
        keys: the keys of the parts of the span that are counted.
        counts: key of a part → number of finished spans of the run that have it.
    """
    return max((counts.get(key, 0) for key in keys), default=0) - (span.status not in OPEN) if keys else 0


def parts_of(text: str) -> list[Part]:
    """Return the parts of a payload, in order. The payload must be a JSON object without blanks, else it has none."""
    if text[:1] != "{" or (len(text) < LONG_TEXT and '":[' not in text):
        return []
    try:
        return _parts(text)
    except (ValueError, IndexError, RecursionError):
        return []


def _parts(text: str) -> list[Part]:
    found: list[Part] = []
    at = 1
    while text[at] == '"':
        _, colon = scanstring(text, at + 1)
        start = colon + 1
        if text[start] == "[":
            ends = _element_ends(text, start)
            end = ends[-1] + 1
            if text[start + 1] in '{["' and end - start >= ELEMENT * len(ends):
                starts = [start + 1, *(place + 1 for place in ends[:-1])]
                found += [Part(_key(text[s:e]), s, e, True) for s, e in zip(starts, ends, strict=True)]
        else:
            end = _end_of(text, start)
            if text[start] == '"' and end - start >= LONG_TEXT:
                found.append(Part(_key(text[start:end]), start, end, False))
        if text[end] == "}":
            return found if end + 1 == len(text) else []
        at = end + 1
    return []


def _element_ends(text: str, start: int) -> list[int]:
    """Return the end position of each element of a JSON list; for an empty list, the position of its bracket."""
    if text[start + 1] == "]":
        return [start + 1]
    ends = []
    end = start
    while text[end] != "]":
        end = _end_of(text, end + 1)
        ends.append(end)
    return ends


def _end_of(text: str, start: int) -> int:
    """Return the end position of a JSON value. Long values are not decoded: that takes 40 times the text's memory."""
    if len(text) - start < DECODED or text[start] not in "[{":
        return _decode(text, start)[1]
    depth = 0
    for mark in _MARK.finditer(text, start):
        if mark[0] in "[{":
            depth += 1
        elif mark[0] in "]}":
            depth -= 1
            if not depth:
                return mark.end()
    raise ValueError("an object or list has no end")


def _without(text: str, parts: list[Part], keys: Collection[int]) -> str:
    if not any(part.key in keys for part in parts):
        return text
    pieces: list[str] = []
    copied, separator = 0, ""
    for part in parts:
        is_said = part.key in keys
        if not part.is_element:
            pieces += (text[copied : part.start], '""' if is_said else text[part.start : part.end])
        else:
            if text[part.start - 1] == "[":  # the first element: between later ones is only a comma
                pieces.append(text[copied : part.start])
                separator = ""
            if not is_said:
                pieces += (separator, text[part.start : part.end])
                separator = ","
        copied = part.end
    return "".join([*pieces, text[copied:]])


def _key(text: str) -> int:
    return int.from_bytes(blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).digest(), "big", signed=True)
