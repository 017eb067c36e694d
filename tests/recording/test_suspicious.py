"""The fast searches for credentials find all that one search for everything finds, in every alphabet and length."""

import json
import re
from collections.abc import Callable
from functools import cache

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agentspan.recording.capture.credentials import (
    AS_WORDS,
    BEYOND,
    BEYOND_ASCII,
    ESCAPED,
    IN_ASCII,
    KEY_GROUPS,
    KINDS,
    MAY_BE_KEY,
    NAMES,
    ODD,
    OTHERS,
    detects,
    of_group,
    search,
)
from agentspan.recording.capture.redaction import LONG, LONG_ONCE, Redaction, suspicious, suspicious_among
from tests.recording import test_redaction as known
from tests.tiers import every, examples

NAMED = (rf'(?i-u:{NAMES}|{AS_WORDS}|{IN_ASCII}|token|pass)"[,}}]', rf'(?i:{BEYOND_ASCII})"[,}}]')
ODD_NAME = rf'{ODD}[^"\\]*":'
ODDLY = (NAMED[1], ODD_NAME)
OF_BEYOND = [kind.detect for kind in BEYOND.values()]
PROSE = {
    "English": "The quick brown fox, and the key of the map: it jumps = it runs. ",
    "French": "L'été, la clé de l'activité a été créée : voilà le résumé. ",
    "German": "Der Schlüssel für die Tür heißt übrigens: größer. ",
    "Polish": "Było źle, więc hasła nie zmieniliśmy: żółw. ",
    "Turkish": "İstanbul'da şifreleme yapılır ve ılık olur. ",
    "Russian": "Быстрая лиса и ключ от двери: она бежит. ",
    "Greek": "Η αλεπού και ο κωδικός: τρέχει. ",
    "Chinese": "这个项目的代码是为了测试，文件名：很长。",
    "Japanese": "テストのためのコードです。鍵：ない。",
    "Hindi": "यह एक परीक्षण है। ",
    "Arabic": "هذا اختبار للبرنامج. ",
    "symbols": "Done ✅ — see “this” → ⚠️ │ … ",
    "unseen": "zero\u200bwidth and ｗｉｄｅ, e\u0301. ",
}


@cache
def reference(*, with_keys: bool = True) -> Callable[[str], bool]:
    """Return a search for everything in the whole text. Keys have their exact lengths there.

    A text of ASCII may have a whole JSON string with an escaped name, but other escaped names are not searched there.

    Args:
        with_keys: search for keys with a known begin, too.
    """
    in_ascii, beyond = search("|".join([detects(*OTHERS), NAMED[0], ESCAPED])), search("|".join([*OF_BEYOND, *ODDLY]))
    may_be_key, keys = search(MAY_BE_KEY), [search(of_group(number)) for number in range(len(KEY_GROUPS))]
    return lambda text: (
        in_ascii(text)
        or (not text.isascii() and beyond(text))
        or (with_keys and may_be_key(text) and any(key(text) for key in keys))
    )


@cache
def matching(form: str, flags: int = re.ASCII) -> st.SearchStrategy[str]:
    """Return a strategy for texts that match. Hypothesis takes 0.3 s to read one of our longest forms."""
    return st.from_regex(re.compile(form.replace("(?i-u:", "(?i:"), flags))


def placed(text: str, prose: str, length: int, at: int, *, escaped: bool) -> str:
    """Return a text in the middle of prose, as a member of JSON or not."""
    times = length // len(prose) + 1
    before, after = (prose * (times * at // 100), prose * (times * (100 - at) // 100))
    whole = f"{before}{text}{after}".encode("utf-8", "replace").decode()
    return json.dumps({"text": whole}, ensure_ascii=False) if escaped else whole


def assert_seen(text: str) -> None:
    if len(text) < 1000:
        assert_seen_among_others(text)
    if reference()(text):
        for long in (LONG, LONG_ONCE):
            assert suspicious(long)(text), ascii(text)
            assert suspicious(long)(text, text.encode()), ascii(text)


def assert_seen_among_others(text: str) -> None:
    """Assert that a search of many texts finds those that it finds one by one, and no others."""
    texts = ["curl", text, f"-u key {text[: len(text) // 2]}", "é" * 200]
    found = suspicious_among(texts)
    for place, each in enumerate(texts):
        if len(each) >= LONG_ONCE or place in found:
            assert suspicious(LONG_ONCE)(each) == (place in found), ascii(each)
        else:  # one by one, short texts with a part of a key are found, too
            assert not reference(with_keys=False)(each), ascii(each)
            assert Redaction().text(each) == each, ascii(each)


FORMS = [*(kind.detect for kind in KINDS), *map(of_group, range(len(KEY_GROUPS))), NAMED[0], ESCAPED]


@pytest.mark.parametrize("form", every(6, FORMS))
@settings(max_examples=examples(40), deadline=None)
@given(data=st.data())
def test_what_one_search_for_everything_finds_is_found(form: str, data: st.DataObject) -> None:
    text = data.draw(matching(form))
    prose = data.draw(st.sampled_from([*PROSE.values()]))
    length, at = data.draw(st.sampled_from([0, 300, 500, 4000, 14_000])), data.draw(st.integers(0, 100))
    assert_seen(placed(text, prose, length, at, escaped=data.draw(st.booleans())))


@pytest.mark.parametrize("form", [*OF_BEYOND, NAMED[1], ODD_NAME], ids=["assigned", "named", "odd"])
@settings(max_examples=examples(300), deadline=None)
@given(data=st.data())
def test_names_beyond_ascii_are_found(form: str, data: st.DataObject) -> None:
    text = data.draw(matching(form, re.UNICODE))
    prose = data.draw(st.sampled_from([*PROSE.values()]))
    length, at = data.draw(st.sampled_from([0, 300, 4000])), data.draw(st.integers(0, 100))
    assert_seen(placed(text, prose, length, at, escaped=data.draw(st.booleans())))


PIECES = [*known.NAMES[::5], *known.FOREIGN_NAMES, "clé", "schlüssel", "токен", "ключ", "key", "token", "pass", "value"]
BETWEEN = [*"\"\\:=>，：是 \n\t,}]'", "\\u00f1", "\\u043a", "\u200b", "\ufe0f", "ſ", "K", "é", "→", "x", "_", "hunter2"]


@settings(max_examples=examples(2000), deadline=None)
@given(st.lists(st.sampled_from([*PIECES, *BETWEEN, *BETWEEN]), max_size=12).map("".join), st.sampled_from([0, 400]))
def test_names_between_signs_and_letters_of_any_alphabet_are_found(text: str, length: int) -> None:
    assert_seen(text.ljust(length))


@pytest.mark.parametrize("prose", PROSE.values(), ids=PROSE.keys())
def test_all_known_credentials_are_found_in_prose_of_any_alphabet(prose: str) -> None:
    names = [f"{name}{sign}" for name in (*known.NAMES, *known.FOREIGN_NAMES) for sign in ('": 1', "：x", "=x", '",')]
    for text in (*known.TEXTS, *known.KEYS.values(), *known.MORE_KEYS.values(), *names):
        for length in (0, 400):
            for escaped in (False, True):
                assert_seen(placed(text, prose, length, 50, escaped=escaped))


def test_prose_of_any_alphabet_is_not_suspicious() -> None:
    for name, prose in PROSE.items():
        assert not suspicious()(prose * 5), name
        assert not suspicious()(prose * 100), name
