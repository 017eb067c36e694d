"""Redacts credentials, card numbers, and values found by a user's rule. The patterns are in `credentials`."""

import hashlib
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import cache, lru_cache
from typing import Any

from agentspan.host import let_through
from agentspan.model.columns import MARK_IN_TEXT, REDACTED
from agentspan.recording.capture.credentials import (
    ANY,
    AS_WORDS,
    ASSIGNED,
    BEYOND,
    BEYOND_ASCII,
    CODES,
    COOKIES,
    DOUBTFUL,
    ESCAPED,
    ESCAPED_BEYOND,
    IN_ASCII,
    KEY_GROUPS,
    KEY_NAMES,
    LARGEST,
    LETTERS_BEYOND,
    MASK,
    MAY_BE_KEY,
    NAMES,
    NUMBERS,
    ODD,
    OTHERS,
    PLACEHOLDER,
    RAW_BEYOND,
    SEPARATOR,
    THEN,
    Found,
    Group,
    Ready,
    detects,
    looks_of,
    may_be_key,
    names_credential,
    of_group,
    ready,
    search,
)
from agentspan.text import lazy_pattern

LONG = 3072
"""The length of a text above which several fast searches take less time than one search for everything."""
LONG_ONCE = 128
"""LONG for texts that come once, from files or over HTTP. Then the table of the search for everything is not in the
processor's cache, and a character takes 28 ns instead of 2; 70 until the engine has built the table."""
ALONE = 2**20
"""The length of a text that is searched alone, because a copy of it among others would need much memory."""

BLOCK = 1024
"""The size of the blocks in which a long text is searched, in characters."""
BLOCKS = 64
"""The most blocks that are searched at once."""
AROUND = 512
"""The largest distance, in characters, between a detected place and the begin of its credential, in both directions."""
LONGEST_SECRET = 4096
"""The longest secret with blanks, in characters. A secret without blanks may be longer."""
SAMPLE, LONG_SAMPLE, SAMPLES = 90, 117, (0, 131, 307, 463, 661, 907)
"""The lengths and the starts of the samples of a block, which decide whether it is crowded. At even distances, all
samples would meet the same columns of a table. LONG_SAMPLE is for escaped names beyond ASCII, which are longer."""

_MARK = MARK_IN_TEXT.encode()
_BLANK = lazy_pattern(r"[ \t\n\r]")

