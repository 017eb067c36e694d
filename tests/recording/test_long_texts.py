"""The search for credentials in long texts: it takes about as long for a text that was made to slow it as for prose."""

import random
import re
import time
from collections.abc import Iterable, Iterator
from re import _parser
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agentspan.recording.capture import credentials
from agentspan.recording.capture.credentials import ASSIGNED, BEYOND, ENDS, KINDS, LONGEST, NAMES, OTHERS
from agentspan.recording.capture.redaction import AROUND, BLOCK, Redaction
from tests.tiers import examples

R = "[redacted]"
FAKE = "a1B2" * 12
CREDENTIALS = (
    "DB_PASSWORD='S3cretVal9xQ'",
    "api_key: S3cretVal9xQ",
    "Authorization: Bearer S3cretVal9xQ",
    "Cookie: session=S3cretVal9xQ; theme=dark",
    "('Authorization', 'S3cretVal9xQ')",
    "postgres://ada:S3cretVal9xQ@db/runs",
    "curl --compressed -H 'Accept: */*' -u ada:S3cretVal9xQ https://example.com",
    "mysql --batch --host db.example.com -pS3cretVal9xQ runs",
    "create user ada with options, valid for a year, password 'S3cretVal9xQ'",
    "docker login registry.example.com --username ada -p S3cretVal9xQ",
    "login ada\npassword S3cretVal9xQ",
    "run --deep --password S3cretVal9xQ",
    "['--api-key', 'S3cretVal9xQ']",
    f"https://hooks.slack.com/services/{FAKE}",
    f"sk-proj-{FAKE}",
    f"eyJ{FAKE}.eyJ{FAKE}.{FAKE}",
    f"-----BEGIN RSA PRIVATE KEY-----\nMIIEpAIB{FAKE}\n{FAKE}\nab==\n-----END RSA PRIVATE KEY-----",
)
PROSE = "The quick brown fox jumps over the lazy dog, and the agent looks for the cause of the error in the log. "
PROSE_BEYOND_ASCII = PROSE.replace("the lazy dog", "собаку").replace("the error", "ভুল")
SEPARATORS = ("", " ", "\n", "=", ": '", " -p ", '"', "'", "': \"", "='", " -u a:b ", " '", ": ", "\t", "://")
MOST_FORMS = 400
LONGEST_WORD = 28
"""Characters of a word; longer ones are whole credentials, each of which is cut out."""
MOST = 40
"""Times as long as for prose; up to eighteen were seen on a quiet machine, for names with the word key."""
MOST_BEYOND_ASCII = 25
"""The engine's tables of other alphabets are too large for the memory that it gives them."""


