"""Times have one text form that sorts, freezegun reaches them, and what is no moment is refused."""

import subprocess
import sys
from datetime import UTC, date, datetime, timedelta, timezone

import pytest
from freezegun import freeze_time
from hypothesis import example, given
from hypothesis import strategies as st

from agentspan import clock
from tests.strategies import any_text

YEAR_1, YEAR_9999 = -62_135_596_800 * 10**9, 253_402_300_799 * 10**9

nanoseconds = st.integers(YEAR_1, YEAR_9999)
aware = st.datetimes(timezones=st.integers(-1439, 1439).map(lambda m: timezone(timedelta(minutes=m))))


def test_now_is_utc_text_with_six_digits() -> None:
    with freeze_time("2026-11-24 15:20:11.123456"):
        assert clock.now() == "2026-11-24T15:20:11.123456Z"


def test_a_whole_second_keeps_its_six_digits() -> None:
    with freeze_time("2026-11-24 15:20:11"):
        assert clock.now() == "2026-11-24T15:20:11.000000Z"


def test_now_follows_the_clock_over_seconds_and_back() -> None:
    with freeze_time("2026-11-24 15:20:11.9") as frozen:
        seen = [clock.now()]
        for step in (0.2, 0.000001, 3600, -7200.2):
            frozen.tick(step)
            seen.append(clock.now())
    assert seen == [
        "2026-11-24T15:20:11.900000Z",
        "2026-11-24T15:20:12.100000Z",
        "2026-11-24T15:20:12.100001Z",
        "2026-11-24T16:20:12.100001Z",
        "2026-11-24T14:20:11.900001Z",
    ]


def test_the_monotonic_clock_is_reached_by_freezegun_too() -> None:
    with freeze_time("2026-11-24") as frozen:
        start = clock.monotonic_ns()
        frozen.tick(1.5)
        assert clock.monotonic_ns() - start == 1_500_000_000


def test_the_first_second_before_1970_has_a_text_too() -> None:
    program = "from agentspan import clock; print(clock.to_text(-1), clock.to_text(0))"
    shown = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert shown.stdout.split() == ["1969-12-31T23:59:59.999999Z", "1970-01-01T00:00:00.000000Z"]


