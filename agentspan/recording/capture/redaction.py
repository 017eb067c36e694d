"""Keeping credentials out of what is recorded, and what one's own rule says; how they are found is in credentials."""

import hashlib
import re
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from agentspan.interrupts import let_through
from agentspan.model.sensitive import REDACTED
from agentspan.recording.capture.cards import card_numbers, has_card_number
from agentspan.recording.capture.credential_search import BLOCK, crowded, stretches, suspicious
from agentspan.recording.capture.credentials import (
    ANY,
    COOKIES,
    LARGEST,
    MASK,
    NUMBERS,
    PLACEHOLDER,
    Group,
    Ready,
    looks_of,
    names_credential,
    ready,
)

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
