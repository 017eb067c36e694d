"""Output on a terminal or pipe that is not UTF-8: its marks and lines in ASCII, other characters as `?`."""

import codecs
import io
import sys
import unicodedata

_ASCII = {
    "✓": "+", "✗": "x", "●": "*", "◌": ".", "○": "o", "■": "#",
    "│": "|", "├": "|", "└": "`", "─": "-", "▏": "|", "▕": "|", "█": "#", "▒": "=", "░": "-",
    "…": "...", "·": "-", "→": "->", "×": "x", "µ": "u", "“": '"', "”": '"', "‘": "'", "’": "'", "–": "-", "—": "-",
}  # fmt: skip
_NAME = "agentspan-ascii"


def _as_ascii(error: UnicodeError) -> tuple[str, int]:
    assert isinstance(error, UnicodeEncodeError)
    shown = []
    for character in error.object[error.start : error.end]:
        if character in _ASCII:
            shown.append(_ASCII[character])
        else:  # é is written as e where there is no é
            shown.append(unicodedata.normalize("NFKD", character).encode("ascii", "ignore").decode() or "?")
    return "".join(shown), error.end


codecs.register_error(_NAME, _as_ascii)


def adapt_output() -> None:
    """Let stdout and stderr write characters that their encoding does not have in another form, instead of raising."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper) and stream.errors in ("strict", "surrogateescape"):
            stream.reconfigure(errors=_NAME)
