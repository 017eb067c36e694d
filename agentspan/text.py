"""Text for people: on one line, without control characters, cut between visible characters. Does not escape HTML."""

import unicodedata

_JOINER = "\u200d"
# Code points that belong to the character before them, besides marks (accents, vowel signs): joiner, skin tones, tags.
_CLINGING = frozenset(map(chr, (0x200D, *range(0x1F3FB, 0x1F400), *range(0xE0020, 0xE0080))))
_BIDI = frozenset("\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")
_REPLACEMENT = "\ufffd"
_BREAKS = "\n\r\v\f\x1c\x1d\x1e\x85\u2028\u2029"


def one_line(text: str, limit: int) -> str:
    """Collapse white space, replace characters that cannot be printed, and cut to `limit` characters with `…`."""
    head = text[: limit + 2]  # one space may be taken from each end
    if head.isprintable() and "  " not in head:
        # The common case, in a quarter of the time.
        line = head.strip()
        if len(line) > limit:
            return line[: limit - 1].rstrip() + "…" if line.isascii() else cut(line, limit)
        if len(text) <= limit + 2:
            return line
    head = cut(text, 4 * limit)  # what is cut anyway need not be cleaned first
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
