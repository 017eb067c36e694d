"""Tells fast whether there may be a credential in a text, and where to look closely: nearly always there is none.

An engine of linear time searches: 0.6 µs for 300 characters, 0.1 ms for 100 kB, where `re` takes fifty times that.
To look closely at what it finds takes up to 0.3 µs a character. So of a long text only stretches are looked at, and one
that was made of such places alone is not looked at, either: it is cut out.
"""

import re
from collections.abc import Callable
from functools import cache, lru_cache
from typing import Any

from agentspan.model.sensitive import IN_TEXT
from agentspan.recording.capture.credentials import (
    AS_WORDS,
    BEYOND,
    BEYOND_ASCII,
    CODES,
    DOUBTFUL,
    ESCAPED,
    IN_ASCII,
    KEY_GROUPS,
    MAY_BE_KEY,
    NAMES,
    ODD,
    OTHERS,
    SEPARATOR,
    Found,
    detects,
    of_group,
    search,
)

LONG = 3072
"""Characters of a text from which on several fast searches take less time than one for everything."""

BLOCK = 1024
"""Characters of a long text that are searched at once."""
AROUND = 512
"""Characters within which a credential begins that is found at a place: before it, or after it."""
LONGEST_SECRET = 4096
"""Characters of a secret, unless it has no blanks."""
SAMPLE, LONG_SAMPLE, SAMPLES = 90, 117, (0, 131, 307, 463, 661, 907)
"""Characters of a sample of a block, and where its samples begin, which tell whether it is crowded. At even distances
they would all meet the same columns of a table. Names beyond ASCII are longer, if they are escaped."""

_MARK = IN_TEXT.encode()
_BLANK = re.compile(r"[ \t\n\r]")

# What is assigned to a name, or follows it in a list or an object, or in SQL.
_THEN = r"""(?:[\\"'`\]t\t ]*[:=>]|[\\"']+[,}\]]|[ \t]+')"""
_NAMES = (
    rf"(?:\Bkeys?|[ .-]keys?|key{SEPARATOR}base"
    rf"|pass(?:w(?:or[dt]|d)(?:s|[0-9])?|e|{SEPARATOR}(?:phrase|code))?|pwd|pswd|token"
    rf"|authorization|passw(?:or)?d{SEPARATOR}(?:confirm(?:ation)?|plain(?:text)?)|secrets?(?:{SEPARATOR}(?:string|value))?|cookies?"
    rf"|credentials?)(?:{_THEN}|[\\\"', \t\r\nnrt]{{1,60}}value[\\\"' \t]*[:=])",
    rf"{detects('mysql')}|(?:psk|mdp|psw|jwt|cv[cv]2?){_THEN}"
    rf"|(?:pin(?:{SEPARATOR}code)?|otp(?:{SEPARATOR}code)?)[\\\"'` \t]*[:=][\\\"'` \t]*[0-9]{{3}}",
    rf"(?:enhas?|eslo|aslo|rasena|nwort|htwoord|sifre|arola?|d['_]?ordine|sandi|khau"
    rf"|c[lh]ave(?:{SEPARATOR}(?:secreta|privada|(?:de{SEPARATOR})?api|de{SEPARATOR}acceso))?){_THEN}",
    rf"pw{_THEN}",
    rf"[dh] password|tified by|{detects('sentence')}"
    r"|login(?:[ \t]|\\[nrt])|sshpass|(?:ss_key|irepass|edis-cli|ldap[a-z]+|oathtool)[ \t]|cker[\\\"', \t]+login|"
    + detects("curl", "option", "option in a list", "bearer", "basic"),
    r"hooks\.slack\.com/(?:services|workflows|triggers)/|rd(?:app)?\.com/api/(?:v[0-9]+/)?webhooks/"
    r"|webhook\.office\.com/|hooks\.zapier\.com/|feishu\.cn/open|larksuite\.com/open|legram\.org/(?:file/)?bot|h/key/"
    r"|hook\.[a-z0-9]+\.make\.com/|infura\.io/v3/|alchemy\.com/v2/"
    rf"|(?:auth|mnemonic|seed{SEPARATOR}phrase){_THEN}",
)
"""The same for what may be written in capitals or not: they search the text in small letters.

To make that takes 0.24 ns a character. To search for each letter in both forms takes more, for eight groups of three.
Of a word it is the rarest part that begins a pattern (`irepass`, since `req` begins `request`, too): the engine looks
closely wherever three characters, or four if all patterns of a group have four, are those of a beginning. What that
takes shows only in texts that are new to the processor: one that is searched again and again is learnt.
"""
_GLANCES = (
    "|".join([of_group(0), detects("private key", "JSON web token", "password in a URL"), re.escape(IN_TEXT)]),
    *map(of_group, range(1, len(KEY_GROUPS))),
    detects("signed URL", "key in a URL"),
    ESCAPED,
)
"""Searches of which one finds something in each text that is suspicious: together they are faster than one.

The search for everything takes 2.2 ns a character, since each lookup in its table waits for the one before. For a
pattern that begins with one of a few dozen texts the engine compares 16 or more characters at once: 0.05 to 0.15 ns.
It takes least for up to 32 texts of three or four characters of which one is no small letter. These groups, of kinds
that stand side by side, took least in conversations, prose, code, tables and hexadecimal ids; one kind more in a group
can make it ten times as slow.
"""


