"""Any value as plain JSON: in bounded time, never raising, using up nothing, and redacted on the way.

Texts, numbers, lists and objects are copied up to the limits. What an object of another kind says of itself is asked
once; its iterators, files and generators are left alone. An interrupt (Ctrl-C, SystemExit) that comes meanwhile is the
program's, and goes through.

Values of numpy and pandas become simpler ones, by what they can do: neither is imported.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from enum import Enum
from typing import Any, NamedTuple

from pydantic_core import from_json, to_json

from agentspan.interrupts import guard, let_through
from agentspan.recording.capture.credentials import is_schema, looks_of, names_credential
from agentspan.recording.capture.limits import TRUNCATED, Limits, encode
from agentspan.recording.capture.redaction import Redaction, Rule, is_harmless_name
from agentspan.recording.capture.values import (
    MAX_NAME,
    SEQUENCES,
    Leaves,
    contents_of,
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
    """The first rows of a table, or the first values of a series."""

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
        return item if type(item) is not type(value) else None  # a long double is its own
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
"""By package, so that none of them is imported: an object as simpler values, a table, or None."""


MAX_DEPTH = 190  # the encoder's own limit is 200
MAX_REPR = 1000
MANY = 1000
"""Values from which on those that were converted are kept: lists that share lists may stand for any number."""
_RESERVE = 256  # values that no member may take from those after it: token counts often come last

_SCALARS = (str, int, float, bool, type(None))
BASIC_AUTH = frozenset({"auth", "basic_auth", "proxy_auth", "http_auth"})
"""Names of members whose value may be a user's name and password."""


class _Shared(NamedTuple):
    """A value that was converted whole, and may be in more places: then it is not looked at again, but counted.

    Attributes:
        value: keeps it, so that its id is not another's.
        level: how deep it was.
        values, characters, redacted: what it took of the limits, and how much was redacted in it.
    """

    value: Any
    plain: Any
    level: int
    values: int
    characters: int
    redacted: int


class Plain(Leaves):
    """One walk through one value."""

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
        self._looks = self._values  # how many values may be looked at for whether their own serializer may have them
        self._above: list[int] = []
        self._shared: dict[tuple[int, str], _Shared] = {}
        self._raised: Exception | None = None

    def of(self, value: Any, name: str = "") -> Any:
        """Return a value as plain JSON.

        Args:
            name: the member that it is in: what is in a member called `password` is redacted, whatever it is.
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
            let_through(error)
            return not_json(value)
        finally:
            self._above.pop()
            self._room += reserve

    def _convert_once(self, value: Any, name: str) -> Any:
        """Convert a value, or count one that was converted before, where it is in several places."""
        redaction, level = self.redaction, len(self._above)
        if redaction is not None and redaction.has_rule:  # which is asked about each place
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
            try:
                return self._list(value, name, names if type(names) is tuple else ())
            except Exception as raised:
                let_through(raised)
                contents = contents_of(value)
                if contents is None:
                    raise
                return self._list(contents, name)
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
        """Take a tuple of two: a header's name and value, or a user's name and password."""
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
        # Everything in `credentials: {…}` is one; but not what a tool's JSON Schema says of a member `password`.
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
        """Take a table: each cell is in a member of its column's name."""
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
        """Take a dataclass, a pydantic model and the like: by its own serializer, where that is sure to be harmless."""
        if hasattr(type(value), "__pydantic_serializer__") and self._is_small(fields):
            try:
                return self.of(from_json(to_json(value, inf_nan_mode="strings", fallback=self._said)), name)
            except Exception as raised:
                let_through(self._raised or raised)
        return self._object(first(fields.items(), self.limits.items), len(fields), name)

    @guard(otherwise=False)
    def _is_small(self, fields: Mapping[str, Any]) -> bool:
        given = min(self._looks, self._values // 10)
        room = [given]
        try:
            return is_small(fields, room, 0)
        finally:
            self._looks -= given - max(room[0], 0)

    def _leaf(self, value: Any, name: str) -> Any:
        """Take dates, paths, ids and the like as the encoder writes them, everything else as its repr."""
        if not hasattr(type(value), "__next__"):
            with unharmed:
                return self.of(from_json(to_json(value)), name)
        return self.text(self._said(value), name)

    def _said(self, value: Any) -> str:
        """Return the start of an object's repr, cut where no half of a credential is left."""
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
    """Return another key for one that is there already.

    Args:
        taken: the last numbers of the keys before, which begin anew with an empty dict.
    """
    number = taken.get(shown, 1)
    another = shown
    while another in out:
        number += 1
        another = f"{shown}'{number}"
    taken[shown] = number
    return another


def described_by(pairs: Sequence[tuple[Any, Any]]) -> str:
    """Return the name of a credential that an object like `{"name": "Authorization", "value": …}` is about, or ""."""
    if 2 <= len(pairs) <= 12:
        for key, item in pairs:
            if type(key) is str and key.lower() in ("name", "key") and type(item) is str and looks_of(item) is not None:
                return item
    return ""


# Subclasses of JSON's own types, whose methods may be anything, and what makes them exact.
_ATOMS: tuple[tuple[type, Callable[[Any], Any]], ...] = (
    (str, exact_text),
    (int, int.__int__),
    (float, float.__float__),
)


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