_SIGN = r"""[\\"'`\]t\t ]*[:=>]"""
"""The pattern of the characters between a name and its value, in an assignment."""
_THEN = rf"""(?:{_SIGN}|"[,}}]|[\\"']*["'],[bt\\"' \t]*["']|[\\"', \t\r\nnrt]{{1,60}}value[\\"' \t]*[:=])"""
"""The same also in a list, and in an object with a name and a value."""
_CODE = r"""[\\"'` \t]*[:=][\\"'` \t]*[0-9]{3}"""
_KEY = f"[istegnrhpdx]{SEPARATOR}(?:keys?|key{SEPARATOR}base){_THEN}"
"""The search for names with the word *key*, one in ten of which are names of credentials."""
_NAMES = (
    rf"(?:pass(?:w(?:or[dt]|d)(?:s|[0-9])?|e|{SEPARATOR}(?:phrase|code))?|pwd|pswd|token"
    rf"|authorization|passw(?:or)?d{SEPARATOR}(?:confirm(?:ation)?|plain(?:text)?)|secrets?(?:{SEPARATOR}(?:string|value))?|cookies?"
    rf"|credentials?){_THEN}|password[ \t]+'",
    rf"{detects('mysql')}|psk{_THEN}|(?:mdp|psw|jwt){_SIGN}"
    rf"|(?:pin(?:{SEPARATOR}code)?|otp(?:{SEPARATOR}code)?|cv[cv]2?){_CODE}",
    rf"(?:enhas?|eslo|aslo|rasena|nwort|htwoord|sifre|arola?|d['_]?ordine|sandi|khau"
    rf"|c[lh]ave(?:{SEPARATOR}(?:secreta|privada|(?:de{SEPARATOR})?api|de{SEPARATOR}acceso))?){_THEN}",
    rf"pw{_SIGN}",
    rf"(?:th|ypted) password|entified by|{detects('sentence')}"
    r"|login(?:[ \t]|\\[nrt])|sshpass|(?:ss_key|irepass|edis-cli|ldap[a-z]+|oathtool)[ \t]|cker[\\\"', \t]+login|"
    + detects("curl", "option", "option in a list", "bearer", "basic"),
    r"(?:hooks\.slack\.com/(?:services|workflows|triggers)/|rd(?:app)?\.com/api/(?:v[0-9]+/)?webhooks/"
    r"|webhook\.office\.com/|hooks\.zapier\.com/|feishu\.cn/open|larksuite\.com/open|legram\.org/(?:file/)?bot|ith/key/"
    r"|hook\.[a-z0-9]+\.make\.com/|infura\.io/v3/|alchemy\.com/v2/)[a-z0-9_/:@-]{16}|//mcp\.[a-z0-9.-]{3,60}/[a-z0-9_/+=~-]{24}"
    rf"|(?:auth|mnemonic|seed{SEPARATOR}phrase){_SIGN}",
    detects("command", ".pgpass", "kind: Secret").lower().replace(r"\b", ""),
)
"""Fast searches for names of credentials in any case. They search the text converted to lower case.

The conversion takes 0.24 ns a character; a search for both cases of each letter takes more. Each pattern begins with
the rarest part of a word (`irepass`, because `req` also begins `request`): the engine checks a place closely if its
first three characters begin a pattern, or four if all patterns of a group have four. Measure with texts that are new
to the processor: after repeated searches of one text, its branch prediction hides the cost.
"""
_FORMS = [
    detects("private key", "JSON web token", "password in a URL", "token in a URL"), re.escape(MARK_IN_TEXT), ESCAPED
]  # fmt: skip
_GLANCES = ("|".join([of_group(0), *_FORMS[:-1]]), *map(of_group, range(1, len(KEY_GROUPS))), ESCAPED)
"""Fast searches for keys and other forms. Every suspicious text is found by one of these or of `_NAMES`.

The search for everything takes 2.2 ns a character, because each lookup in its table waits for the lookup before. For a
pattern that begins with one of a few dozen texts, the engine compares 16 or more characters at once: 0.05 to 0.15 ns.
It is fastest for up to 32 texts of three or four characters, one of which is not a lower-case letter. These groups were
the fastest in conversations, prose, code, tables and hexadecimal ids; one more kind in a group can make it ten times as
slow.
"""

_QUERY = (
    r"[?&;6](?:(?:sig|(?:x-amz-|x-goog-)?signature|hmac)="
    r"|(?:key|code|auth|ticket|appid|sas|psk|pw)=[^ \t\n\r&\"'\\<>#]{6})"
)
"""The search for signed URLs and for keys in URLs, in lower case. The 6 is the end of an escaped `&`."""

Suspicious = Callable[..., bool]
"""A function that returns whether something in a text may need redaction. The optional second argument is the text as
bytes, which saves encoding a text that is not ASCII."""


@cache
def suspicious(long: int = LONG) -> Suspicious:
    """Return the search that finds whether a text, JSON or plain, may have a credential in it.

    It also finds values that are marked as sensitive (see model.columns), because one search costs less than two.

    Args:
        long: the length of a text from which on several fast searches are tried first.
    """
    every = _every()

    def found(text: str | bytes, data: bytes | None = None) -> bool:
        if not text.isascii():
            data = _utf_8(text) if data is None else data
            if _beyond_ascii()(data):
                return True
            text = _as_ascii(data)
        if len(text) < long or (len(text) >= 4 * LONG and long == LONG and _repeats(text)):
            return every(text)
        return _at_a_glance(text if isinstance(text, str) else text.decode())

    return found


def _as_ascii(data: bytes) -> str:
    """Return UTF-8 as text with a `?` for each character beyond ASCII. Both end a word in the patterns of ASCII.

    A character has one byte that begins it, so its other bytes are dropped: 1.1 ns a byte, and 3 by the codec `ascii`.
    """
    return data.translate(_QUESTION_MARKS, _CONTINUED).decode("ascii")


_QUESTION_MARKS = bytes(range(128)) + b"?" * 128
_CONTINUED = bytes(range(0x80, 0xC0))