Suspicious = Callable[..., bool]
"""Tells of a text whether something in it may need redaction. Whoever has its bytes as well gives them second: a text
that is not ASCII would be encoded again."""


@cache
def suspicious() -> Suspicious:
    """Return the search that tells of a text, JSON or plain, whether there may be a credential in it.

    It finds values that are marked as sensitive, too (see model.sensitive): one search costs less than two.
    """
    every, of_any_alphabet = _every(), _closely()

    def found(text: str | bytes, data: bytes | None = None) -> bool:
        if not text.isascii():
            return of_any_alphabet(text if data is None else data)
        if len(text) >= LONG and not (len(text) >= 4 * LONG and _repeats(text)):
            readable = text if isinstance(text, str) else text.decode()
            keys, names = _glances()
            small = readable.lower()
            if not any(glance(readable) for glance in keys) and not any(glance(small) for glance in names):
                return False
        return every(text)

    return found


@cache
def _every() -> Found:
    return search(_of_ascii())


def _of_ascii() -> str:
    named = rf'(?i-u:{NAMES}|{AS_WORDS}|{IN_ASCII}|token|pass)"[,}}]'  # {"name": "Authorization", "value": …}
    return "|".join([detects(*OTHERS), named, ESCAPED, MAY_BE_KEY, re.escape(IN_TEXT)])


@cache
def _closely() -> Found:
    """Return the search for everything."""
    every = _every()
    return lambda text: every(text) if text.isascii() else _every_beyond_ascii()(text)


@cache
def _every_beyond_ascii() -> Found:
    """Return the search that finds names in other alphabets, too, and those with letters that only look like ASCII."""
    named = rf'(?i:{BEYOND_ASCII})"[,}}]'
    odd = rf'{ODD}[^"\\]*":'  # {"p\u200bassword": …}
    return search("|".join([_of_ascii(), *(kind.detect for kind in BEYOND.values()), named, odd]))


def _repeats(text: str | bytes) -> bool:
    """Return whether the middle of a text repeats few words: a glance that begins with one takes 60 ns for each."""
    middle = len(text) // 2
    part: Any = text[middle : middle + 2048]
    return bool(part.count(part[:16]) > 20)


@cache
def _glances() -> tuple[tuple[Found, ...], tuple[Found, ...]]:
    names = (pattern.replace("(?i-u:", "(?:") for pattern in _NAMES)
    return tuple(map(search, _GLANCES)), tuple(map(search, names))


