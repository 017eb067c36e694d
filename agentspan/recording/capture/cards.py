"""A rule for redaction that a program may turn on: the numbers of payment cards."""

import re
from functools import cache
from typing import Any

from agentspan.model.sensitive import REDACTED
from agentspan.recording.capture.credentials import Found, search

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
