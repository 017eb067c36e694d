"""Text for people: on one line, without control characters, cut between visible characters. Does not escape HTML.

And numbers as such text: durations, US dollars, counts, sizes, shares. The viewer's `format.js` writes the same text
for the same number, and a test compares both. Both round by `floor`, because Python's `format` rounds ties to the even
digit, and JavaScript's `toFixed` rounds them up. A number that lies less than a millionth of the last digit below a tie
is rounded up, too: sums of the same costs in another order differ by less.
"""

import re
import unicodedata
from collections.abc import Iterable
from math import ceil, floor, log10
from typing import Any, cast


class _Pattern:
    """A regular expression that is compiled at its first use (see `lazy_pattern`)."""

    def __init__(self, text: str, flags: int) -> None:
        self.pattern = text
        self.flags = flags

    def __getattr__(self, name: str) -> Any:
        """Return a method of the compiled pattern, and keep it: later uses find it here."""
        found = getattr(re.compile(self.pattern, self.flags), name)
        setattr(self, name, found)
        return found


def lazy_pattern(text: str, flags: int = 0) -> re.Pattern[str]:
    """Return a regular expression that is compiled at its first use.

    For patterns that few programs need. To compile them took an eighth of the import of a program with one call.
    """
    return cast(re.Pattern[str], _Pattern(text, flags))