@cache
def _crowded() -> tuple[Found, tuple[Found, ...]]:
    """Return the searches that tell of a sample whether it has a place to look at, and whether it is full of them.

    Two in 90 characters; of names of a doubtful kind, which are also words, four or five: a list has fewer. Only how
    each kind begins, and a few kinds in a search: the engine makes its automaton while it searches, and needs fifty
    times as long for a text of many kinds if the states do not fit into its memory.
    """
    apart = ("assignment", "password in a URL")
    begins = [kind.detect.partition("(?s:.*)")[0] for name, kind in OTHERS.items() if name not in apart]
    begins = [each for each in begins if not re.search(r"\{[0-9]", each)]
    sign = r"[\\\"'`\]\t ]*[:=>]"
    places = {
        f"(?i-u:{NAMES}|{AS_WORDS}|{IN_ASCII}){sign}": 2,
        "|".join(begins): 2,
        detects(apart[1]): 2,
        f"(?i-u:[a-z _.-]key|phrase|requirepass|[&?;6](?:pw|auth)){sign}": 4,
        f"(?i-u:{DOUBTFUL}|{CODES}|token|pass){sign}": 5,
    }
    return search("|".join(places)), tuple(_repeated(times, place) for place, times in places.items())


@cache
def _crowded_beyond_ascii() -> Found:
    return _repeated(2, "|".join(kind.detect for kind in BEYOND.values()))


def _repeated(times: int, place: str) -> Found:
    return search(f"(?s:(?:(?:{place}).*?){{{times}}})")


def _is_crowded(sample: str) -> bool:
    has_place, full = _crowded()
    if has_place(sample) and any(found(sample[:SAMPLE]) for found in full):
        return True
    return (not sample.isascii() or "\\u" in sample) and _crowded_beyond_ascii()(sample)


def crowded(text: str) -> list[tuple[int, int]]:
    """Return the stretches of a text that are crowded with places to look at, each with all that they may be about.

    Nobody writes such texts but to make the search slow: a word of the rules, over and over. 4 ns a character.
    """
    found = list[tuple[int, int]]()
    for start in (*range(0, len(text) - BLOCK, BLOCK), len(text) - BLOCK):  # the last one overlaps
        if found and found[-1][1] == len(text):
            break
        if all(_is_crowded(text[start + at : start + at + LONG_SAMPLE]) for at in SAMPLES):
            _add(found, text, start)
            found[-1] = (found[-1][0], _closed(text, start + BLOCK, found[-1][1]))
    return found


def stretches(text: str) -> list[tuple[int, int]]:
    """Return the stretches of a text in which credentials may be, each with all that they may be about; not WHOLE."""
    found, search_in = list[tuple[int, int]](), _closely()
    for start in range(0, len(text), BLOCK):
        if found and found[-1][1] == len(text):
            break
        if search_in(text[start : start + BLOCK + AROUND]):
            _add(found, text, start, before=AROUND)
    return found


def _add(found: list[tuple[int, int]], text: str, block: int, *, before: int = 0) -> None:
    """Add a block to the stretches of a text, or to the last of them."""
    start, last = _word(text, max(0, block - before)), found[-1][1] if found else 0
    end = _reach(text, block + BLOCK, last)
    if found and start <= last:
        start, end = found.pop()[0], max(end, last)
    found.append((start, end))


def _word(text: str, at: int) -> int:
    """Return where the word begins that is at a place, if that is near."""
    least = max(0, at - AROUND)
    return max(text.rfind(" ", least, at), text.rfind("\n", least, at), least - 1) + 1


def _closed(text: str, at: int, end: int) -> int:
    """Return where the last secret ends that a place before `end` may be about; those before `at` end there."""
    while end < len(text) and _closely()(text[at : end + AROUND]):
        at, end = end, _reach(text, end, end)
    return end


def _reach(text: str, at: int, last: int) -> int:
    """Return where the last secret ends that a place before `at` may be about.

    Args:
        last: the same of an earlier place.
    """
    least, most = at + AROUND, at + AROUND + LONGEST_SECRET
    ends = [end for character in "\n\r" if (end := text.find(character, least, most)) >= 0]
    if ends:
        return min(ends)
    if most < last:
        return last  # it was the first blank behind an earlier place
    blank = _BLANK.search(text, most)  # a search for each of them would look through the whole text for a missing one
    return len(text) if blank is None else blank.start()


@cache
def marked_sensitive() -> Suspicious:
    """Return the search that tells of a JSON text whether there may be a value in it that is marked as sensitive."""
    return lambda text, data=None: (IN_TEXT if type(text) is str else _MARK) in text


@lru_cache(maxsize=4096)
def is_harmless_name(name: str) -> bool:
    """Return whether a name, of a member or of a span, is plain: no credential in it, and nothing odd."""
    return name.isascii() and not suspicious()(name)
