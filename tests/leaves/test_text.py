"""Text for people: one line, nothing that a terminal obeys, and cuts where a reader sees a boundary."""

import unicodedata
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from agentspan.text import cut, is_near, one_line, printable, visible
from tests.strategies import any_text

REPLACED = "\ufffd"
FAMILY = "👩\u200d👩\u200d👧"
WAVE = "👋\U0001f3fd"
ACCENT = "e\u0301"
KEYCAP = "1\ufe0f\u20e3"
HINDI = "\u0915\u094d\u0937\u093f"
SCOTLAND = "\U0001f3f4" + "".join(chr(0xE0000 + ord(c)) for c in "gbsct") + "\U000e007f"
CLUSTERS = [FAMILY, WAVE, ACCENT, KEYCAP, HINDI, SCOTLAND, "x", " ", "é"]

limits = st.integers(1, 60)
clustered = st.lists(st.sampled_from(CLUSTERS), max_size=30).map("".join)


def is_cut_at_a_boundary(text: str, result: str) -> bool:
    """Whether what was kept of the text ends where no mark, joiner, skin tone or tag follows, and with no joiner."""
    kept = result.removesuffix("…")
    rest = text[len(kept) :]
    if not kept or rest[:1] == " ":
        return True
    clings = unicodedata.category(rest[0])[0] == "M" or rest[0] == "\u200d"
    clings = clings or 0x1F3FB <= ord(rest[0]) <= 0x1F3FF or 0xE0020 <= ord(rest[0]) <= 0xE007F
    return not clings and kept[-1] != "\u200d"


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("", ""),
        ("plain", "plain"),
        ("two\nlines", "two lines"),
        ("dos\r\nlines", "dos lines"),
        ("a\n\n\n  b", "a b"),
        ("a\tb", "a b"),
        ("a  b", "a b"),
        ("a\u2028b\u2029c\x85d\x0be\x0cf", "a b c d e f"),
        ("  edges \n", "edges"),
        ("no\u00a0break", "no break"),
        ("12345678901234567890", "12345678901234567890"),
        ("123456789012345678901", "1234567890123456789…"),
        ("123456789012345678 more", "123456789012345678…"),
        (" \n\t ", ""),
    ],
)
def test_a_line_of_at_most_20_characters(text: str, shown: str) -> None:
    assert one_line(text, 20) == shown


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("\x1b[31mred\x1b[0m", f"{REPLACED}[31mred{REPLACED}[0m"),
        ("\x1b]0;title\x07", f"{REPLACED}]0;title{REPLACED}"),
        ("a\x00b\x7fc\x9bd", f"a{REPLACED}b{REPLACED}c{REPLACED}d"),
        ("back\x08space", f"back{REPLACED}space"),
        ("lone\ud800\udfff", f"lone{REPLACED}{REPLACED}"),
        ("no\ufffeXML", f"no{REPLACED}XML"),
        ("evil\u202etxt.exe", f"evil{REPLACED}txt.exe"),
        ("iso\u2066late\u2069", f"iso{REPLACED}late{REPLACED}"),
        (f"{FAMILY} {WAVE}", f"{FAMILY} {WAVE}"),
        ("عربي", "عربي"),
    ],
)
def test_what_a_terminal_would_obey_is_replaced_by_a_visible_mark(text: str, shown: str) -> None:
    assert one_line(text, 40) == shown
    assert printable(text) == shown


def test_printable_leaves_the_line_breaks_that_it_is_told_to_keep() -> None:
    assert printable("a\nb\tc\x1b", keep="\n") == f"a\nb{REPLACED}c{REPLACED}"


@given(any_text)
def test_printable_replaces_character_by_character(text: str) -> None:
    shown = printable(text)
    assert len(shown) == len(text)
    assert all(new in (old, REPLACED) for old, new in zip(text, shown, strict=True))
    assert printable(shown) == shown


@given(any_text, limits)
@example("\ud800" * 300, 10)
@example("x" + "\u0301" * 1000, 10)
@example(" " * 1000 + "x", 10)
@example("e" * 9 + " " * 31 + "\u0301" * 5, 10)
def test_any_text_becomes_one_printable_line_within_the_limit(text: str, limit: int) -> None:
    line = one_line(text, limit)
    assert len(line) <= limit
    assert len(line.splitlines()) <= 1
    assert line == " ".join(line.split())
    assert not any(unicodedata.category(c) in ("Cc", "Cs", "Zl", "Zp") for c in line)
    assert not set(line) & set("\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")


@given(any_text | clustered, limits)
def test_one_line_of_one_line_is_the_same(text: str, limit: int) -> None:
    line = one_line(text, limit)
    assert one_line(line, limit) == line


