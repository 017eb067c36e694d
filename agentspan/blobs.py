"""Finds images, audio and other bytes that are base64 in texts, and names their types. Pure functions.

Clients of model providers send bytes in this form. A blob is a long text in quotes that is base64 as a whole, or a
data URL. A text that encoding would write differently (spaces, missing or wrong padding) is no blob, so that the bytes,
encoded again, give the same text.
"""

import heapq
import re
from base64 import b64encode, urlsafe_b64encode
from binascii import Error, a2b_base64
from collections.abc import Callable, Iterator
from typing import NamedTuple

from agentspan.text import lazy_pattern, size_text

LEAST = 1024
"""The fewest characters of base64 that count as a blob."""
ANY_TYPE = "application/octet-stream"
IMAGES = frozenset({"image/png", "image/jpeg", "image/gif", "image/webp"})
"""Types of images that a browser may show, because they cannot hold a script."""
AUDIO = frozenset({"audio/wav", "audio/mpeg", "audio/ogg", "audio/flac", "audio/mp4", "audio/webm"})
"""Types of sound that a browser may play."""

_STEP = LEAST // 2  # LEAST characters of base64 contain a window of this length at a multiple of it
_ALPHABET = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/-_"
_ALPHABETS = (_ALPHABET[:-2].encode(), (_ALPHABET[:-4] + "-_").encode())
_WINDOW = lazy_pattern(rf"[A-Za-z0-9+/_-]{{{_STEP}}}")
_TO_WINDOW = lazy_pattern(rf"(?s:.{{{_STEP}}})*?(?={_WINDOW.pattern})")
_RUN = lazy_pattern(r"[A-Za-z0-9+/_-]*={0,2}")
_URL = lazy_pattern(r"data:([A-Za-z0-9.+-]{1,60}/[A-Za-z0-9.+-]{1,60})(?:;[A-Za-z0-9.=+_-]*)*;base64,\Z")
_SHORT_IMAGE = lazy_pattern(
    rf"data:image/[a-z]{{3,4}};base64,([A-Za-z0-9+/_-]{{16,{LEAST - 1}}}={{0,2}}(?![A-Za-z0-9+/=_-]))"
)
_NEAR = 200
"""How many characters before and after a blob are searched for a JSON member that names its type."""
_TYPE = lazy_pattern(
    r'"(?:media_?type|mime_?type|content_?type)\\?":\s?\\?"([a-z0-9.+-]{1,60}/[a-z0-9.+-]{1,60})', re.IGNORECASE
)
_FORMAT = lazy_pattern(r'"format\\?":\s?\\?"([a-z0-9]{2,5})\\?"')
_FORMATS = {"wav": "audio/wav", "mp3": "audio/mpeg", "ogg": "audio/ogg", "flac": "audio/flac"}
_LOOKS = (lazy_pattern("[A-Z]"), lazy_pattern("[a-z]"), lazy_pattern("[0-9]"))
_OTHER_NAMES = {
    "image/jpg": "image/jpeg",
    "audio/mp3": "audio/mpeg",
    "audio/x-wav": "audio/wav",
    "audio/wave": "audio/wav",
    "audio/m4a": "audio/mp4",
    "audio/x-m4a": "audio/mp4",
}
_MAGIC = (
    (b"\x89PNG\r\n\x1a\n", "image/png"),
    (b"\xff\xd8\xff", "image/jpeg"),
    (b"GIF8", "image/gif"),
    (b"%PDF-", "application/pdf"),
    (b"OggS", "audio/ogg"),
    (b"fLaC", "audio/flac"),
    (b"ID3", "audio/mpeg"),
)
"""The bytes that files of a type begin with, and the type."""
_RIFF = {b"WEBP": "image/webp", b"WAVE": "audio/wav"}
_ENDINGS = {
    "image/png": "png",
    "image/jpeg": "jpg",
    "image/gif": "gif",
    "image/webp": "webp",
    "image/svg+xml": "svg",
    "audio/wav": "wav",
    "audio/mpeg": "mp3",
    "audio/ogg": "ogg",
    "audio/flac": "flac",
    "audio/mp4": "m4a",
    "audio/webm": "webm",
    "application/pdf": "pdf",
}