def of_length(part: str, length: int) -> str:
    return (part * (length // len(part) + 1))[:length]


def forms(pattern: Iterable[Any]) -> list[str]:
    """The texts that a small pattern matches: what is optional is there or not, of a class come two."""
    found = [""]
    for kind, value in pattern:
        if str(kind) == "LITERAL":
            choices = [chr(value)]
        elif str(kind) == "IN":
            few = [each if str(op) == "LITERAL" else each[0] for op, each in value if str(op) in ("LITERAL", "RANGE")]
            choices = [*map(chr, few[:2])] or [""]
        elif "REPEAT" in str(kind):
            choices = ([""] if value[0] == 0 else []) + forms(value[2])
        elif str(kind) == "SUBPATTERN":
            choices = forms(value[3])
        elif str(kind) == "BRANCH":
            choices = [form for branch in value[1] for form in forms(branch)]
        else:
            choices = [""]
        if len(found) * len(choices) > MOST_FORMS:
            choices = choices[:1]
        found = [one + other for one in found for other in choices]
    return found


def words(pattern: Iterable[Any]) -> Iterator[str]:
    """What comes one after the other in a pattern, in all its forms, between what may be anything."""
    run = [""]
    for kind, value in pattern:
        is_small = "REPEAT" not in str(kind) or value[1] == 1
        choices = forms([(kind, value)]) if is_small else []
        if not 0 < len(run) * len(choices) < 1000:
            yield from run
            run = [""]
        if choices:
            run = [one + other for one in run for other in choices][:1000]
        inner = {"REPEAT": 2, "SUBPATTERN": 3, "ASSERT": 1}
        for name, index in inner.items():
            if name in str(kind):
                yield from words(value[index])
        if str(kind) == "BRANCH":
            for branch in value[1]:
                yield from words(branch)
    yield from run


_PATTERNS = [_parser.parse(kind.cut) for kind in (*KINDS, *BEYOND.values())]
WORDS = sorted({word for each in _PATTERNS for word in words(each) if 1 < len(word) <= LONGEST_WORD})
"""The words of the rules, as the tables have them."""


def seconds(text: str) -> float:
    began = time.process_time()
    Redaction().text(text)
    return time.process_time() - began


def slow(length: int, parts: Iterable[str]) -> list[tuple[float, str]]:
    """Return the parts whose repetition takes more than MOST times as long as prose, also when it is tried again."""
    seconds(of_length("password: 'x' ", length))  # what is compiled at first use
    usual = [min(seconds(of_length(prose, length)) for _ in range(9)) for prose in (PROSE_BEYOND_ASCII, PROSE)]
    found: list[tuple[float, str]] = []
    for part in parts:
        text = of_length(part, length)
        for _ in range(12):
            times = seconds(text) / usual[text.isascii() and "\\u" not in text]
            if times <= (MOST if text.isascii() else MOST_BEYOND_ASCII):
                break
        else:
            found.append((times, part))
    return found


def test_the_words_of_the_rules_are_found() -> None:
    assert {
        "curl",
        "mysql",
        "mysqladmin",
        "auth_token",
        "docker login",
        "authorization",
        "api_key",
        "token",
        "sk-",
    } <= {*WORDS}


@pytest.mark.parametrize(
    ("length", "step"),
    [
        (20_000, 499),
        *(pytest.param(*each, marks=pytest.mark.full) for each in ((20_000, 41), (200_000, 401))),
        *(pytest.param(*each, marks=pytest.mark.nightly) for each in ((20_000, 1), (200_000, 11))),
    ],
)
def test_a_word_that_is_repeated_takes_not_much_longer_than_prose(length: int, step: int) -> None:
    assert slow(length, [word + separator for word in WORDS for separator in SEPARATORS][::step]) == []


def test_one_credential_in_prose_takes_not_much_longer_than_none() -> None:
    prose = of_length(PROSE, 100_000)
    assert slow(200_000, [f"{prose} password: hunter2xyz9\n{prose}"]) == []


@pytest.mark.parametrize("gap", [30, 100, 1000])
@pytest.mark.parametrize("part", ["curl -u", "mysql -p-", "token=", "password: 'hunter2x' ", "docker login -p "])
def test_work_is_proportional_to_the_text_where_words_are_apart(part: str, gap: int) -> None:
    """A quadratic search takes 256 times as long for 16 times the text."""
    unit = part + of_length(PROSE, gap)
    seconds(of_length(unit, 20_000))
    short = min(seconds(of_length(unit, 20_000)) for _ in range(5))
    assert min(seconds(of_length(unit, 320_000)) for _ in range(3)) < 5 * 16 * short


# What is cut out, and what is not


def test_a_crowded_stretch_is_cut_out_with_all_that_it_may_be_about() -> None:
    crowd = "password: '" * 200
    redaction = Redaction()
    before, after = PROSE * 20, f"\n{PROSE * 20}"
    shown = redaction.text(f"{before}{crowd}S3cretVal9xQ{after * 5}")
    assert shown[:1900] == before[:1900]
    assert shown.endswith(after * 3)
    assert (shown.count(R), redaction.count) == (1, 1)


@pytest.mark.parametrize("part", ["mysql -p", "curl -u a:", "password=", "token: ", "api_key: "])
def test_no_secret_beside_a_crowded_stretch_is_shown(part: str) -> None:
    lines = f"{PROSE}\n" * 30
    for shift in range(0, 2 * BLOCK, 97):
        crowd = f"password: 'S3cretVal9xQ {part * 300}S3cretVal9xQ'\n"
        shown = Redaction().text(f"{lines}{'x' * shift}\n{crowd}{lines}")
        assert "S3cret" not in shown
        assert shown.startswith(lines[: 20 * len(PROSE)])
        assert shown.endswith(lines[-20 * len(PROSE) :])


@pytest.mark.parametrize(
    "line",
    [
        '{"token":"%s","logprob":-0.3172},',
        "self._%s = token; token = None\n",
        "%s: the token, the key, the secret and the password of a user\n",
        "def %s(password: str, token: str) -> None:\n    ...\n",
    ],
)
def test_code_and_lists_of_tokens_are_not_crowded(line: str) -> None:
    chance = random.Random(7)
    text = "".join(line % chance.choice(PROSE.split()) for _ in range(1000))
    assert Redaction().text(text) == text


@pytest.mark.full
@pytest.mark.parametrize("text", CREDENTIALS, ids=ascii)
def test_a_credential_is_found_across_the_edges_of_blocks(text: str) -> None:
    cut = Redaction().text(text)
    assert R in cut
    for shift in range(BLOCK - AROUND - len(text) - 2, BLOCK + AROUND, 61):
        before, after = of_length(PROSE, shift), PROSE * 40
        assert Redaction().text(f"{before}\n{text}\n{after}") == f"{before}\n{cut}\n{after}"


def test_a_secret_that_begins_in_one_stretch_and_ends_behind_it_is_cut_out() -> None:
    for at in range(3500, 6000, 50):
        text = f"password=hunter2x {of_length(PROSE, at)} Cookie: a={'S3cretVal9xQ ' * 300}\n{PROSE}"
        assert "S3cret" not in Redaction().text(text)
        crowd = f"{'password= ' * 150}{of_length(PROSE, at)} Cookie: a={'S3cretVal9xQ ' * 300}\n{PROSE}"
        assert "S3cret" not in Redaction().text(crowd)


def test_a_web_token_with_a_long_head_is_cut_out() -> None:
    token = "eyJ" + "a1B2" * 1000 + ".eyJ" + "a1B2" * 1000 + ".a1B2"
    assert Redaction().text(f"{PROSE * 20} {token} {PROSE * 20}") == f"{PROSE * 20} {R} {PROSE * 20}"


def test_a_long_secret_is_cut_out_to_its_end() -> None:
    assert "a1B2" not in Redaction().text(f"{PROSE * 20}\nsk-{'a1B2c3D4' * 4000}\n{PROSE * 20}")


# The faster ways to find an assignment, and a name


@settings(max_examples=examples(200), deadline=None)
@given(st.from_regex(re.compile(ASSIGNED), fullmatch=True))
def test_every_name_has_a_known_end(name: str) -> None:
    assert name == name.lower()
    end = re.search(f"(?:{ENDS})$", name)
    assert end is not None
    assert end.start() <= LONGEST


assigned = st.lists(
    st.sampled_from(["=", ":", ": ", " = ", "'", '"', "]", ">", "</", " ", "\n", "x", "_", "İ", "\u212a"])
    | st.sampled_from(["S3cretVal9xQ", ": str = "])
    | st.from_regex(re.compile(ASSIGNED), fullmatch=True)
    | st.sampled_from(["TOKEN", "Api_Key", "passwords", "pas", "idtoken", "valid_token"]),
    max_size=12,
).map("".join)


@settings(max_examples=examples(1000), deadline=None)
@given(assigned)
def test_assignments_are_those_that_the_whole_pattern_finds(text: str) -> None:
    assert_finds_all("assignment", text)


def assert_finds_all(name: str, text: str) -> None:
    kind = OTHERS[name]
    pattern = re.compile(kind.cut, re.ASCII)
    assert [each.span() for each in kind.matches(pattern, text)] == [each.span() for each in pattern.finditer(text)]


HEADERS = ["Authorization", "cookie", "API-Key", "auth_token", "apitoken", "secret", "Password2", "passwords", "pas"]
paired = st.lists(
    st.sampled_from(["', '", '", "', "',b'", "\\", "'", ",", " ", "\n", "x", "_", "İ", "\u212a", "S3cretVal9xQ"])
    | st.sampled_from(HEADERS)
    | st.from_regex(re.compile(NAMES), fullmatch=True),
    max_size=12,
).map("".join)


@settings(max_examples=examples(1000), deadline=None)
@given(paired)
def test_pairs_are_those_that_the_whole_pattern_finds(text: str) -> None:
    assert_finds_all("pair", text)


logins = st.lists(
    st.sampled_from(["sshpass", "docker login", "redis-cli", "ldapsearch", "ldap", "oathtool", "requirepass", "İ"])
    | st.sampled_from(["aws_secret_access_key", "LOGIN", "login", "identified by", "with encrypted password", "K"])
    | st.sampled_from([" -p ", " --password ", " -a ", " -w ", " --base32 ", " ", "\n", "|", ";", "'", "S3cret", "x"])
    | st.sampled_from([" ada password ", "with password "]),
    max_size=12,
).map("".join)


@settings(max_examples=examples(1000), deadline=None)
@given(logins)
def test_logins_are_those_that_the_whole_pattern_finds(text: str) -> None:
    assert_finds_all("login", text)


@settings(max_examples=examples(500), deadline=None)
@given(st.text("_-.aKkey pasword_tokeniİ1", max_size=20) | assigned)
def test_a_name_that_the_fast_search_leaves_out_is_none(name: str) -> None:
    if credentials._looks(name) is not None:
        assert not name.isascii() or credentials._ends_as_name()(name[-64:])
        assert credentials._may_end_as_name(name[-64:])


NAMED = ["contraseña", "ŞİFRE", "пароль", "パスワード", "clé d'api", "schlüssel", "токен", "密码", "password", "cvv"]
BETWEEN = ["\u200b", "\ufe0f", "ｐａｓｓ", "wo", "rd", "ß", "ſ", "K", "\ud800", "\\u00e9", "_", " ", "x"]
PARTS = st.sampled_from([*NAMED, *BETWEEN])


@settings(max_examples=examples(500), deadline=None)
@given(st.lists(PARTS, max_size=6).map("".join))
def test_a_name_beyond_ascii_that_the_fast_search_leaves_out_is_none(name: str) -> None:
    read = credentials._as_read(name)
    assert credentials.looks_of(name) is credentials._looks(read)


def test_names_with_what_has_no_width_are_looked_at_closely_only_where_they_end_as_one() -> None:
    names = [f"pass\u200bword{number}x" for number in range(1000)]
    before = credentials._looks.cache_info().misses
    assert not any(map(credentials.names_credential, names))
    assert credentials._looks.cache_info().misses == before
    assert credentials.names_credential("pass\u200bword")


def test_numbers_in_a_list_of_a_member_are_judged_by_its_name() -> None:
    from agentspan.recording.capture.plain import SentRedaction

    value = {"passwords": [1, 2], "vector": [1, 2.5, None, True], "auth": [1, 2], "a": "password=hunter2"}
    _, shown = SentRedaction().cleaned(value)
    assert shown == {"passwords": [R, R], "vector": [1, 2.5, None, True], "auth": [1, R], "a": f"password={R}"}
    by_rule = SentRedaction(lambda name, value: 7 if value == 1 else value)
    _, shown = by_rule.cleaned({"vector": [1, 2]})
    assert shown == {"vector": [7, 2]}


def test_work_is_proportional_to_a_text_without_blanks() -> None:
    unit = "A.atlasv1.a-"
    seconds(of_length(unit, 20_000))
    short = min(seconds(of_length(unit, 100_000)) for _ in range(5))
    assert min(seconds(of_length(unit, 1_600_000)) for _ in range(3)) < 5 * 16 * short