def _at_a_glance(text: str) -> bool:
    """Return whether a long text of ASCII is suspicious, by several fast searches.

    The searches for names find little that is none. After the others, a second search decides.
    """
    small = text.lower()
    keys, names, (key, key_closely), query = _glances()
    for glance in names:  # loops, because a generator takes a fifth of the time of these searches
        if glance(small):
            return True
    if key(small) and key_closely(small):
        return True
    for number, glance in enumerate(keys):
        if glance(text) and _keys_closely(number)(text):
            return True
    return query(small) and _query_closely()(text)


@cache
def _keys_closely(number: int) -> Found:
    """Return the search that decides about a text for which one of `_GLANCES` returned true."""
    keys = [may_be_key(KEY_GROUPS[number])] if number < len(KEY_GROUPS) else []
    return search("|".join([*keys, *_FORMS]))


@cache
def _query_closely() -> Found:
    return search(detects("signed URL", "key in a URL"))


@cache
def _every() -> Found:
    return search(_of_ascii())


def _of_ascii() -> str:
    named = rf'(?i-u:{NAMES}|{AS_WORDS}|{IN_ASCII}|token|pass)"[,}}]'  # {"name": "Authorization", "value": …}
    return "|".join([detects(*OTHERS), named, ESCAPED, MAY_BE_KEY, re.escape(MARK_IN_TEXT)])


_ASCII = bytes(range(128))


def _utf_8(text: str | bytes) -> bytes:
    return text if isinstance(text, bytes) else text.encode("utf-8", "replace")


def suspicious_among(texts: Sequence[str]) -> list[int]:
    """Return the places of the texts for which `suspicious(LONG_ONCE)` returns True, but for short texts without a
    whole key, which need no redaction.

    Each fast search goes through all texts at once, so that its table stays in the processor's cache: texts of 1 kB
    take a third less. A line feed between two texts ends a word in all patterns, as the end of a text does.
    """
    plain: list[str] = []
    found: set[int] = set()
    for place, text in enumerate(texts):
        if len(text) >= ALONE:
            if suspicious(LONG_ONCE)(text):
                found.add(place)
            text = ""
        elif not text.isascii():
            data = _utf_8(text)
            if _beyond_ascii()(data):
                found.add(place)
            text = _as_ascii(data)
        plain.append(text)
    lower = [text.lower() for text in plain]
    together, small = "\n".join(plain), "\n".join(lower)
    keys, names, (key, key_closely), query = _glances()
    by_glance = set[int]()
    for glance in names:
        if glance(small):
            by_glance.update(place for place, text in enumerate(lower) if glance(text))
    if key(small):
        by_glance.update(place for place, text in enumerate(lower) if key(text) and key_closely(text))
    for number, glance in enumerate(keys):
        if glance(together):
            closely = _keys_closely(number)
            by_glance.update(place for place, text in enumerate(plain) if glance(text) and closely(text))
    if query(small):
        closely = _query_closely()
        by_glance.update(place for place, text in enumerate(lower) if query(text) and closely(plain[place]))
    found.update(place for place in by_glance if len(plain[place]) >= LONG_ONCE or _every()(plain[place]))
    return sorted(found)


@cache
def _beyond_ascii() -> Callable[[bytes], bool]:
    """Return the search for names in other alphabets, and for names with letters that only look like ASCII.

    A search for all of them takes 80 to 200 ns a character, because its table does not fit into the engine's memory.
    So it first searches only the characters beyond ASCII, of which most texts have few. It takes UTF-8: for a search in
    a `str` that is not ASCII, Python would keep its UTF-8 as long as the `str`.
    """
    letters, signs, odd_letters = search(f"(?i:{LETTERS_BEYOND})"), search("[：是为為]"), search(ODD)
    escaped, odd = search(ESCAPED_BEYOND), search(rf'{ODD}[^"\\]*":')  # {"p\u200bassword": …}

    def found(data: bytes) -> bool:
        rest = data.translate(None, _ASCII)
        return (
            (letters(rest) and _names_beyond_ascii()(data))
            or (odd_letters(rest) and odd(data))
            or (signs(rest) and _wide_signs()(data))
            or ((b"\\u" in data or b"\\U" in data) and escaped(data) and _escaped_beyond_ascii()(data))
        )

    return found