class Blob(NamedTuple):
    """The place of base64 in a text.

    Attributes:
        start, end: where the base64 begins and ends in the text, without the prefix of a data URL.
        media_type: the type that the text beside the blob names, else the one that its first bytes show, else
            `application/octet-stream`. In lower case, of letters, digits and `.+-/`.
        is_for_urls: True if the base64 has `-_` in the place of `+/`.
        data: the decoded bytes.
    """

    start: int
    end: int
    media_type: str
    is_for_urls: bool
    data: bytes

    @property
    def description(self) -> str:
        """The type and the size for people: `image/png, 3.0 MB`."""
        return f"{self.media_type}, {size_text(len(self.data))}"


def blobs_in(text: str) -> Iterator[Blob]:
    """Yield the blobs in a text, or in JSON text, in order. A character outside blobs costs 0.1 ns."""
    at, done, quote = 0, 0, -1
    if len(text) < LEAST:
        return
    while (window := _TO_WINDOW.match(text, at)) is not None:
        at = window.end()
        start = at - _STEP if at - _STEP > done else done
        start += len(text[start:at].rstrip(_ALPHABET))
        blob, end = None, -1
        if at > quote:  # up to `quote`, an earlier round found no blob
            quote = text.find('"', at) % (len(text) + 1)  # -1, for no quote, becomes the end of the text
            end = quote - (text[quote - 1] == "\\")
            blob = _blob(text, start, end)  # the quote gives the end: a regular expression takes 8 ns a character
        if blob is None:
            end = _RUN.match(text, at).end()  # type: ignore[union-attr]
            blob = _blob(text, start, end)
        if blob is not None:
            yield blob
        done = end
        at = -(-end // _STEP) * _STEP


def pictures_in(text: str) -> Iterator[Blob]:
    """Yield the blobs in a text, and images in data URLs that are too short for a blob, in order."""
    if "data:image/" not in text:
        return blobs_in(text)
    short = (_blob(text, *found.span(1), least=1) for found in _SHORT_IMAGE.finditer(text))
    images = (blob for blob in short if blob is not None and _type_of(blob.data[:12]) in IMAGES)
    return heapq.merge(blobs_in(text), images, key=lambda blob: blob.start)


def has_blobs(text: str) -> bool:
    """Return whether a text, or JSON text, contains a blob."""
    return next(blobs_in(text), None) is not None


def begins_like_blob(text: str) -> bool:
    """Return whether a text may be a blob, judged by its length and its beginning (1 µs for any length)."""
    start = text.find(",", 0, _NEAR) + 1
    length = len(text) - start
    if length < LEAST or length % 4 or _WINDOW.match(text, start) is None:
        return False
    if start:
        return _URL.match(text, 0, start) is not None
    return _type_by_start(text, 0) is not None or _looks_like_base64(text, 0)


def is_blob(text: str) -> bool:
    """Return whether all of a text is a blob, or a data URL of one (3 ns for a character of a blob)."""
    if not begins_like_blob(text):
        return False
    return _is_base64(text[text.find(",", 0, _NEAR) + 1 :]) and _is_exact(text[-4:])


def is_image_or_audio(data: bytes) -> bool:
    """Return whether bytes begin like an image or audio."""
    return (_type_of(data[:12]) or "").startswith(("image/", "audio/"))


def encoded(data: bytes, *, is_for_urls: bool = False) -> str:
    """Return bytes as base64."""
    return (urlsafe_b64encode(data) if is_for_urls else b64encode(data)).decode()


def described(text: str) -> str:
    """Return a text in which each blob is replaced by its type and size: `[image/png, 3.0 MB]`."""
    return replaced(text, lambda blob: f"[{blob.description}]")


def replaced(text: str, of: Callable[[Blob], str], *, found_in: Callable[[str], Iterator[Blob]] = blobs_in) -> str:
    """Return a text in which `of(blob)` replaces each blob; the same object if the text has no blob.

    Args:
        found_in: finds what is replaced: `blobs_in` or `pictures_in`.
    """
    pieces: list[str] = []
    copied = 0
    for blob in found_in(text):
        pieces += (text[copied : blob.start], of(blob))
        copied = blob.end
    return "".join((*pieces, text[copied:])) if pieces else text


def ending_of(media_type: str) -> str:
    """Return the file name extension of a media type, without the dot; `bin` for an unknown type."""
    return _ENDINGS.get(media_type, "bin")


def _blob(text: str, start: int, end: int, *, least: int = LEAST) -> Blob | None:
    length = end - start
    if length < least or length % 4 or not _is_quoted(text, start, end):
        return None
    media_type = _declared_type(text, start, end) or _type_by_start(text, start)
    if media_type is None and not _looks_like_base64(text, start):
        return None
    is_for_urls = text.find("-", start, end) >= 0 or text.find("_", start, end) >= 0
    base64 = text[start:end]
    try:
        data = a2b_base64(base64.replace("-", "+").replace("_", "/") if is_for_urls else base64, strict_mode=True)
    except Error:
        return None
    if encoded(data, is_for_urls=is_for_urls) != base64:
        return None
    return Blob(start, end, media_type or ANY_TYPE, is_for_urls, data)


def _is_base64(text: str) -> bool:
    """Return whether all characters are base64 (2 ns a character; a regular expression takes 8)."""
    if not text.isascii():
        return False
    data = text.encode()
    padding = len(data) - len(data.rstrip(b"="))
    return padding <= 2 and any(data.translate(None, alphabet) == b"=" * padding for alphabet in _ALPHABETS)


def _is_exact(quantum: str) -> bool:
    """Return whether the last four characters of base64 stay the same if they are decoded and encoded again."""
    standard = quantum.replace("-", "+").replace("_", "/")
    return encoded(a2b_base64(standard)) == standard


def _looks_like_base64(text: str, start: int) -> bool:
    """Return whether base64 begins with upper case, lower case and digits, unlike `xxxx…` and hexadecimal text."""
    head = text[start : start + _STEP]
    return all(look.search(head) for look in _LOOKS)


def _is_quoted(text: str, start: int, end: int) -> bool:
    """Return whether base64 stands alone in quotes (escaped ones within JSON text, too), or ends a data URL."""
    begins = not start or text[start - 1] == '"' or text.endswith(";base64,", 0, start)
    return begins and (end == len(text) or text[end] == '"' or text.startswith(('\\"', ")"), end))


def _declared_type(text: str, start: int, end: int) -> str | None:
    before = text[max(start - _NEAR, 0) : start]
    found = _URL.search(before)
    if found is None:
        before = before[before.rfind("{") + 1 :]
        after = text[end : end + _NEAR].partition("}")[0]
        found = _TYPE.search(before) or _TYPE.search(after)
        if found is None:
            format = _FORMAT.search(before) or _FORMAT.search(after)
            return None if format is None else _FORMATS.get(format[1])
    declared = found[1].lower()
    return _OTHER_NAMES.get(declared, declared)


def _type_by_start(text: str, start: int) -> str | None:
    return _type_of(a2b_base64(text[start : start + 16].replace("-", "+").replace("_", "/")))


def _type_of(head: bytes) -> str | None:
    """Return the media type of data by its first twelve bytes; None for an unknown type."""
    for begin, media_type in _MAGIC:
        if head.startswith(begin):
            return media_type
    return _RIFF.get(head[8:]) if head.startswith(b"RIFF") else None
