"""Converts any value to plain JSON: in bounded time, redacted, without raising and without consuming iterators.

Texts, numbers, lists and objects are copied up to the limits. Of other objects, the fields or the repr are read once;
iterators, files and generators are never read. An interrupt (Ctrl-C, SystemExit) during the conversion is re-raised.

Values of numpy and pandas are recognized by their attributes and simplified, without importing either package.
"""

from collections.abc import Callable, Container, Iterable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from enum import Enum
from typing import Any, NamedTuple

from pydantic_core import from_json, to_json

from agentspan.host import guard, let_through
from agentspan.recording.capture.credentials import is_schema, looks_of, names_credential
from agentspan.recording.capture.redaction import LONG_ONCE, Redaction, Rule, is_harmless_name
from agentspan.recording.capture.values import (
    MAX_NAME,
    SEQUENCES,
    TRUNCATED,
    Leaves,
    Limits,
    contents_of,
    encode,
    exact_text,
    fields_of,
    first,
    is_fault,
    is_small,
    key_name,
    length_of,
    not_json,
    pairs_of,
    unharmed,
)
from agentspan.tuning import STANDARD, Tuning


class Table(NamedTuple):
    """The first rows of a pandas table, or the first values of a series (`flat`)."""

    columns: list[str]
    rows: list[Any]
    total: int
    about: dict[str, Any]
    flat: bool = False


def _numpy(value: Any, limit: int) -> Any:
    if not hasattr(value, "tolist") or not hasattr(value, "nbytes"):
        return None
    if value.ndim == 0:
        item = value.item()
        return item if type(item) is not type(value) else None  # `item` of a long double returns a long double
    if value.size <= limit:
        names = value.dtype.names if value.ndim == 1 else None
        return value.tolist() if names is None else [dict(zip(names, row, strict=True)) for row in value.tolist()]
    return {TRUNCATED: {"shape": list(value.shape), "dtype": str(value.dtype), "bytes": int(value.nbytes)}}