@cache
def _names_beyond_ascii() -> Found:
    return search(rf"""(?i:{RAW_BEYOND})(?:{THEN}[:=>：是为為]|"[,}}])""")


@cache
def _wide_signs() -> Found:
    return search(f"(?i-u:{ASSIGNED}){THEN}[：是为為]")


@cache
def _escaped_beyond_ascii() -> Found:
    """Return the search for names in other alphabets whose letters may be escaped. It takes 80 ns a character."""
    return search("|".join([*(kind.detect for kind in BEYOND.values()), rf'(?i:{BEYOND_ASCII})"[,}}]']))


def _repeats(text: str | bytes) -> bool:
    """Return whether the middle of a text repeats its first 16 characters more than 20 times.

    In such a text the fast searches are slow: each word that begins a pattern costs them 60 ns.
    """
    middle = len(text) // 2
    part: Any = text[middle : middle + 2048]
    return bool(part.count(part[:16]) > 20)


@cache
def _glances() -> tuple[tuple[Found, ...], tuple[Found, ...], tuple[Found, Found], Found]:
    """Return the searches for keys, for names, for names with the word *key* (first fast, then exact), and for URLs."""
    names = (pattern.replace("(?i-u:", "(?:") for pattern in _NAMES)
    key = search(_KEY), search(f"(?:{KEY_NAMES}){_THEN}")
    return tuple(map(search, _GLANCES)), tuple(map(search, names)), key, search(_QUERY)


