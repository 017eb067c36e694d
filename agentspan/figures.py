"""Figures as text for people: durations, US dollars, counts, sizes, shares.

The viewer's `format.js` writes the same text for the same number, and a test compares both. Both round by `floor`,
because Python's `format` rounds ties to the even digit, and JavaScript's `toFixed` rounds them up. A number that lies
less than a millionth of the last digit below a tie is rounded up, too: sums of the same costs in another order differ
by less.
"""

from math import ceil, floor

_HALF = 0.500001
_UNITS = ((999_950, 1_000_000, "M"), (1000, 1000, "k"))
"""The least number, the size and the letter of each unit of counts. With `k`, 999,950 would become `1,000.0k`."""


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
    """Format a share as a percentage: `25%`, `2.5%`, `<0.1%`. Only zero is empty text, only the whole is `100%`."""
    share = part / whole if whole else 0.0
    if share <= 0:
        return ""
    if share >= 1:
        return "100%"
    if share < 0.001:
        return "<0.1%"
    return f"{_decimals(100 * share, 1)}%" if _rounded(1000 * share) < 100 else f"{min(99, _rounded(100 * share))}%"


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