@given(st.text(st.characters(categories=["L", "N", "P"]), max_size=60), limits)
def test_text_that_fits_is_left_alone_and_longer_text_is_marked(text: str, limit: int) -> None:
    line = one_line(text, limit)
    if len(text) <= limit:
        assert line == text
    else:
        assert line.endswith("…")
        assert text.startswith(line[:-1])


@given(clustered, limits)
def test_a_cut_is_at_most_the_limit_and_keeps_characters_whole(text: str, limit: int) -> None:
    result = cut(text, limit)
    assert len(result) <= limit
    if len(text) <= limit:
        assert result == text
    else:
        assert result.endswith("…")
        assert text.startswith(result[:-1])
        assert is_cut_at_a_boundary(text, result)


@pytest.mark.parametrize("cluster", [FAMILY, WAVE, ACCENT, KEYCAP, HINDI, SCOTLAND])
def test_no_limit_cuts_through_what_a_reader_sees_as_one_character(cluster: str) -> None:
    text = "ab" + cluster + "cd"
    for limit in range(1, len(text)):
        result = cut(text, limit)
        assert is_cut_at_a_boundary(text, result), ascii(result)
        # Nothing that would have fitted is lost.
        assert result == "…" or len(result) > limit - len(cluster)


def test_a_cut_leaves_no_space_before_its_mark() -> None:
    assert cut("one two three", 5) == "one…"


def test_text_that_is_all_marks_is_cut_to_the_mark_alone() -> None:
    assert cut("\u0301" * 100, 10) == "…"


def test_white_space_that_collapses_does_not_hide_that_text_was_cut() -> None:
    assert one_line("a" + "\n" * 1000 + "b", 10) == "a…"


def test_a_line_whose_rest_was_not_looked_at_is_cut_at_a_boundary_too() -> None:
    # Forty characters are looked at; here they collapse to ten, the last one an accent, and there is more.
    assert one_line("1234567".ljust(38) + ACCENT + "more", 10) == "1234567…"
    assert one_line("12345678".ljust(39) + ACCENT + "more", 10) == "12345678…"


def test_only_the_beginning_of_a_long_text_is_looked_at() -> None:
    class Watched(str):
        longest = 0

        def __getitem__(self, key: Any) -> str:
            part = super().__getitem__(key)
            Watched.longest = max(Watched.longest, len(part))
            return part

    assert one_line(Watched("word\n" * 1_000_000), 20) == "word word word word…"
    assert 0 < Watched.longest <= 80


SHY, TAG = "\u00ad", "\U000e0041"


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain\ttext\n", "plain\ttext\n"),
        ("dos\r\nlines\r", "dos\nlines\\u000d"),
        (f"a{SHY}b\u200bc\u2060d\u202ee\ufefff\u3164", "a\\u00adb\\u200bc\\u2060d\\u202ee\\ufefff\\u3164"),
        (f"{TAG}\U000e0042\U000e0100", "\\u{e0041}\\u{e0042}\\u{e0100}"),
        ("half \ud83d, \udc4b\ud83d", "half \\ud83d, \\udc4b\\ud83d"),
        (f"{FAMILY} {WAVE} {KEYCAP} {SCOTLAND} ❤\ufe0f", f"{FAMILY} {WAVE} {KEYCAP} {SCOTLAND} ❤\ufe0f"),
        (f"👋\ufe0f\ufe0f {SCOTLAND}{TAG} 👩\u200d", f"👋\ufe0f\\ufe0f {SCOTLAND}\\u{{e0041}} 👩\\u200d"),
        ("a\ufe0f a\u200cb 1\ufe0f", "a\\ufe0f a\\u200cb 1\\ufe0f"),
        ("می\u200cخواهم", "می\u200cخواهم"),
        ("\u0915\u094d\u200d\u0937 \u0915\u200d\u200d\u0937", "\u0915\u094d\u200d\u0937 \u0915\\u200d\\u200d\u0937"),
    ],
)
def test_what_cannot_be_seen_is_spelled_out(text: str, shown: str) -> None:
    assert visible(text) == shown


@given(any_text)
def test_what_is_visible_stays_as_it_is(text: str) -> None:
    shown = visible(text)
    assert visible(shown) == shown
    shown.encode()


@pytest.mark.parametrize(
    ("one", "other", "is_so"),
    [
        ("llm", "llms", True),
        ("lm", "llm", True),
        ("tol", "tool", True),
        ("LLM", "llm", True),
        ("modle", "model", True),
        ("mobel", "model", True),
        ("model", "model", False),
        ("chat", "chain", False),
        ("ab", "ba", False),
        ("abc", "cba", False),
        ("", "a", False),
        ("tool", "agent", False),
    ],
)
def test_names_that_differ_by_one_letter(one: str, other: str, is_so: bool) -> None:
    assert is_near(one, other) is is_so
    assert is_near(other, one) is is_so
