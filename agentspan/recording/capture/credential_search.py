"""Tells fast whether there may be a credential in a text, and where to look closely: nearly always there is none.

An engine of linear time searches: 0.6 µs for 300 characters, 0.1 ms for 100 kB, where `re` takes fifty times that.
To look closely at what it finds takes up to 0.3 µs a character. So of a long text only stretches are looked at, and one
that was made of such places alone is not looked at, either: it is cut out.
"""

import re
from functools import cache, lru_cache

from agentspan.model.sensitive import IN_TEXT
from agentspan.recording.capture.credentials import (
    ID_TOKEN,
    KEYS,
    NAMES,
    OTHERS,
    SEPARATOR,
    SOME_KEY,
    Found,
    detects,
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
SAMPLE, SAMPLES = 90, (0, 131, 307, 463, 661, 907)
"""Characters of a sample of a block, and where its samples begin, which tell whether it is crowded. At even distances
they would all meet the same columns of a table."""

# What is assigned to a name, or follows it in a list or an object, or in SQL.
_THEN = r"""(?:[\\"'`\]t\t ]*[:=>]|[\\"']+[,}\]]|[ \t]+')"""
_PASSWORD = f"pass(?:w(?:or)?d(?:s|[0-9])?|{SEPARATOR}(?:phrase|code))?|pwd"
_GLANCES = (
    rf"(?i-u:\Bkeys?|[ .-]keys?|{_PASSWORD}|secrets?|token){_THEN}",
    rf"(?i-u:authorization|cookies?|credentials?){_THEN}",
    r"(?i-u:[dh] password|identified by)",
    r"(?i-u:login(?:[ \t]|\\[nrt])|sshpass|docker[\\\"', \t]+login)|"
    + detects("mysql", "curl", "option", "option in a list", "bearer", "basic"),
    "|".join([detects("private key", "password in a URL", "webhook", "JSON web token"), re.escape(IN_TEXT), *KEYS[:5]]),
    "|".join(KEYS[5:19]),
    "|".join(KEYS[19:21]),
    detects("signed URL"),
    KEYS[21],
)
"""Searches of which one finds something in each text that is suspicious: together they are faster than one.

The search for everything takes 2.2 ns a character, since each lookup in its table waits for the one before. For a
pattern that begins with one of a few dozen texts the engine compares 16 or more characters at once: 0.05 to 0.25 ns.
These groups, of kinds that stand side by side, took least in conversations, prose, code, tables and hexadecimal ids;
one kind more in a group can make it ten times as slow.
"""


@cache
def suspicious() -> Found:
    """Return the search that tells of a text, JSON or plain, whether there may be a credential in it.

    It finds values that are marked as sensitive, too (see model.sensitive): one search costs less than two.
    """
    named = rf'(?i-u:{NAMES}|{ID_TOKEN})"[,}}]'  # {"name": "Authorization", "value": …}
    every = search("|".join([detects(*OTHERS), named, SOME_KEY, re.escape(IN_TEXT)]))

    def found(text: str | bytes) -> bool:
        if len(text) >= LONG and text.isascii():  # else each glance would check or change its encoding
            readable = text if isinstance(text, str) else text.decode()
            if not (len(text) >= 4 * LONG and _repeats(readable)) and not any(
                glance(readable) for glance in _glances()
            ):
                return False
        return every(text)

    return found


def _repeats(text: str) -> bool:
    """Return whether the middle of a text repeats few words: a glance that begins with one takes 60 ns for each."""
    middle = len(text) // 2
    return text.count(text[middle : middle + 16], middle, middle + 2048) > 20


@cache
def _glances() -> tuple[Found, ...]:
    return tuple(map(search, _GLANCES))


@cache
def _crowded() -> tuple[Found, Found]:
    """Return the searches that tell of a sample whether it is full of places to look at.

    Two in 90 characters; of the names `token` and `pass`, which are also words, four: a list of tokens has fewer. Only
    how each kind begins, and each in a search of its own: the engine makes its automaton while it searches, and needs
    fifty times as long for a text of many kinds if the states do not fit into its memory.
    """
    begins = [kind.detect.partition("(?s:.*)")[0] for name, kind in OTHERS.items() if name != "assignment"]
    sign = r"[\\\"'`\]\t ]*[:=>]"
    begins = [each for each in begins if not re.search(r"\{[0-9]", each)]
    place = "|".join([*begins, f"(?i-u:{NAMES}|{ID_TOKEN}){sign}"])
    return search(f"(?s:(?:{place}).*?(?:{place}))"), search(f"(?s:(?:(?i-u:token|pass){sign}.*?){{4}})")


def crowded(text: str) -> list[tuple[int, int]]:
    """Return the stretches of a text that are crowded with places to look at, each with all that they may be about.

    Nobody writes such texts but to make the search slow: a word of the rules, over and over. 4 ns a character.
    """
    found = list[tuple[int, int]]()
    places, tokens = _crowded()
    for start in (*range(0, len(text) - BLOCK, BLOCK), len(text) - BLOCK):  # the last one overlaps
        if found and found[-1][1] == len(text):
            break
        samples = (text[start + at : start + at + SAMPLE] for at in SAMPLES)
        if all(places(sample) or tokens(sample) for sample in samples):
            _add(found, text, start)
            found[-1] = (found[-1][0], _closed(text, start + BLOCK, found[-1][1]))
    return found


def stretches(text: str) -> list[tuple[int, int]]:
    """Return the stretches of a text in which credentials may be, each with all that they may be about; not WHOLE."""
    found, search_in = list[tuple[int, int]](), suspicious()
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
    while end < len(text) and suspicious()(text[at : end + AROUND]):
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
    return min((end for character in " \t\n\r" if (end := text.find(character, most)) >= 0), default=len(text))


@cache
def marked_sensitive() -> Found:
    """Return the search that tells of a JSON text whether there may be a value in it that is marked as sensitive."""
    return search(re.escape(IN_TEXT))


@lru_cache(maxsize=4096)
def is_harmless_name(name: str) -> bool:
    """Return whether a name, of a member or of a span, is plain: no credential in it, and nothing odd."""
    return name.isascii() and not suspicious()(name)