def _pandas(value: Any, limit: int) -> Any:
    if hasattr(value, "to_dict") and hasattr(value, "iloc"):
        flat = value.ndim == 1
        width = 1 if flat else min(value.shape[1], limit)
        head = value.iloc[: max(1, limit // max(1, width))]
        if flat:
            name = str(value.name)
            about: dict[str, Any] = {"name": name, "index": head.index.tolist()}
            return Table([name], [(cell,) for cell in head.tolist()], len(value), about, flat=True)
        columns = [str(column) for column in value.columns]
        about = {"columns": columns, "index": head.index.tolist()}
        rows = head.iloc[:, :width].to_numpy(dtype=object).tolist()
        return Table(columns[:width], rows, len(value), about)
    return value.isoformat() if hasattr(value, "isoformat") else None


FOREIGN: Mapping[str, Callable[[Any, int], Any]] = {"numpy": _numpy, "pandas": _pandas}
"""Converters by package name, so that no package is imported. They return simpler values, a Table, or None."""


MAX_DEPTH = 190  # the encoder's own limit is 200
MAX_REPR = 1000
"""The most characters of the `repr` of an object without a JSON form."""
MANY = 1000
"""The number of values of one conversion above which converted values are cached: nested shared lists multiply."""
_RESERVE = 256  # the number of values reserved for later members: token counts often come last

_SCALARS = (str, int, float, bool, type(None))
BASIC_AUTH = frozenset({"auth", "basic_auth", "proxy_auth", "http_auth"})
"""The names of members whose value may be a pair of user name and password."""


class _Shared(NamedTuple):
    """A value that was converted completely. In further places it is only counted for the limits, not converted again.

    Attributes:
        value: the value, held so that its id is not reused.
        level: the depth at which it was converted.
        values, characters, redacted: how much of the limits it used, and the number of redactions in it.
    """

    value: Any
    plain: Any
    level: int
    values: int
    characters: int
    redacted: int


class Plain(Leaves):
    """The conversion of one value to plain JSON."""

    def __init__(
        self,
        limits: Limits,
        redaction: Redaction | None,
        *,
        keep_sensitive: bool = False,
        tuning: Tuning = STANDARD,
    ) -> None:
        super().__init__(limits, redaction, tuning=tuning)
        self._keep_sensitive = keep_sensitive
        self._depth = min(limits.depth, MAX_DEPTH)
        self._values = self._room = tuning.captured_values
        self._few = self._values - MANY
        self._looks = self._values  # the number of values that may still be checked for their own serializer
        self._above: list[int] = []
        self._shared: dict[tuple[int, str], _Shared] = {}
        self._raised: Exception | None = None

    def of(self, value: Any, name: str = "") -> Any:
        """Return a value as plain JSON.

        Args:
            name: the name of the member that the value is in. Everything in a member `password` is redacted.
        """
        self._room -= 1
        kind = type(value)
        if kind is str:
            return self.text(value, name)
        if value is None or kind is bool or kind is int or kind is float:
            return self.number(value, name)
        if len(self._above) >= self._depth or self._room < 0 or id(value) in self._above:
            self.cuts += 1
            if len(self._above) >= self._depth:
                return {TRUNCATED: {"depth": self._depth}}
            return {TRUNCATED: {"values": self._values}} if self._room < 0 else not_json(value, "contains itself")
        reserve = min(self._room // 4, _RESERVE)
        self._room -= reserve
        self._above.append(id(value))
        try:
            return self._convert(value, name) if self._room > self._few else self._convert_once(value, name)
        except BaseException as error:
            if not is_fault(error):
                raise
            return not_json(value)
        finally:
            self._above.pop()
            self._room += reserve

    def _convert_once(self, value: Any, name: str) -> Any:
        """Convert a value, or reuse its earlier conversion if the value is in several places."""
        redaction, level = self.redaction, len(self._above)
        if redaction is not None and redaction.has_rule:  # a user's rule must be called for each place
            return self._convert(value, name)
        shared = self._shared.get((id(value), name))
        count = 0 if redaction is None else redaction.count
        if shared is None or level > shared.level:
            room, characters, cuts = self._room, self.characters, self.cuts
            plain = self._convert(value, name)
            if self.cuts == cuts:
                redacted = 0 if redaction is None else redaction.count - count
                used = room - self._room, characters - self.characters, redacted
                self._shared[id(value), name] = _Shared(value, plain, level, *used)
            return plain
        if shared.values > self._room or shared.characters > self.characters:
            return self._convert(value, name)
        self._room -= shared.values
        self.characters -= shared.characters
        if redaction is not None:
            redaction.count += shared.redacted
        return shared.plain

    def _convert(self, value: Any, name: str) -> Any:
        kind = type(value)
        if kind is dict:
            return self._object(first(value.items(), self.limits.items), len(value), name)
        if kind is list:
            return self._list(value, name)
        if isinstance(value, Mapping):
            return self._mapping(value, name)
        if isinstance(value, SEQUENCES):
            if type(value) is tuple and len(value) == 2:
                return self._pair(value, name)
            names = getattr(type(value), "_fields", None) if isinstance(value, tuple) else None
            with unharmed if isinstance(value, list | tuple) and type(value) is not tuple else nullcontext():
                return self._list(value, name, names if type(names) is tuple else ())
            return self._list(contents_of(value), name)
        if isinstance(value, bytes | bytearray | memoryview):
            return self.binary(value, name)
        if isinstance(value, Enum):
            return self.of(value.value, name)
        for base, exact in _ATOMS:
            if isinstance(value, base):
                return self.of(exact(value), name)
        module = type(value).__module__
        foreign = FOREIGN.get(module.partition(".")[0]) if type(module) is str else None
        if foreign is not None:
            converted = foreign(value, self.limits.items)
            if type(converted) is Table:
                return self._table(converted, name)
            if converted is not None:
                return self.of(converted, name)
        fields = fields_of(value)
        if fields is not None:
            return self._record(value, fields, name)
        return self._leaf(value, name)

    def _list(self, values: Iterable[Any], name: str, names: tuple[Any, ...] = ()) -> list[Any]:
        kept: list[Any] = []
        pairs = type(values) is list and name[-7:].lower() == "headers"
        secret = names_credential(name)
        for item in first(values, self.limits.items):
            if self._room <= 0:
                self.cuts += 1
                break
            if self.redaction is not None and type(item) is str:
                item = self.redaction.argument(kept, item)
            if pairs and type(item) is list and len(item) == 2:
                item = tuple(item)
            member = names[len(kept)] if len(kept) < len(names) and type(names[len(kept)]) is str else name
            kept.append(self.of(item, name if secret else member))
        more = (length_of(values) or 0) - len(kept)
        if more > 0:
            kept.append({TRUNCATED: {"items": more}})
        return kept

    def _pair(self, pair: tuple[Any, Any], name: str) -> list[Any]:
        """Convert a tuple of two, which may be a header's name and value, or a user's name and password."""
        first, second = pair
        if names_credential(name):
            return [self.of(first, name), self.of(second, name)]
        if name.lower() in BASIC_AUTH:
            return [self.of(first), self.of(second, "password")]
        if type(first) is bytes and len(first) <= MAX_NAME:
            first_name = first.decode("latin-1")
        else:
            first_name = first if type(first) is str else ""
        return [self.of(first), self.of(second, first_name)]

    def _mapping(self, value: Mapping[Any, Any], name: str) -> dict[str, Any]:
        pairs, length = pairs_of(value, self.limits.items)
        return self._object(pairs, length, name)

    def _object(self, pairs: Sequence[tuple[Any, Any]], length: int | None, name: str) -> dict[str, Any]:
        # All values in `credentials: {…}` are credentials, but not a JSON Schema that describes a member `password`.
        secret = bool(name) and names_credential(name) and not is_schema(key for key, _ in pairs)
        described = "" if secret else described_by(pairs)
        is_hidden = not self._keep_sensitive and any(type(key) is str and key == "$sensitive" for key, _ in pairs)
        out: dict[str, Any] = {}
        taken: dict[str, int] = {}
        for key, item in pairs:
            if self._room <= 0:
                self.cuts += 1
                break
            if type(key) is str and len(key) <= 64 and is_harmless_name(key):
                own = shown = key
            else:
                own = key_name(key)
                shown = own if self.redaction is None else self.redaction.start(own, MAX_NAME)
                if len(own) > MAX_NAME:
                    shown = shown[:MAX_NAME] + "…"
            if shown in out:  # 1 and "1"
                shown = another_key(shown, out, taken)
            self.characters -= len(shown)
            if is_hidden and own == "value":
                out[shown] = self.hidden()
            else:
                out[shown] = self.of(
                    item, name if secret else described if described and own.lower() == "value" else own
                )
        if length is not None and length > len(out):
            out[TRUNCATED] = {"items": length - len(out)}
        return out

    def _table(self, table: Table, name: str) -> dict[str, Any]:
        """Convert a table. Each cell is redacted like a member with its column's name."""
        out: dict[str, Any] = {key: self.of(item, name) for key, item in table.about.items()}
        names = [name if names_credential(name) else column for column in table.columns]
        rows: list[Any] = []
        for row in table.rows:
            if self._room <= 0:
                self.cuts += 1
                break
            rows.append([self.of(cell, column) for cell, column in zip(row, names, strict=True)])
        out["data"] = [cell for (cell,) in rows] if table.flat else rows
        if table.total > len(rows):
            out[TRUNCATED] = {"items": table.total - len(rows)}
        return out

    def _record(self, value: Any, fields: Mapping[str, Any], name: str) -> Any:
        """Convert an object with fields. A small pydantic model is converted by its own serializer."""
        if hasattr(type(value), "__pydantic_serializer__") and self._is_small(fields):
            try:
                return self.of(from_json(to_json(value, inf_nan_mode="strings", fallback=self._said)), name)
            except Exception as raised:
                let_through(self._raised or raised)
        return self._object(first(fields.items(), self.limits.items), len(fields), name)

    @guard(otherwise=False)
    def _is_small(self, fields: Mapping[str, Any]) -> bool:
        allowed = min(self._looks, self._values // 10)
        room = [allowed]
        try:
            return is_small(fields, room, 0)
        finally:
            self._looks -= allowed - max(room[0], 0)

    def _leaf(self, value: Any, name: str) -> Any:
        """Convert dates, paths, ids and similar objects by the JSON encoder, all other objects by their repr."""
        if not hasattr(type(value), "__next__"):
            with unharmed:
                return self.of(from_json(to_json(value)), name)
        return self.text(self._said(value), name)

    def _said(self, value: Any) -> str:
        """Return the redacted start of an object's repr, cut so that no part of a credential is left."""
        try:
            text = exact_text(repr(value))
        except Exception as raised:
            self._raised = raised  # the encoder, which calls this, raises another one in its place
            raise
        if len(text) <= MAX_REPR:
            return text
        start = text[: MAX_REPR - 1] if self.redaction is None else self.redaction.start(text, MAX_REPR - 1)
        return start + "…"


def another_key(shown: str, out: dict[str, Any], taken: dict[str, int]) -> str:
    """Return a key with a number for a key that the object has already, such as `name'2`.

    Args:
        out: the object.
        taken: the last number of each key in this object; empty at first.
    """
    number = taken.get(shown, 1)
    another = shown
    while another in out:
        number += 1
        another = f"{shown}'{number}"
    taken[shown] = number
    return another


def described_by(pairs: Sequence[tuple[Any, Any]]) -> str:
    """Return the credential's name in an object like `{"name": "Authorization", "value": …}`; "" if there is none."""
    if 2 <= len(pairs) <= 12:
        for key, item in pairs:
            if type(key) is str and key.lower() in ("name", "key") and type(item) is str and looks_of(item) is not None:
                return item
    return ""


# Base types of JSON, each with a function that makes an exact value: methods of subclasses may do anything.
_ATOMS: tuple[tuple[type, Callable[[Any], Any]], ...] = (
    (str, exact_text),
    (int, int.__int__),
    (float, float.__float__),
)


_NUMBERS = frozenset({int, float, bool, type(None)})
LONGEST_NAME = 200
"""The length of a text up to which the result of its check is cached."""


def _texts_in(plain: Any) -> Iterator[str]:
    """Yield the texts in plain JSON, without the names of members."""
    rest = [plain]
    while rest:
        value = rest.pop()
        if type(value) is str:
            yield value
        elif type(value) is dict:
            rest += value.values()
        elif type(value) is list:
            rest += value


class SentRedaction:
    """Redacts JSON that clients send, by the rules for payloads that are recorded in process.

    Args:
        rule: a user's rule, called after the rules for credentials.

    Attributes:
        suspicious: returns whether something in a JSON text may need redaction, or is marked as sensitive.
        suspicious_among: returns the indexes of the suspicious texts in a list, in less time than a call of
            `suspicious` for each.
    """

    def __init__(self, rule: Rule | None = None) -> None:
        self._redaction = Redaction(rule, long=LONG_ONCE)
        self.suspicious: Callable[[str], bool] = self._redaction.suspicious
        self.suspicious_among: Callable[[Sequence[str]], list[int]] = self._redaction.suspicious_among

    @property
    def count(self) -> int:
        """The number of texts and values that were replaced or cut."""
        return self._redaction.count

    def text(self, text: str) -> str:
        """Return a text without credentials."""
        return text if len(text) <= LONGEST_NAME and is_harmless_name(text) else self._redaction.text(text)

    def cleaned(self, plain: Any) -> tuple[str, Any]:
        """Remove credentials from plain JSON whose text is suspicious. Return the rest as text and as plain JSON."""
        texts = [*dict.fromkeys(_texts_in(plain))]
        found = set(self.suspicious_among(texts))
        cleaned = self._clean(plain, "", {text for place, text in enumerate(texts) if place not in found})
        return encode(cleaned), cleaned

    def _clean(self, value: Any, name: str, harmless: Container[str]) -> Any:
        """Return a value of plain JSON, redacted. Uses one stack frame for each level: there may be 500.

        Args:
            harmless: texts without a credential: to search each by itself takes longer than all together.
        """
        if type(value) is str and value in harmless and looks_of(name) is None:
            return value
        redaction = self._redaction
        if type(value) is dict:
            is_secret = bool(name) and names_credential(name) and not is_schema(value)
            described = "" if is_secret else described_by([*value.items()] if len(value) <= 12 else [])
            out: dict[str, Any] = {}
            taken: dict[str, int] = {}
            for key, item in value.items():
                shown = key if len(key) <= 64 and is_harmless_name(key) else redaction.text(key)
                if shown in out:  # two keys with the same redacted form
                    shown = another_key(shown, out, taken)
                member = name if is_secret else described if described and key.lower() == "value" else key
                out[shown] = self._clean(item, member, harmless)
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
                    kept.append([self._clean(item[0], "", harmless), self._clean(item[1], item[0], harmless)])
                else:
                    item = redaction.argument(kept, item)
                    kept.append(self._clean(item, "password" if is_login and index else name, harmless))
            return kept
        return redaction.value(name, value)