_JOINER = "\u200d"
# Code points that belong to the character before them, besides marks (accents, vowel signs): joiner, skin tones, tags.
_CLINGING = frozenset(map(chr, (0x200D, *range(0x1F3FB, 0x1F400), *range(0xE0020, 0xE0080))))
_BIDI = "\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069"
_NO_TEXT = f"\ud800-\udfff\ufffe\uffff{_BIDI}"  # XML has no U+FFFE and U+FFFF
_REPLACEMENT = "\ufffd"
_HIDDEN = lazy_pattern(f"[\x00-\x1f\x7f-\x9f{_NO_TEXT}]")
_HIDDEN_BUT_BREAKS = lazy_pattern(f"[\x00-\x08\x0e-\x1b\x1f\x7f-\x84\x86-\x9f{_NO_TEXT}]")
# The two rules of `visible`. viewer/static/visible.js has the same rules; a test compares both for each code point.
_UNSEEN = lazy_pattern(
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
_SEEN_OR_UNSEEN = lazy_pattern(f"{_SEEN}|({_UNSEEN.pattern})")


_FORMULA = lazy_pattern(r"(?!-?[0-9.]+(?:[eE][+-]?[0-9]+)?\Z)'*[=+\-@\t\r\n\uff1d\uff0b\uff0d\uff20]")


def no_formula(cell: Any) -> Any:
    """Return the value of a cell of a CSV file, where a text that a spreadsheet would run as a formula begins with `'`.

    A text of `'` before such a begin gets one more, so that `from_cell` returns the text.
    """
    return f"'{cell}" if isinstance(cell, str) and _FORMULA.match(cell) else cell


def from_cell(cell: str) -> str:
    """Return the text that `no_formula` has written as a cell."""
    return cell[1:] if cell.startswith("'") and _FORMULA.match(cell) else cell


def one_line(text: str, limit: int) -> str:
    """Collapse white space, replace characters that cannot be printed, and cut to `limit` characters with `…`."""
    head = text[: limit + 2]  # strip() may remove one space at each end
    if head.isprintable() and "  " not in head:
        # The common case, in a quarter of the time.
        line = head.strip()
        if len(line) > limit:
            return _cut_line(line, limit)
        if len(text) <= limit + 2:
            return line
    head = text[: 2 * limit]
    line = " ".join(head.split())
    if (len(line) > limit or len(head) == len(text)) and line.isprintable() and "\x1f" not in head:
        # Several lines of text: nothing but white space is replaced, in a third of the time.
        return _cut_line(line, limit)
    head = cut(text, 4 * limit)  # text that is cut off need not be cleaned
    return cut(" ".join(_HIDDEN_BUT_BREAKS.sub(_REPLACEMENT, head).split()), limit)


def _cut_line(line: str, limit: int) -> str:
    if len(line) > limit and line.isascii():
        return line[: limit - 1].rstrip() + "…"
    return cut(line, limit)


def printable(text: str, *, keep: str = "") -> str:
    """Replace control characters, lone surrogates and direction overrides by U+FFFD.

    Otherwise a payload could send commands to a terminal, or be shown in a wrong order.

    Args:
        text: any text.
        keep: characters that stay, such as line breaks.
    """
    if text.isprintable():
        return text
    return _HIDDEN.sub(lambda found: found[0] if found[0] in keep else _REPLACEMENT, text)


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


_HALF = 0.500001
_UNITS = ((999_950, 1_000_000, "M"), (1000, 1000, "k"))
"""The least number, the size and the letter of each unit of counts. With `k`, 999,950 would become `1,000.0k`."""


def noun(number: int, word: str, many: str | None = None) -> str:
    """Return a number with its noun in singular or plural: `1 run`, `1,200 runs`."""
    return f"{number:,} {word if number == 1 else many or word + 's'}"


def dotted(*texts: str) -> str:
    """Join texts by ` · `; empty ones are left out."""
    return " · ".join(filter(None, texts))


_WORKTREE = re.compile(r"(.+?)(?:/\.(?:claude/)?|-)worktrees/[^/]+(?:/.*)?", re.DOTALL)


def repository_of(folder: str) -> str:
    """Return the folder of the repository of a worktree: of `shop/.worktrees/1`, `shop/.claude/worktrees/1` and
    `shop-worktrees/1`, that is `shop`. Other folders are returned unchanged.
    """
    found = _WORKTREE.fullmatch(folder)
    return folder if found is None else found[1]


def amounts(tokens: int | None, cost_usd: float | None, duration_ms: float | None = None) -> list[str]:
    """Return tokens, cost and duration as texts, as far as they are known: `8.1k tok`, `$0.0123`, `2.1 s`."""
    return [
        *([f"{count_text(tokens)} tok"] if tokens is not None else []),
        *([cost_text(cost_usd)] if cost_usd is not None else []),
        *([duration_text(duration_ms)] if duration_ms is not None else []),
    ]


def duration_text(duration_ms: float) -> str:
    """Format milliseconds for people: `6 µs`, `1.4 ms`, `312 ms`, `2.1 s`, `3m 07s`, `1h 02m`. Zero is `0 ms`."""
    if duration_ms <= 0:
        return f"-{duration_text(-duration_ms)}" if duration_ms else "0 ms"
    if (micros := _rounded(duration_ms * 1000)) < 1000:
        return f"{max(1, micros)} µs"
    if _rounded(duration_ms * 10) < 100:
        return f"{_decimals(duration_ms, 1)} ms"
    if (millis := _rounded(duration_ms)) < 1000:
        return f"{millis} ms"
    seconds = duration_ms / 1000
    if _rounded(seconds * 10) < 600:
        return f"{_decimals(seconds, 1)} s"
    minutes, rest = divmod(_rounded(seconds), 60)
    if minutes < 60:
        return f"{minutes}m {rest:02d}s"
    return f"{minutes // 60}h {minutes % 60:02d}m"


def cost_text(usd: float) -> str:
    """Format US dollars, the smaller the more digits: `$2,059`, `$12.30`, `$0.0123`, `$0.000016`. Zero is `$0`."""
    if usd <= 0:
        return f"-{cost_text(-usd)}" if usd else "$0"
    if _rounded(usd * 1_000_000) < 1:
        return "<$0.000001"
    if usd < 0.01:
        text = _decimals(usd, 6)
        return f"${text[:-2]}{text[-2:].rstrip('0')}"
    digits = 4 if _rounded(usd * 10_000) < 100_000 else 2 if _rounded(usd * 100) < 100_000 else 0
    return f"${_decimals(usd, digits)}"


def cost_texts(column: Iterable[float | None]) -> list[str]:
    """Format a column of US dollars with one number of decimals; `""` for None.

    The greatest has the decimals of `cost_text`, or more, so that the smallest shows two digits of its own: up to
    six digits in all. What is smaller than these is said to be less: `<$0.0001` beside `$58.6500`.
    """
    costs = list(column)
    known = [abs(usd) for usd in costs if usd] or [0.01]
    digits = max(4 if max(known) < 10 else 2, 1 - floor(log10(min(known))))
    digits = min(digits, max(2, 6 - len(str(int(max(known))))))
    return [_cost_text(usd, digits) for usd in costs]


def _cost_text(usd: float | None, digits: int) -> str:
    if usd is None or usd < 0:
        return "" if usd is None else f"-{_cost_text(-usd, digits)}"
    is_less = usd and not _rounded(usd * 10**digits)
    return f"<${10**-digits:.{digits}f}" if is_less else f"${_decimals(usd, digits)}"


def count_text(number: int) -> str:
    """Format a count in few characters: 950, 8.1k, 1.2M."""
    for least, size, unit in _UNITS:
        if number >= least:
            return f"{_decimals(number / size, 1)}{unit}"
    return str(number)


def size_text(size_bytes: int) -> str:
    """Format a number of bytes, with units of 1,000: `950 bytes`, `9.4 MB`, `2.1 GB`."""
    for least, unit, name in ((999_950_000, 1e9, "GB"), (999_950, 1e6, "MB"), (1000, 1000, "kB")):
        if size_bytes >= least:
            return f"{_decimals(size_bytes / unit, 1)} {name}"
    return "1 byte" if size_bytes == 1 else f"{size_bytes} bytes"


def share_text(part: float, whole: float) -> str:
    """Format a share as a percentage: `25%`, `2.5%`, `<0.1%`, `99.9%`. Only zero is no text, only the whole `100%`."""
    share = part / whole if whole else 0.0
    if share <= 0:
        return ""
    if share >= 1:
        return "100%"
    if share < 0.001:
        return "<0.1%"
    if _rounded(1000 * share) < 100 or _rounded(100 * share) == 100:  # neither 0% nor 100%, but near it
        return f"{_decimals(min(99.9, 100 * share), 1)}%"
    return f"{_rounded(100 * share)}%"


def points(drop: float) -> int:
    """Return the drop of a share in whole percentage points, rounded up: 7 for 0.07."""
    return ceil(100 * drop - 1e-9)  # 0.07 * 100 is a little more than 7


def p_text(p: float) -> str:
    """Format a p-value or q-value: `0.012`. A value below 0.001 is `<0.001`, since it is never 0."""
    return "<0.001" if p < 0.001 else f"{p:.3f}"


def _rounded(number: float) -> int:
    return floor(number + _HALF)


def _decimals(number: float, digits: int) -> str:
    """Round a positive number to `digits` digits after the point, and format it with commas for thousands."""
    scaled = _rounded(number * 10**digits)
    if digits == 0:
        return f"{scaled:,}"
    whole, rest = divmod(scaled, 10**digits)
    return f"{whole:,}.{rest:0{digits}d}"
