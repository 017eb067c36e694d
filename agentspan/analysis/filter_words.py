"""The grammar of filters of runs: converts command-line options, a URL query or keywords to a `RunFilter`.

Each name is an option of the command line (`--session S`), a parameter of the viewer's address (`session=S`), a
keyword of `Database.runs` (`session="S"`), and a word of a filter in one text (`session=S`).
"""

import re
import shlex
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, time, timedelta, tzinfo
from difflib import get_close_matches
from typing import Any, TypedDict

from agentspan import clock, jsontext
from agentspan.analysis import outcomes
from agentspan.analysis.by_name import AT
from agentspan.errors import InvalidValue
from agentspan.model.changes import INSTANCE_STATUSES, PURPOSES
from agentspan.storage.questions import RunFilter

_AGO = re.compile(r"(\d{1,9}(?:\.\d{1,3})?) ?([smhdw])\Z")
_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 7 * 86_400}
_DAYS = {"today": 0, "yesterday": 1}
_DATE = re.compile(r"(\d{4}-\d\d-\d\d)(?:[T ](\d\d:\d\d(?::\d\d(?:\.\d{1,6})?)?))?\Z")
_TIME_OF_DAY = re.compile(r"(?:(today|yesterday) )?(\d\d:\d\d(?::\d\d)?)\Z")
FORMS = "must be such as 90s, 15m, 2h, 7d, 02:00, today, yesterday, 2026-11-24, '2026-11-24 03:00'"


def parse_time(text: str, field: str = "since", *, zone: tzinfo | None = UTC) -> str:
    """Parse a time that a person typed; return it as stored text.

    Args:
        text: `90s`, `15m`, `2h`, `7d`, `4w` (a duration before now); `today`, `yesterday` (the start of the day);
            `02:00` (the latest such time before now), `yesterday 02:00`; `2026-11-24`, `2026-11-24 03:00`; or RFC 3339.
        field: the name of the value in an error.
        zone: the zone of times without an offset; None for the machine's own zone.

    Raises:
        InvalidValue: the text has none of these forms.
    """
    text = text.strip()
    try:
        found = _moment(text, clock.to_datetime(clock.now()), zone)
        return clock.parse(text if found is None else found)
    except (OverflowError, ValueError):
        raise InvalidValue(field, FORMS) from None


def stored(value: object, field: str, *, zone: tzinfo | None = UTC) -> str:
    """Return the stored text of an aware datetime, or of a text that `parse_time` parses.

    Raises:
        InvalidValue: the value is another type, a datetime without an offset, or a text that is not a time.
    """
    if isinstance(value, str):
        return parse_time(value, field, zone=zone)
    try:
        return clock.parse(value)
    except ValueError as error:
        raise InvalidValue(field, str(error)) from None


def _moment(text: str, now: datetime, zone: tzinfo | None) -> datetime | None:
    """Return the time that a text such as `2h`, `today`, `02:00` or `2026-11-24` names; None for any other text."""
    if ago := _AGO.match(text):
        return now - timedelta(seconds=float(ago[1]) * _UNITS[ago[2]])
    today = now.astimezone(zone).date()
    if text in _DAYS:
        return in_zone(zone, datetime.combine(today - timedelta(days=_DAYS[text]), time()))
    if date := _DATE.match(text):
        return in_zone(zone, datetime.fromisoformat(f"{date[1]}T{date[2] or '00:00'}"))
    if of_day := _TIME_OF_DAY.match(text):
        at = time.fromisoformat(of_day[2])
        moment = in_zone(zone, datetime.combine(today - timedelta(days=_DAYS.get(of_day[1] or "", 0)), at))
        is_to_come = not of_day[1] and moment > now
        return in_zone(zone, datetime.combine(today - timedelta(days=1), at)) if is_to_come else moment
    return None


def in_zone(zone: tzinfo | None, moment: datetime) -> datetime:
    """Return a naive datetime as an aware one in a zone; None is the machine's own zone.

    A time of day that a change to summer time leaves out, such as midnight in Cairo, is as much later.
    """
    if zone is not None:
        return moment.replace(tzinfo=zone)
    # Not `moment.astimezone()`: Python 3.11 and 3.13 differ in what it gives for a time that is left out.
    return datetime.fromtimestamp(moment.timestamp(), UTC).astimezone()


ALL = "all"
TEXTS = (
    "agent", "version", "session", "task", "purpose", "status", "error", "signature", "mark", "grep", "git_commit",
    "touched", "project", "tool", "model",
)  # fmt: skip
TIMES = ("since", "until")
MANY = ("tag", "score", "meta")
"""Names of the grammar that may occur more than once in a filter."""
FAILED = "failed"
NAMES = (*TEXTS, *TIMES, *MANY, FAILED)
_IS_QUOTED_OR_PAIR = re.compile(r"""[='"\\]""")

Values = Mapping[str, object]


class RunKeywords(TypedDict, total=False):
    """The keywords of `Database` methods that select runs, without `since` and `until`; see RunFilter for each.

    `agent` may be `AGENT@VERSION`. `meta` maps keys of the run's metadata to values.
    """

    agent: str | None
    version: str | None
    session: str | None
    task: str | None
    purpose: str | None
    tag: str | Sequence[str] | None
    status: str | None
    failed: bool
    score: str | Sequence[str] | None
    mark: str | None
    error: str | None
    signature: str | None
    meta: Mapping[str, object] | None
    grep: str | None
    git_commit: str | None
    touched: str | None
    project: str | None
    tool: str | None
    model: str | None