def test_a_clock_is_frozen_in_a_program_that_has_pydantic_and_no_resource_yet() -> None:
    program = (
        "import sys, pydantic.main, agentspan, freezegun\n"
        "with freezegun.freeze_time('2026-11-24'):\n"
        "    assert agentspan.AgentSpan.model_fields\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@given(nanoseconds)
@example(0)
@example(-1)
@example(YEAR_1)
@example(YEAR_9999)
def test_text_is_27_characters_and_parses_to_itself(epoch_ns: int) -> None:
    text = clock.to_text(epoch_ns)
    assert len(text) == 27
    assert text.endswith("Z")
    assert clock.parse(text) == text


@given(nanoseconds)
def test_text_tells_the_moment_to_the_microsecond(epoch_ns: int) -> None:
    moment = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=epoch_ns // 1000)
    assert clock.to_datetime(clock.to_text(epoch_ns)) == moment


@given(nanoseconds, nanoseconds)
@example(999, 1000)
def test_text_sorts_as_time(a: int, b: int) -> None:
    assert (clock.to_text(a) < clock.to_text(b)) == (a // 1000 < b // 1000)


@given(aware)
def test_a_datetime_of_any_offset_becomes_the_same_moment(moment: datetime) -> None:
    try:
        expected = moment.astimezone(UTC)
    except OverflowError:
        with pytest.raises(ValueError, match="years 1 to 9999"):
            clock.parse(moment)
        return
    assert clock.to_datetime(clock.parse(moment)) == expected
    assert clock.parse(moment.isoformat()) == clock.parse(moment)


@pytest.mark.parametrize(
    ("given_text", "stored"),
    [
        ("2026-11-24T15:20:11Z", "2026-11-24T15:20:11.000000Z"),
        ("2026-11-24t15:20:11z", "2026-11-24T15:20:11.000000Z"),
        ("2026-11-24 15:20:11Z", "2026-11-24T15:20:11.000000Z"),
        ("2026-11-24T15:20:11.5Z", "2026-11-24T15:20:11.500000Z"),
        ("2026-11-24T15:20:11.123456789Z", "2026-11-24T15:20:11.123456Z"),
        ("2026-11-24T15:20:11+02:00", "2026-11-24T13:20:11.000000Z"),
        ("2026-11-24T23:20:11-05:30", "2026-11-25T04:50:11.000000Z"),
        ("2026-11-24T15:20:11-00:00", "2026-11-24T15:20:11.000000Z"),
        ("2024-02-29T00:00:00Z", "2024-02-29T00:00:00.000000Z"),
        ("2016-12-31T23:59:60Z", "2017-01-01T00:00:00.000000Z"),
        ("2016-12-31T23:59:60.25Z", "2017-01-01T00:00:00.250000Z"),
        ("2016-12-31T15:59:60-08:00", "2017-01-01T00:00:00.000000Z"),
    ],
)
def test_rfc_3339_text_is_converted_to_the_stored_text(given_text: str, stored: str) -> None:
    assert clock.parse(given_text) == stored


@pytest.mark.parametrize(
    "text",
    [
        "",
        "now",
        "2026-11-24",
        "2026-11-24T15:20:11",
        "2026-11-24T15:20Z",
        "15:20:11Z",
        "2026-11-24T15:20:11Z\n",
        " 2026-11-24T15:20:11Z",
        "2026-W48-2T15:20:11Z",
        "20261124T152011Z",
        "2026-11-24T15:20:11+0200",
        "2026-11-24T15:20:11,5Z",
        "1764000000",
    ],
)
def test_text_that_names_no_moment_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="RFC 3339 time with an offset"):
        clock.parse(text)


@pytest.mark.parametrize(
    "text",
    [
        "2026-02-29T00:00:00Z",
        "2026-13-01T00:00:00Z",
        "2026-11-24T24:00:01Z",
        "2026-11-24T15:60:00Z",
        "2026-11-24T15:20:61Z",
        "2026-11-24T15:20:60Z",
        "2026-11-24T23:59:60+01:00",
        "2026-11-24T15:20:11+24:00",
        "0000-01-01T00:00:00Z",
        "２０２６-11-24T00:00:00Z",
    ],
)
def test_a_date_or_time_of_day_that_does_not_exist_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="no such date or time of day"):
        clock.parse(text)


@pytest.mark.parametrize(
    "text",
    ["0001-01-01T00:00:00+01:00", "9999-12-31T23:59:59-01:00", "9999-12-31T23:59:60Z", "9999-12-31T15:59:60-08:00"],
)
def test_a_moment_outside_the_calendar_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="years 1 to 9999"):
        clock.parse(text)


def test_a_naive_datetime_is_refused_with_what_to_do() -> None:
    with pytest.raises(ValueError, match=r"without an offset; use datetime\.now"):
        clock.parse(datetime(2026, 11, 24, 15, 20))


@pytest.mark.parametrize("value", [None, 0, 1764000000.0, True, date(2026, 11, 24), b"2026-11-24T15:20:11Z", [], {}])
def test_other_types_are_no_times(value: object) -> None:
    with pytest.raises(ValueError, match="neither a datetime nor RFC 3339 text"):
        clock.parse(value)


@given(any_text)
def test_parsing_any_text_gives_stored_text_or_a_value_error(text: str) -> None:
    try:
        stored = clock.parse(text)
    except ValueError:
        return
    assert clock.parse(stored) == stored


@given(st.integers(0, 10**17), st.integers(0, 10**17))
def test_millis_between_tells_the_difference_and_its_direction(a_us: int, b_us: int) -> None:
    between = clock.millis_between(clock.to_text(a_us * 1000), clock.to_text(b_us * 1000))
    assert between == pytest.approx((b_us - a_us) / 1000)
    assert (between < 0) == (b_us < a_us)
