"""Figures as text for people: durations, US dollars, counts, shares.

The viewer's `format.js` writes the same text for the same number, and a test compares both. So numbers are rounded by
`floor(x + 0.5)`: `format` rounds ties to the even digit, and JavaScript's `toFixed` rounds them up.
"""

from math import floor

_UNITS = ((999_950, 1_000_000, "M"), (1000, 1000, "k"))
"""From which number on, the size of the unit, and its letter: 999,950 would be `1,000.0k`."""


def duration_text(duration_ms: float) -> str:
    """Format milliseconds for people: `6 µs`, `1.4 ms`, `312 ms`, `2.1 s`, `3m 07s`, `1h 02m`. Zero is `0 ms`."""
    if duration_ms <= 0:
        return f"-{duration_text(-duration_ms)}" if duration_ms else "0 ms"
    if duration_ms < 0.9995:
        return f"{max(1, _rounded(duration_ms * 1000))} µs"
    if duration_ms < 9.95:
        return f"{_decimals(duration_ms, 1)} ms"
    if duration_ms < 999.5:
        return f"{_rounded(duration_ms)} ms"
    seconds = duration_ms / 1000
    if seconds < 59.95:
        return f"{_decimals(seconds, 1)} s"
    minutes, rest = divmod(_rounded(seconds), 60)
    if minutes < 60:
        return f"{minutes}m {rest:02d}s"
    return f"{minutes // 60}h {minutes % 60:02d}m"


def cost_text(usd: float) -> str:
    """Format US dollars, the smaller the more digits: `$2,059`, `$12.30`, `$0.0123`, `$0.000016`. Zero is `$0`."""
    if usd <= 0:
        return f"-{cost_text(-usd)}" if usd else "$0"
    if usd < 0.000_000_5:
        return "<$0.000001"
    if usd < 0.01:
        text = _decimals(usd, 6)
        return f"${text[:-2]}{text[-2:].rstrip('0')}"
    return f"${_decimals(usd, 4 if usd < 9.999_95 else 2 if usd < 999.995 else 0)}"


def count_text(number: int) -> str:
    """Format a count in few characters: 950, 8.1k, 1.2M."""
    for least, size, unit in _UNITS:
        if number >= least:
            return f"{_decimals(number / size, 1)}{unit}"
    return str(number)


def share_text(part: float, whole: float) -> str:
    """Format a share as a percentage: `25%`, `2.5%`, `<0.1%`. Only nothing is empty, and only all is `100%`."""
    share = part / whole if whole else 0.0
    if share <= 0:
        return ""
    if share >= 1:
        return "100%"
    if share < 0.001:
        return "<0.1%"
    return f"{_decimals(100 * share, 1)}%" if share < 0.0995 else f"{min(99, _rounded(100 * share))}%"


def _rounded(number: float) -> int:
    return floor(number + 0.5)


def _decimals(number: float, digits: int) -> str:
    """Round a positive number to so many digits after the point."""
    scaled = _rounded(number * 10**digits)
    if digits == 0:
        return f"{scaled:,}"
    whole, rest = divmod(scaled, 10**digits)
    return f"{whole:,}.{rest:0{digits}d}"
