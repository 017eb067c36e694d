"""Redacts JSON that a client sent. It has no limits but those of the request: what was sent is stored whole."""

from collections.abc import Callable
from typing import Any

from agentspan.recording.capture.credential_search import is_harmless_name
from agentspan.recording.capture.credentials import is_schema, names_credential
from agentspan.recording.capture.limits import encode
from agentspan.recording.capture.plain import BASIC_AUTH, another_key, described_by
from agentspan.recording.capture.redaction import Redaction, Rule

_NUMBERS = frozenset({int, float, bool, type(None)})
LONGEST_NAME = 200
"""Characters of a text that is looked up among those looked at before."""


class SentRedaction:
    """Redacts what clients send, by the same rules as what is recorded in process.

    Args:
        rule: one's own, asked after the rules for credentials.

    Attributes:
        suspicious: tells of a JSON text whether something in it may need redaction, or is marked as sensitive.
    """

    def __init__(self, rule: Rule | None = None) -> None:
        self._redaction = Redaction(rule)
        self.suspicious: Callable[[str], bool] = self._redaction.suspicious

    @property
    def count(self) -> int:
        """Number of texts and values that were replaced or cut."""
        return self._redaction.count

    def text(self, text: str) -> str:
        """Return a text without credentials."""
        return text if len(text) <= LONGEST_NAME and is_harmless_name(text) else self._redaction.text(text)

    def object(self, text: str, plain: Any) -> tuple[str, Any]:
        """Return JSON without credentials, as text and as plain JSON.

        Args:
            text: the JSON text.
            plain: the same, parsed.
        """
        if not self.suspicious(text):
            return text, plain
        cleaned = self._clean(plain, "")
        return encode(cleaned), cleaned

    def _clean(self, value: Any, name: str) -> Any:
        """Return a value of plain JSON, redacted. One call for each level: there may be 500."""
        redaction = self._redaction
        if type(value) is dict:
            is_secret = bool(name) and names_credential(name) and not is_schema(value)
            described = "" if is_secret else described_by([*value.items()] if len(value) <= 12 else [])
            out: dict[str, Any] = {}
            taken: dict[str, int] = {}
            for key, item in value.items():
                shown = key if len(key) <= 64 and is_harmless_name(key) else redaction.text(key)
                if shown in out:  # two keys of which the same is left
                    shown = another_key(shown, out, taken)
                member = name if is_secret else described if described and key.lower() == "value" else key
                out[shown] = self._clean(item, member)
            return out
        if type(value) is list:
            kept: list[Any] = []
            is_header = name[-7:].lower() == "headers" and not names_credential(name)
            is_login = name.lower() in BASIC_AUTH and len(value) == 2
            keeps_numbers = not is_login and not redaction.changes_numbers(name)
            for index, item in enumerate(value):
                if keeps_numbers and type(item) in _NUMBERS:  # millions, in vectors
                    kept.append(item)
                elif is_header and type(item) is list and len(item) == 2 and type(item[0]) is str:
                    kept.append([self._clean(item[0], ""), self._clean(item[1], item[0])])
                else:
                    item = redaction.argument(kept, item)
                    kept.append(self._clean(item, "password" if is_login and index else name))
            return kept
        return redaction.value(name, value)