@cache
def _crowded() -> tuple[Found, tuple[Found, ...]]:
    """Return a search that finds a suspicious place in a sample, and the searches that find too many of them.

    Two places in 90 characters are too many. Of doubtful names, which are also ordinary words, four or five are too
    many, because a list has fewer.

    The patterns have only the begin of each kind, and each search has few kinds: the engine builds its automaton while
    it searches, and needs fifty times as long if the states do not fit into its memory.
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
    return _is_crowded_beyond_ascii(sample)


def _is_crowded_beyond_ascii(text: str) -> bool:
    return (not text.isascii() or "\\u" in text) and _crowded_beyond_ascii()(text)


def crowded(text: str) -> list[tuple[int, int]]:
    """Return the stretches of a text that are crowded with suspicious places, extended to the end of their secrets.

    Such texts, with one word of the rules over and over, are written only to make the search slow. 4 ns a character.
    """
    found = list[tuple[int, int]]()
    starts = (*range(0, len(text) - BLOCK, BLOCK), len(text) - BLOCK)  # the last one overlaps
    first = "\n".join([text[start : start + LONG_SAMPLE] for start in starts])
    if not _crowded()[0](first) and not _is_crowded_beyond_ascii(first):
        return found  # the common case: one search for the first samples of all blocks
    for start in starts:
        if found and found[-1][1] == len(text):
            break
        if all(_is_crowded(text[start + at : start + at + LONG_SAMPLE]) for at in SAMPLES):
            _add(found, text, start)
            found[-1] = (found[-1][0], _closed(text, start + BLOCK, found[-1][1]))
    return found


Among = Callable[[Sequence[str]], Iterable[int]]
"""A function that returns the indexes of the suspicious texts among many, in order."""


def stretches(text: str, among: Among) -> list[tuple[int, int]]:
    """Return the stretches of a text that may have credentials, extended to their ends; not for kinds in WHOLE."""
    found = list[tuple[int, int]]()
    for first in range(0, len(text), BLOCKS * BLOCK):
        starts = range(first, min(first + BLOCKS * BLOCK, len(text)), BLOCK)
        for place in among([text[start : start + BLOCK + AROUND] for start in starts]):
            if found and found[-1][1] == len(text):
                return found
            _add(found, text, starts[place], before=AROUND)
    return found


def _add(found: list[tuple[int, int]], text: str, block: int, *, before: int = 0) -> None:
    """Add a block to the stretches of a text. A block that touches the last stretch extends it."""
    start, last = _word(text, max(0, block - before)), found[-1][1] if found else 0
    end = _reach(text, block + BLOCK, last)
    if found and start <= last:
        start, end = found.pop()[0], max(end, last)
    found.append((start, end))


def _word(text: str, at: int) -> int:
    """Return the begin of the word at a position, at most AROUND characters before it."""
    least = max(0, at - AROUND)
    return max(text.rfind(" ", least, at), text.rfind("\n", least, at), least - 1) + 1


def _closed(text: str, at: int, end: int) -> int:
    """Return `end`, moved on while the text from `at` to it has a suspicious place whose secret may end behind it."""
    while end < len(text) and suspicious()(text[at : end + AROUND]):
        at, end = end, _reach(text, end, end)
    return end


def _reach(text: str, at: int, last: int) -> int:
    """Return the farthest end of a secret that belongs to a suspicious place before `at`.

    Args:
        last: the result of this function for an earlier place.
    """
    least, most = at + AROUND, at + AROUND + LONGEST_SECRET
    ends = [end for character in "\n\r" if (end := text.find(character, least, most)) >= 0]
    if ends:
        return min(ends)
    if most < last:
        return last  # the first blank behind the earlier place is also the first behind this one
    blank = _BLANK.search(text, most)  # one search for all kinds of blanks: a missing kind would cost the whole text
    return len(text) if blank is None else blank.start()


@cache
def marked_sensitive() -> Suspicious:
    """Return the search that finds whether a JSON text may have a value that is marked as sensitive."""
    return lambda text, data=None: (MARK_IN_TEXT if type(text) is str else _MARK) in text


@lru_cache(maxsize=4096)
def is_harmless_name(name: str) -> bool:
    """Return whether the name of a member or a span type is ASCII without a credential in it."""
    return name.isascii() and not suspicious()(name)


_NUMBER = lazy_pattern(
    r"(?<![\w./-])(?:2[2-7]|3[04-9]|4[0-9]|5[0-9]|6[0-9])(?:[ -]?[0-9]){11,17}(?![\w/-]|\.[0-9])", re.ASCII
)
_LENGTHS = {"2": (16,), "3": (14, 15, 16), "4": (13, 16, 19), "5": (16,), "6": (16, 17, 18, 19)}
"""The possible numbers of digits, by the first digit: Mastercard; Diners, Amex, JCB; Visa; Mastercard; UnionPay."""


def card_numbers(name: str, value: Any) -> Any:
    """Replace the numbers of payment cards: a rule for `configure(redact=agentspan.card_numbers)`.

    A number is replaced if it has the first digits and the length of a card number, and a valid check digit (Luhn). One
    in ten ids of this form has one by chance, so the rule is off unless a program enables it.

    Args:
        name: the name of the member, which is ignored.
        value: a text, in which only card numbers are replaced, or a number.
    """
    if type(value) is str:
        return _NUMBER.sub(_replaced, value) if len(value) >= 13 else value
    if type(value) is int and 10**12 <= value < 10**19 and _NUMBER.fullmatch(str(value)) and _is_card(str(value)):
        return REDACTED
    return value


@cache
def has_card_number() -> Found:
    """Return the search that finds whether a JSON text may have a card number in it."""
    return search(r"[2-6](?:[ -]?[0-9]){12}")


def _replaced(match: re.Match[str]) -> str:
    return REDACTED if _is_card(re.sub("[ -]", "", match[0])) else match[0]


def _is_card(digits: str) -> bool:
    if len(digits) not in _LENGTHS[digits[0]] or len(set(digits)) < 2:
        return False
    doubled = sum(sum(divmod(2 * int(digit), 10)) for digit in digits[-2::-2])
    return (doubled + sum(map(int, digits[-1::-2]))) % 10 == 0


Rule = Callable[[str, Any], Any]
"""A user's rule: a function of the name of a member and its text, number, boolean or None. It returns the value to
record, perhaps the same one. For a value in a list, the name is that of the nearest member; "" if there is none."""

MARGIN = 512
"""The number of characters beyond a cut that are searched, too: the rest of a cut credential may be unrecognizable."""


LONGEST_PART = 32_768
"""The number of characters that are searched in one part of a stack trace, counted from its end."""
MOST_KNOWN = 64
"""The number of texts whose redacted forms are cached; one more empties the cache."""
LONGEST_ARGUMENTS = 4096
"""The longest option with its value, in characters. Longer texts are not searched as arguments of a program."""
_BLANKS = lazy_pattern(r"\s")


class Redaction:
    """Replaces credentials, and the values found by a user's rule, before anything is stored.

    Args:
        rule: a user's rule, called after the rules for credentials.
        long: the length of a text from which on several fast searches are tried first.

    Attributes:
        count: the number of texts and values that were replaced or cut.
        has_rule: whether there is a user's rule.
        suspicious: returns whether something in a payload's JSON text, or its bytes, may need redaction.
    """

    def __init__(self, rule: Rule | None = None, *, long: int = LONG) -> None:
        self.count = 0
        self.has_rule = rule is not None
        self._rule = rule
        self._known: dict[bytes, tuple[str, int]] = {}
        self._suspicious = suspicious(long)
        self._among: Among = suspicious_among if long == LONG_ONCE else self._one_by_one
        self.suspicious = self._suspicious
        if rule is card_numbers:
            found = has_card_number()
            self.suspicious = lambda text, data=None: self._suspicious(text, data) or found(text)
        elif rule is not None:
            self.suspicious = lambda text, data=None: True

    def suspicious_among(self, texts: Sequence[str]) -> list[int]:
        """Return the indexes of the texts that may need redaction, faster than `suspicious` for each of them."""
        if self._rule is not None:
            return [place for place, text in enumerate(texts) if self.suspicious(text)]
        return suspicious_among(texts)

    def _one_by_one(self, texts: Sequence[str]) -> Iterator[int]:
        return (place for place, text in enumerate(texts) if self._suspicious(text))

    def text(self, text: str) -> str:
        """Return a text with the redaction mark in place of each credential."""
        readable = _readable(text)
        if not self._suspicious(readable):
            return text
        if len(text) < BLOCK:
            return self._searched(text, readable, ready())
        cut = self._uncrowded(text, readable)
        if cut is not text:
            text, readable = cut, _readable(cut)
        whole, *others = ready()
        text = self._searched(text, readable, [whole])
        readable = _readable(text)
        pieces: list[str] = []
        end = 0
        for start, stop in stretches(readable, self._among):
            pieces += text[end:start], self._searched(text[start:stop], readable[start:stop], others)
            end = stop
        return "".join([*pieces, text[end:]])

    def _uncrowded(self, text: str, readable: str) -> str:
        """Return a text with the redaction mark in place of stretches that are crowded with suspicious places."""
        pieces: list[str] = []
        end = 0
        for start, stop in crowded(readable):
            self.count += 1
            pieces += text[end:start], REDACTED
            end = stop
        return "".join([*pieces, text[end:]]) if pieces else text

    def _searched(self, text: str, readable: str, groups: Iterable[Group]) -> str:
        for group in groups:
            if not group.found(readable):
                continue
            if group.groups:
                text = self._searched(text, readable, group.groups)
                readable = _readable(text)
            for kind in group.kinds:
                if kind.found(readable):
                    cut = self._without(kind, text)
                    if cut is not text:
                        text, readable = cut, _readable(cut)
        return text

    def _without(self, kind: Ready, text: str) -> str:
        """Return a text without the credentials of one kind; the same object if there are none."""
        pieces: list[str] = []
        end = 0
        for match in kind.matches(text):
            group = kind.judge(match)
            if group is None or match[group].startswith(REDACTED) or PLACEHOLDER.fullmatch(match[group]):
                continue
            self.count += 1
            pieces += text[end : match.start(group)], REDACTED
            end = match.end(group)
        return "".join([*pieces, text[end:]]) if pieces else text

    def argument(self, before: Sequence[Any], value: Any) -> Any:
        """Return one command-line argument, redacted if an option in it or before it shows that it is a credential.

        Args:
            before: the earlier arguments, perhaps with the program's name first; values of any type.
        """
        option = before[-1] if before else None
        if type(value) is not str or type(option) is not str or not value or value[:1] != "-" != option[:1]:
            return value
        if len(option) + len(value) > LONGEST_ARGUMENTS:
            return value
        names = [each[-64:].rpartition("/")[2] for each in before[:2] if type(each) is str and each[:1] != "-"]
        line = " ".join(names) + " "
        if value[:1] != "-":
            if names_credential(option.lstrip("-")):
                return self._redacted()
            line += f"{option} "
        # Blanks become no-break spaces, which do not separate words in these rules: one argument is one word.
        cut = self.text(line + _BLANKS.sub("\xa0", value))
        if not cut.startswith(line) or REDACTED not in cut:
            return value
        return cut[len(line) :].replace("\xa0", " ")

    def start(self, text: str, length: int) -> str:
        """Return the redacted start of a text, without a partial credential at the cut."""
        if len(text) <= length + MARGIN:
            return self._repeated(text)[:length]
        return self._repeated(text[: length + MARGIN])[:-MARGIN][:length]

    def end(self, parts: Sequence[str], length: int) -> str:
        """Return the end of a text, redacted.

        Args:
            parts: the parts of the text. No credential continues from one part to the next. Equal parts are redacted
                only once: an exception that passes n recorded calls has n stack traces.
        """
        kept: list[str] = []
        size = 0
        for part in reversed(parts):
            kept.append(part)
            size += len(part)
            if size >= length:
                break
        kept.reverse()
        text = "".join(kept)
        if self._suspicious(text if text.isascii() else _readable(text)):
            text = "".join(map(self._end, kept))
        return text[-length:]

    def _end(self, text: str) -> str:
        """Return a text redacted; of a long text only the end, without a partial credential at the cut."""
        if len(text) <= LONGEST_PART:
            return self._repeated(text)
        tail = _HEADLESS.sub(REDACTED, text[-LONGEST_PART:])
        return self.text(tail)[MARGIN:]

    def _repeated(self, text: str) -> str:
        """Return a text redacted, and cache the result, because the text may come again."""
        if not self._suspicious(text if text.isascii() else _readable(text)):
            return text
        digest = hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).digest()
        known = self._known.get(digest)
        if known is None:
            before = self.count
            cut = self.text(text)
            known = cut, self.count - before
            if len(self._known) >= MOST_KNOWN:
                self._known.clear()
            self._known[digest] = known
        else:
            self.count += known[1]
        return known[0]

    def value(self, name: str, value: Any, *, is_blob: bool = False) -> Any:
        """Return a text, number, boolean or None of a member with this name, redacted.

        Args:
            is_blob: whether the text is base64 of bytes, which is not searched: it would hide credentials, and 8 MB
                take 30 ms.
        """
        looks = looks_of(name)
        if type(value) is str:
            if (
                looks is not None
                and looks.fullmatch(value)
                and not value.startswith(REDACTED)
                and not MASK.fullmatch(value)
            ):
                value = self._redacted()
            elif len(value) >= 8 and not is_blob:
                value = self.text(value)
        elif looks is not None and value is not None and type(value) is not bool:
            is_pin = looks in NUMBERS and type(value) is int and 0 <= value < LARGEST and looks.fullmatch(str(value))
            if (looks is ANY and not COOKIES.fullmatch(name)) or is_pin:
                value = self._redacted()
        return value if self._rule is None else self._by_rule(name, value)

    def changes_numbers(self, name: str) -> bool:
        """Return whether a number in a member of this name may be replaced."""
        return self._rule is not None or looks_of(name) in (ANY, *NUMBERS)

    def _by_rule(self, name: str, value: Any) -> Any:
        assert self._rule is not None
        try:
            replaced = self._rule(name, value)
        except Exception as raised:  # the user's rule failed: the value is redacted
            let_through(raised)
            return self._redacted()
        if replaced is value:
            return value
        self.count += 1
        return replaced if type(replaced) in (str, int, float, bool, type(None)) else REDACTED

    def _redacted(self) -> str:
        self.count += 1
        return REDACTED


_HEADLESS = lazy_pattern(r"\A(?:(?!-----BEGIN )(?s:.)){0,16384}?-----END [A-Z ]{0,30}PRIVATE KEY(?: BLOCK)?-----")


def _readable(text: str) -> str:
    """Return a text with replacements for lone surrogates, which Rust's regex engine cannot read."""
    if text.isascii():
        return text
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-8", "replace").decode()
    return text
