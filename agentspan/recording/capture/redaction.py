"""Keeps credentials, card numbers and what one's own rule says out of the record. Their patterns are in credentials."""

import hashlib
import re
from collections.abc import Callable, Iterable, Sequence
from functools import cache, lru_cache
from typing import Any

from agentspan.interrupts import let_through
from agentspan.model.sensitive import IN_TEXT, REDACTED
from agentspan.recording.capture.credentials import (
    ANY,
    AS_WORDS,
    BEYOND,
    BEYOND_ASCII,
    CODES,
    COOKIES,
    DOUBTFUL,
    ESCAPED,
    IN_ASCII,
    KEY_GROUPS,
    LARGEST,
    MASK,
    MAY_BE_KEY,
    NAMES,
    NUMBERS,
    ODD,
    OTHERS,
    PLACEHOLDER,
    SEPARATOR,
    Found,
    Group,
    Ready,
    detects,
    looks_of,
    names_credential,
    of_group,
    ready,
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


_NUMBER = re.compile(
    r"(?<![\w./-])(?:2[2-7]|3[04-9]|4[0-9]|5[0-9]|6[0-9])(?:[ -]?[0-9]){11,17}(?![\w/-]|\.[0-9])", re.ASCII
)
_LENGTHS = {"2": (16,), "3": (14, 15, 16), "4": (13, 16, 19), "5": (16,), "6": (16, 17, 18, 19)}
"""How many digits a number has, by its first one: Mastercard; Diners, Amex, JCB; Visa; Mastercard; UnionPay."""


def card_numbers(name: str, value: Any) -> Any:
    """Replace the numbers of payment cards: a rule for `configure(redact=agentspan.card_numbers)`.

    A number counts if it has the first digits and the length of a card, and its last digit checks the others (Luhn). So
    does one in ten of the ids that look like one. Therefore the rule is off unless a program asks for it.

    Args:
        name: of the member; it does not matter.
        value: a text, in which only the numbers are replaced, or a number.
    """
    if type(value) is str:
        return _NUMBER.sub(_replaced, value) if len(value) >= 13 else value
    if type(value) is int and 10**12 <= value < 10**19 and _NUMBER.fullmatch(str(value)) and _is_card(str(value)):
        return REDACTED
    return value


@cache
def has_card_number() -> Found:
    """Return the search that tells of a JSON text whether there may be such a number in it."""
    return search(r"[2-6](?:[ -]?[0-9]){12}")


def _replaced(match: re.Match[str]) -> str:
    return REDACTED if _is_card(re.sub("[ -]", "", match[0])) else match[0]


def _is_card(digits: str) -> bool:
    if len(digits) not in _LENGTHS[digits[0]] or len(set(digits)) < 2:
        return False
    doubled = sum(sum(divmod(2 * int(digit), 10)) for digit in digits[-2::-2])
    return (doubled + sum(map(int, digits[-1::-2]))) % 10 == 0


Rule = Callable[[str, Any], Any]
"""One's own rule: takes the name of a member (of the nearest one, for what is in a list; "" where there is none) and
its text, number, boolean or None; returns what to record instead, or the same."""

MARGIN = 512
"""Characters beyond a cut that are looked at: what a cut leaves of a credential may not look like one any more."""


LONGEST_PART = 32_768
"""Characters of one part of a stack trace that are looked at; of a longer one, so many at its end."""
MOST_KNOWN = 64
"""Texts whose redacted forms are kept; one more empties them."""
LONGEST_ARGUMENTS = 4096
"""Characters of an option and its value together; longer ones are texts of another kind."""
_BLANKS = re.compile(r"\s")


class Redaction:
    """Replaces credentials, and whatever a rule of the program finds, before anything is stored.

    Args:
        rule: one's own, asked after the rules for credentials.

    Attributes:
        count: how many texts or values were replaced or cut.
        has_rule: whether there is a rule of the program.
        suspicious: tells of a payload's JSON text, or its bytes, whether something in it may need redaction.
    """

    def __init__(self, rule: Rule | None = None) -> None:
        self.count = 0
        self.has_rule = rule is not None
        self._rule = rule
        self._known: dict[bytes, tuple[str, int]] = {}
        self._suspicious = suspicious()
        self.suspicious = self._suspicious
        if rule is card_numbers:
            found = has_card_number()
            self.suspicious = lambda text, data=None: self._suspicious(text, data) or found(text)
        elif rule is not None:
            self.suspicious = lambda text, data=None: True

    def text(self, text: str) -> str:
        """Cut out of a text what looks like a credential."""
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
        for start, stop in stretches(readable):
            pieces += text[end:start], self._searched(text[start:stop], readable[start:stop], others)
            end = stop
        return "".join([*pieces, text[end:]])

    def _uncrowded(self, text: str, readable: str) -> str:
        """Return a text without the stretches that are crowded with places to look at."""
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
        """Return a text without the credentials of a kind; the same one, if there are none."""
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
        """Return one of a program's arguments, redacted if it is a credential by the option in it or before it.

        Args:
            before: the arguments before it, perhaps with the program's name first; values of any type.
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
        # One word, as it is one argument. What separates words in other alphabets separates none in these rules.
        cut = self.text(line + _BLANKS.sub("\xa0", value))
        if not cut.startswith(line) or REDACTED not in cut:
            return value
        return cut[len(line) :].replace("\xa0", " ")

    def start(self, text: str, length: int) -> str:
        """Return the start of a text, redacted, without what the cut may have made unrecognisable."""
        if len(text) <= length + MARGIN:
            return self._repeated(text)[:length]
        return self._repeated(text[: length + MARGIN])[:-MARGIN][:length]

    def end(self, parts: Sequence[str], length: int) -> str:
        """Return the end of a text, redacted.

        Args:
            parts: of the text. No credential goes on from one to the next. Each is redacted once, however often it
                comes: an exception that passes n recorded calls has n stack traces.
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
        """Return a text, or of a long one the end, redacted, without what the cut may have made unrecognisable."""
        if len(text) <= LONGEST_PART:
            return self._repeated(text)
        tail = _HEADLESS.sub(REDACTED, text[-LONGEST_PART:])
        return self.text(tail)[MARGIN:]

    def _repeated(self, text: str) -> str:
        """Cut out of a text what looks like a credential; the redacted form is kept, since the text may come again."""
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
        """Return what to record of a text, number, boolean or None in a member of this name.

        Args:
            is_blob: whether it is base64 of bytes, in which credentials would not be seen (8 MB take 30 ms to search).
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
        except Exception as raised:  # what one's own rule cannot judge is not recorded
            let_through(raised)
            return self._redacted()
        if replaced is value:
            return value
        self.count += 1
        return replaced if type(replaced) in (str, int, float, bool, type(None)) else REDACTED

    def _redacted(self) -> str:
        self.count += 1
        return REDACTED


_HEADLESS = re.compile(r"\A(?:(?!-----BEGIN )(?s:.)){0,16384}?-----END [A-Z ]{0,30}PRIVATE KEY(?: BLOCK)?-----")


def _readable(text: str) -> str:
    """Return a text that the other engine can read: in the place of each lone surrogate, something that it can."""
    if text.isascii():
        return text
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-8", "replace").decode()
    return text
