"""Values of packages that agentspan knows and does not import: they become JSON, up to the limits."""

import json
import math
import subprocess
import sys
from typing import Any

import pytest

from agentspan.recording.capture.capture import Capture
from agentspan.recording.capture.redaction import Redaction
from agentspan.recording.capture.values import Limits

np = pytest.importorskip("numpy", reason="needs numpy")
pd = pytest.importorskip("pandas", reason="needs pandas")


def recorded(value: Any, **limits: int) -> Any:
    """What is recorded of a value."""
    text = Capture(Limits(**limits), Redaction()).object({"value": value})
    plain = json.loads(text)
    assert json.loads(text, parse_constant=lambda name: pytest.fail(name)) == plain
    return plain["value"]


def test_arrays_become_lists() -> None:
    assert recorded(np.arange(6).reshape(2, 3)) == [[0, 1, 2], [3, 4, 5]]
    assert recorded(np.array([0.5, math.nan, math.inf, -math.inf])) == [0.5, "NaN", "Infinity", "-Infinity"]
    assert recorded(np.array(["a", "b"])) == ["a", "b"]
    assert recorded(np.array([True, False])) == [True, False]
    assert recorded(np.array([], dtype=float)) == []
    assert recorded(np.array([1, None, "x", {"a": np.int64(1)}], dtype=object)) == [1, None, "x", {"a": 1}]
    assert recorded(np.array(["2026-01-02", "NaT"], dtype="datetime64[D]")) == ["2026-01-02", None]
    assert recorded(np.ma.array([1, 2], mask=[False, True])) == [1, None]
    assert recorded(np.array([(1, "x", 2.0)], dtype=[("a", int), ("b", "U1"), ("c", float)])) == [
        {"a": 1, "b": "x", "c": 2.0}
    ]
    assert recorded(np.array([b"ab"])) == ["YWI="]


def test_scalars_become_numbers_and_texts() -> None:
    scalars = [np.float64(0.5), np.float32(0.5), np.int8(-1), np.uint64(2**64 - 1), np.bool_(True), np.str_("x")]
    assert recorded(scalars) == [0.5, 0.5, -1, 2**64 - 1, True, "x"]
    assert recorded([np.float64("nan"), np.float32("inf"), np.array(7)]) == ["NaN", "Infinity", 7]
    assert recorded(np.datetime64("2026-01-02")) == "2026-01-02"
    assert recorded(np.longdouble("0.5")) in (0.5, "np.longdouble('0.5')")
    assert recorded(np.dtype("float64")) == "dtype('float64')"
    assert recorded({np.int64(1): "a", np.str_("b"): "c"}) == {"1": "a", "b": "c"}


def test_a_big_array_is_described_and_not_read() -> None:
    array = np.zeros((1000, 1000))
    assert recorded(array) == {"$truncated": {"shape": [1000, 1000], "dtype": "float64", "bytes": 8_000_000}}
    assert recorded(np.arange(10), items=5)["$truncated"]["shape"] == [10]


def test_an_array_in_itself_is_cut() -> None:
    array = np.empty(2, dtype=object)
    array[0], array[1] = array, 1
    assert recorded(array) == [{"$not_json": {"type": "ndarray", "reason": "contains itself"}}, 1]


def test_other_objects_of_numpy_are_their_repr() -> None:
    shown = recorded([np.random.default_rng(1), np.sum, np])
    assert [text.partition("(")[0].partition(" ")[0] for text in shown] == ["Generator", "<function", "<module"]


def test_a_frame_is_its_columns_index_and_rows() -> None:
    frame = pd.DataFrame({"name": ["a", "b"], "count": [1, 2], "share": [0.5, math.nan]}, index=["x", "y"])
    assert recorded(frame) == {
        "columns": ["name", "count", "share"],
        "index": ["x", "y"],
        "data": [["a", 1, 0.5], ["b", 2, "NaN"]],
    }
    assert recorded(pd.DataFrame()) == {"columns": [], "index": [], "data": []}
    assert recorded(pd.Series([1, 2], name="n")) == {"name": "n", "index": [0, 1], "data": [1, 2]}
    twice = pd.DataFrame([[1, 2]], columns=["a", "a"])
    assert recorded(twice) == {"columns": ["a", "a"], "index": [0], "data": [[1, 2]]}


def test_a_frame_of_times_and_nothings() -> None:
    frame = pd.DataFrame({"at": [pd.Timestamp("2026-01-02T03:04:05Z"), pd.NaT], "odd": [{1}, b"ab"]})
    data = recorded(frame)["data"]
    assert data == [["2026-01-02T03:04:05+00:00", [1]], ["NaT", "YWI="]]
    assert recorded([pd.Timestamp("2026-01-02"), pd.Timedelta("1D"), pd.NaT]) == [
        "2026-01-02T00:00:00",
        "P1DT0H0M0S",
        "NaT",
    ]
    assert recorded(pd.NA) == "<NA>"


@pytest.mark.parametrize("rows", [9, 10, 11, 500_000])
def test_of_a_long_frame_the_first_rows_are_kept(rows: int) -> None:
    frame = pd.DataFrame({"a": range(rows), "b": range(rows)})
    shown = recorded(frame, items=20)
    kept = min(rows, 10)
    assert shown["data"] == [[number, number] for number in range(kept)]
    assert shown["index"] == list(range(kept))
    assert shown.get("$truncated") == (None if rows == kept else {"items": rows - kept})
    series = recorded(frame["a"], items=20)
    assert len(series["data"]) == min(rows, 20)


def test_of_a_wide_frame_the_first_columns_are_kept() -> None:
    shown = recorded(pd.DataFrame([range(100)]), items=10)
    assert shown["columns"] == [*map(str, range(10)), {"$truncated": {"items": 90}}]
    assert shown["data"] == [list(range(10))]


def test_a_column_of_passwords_is_redacted() -> None:
    frame = pd.DataFrame({"user": ["ada"], "password": ["hunter2"], "note": ["key sk-abcdefghij1234567890"]})
    assert recorded(frame)["data"] == [["ada", "[redacted]", "key [redacted]"]]
    assert recorded(frame["password"])["data"] == ["[redacted]"]
    assert recorded(frame.set_index("user"))["data"] == [["[redacted]", "key [redacted]"]]
    assert "hunter2" not in json.dumps(recorded(frame.to_dict("records")))
    assert "hunter2" not in json.dumps(recorded(frame.to_records(index=False)))


def test_other_objects_of_pandas_are_their_repr() -> None:
    frame = pd.DataFrame({"a": [1, 2]})
    for value in (frame.index, frame.groupby("a"), frame.rolling(2), pd.Categorical(["a"]), pd.Interval(0, 1)):
        assert recorded(value) == repr(value)[:1000]


def test_neither_package_is_imported() -> None:
    code = "import agentspan, sys; print('numpy' in sys.modules or 'pandas' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"
