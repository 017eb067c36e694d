"""Cuts the JSON text of a payload into a small text and the parts that are stored once in a run. Pure.

A part is an element of a list, or a long text, that is a direct member of the payload. The list of an llm call's
messages grows from call to call, and is a range of parts: a call adds only what is new in it.

Parts are slices of the text, so that joining them gives back the same bytes (`1.0`, `1e400`, escapes, the order of
keys).
"""

import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import NamedTuple

from agentspan.jsontext import LIST_TEXT, joined
from agentspan.storage.sqlite.contents.recent import Recent, key_of

LEAST = 512
"""Characters of the shortest payload, list and text that is cut. What is shorter costs less where it is."""
LEAST_ELEMENT = 32
"""Characters of an element in the shortest list that is cut, on average. A row for each number of an embedding would
take six times the room of the list."""
MOST_NESTED = 500
"""Opening brackets in the text that stays. SQLite reads JSON that is nested up to 1,000 deep."""
REFERENCE = '{"$content'
"""The start of a reference: `{"$contents":"1-25,31"}` for a list, `{"$content":7}` for a member that is one part."""

_WINDOW = (LEAST - 2) // 2
"""Characters of a window: the shortest text that is cut has a whole one in it, wherever it begins."""
NO_LISTS: Mapping[str, Recent] = {}
_KEY = re.compile(r'"([^"\\\x00-\x1f]*)":')
_STRING = re.compile(r'"[^"\\]*(?:\\.[^"\\]*)*"')
_scan: Callable[[str, int], tuple[object, int]] = json.JSONDecoder().scan_once  # type: ignore[attr-defined]
"""Decodes the value at a place; returns it and where it ends (2 ns a character; regular expressions take 10)."""
_CUT = ("{", "[", '"')


class Part(NamedTuple):
    """A member that is stored apart.

    Attributes:
        member: its name.
        start: where its value begins in the payload.
        texts: the texts of a list's elements without the known ones, or the one text of another value.
        known: how many elements of the list, from its start, are those of the recent list; -1 if it is no list.
        is_given: whether the elements were given apart from the text.
    """

    member: str
    start: int
    texts: Sequence[str]
    known: int = -1
    is_given: bool = False


def split(
    text: str,
    recent: Mapping[str, Recent] = NO_LISTS,
    *,
    with_texts: bool = True,
    given: Sequence[Sequence[str]] = (),
) -> list[str | Part] | None:
    """Return the pieces of a payload in order, texts that stay and parts that go; None where all of it stays.

    A member that looks like a reference is a part, so that what is left has no other than ours. A text that SQLite's
    JSON functions would not give back byte for byte stays whole: spaces between values, escapes in keys, a key twice.

    Args:
        recent: lists of the same run, by `key_of`, with which lists are compared.
        with_texts: whether long texts are parts, too.
        given: the elements of the lists for which LIST stands in the text.
    """
    if (len(text) < LEAST and not given) or text[0] != "{" or not (given or _may_be_cut(text)):
        return None
    try:
        pieces = _pieces(text, recent, with_texts, iter(given))
    except (ValueError, IndexError, StopIteration, RecursionError):  # no JSON, or nested too deep
        return None
    if len(pieces) == 1:
        return None
    kept = _STRING.sub('""', "null".join([piece for piece in pieces if type(piece) is str]))
    if kept.count("{") + kept.count("[") > MOST_NESTED or len(kept.split()) > 1:
        return None
    return pieces


def _may_be_cut(text: str) -> bool:
    """Return False of a text without a long list, a long text and a reference (a tenth of the time of `_pieces`).

    A list ends at the last bracket that closes one, at the latest. A long text has a whole window without a quote.
    """
    closing = text.rfind("]")
    if closing >= LEAST and text.find(":[", 0, closing - LEAST + 2) >= 0:
        return True
    if REFERENCE in text or ("\\" in text and '\\"' in text):
        return True
    for at in range(0, len(text), _WINDOW):
        if text.find('"', at, at + _WINDOW) < 0 and text.find('"', at) - text.rfind('"', 0, at) > LEAST - 2:
            return True
    return False


def _pieces(
    text: str, recent: Mapping[str, Recent], with_texts: bool, given: Iterator[Sequence[str]]
) -> list[str | Part]:
    pieces: list[str | Part] = []
    keys: set[str] = set()
    copied, at = 0, 1
    while True:
        key = _KEY.match(text, at)
        if key is None or key[1] in keys:
            return [text]
        keys.add(key[1])
        start = key.end()
        texts: list[str] = []
        known = 0
        part: str | Part | None
        if text[start] == "[":
            before = recent.get(key_of(key[1], text, start)) if recent else None
            known = 0 if before is None else before.common(text, start)
            texts, end = _elements(text, start, 0 if before is None or not known else before.ends[known - 1])
        else:
            end = _scan(text, start)[1]
        length, number = end - start, known + len(texts)
        if text.startswith(LIST_TEXT, start):
            part = _given(key[1], start, next(given))
        elif number and length >= LEAST and length >= LEAST_ELEMENT * number:
            part = Part(key[1], start, texts, known)
        elif (text[start] == '"' and length >= LEAST and with_texts) or text.startswith(REFERENCE, start):
            part = Part(key[1], start, [text[start:end]])
        else:
            part = None
        if part is not None:
            pieces += (text[copied:start], part)
            copied = end
        if text[end] == "}":
            pieces.append(text[copied:])
            return pieces if end + 1 == len(text) else [text]
        at = end + 1


def _given(member: str, start: int, texts: Sequence[str]) -> str | Part:
    """Return the part of a list whose elements were given; its text if it is too short."""
    length = sum(map(len, texts))
    if length >= LEAST and length >= LEAST_ELEMENT * len(texts):
        return Part(member, start, texts, is_given=True)
    return joined(["", ""], [texts])


def _elements(text: str, start: int, skip: int) -> tuple[list[str], int]:
    """Return the texts of a list's elements, and where the list ends; no texts where it is a list of numbers.

    Args:
        skip: the length of the elements at the start that are known; 0 if none is.
    """
    at = start + (skip or 1)
    texts: list[str] = []
    if skip and text[at] == "]":
        return texts, at + 1
    if skip:
        at += 1
    elif text[at] not in _CUT:
        return texts, _scan(text, start)[1]
    while True:
        end = _scan(text, at)[1]
        texts.append(text[at:end])
        if text[end] == "]":
            return texts, end + 1
        at = end + 1
