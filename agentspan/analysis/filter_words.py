"""The one grammar of filters: makes a `RunFilter` of what a person types, an address has, or Python passes.

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
from agentspan.analysis.agent_names import AT
from agentspan.errors import InvalidValue
from agentspan.model.status import INSTANCE_STATUSES
from agentspan.storage.questions import RunFilter

_AGO = re.compile(r"(\d{1,9}(?:\.\d{1,3})?) ?([smhdw])\Z")
_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 7 * 86_400}
_DAYS = {"today": 0, "yesterday": 1}
_DATE = re.compile(r"(\d{4}-\d\d-\d\d)(?:[T ](\d\d:\d\d(?::\d\d(?:\.\d{1,6})?)?))?\Z")
_TIME_OF_DAY = re.compile(r"(?:(today|yesterday) )?(\d\d:\d\d(?::\d\d)?)\Z")
FORMS = "must be such as 90s, 15m, 2h, 7d, 02:00, today, yesterday, 2026-11-24, '2026-11-24 03:00'"


def parse_time(text: str, field: str = "since", *, zone: tzinfo | None = UTC) -> str:
    """Return the stored text of a time.

    Args:
        text: `90s`, `15m`, `2h`, `7d`, `4w` (so long ago); `today`, `yesterday` (the beginning of the day);
            `02:00` (the last time it was that late), `yesterday 02:00`; `2026-11-24`, `2026-11-24 03:00`; or RFC 3339.
        field: its name in the error.
        zone: of times without an offset; None for the machine's own.

    Raises:
        InvalidValue: the text is none of these.
    """
    text = text.strip()
    try:
        found = _moment(text, clock.to_datetime(clock.now()), zone)
        return clock.parse(text if found is None else found)
    except (OverflowError, ValueError):
        raise InvalidValue(field, FORMS) from None


def stored(value: object, field: str, *, zone: tzinfo | None = UTC) -> str:
    """Return the stored text of an aware datetime, or of a text (see parse).

    Raises:
        InvalidValue: it is neither; or a datetime without an offset.
    """
    if isinstance(value, str):
        return parse_time(value, field, zone=zone)
    try:
        return clock.parse(value)
    except ValueError as error:
        raise InvalidValue(field, str(error)) from None


def _moment(text: str, now: datetime, zone: tzinfo | None) -> datetime | None:
    """Return the moment of a text that is not RFC 3339."""
    if ago := _AGO.match(text):
        return now - timedelta(seconds=float(ago[1]) * _UNITS[ago[2]])
    today = now.astimezone(zone).date()
    if text in _DAYS:
        return _in(zone, datetime.combine(today - timedelta(days=_DAYS[text]), time()))
    if date := _DATE.match(text):
        return _in(zone, datetime.fromisoformat(f"{date[1]}T{date[2] or '00:00'}"))
    if of_day := _TIME_OF_DAY.match(text):
        at = time.fromisoformat(of_day[2])
        moment = _in(zone, datetime.combine(today - timedelta(days=_DAYS.get(of_day[1] or "", 0)), at))
        is_to_come = not of_day[1] and moment > now
        return _in(zone, datetime.combine(today - timedelta(days=1), at)) if is_to_come else moment
    return None


def _in(zone: tzinfo | None, moment: datetime) -> datetime:
    """Return a date and time of a zone as an aware one."""
    return moment.astimezone() if zone is None else moment.replace(tzinfo=zone)


ALL = "all"
TEXTS = ("agent", "version", "session", "task", "status", "error", "signature", "mark", "grep", "git_commit")
TIMES = ("since", "until")
MANY = ("tag", "score", "meta")
"""Names that may be given more than once."""
FAILED = "failed"
NAMES = (*TEXTS, *TIMES, *MANY, FAILED)
_IS_QUOTED_OR_PAIR = re.compile(r"""[='"\\]""")

Given = Mapping[str, object]


class RunKeywords(TypedDict, total=False):
    """The keywords of `Database` that select runs, but for times (see RunFilter).

    `agent` may be `AGENT@VERSION`. `meta` is a dict of keys and values of the run's metadata.
    """

    agent: str | None
    version: str | None
    session: str | None
    task: str | None
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


class TimedRunKeywords(RunKeywords, total=False):
    """The same, with the time in which runs began: an aware datetime, or text such as `7d`, `yesterday`, RFC 3339."""

    since: datetime | str | None
    until: datetime | str | None


def filter_of(given: Given, *, field: str = "", zone: tzinfo | None = UTC) -> RunFilter:
    """Return the filter for values by the names of the grammar; None, False, and no values match everything.

    Args:
        given: of each name its text; of `failed` a bool; of times also a datetime; of `tag` and `score` one text or
            several; of `meta` texts such as `KEY=VALUE`, or a dict. Other names are ignored.
        field: what an error names before the name of the value.
        zone: of times without an offset; None for the machine's own.

    Raises:
        InvalidValue: a time, a status, a rule over a score, or a pair is none.
    """
    within = f"{field} " if field else ""
    texts: dict[str, Any] = {name: value for name in TEXTS if isinstance(value := given.get(name), str)}
    if texts.get("status", INSTANCE_STATUSES[0]) not in INSTANCE_STATUSES:
        raise InvalidValue(f"{within}status", f"must be one of {', '.join(INSTANCE_STATUSES)}")
    for name in TIMES:
        if (value := given.get(name)) is not None:
            texts[name] = stored(value, f"{within}{name}", zone=zone)
    scores = _texts(given.get("score"))
    for rule in scores:
        outcomes.parse(rule)
    return RunFilter(
        **texts,
        failed=bool(given.get(FAILED)),
        meta=_pairs(given.get("meta"), f"{within}meta"),
        tags=_texts(given.get("tag")),
        scores=scores,
    )


def parse(text: str, field: str = "filter", *, zone: tzinfo | None = UTC) -> RunFilter:
    """Return the filter of one text: `agent=NAME failed since=7d`, `AGENT@VERSION session=S`, or `all`.

    Names with blanks need quotes in it, unless the text is an `AGENT@VERSION` and nothing else.

    Args:
        field: what an error names.
        zone: see filter_of.

    Raises:
        InvalidValue: it is no such filter.
    """
    try:
        words = shlex.split(text)
    except ValueError as error:
        raise InvalidValue(field, f"has an open quote ({error})") from None
    if not words:
        raise InvalidValue(field, f"is empty; {ALL} is every run")
    given: dict[str, str | bool | list[str]] = {}
    many: dict[str, list[str]] = {name: [] for name in MANY}
    for word in words:
        name, is_given, value = word.partition("=")
        name = name.removeprefix("--").replace("-", "_")
        if name == FAILED and not is_given:
            given[FAILED] = True
        elif name in MANY and value:
            many[name].append(value)
        elif name in (*TEXTS, *TIMES) and value:
            given[name] = value
        elif AT in word and not is_given:
            given["agent"] = word
        elif word != ALL:
            if AT in text and not _IS_QUOTED_OR_PAIR.search(text):  # the agent's name, or its version, has blanks
                return filter_of({"agent": text.strip()}, field=field, zone=zone)
            forms = ", ".join(f"{name}=…" for name in (*TEXTS, *TIMES, *MANY))
            quotes = "; a name with blanks needs quotes: agent='my agent'" if len(words) > 1 else ""
            meant = f"; did you mean {_meant(name, word)}?" if is_given else quotes
            raise InvalidValue(field, f"must be {ALL}, AGENT{AT}VERSION, or some of {forms}, {FAILED}{meant}")
    return filter_of({**given, **many}, field=field, zone=zone)


def _meant(name: str, word: str) -> str:
    """Return the word that was meant by one with an unknown name: a name like it, else a member of the metadata."""
    close = get_close_matches(name, (*TEXTS, *TIMES, *MANY), 1, 0.75)
    return f"{close[0]}{word[word.index('=') :]}" if close else f"meta={word}"


def words_of(given: Given) -> str:
    """Return the values of the grammar as a filter in one text."""
    words = []
    for name in NAMES:
        value = given.get(name)
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
