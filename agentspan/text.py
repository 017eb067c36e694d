"""Text for people: on one line, without control characters, cut between visible characters. Does not escape HTML."""

import re
import unicodedata

_JOINER = "\u200d"
# Code points that belong to the character before them, besides marks (accents, vowel signs): joiner, skin tones, tags.
_CLINGING = frozenset(map(chr, (0x200D, *range(0x1F3FB, 0x1F400), *range(0xE0020, 0xE0080))))
_BIDI = frozenset("\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")
_REPLACEMENT = "\ufffd"
_BREAKS = "\n\r\v\f\x1c\x1d\x1e\x85\u2028\u2029"
# The two rules of `visible`. viewer/static/visible.js has the same rules; a test compares both for each code point.
_UNSEEN = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\xad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b-\u200f\u2028-\u202e"
    "\u2060-\u206f\u3164\ufe00-\ufe0f\ufeff\uffa0\ufff0-\ufffb\ud800-\udfff"
    "\U0001bca0-\U0001bca3\U0001d173-\U0001d17a\U000e0000-\U000e0fff]"
)
_EMOJI = (
    "[\xa9\xae\u203c\u2049\u2122\u2139\u2194-\u21aa\u231a-\u23ff\u24c2\u25aa-\u25fe\u2600-\u27bf\u2934\u2935\u2b05-\u2b55"
    "\u3030\u303d\u3297\u3299\U0001f000-\U0001faff][\ufe0e\ufe0f\U0001f3fb-\U0001f3ff]?"
)
# Where characters of `_UNSEEN` are visible: in emoji, three flags and keycaps, and between letters of cursive scripts.
_SEEN = (
    f"{_EMOJI}(?:\u200d{_EMOJI})*"
    "|(?<=\U0001f3f4)\U000e0067\U000e0062(?:\U000e0065\U000e006e\U000e0067|\U000e0073\U000e0063\U000e0074|\U000e0077\U000e006c\U000e0073)\U000e007f"
    "|(?<=[#*0-9])\ufe0f(?=\u20e3)"
    "|(?<=[\u0620-\u0dff])[\u200c\u200d](?=[\u0620-\u0dff])"
)
_SEEN_OR_UNSEEN = re.compile(f"{_SEEN}|({_UNSEEN.pattern})")


def one_line(text: str, limit: int) -> str:
    """Collapse white space, replace characters that cannot be printed, and cut to `limit` characters with `…`."""
    head = text[: limit + 2]  # strip() may remove one space at each end
    if head.isprintable() and "  " not in head:
        # The common case, in a quarter of the time.
        line = head.strip()
        if len(line) > limit:
            return line[: limit - 1].rstrip() + "…" if line.isascii() else cut(line, limit)
        if len(text) <= limit + 2:
            return line
    head = cut(text, 4 * limit)  # text that is cut off need not be cleaned
    return cut(" ".join(printable(head.replace("\t", " "), keep=_BREAKS).split()), limit)


def printable(text: str, *, keep: str = "") -> str:
    """Replace control characters, lone surrogates and direction overrides by U+FFFD.

    Otherwise a payload could send commands to a terminal, or be shown in a wrong order.

    Args:
        text: any text.
        keep: characters that stay, such as line breaks.
    """
    if text.isprintable():
        return text
    return "".join(c if c in keep or _is_shown(c) else _REPLACEMENT for c in text)


def visible(text: str) -> str:
    r"""Spell out each character that would hide, reorder or corrupt text on a screen, as `\u202e` or `\u{e0041}`.

    Such characters are control characters except tab and line feed, direction overrides, characters without a width,
    tags, variation selectors, and halves of surrogate pairs. Emoji, and joiners between cursive letters, stay.
    """
    if _UNSEEN.search(text) is None:
        return text
    return _SEEN_OR_UNSEEN.sub(_spelled, text.replace("\r\n", "\n"))


def _spelled(match: re.Match[str]) -> str:
    if match[1] is None:
        return match[0]
    code = ord(match[1])
    return f"\\u{code:04x}" if code < 0x10000 else f"\\u{{{code:x}}}"


def _is_shown(character: str) -> bool:
    return unicodedata.category(character) not in ("Cc", "Cs") and character not in _BIDI


def cut(text: str, limit: int) -> str:
    """Cut to at most `limit` code points, ending in `…`. Never cuts between a character and its accents or joiners."""
    if len(text) <= limit:
        return text
    end = limit - 1
    while end > 0 and (_clings(text[end]) or text[end - 1] == _JOINER):
        end -= 1
    return text[:end].rstrip() + "…"


def _clings(character: str) -> bool:
    return character in _CLINGING or unicodedata.category(character)[0] == "M"


def is_near(one: str, other: str) -> bool:
    """Return whether two different names differ only in case, or by one letter that is wrong, missing or swapped."""
    one, other, same = one.lower(), other.lower(), one == other
    if abs(len(one) - len(other)) > 1 or same or max(len(one), len(other)) < 3:  # `a` and `b` differ on purpose
        return False
    at = next(
        (index for index, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), min(len(one), len(other))
    )
    first, second = one[at:], other[at:]
    is_exchanged = first[:2] == second[1::-1] and first[2:] == second[2:]
    return first[1:] == second[1:] or first[1:] == second or first == second[1:] or is_exchanged