class TimedRunKeywords(RunKeywords, total=False):
    """The keywords of RunKeywords, and the time range in which runs started.

    `since` and `until` are aware datetimes, or text such as `7d`, `yesterday` or RFC 3339.
    """

    since: datetime | str | None
    until: datetime | str | None


def filter_of(values: Values, *, field: str = "", zone: tzinfo | None = UTC) -> RunFilter:
    """Return the filter for values by the names of the grammar. A value of None, or `failed=False`, matches all runs.

    Args:
        values: the text for each name; a bool for `failed`; text or datetime for times; one text or several for `tag`
            and `score`; texts such as `KEY=VALUE`, or a dict, for `meta`. Other names are ignored.
        field: a prefix of the name of the value in an error.
        zone: the zone of times without an offset; None for the machine's own zone.

    Raises:
        InvalidValue: a time, a status, a purpose, a rule over a score, a KEY=VALUE pair, or the type of a value is
            invalid.
    """
    within = f"{field} " if field else ""
    for name in (*TEXTS, *MANY):
        kinds = str if name in TEXTS else (str, Sequence, Mapping)
        if (value := values.get(name)) is not None and not isinstance(value, kinds):
            raise InvalidValue(f"{within}{name}", "must be text")
    texts: dict[str, Any] = {name: value for name in TEXTS if (value := values.get(name)) is not None}
    for name, known in (("status", INSTANCE_STATUSES), ("purpose", PURPOSES)):
        if texts.get(name, known[0]) not in known:
            raise InvalidValue(f"{within}{name}", f"must be one of {', '.join(known)}")
    for name in TIMES:
        if (value := values.get(name)) is not None:
            texts[name] = stored(value, f"{within}{name}", zone=zone)
    scores = _texts(values.get("score"))
    for rule in scores:
        outcomes.parse(rule, f"{within}score")
    return RunFilter(
        **texts,
        failed=bool(values.get(FAILED)),
        meta=_pairs(values.get("meta"), f"{within}meta"),
        tags=_texts(values.get("tag")),
        scores=scores,
    )


def parse(text: str, field: str = "filter", *, zone: tzinfo | None = UTC) -> RunFilter:
    """Parse a filter in one text: `agent=NAME failed since=7d`, `AGENT@VERSION session=S`, or `all`.

    A name with blanks needs quotes, unless the whole text is an `AGENT@VERSION`.

    Args:
        field: the name of the filter in an error.
        zone: the zone of times without an offset; None for the machine's own zone.

    Raises:
        InvalidValue: the text is not a filter.
    """
    try:
        words = shlex.split(text)
    except ValueError as error:
        raise InvalidValue(field, f"has an open quote ({error})") from None
    if not words:
        raise InvalidValue(field, f"is empty; {ALL} is every run")
    values: dict[str, str | bool | list[str]] = {}
    many: dict[str, list[str]] = {name: [] for name in MANY}
    for word in words:
        name, is_given, value = word.partition("=")
        name = name.removeprefix("--").replace("-", "_")
        if name == FAILED and not is_given:
            values[FAILED] = True
        elif name in MANY and value:
            many[name].append(value)
        elif name in (*TEXTS, *TIMES) and value:
            values[name] = value
        elif AT in word and not is_given:
            values["agent"] = word
        elif word != ALL:
            if AT in text and not _IS_QUOTED_OR_PAIR.search(text):  # the agent's name, or its version, has blanks
                return filter_of({"agent": text.strip()}, field=field, zone=zone)
            forms = ", ".join(f"{name}=…" for name in (*TEXTS, *TIMES, *MANY))
            quotes = "; a name with blanks needs quotes: agent='my agent'" if len(words) > 1 else ""
            meant = f"; did you mean {_meant(name, word)}?" if is_given else quotes
            raise InvalidValue(field, f"must be {ALL}, AGENT{AT}VERSION, or some of {forms}, {FAILED}{meant}")
    return filter_of({**values, **many}, field=field, zone=zone)


def _meant(name: str, word: str) -> str:
    """Return a correction for a `NAME=VALUE` with an unknown name: the closest known name, else `meta=NAME=VALUE`."""
    close = get_close_matches(name, (*TEXTS, *TIMES, *MANY), 1, 0.75)
    return f"{close[0]}{word[word.index('=') :]}" if close else f"meta={word}"


def words_of(values: Values) -> str:
    """Return values by the names of the grammar as a filter in one text, which `parse` reads back."""
    words = []
    for name in NAMES:
        value = values.get(name)
        if value is True:
            words.append(name)
        else:
            words += [f"{name}={shlex.quote(each)}" for each in _texts(value)]
    return " ".join(words)


def _texts(value: object) -> tuple[str, ...]:
    return (value,) if isinstance(value, str) else tuple(value) if isinstance(value, Sequence) else ()


def _pairs(value: object, field: str) -> tuple[tuple[str, str], ...]:
    if isinstance(value, Mapping):
        return tuple((key, each if isinstance(each, str) else jsontext.encode(each)[0]) for key, each in value.items())
    pairs = []
    for text in _texts(value):
        key, is_pair, found = text.partition("=")
        if not key or not is_pair:
            raise InvalidValue(field, "must be such as KEY=VALUE")
        pairs.append((key, found))
    return tuple(pairs)
