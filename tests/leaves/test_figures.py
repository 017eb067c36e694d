"""Figures as text: durations, money, counts and shares, the same in Python and in the viewer's JavaScript."""

import json
import random
import shutil
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

import agentspan
from agentspan.text import cost_text, cost_texts, count_text, duration_text, share_text, size_text

STATIC = Path(agentspan.__file__).parent / "viewer" / "static"
DURATIONS = [
    (0, "0 ms"),
    (0.0001, "1 µs"),
    (0.0065, "7 µs"),
    (0.4, "400 µs"),
    (0.9994, "999 µs"),
    (0.9995, "1.0 ms"),
    (1.25, "1.3 ms"),
    (9.94, "9.9 ms"),
    (9.96, "10 ms"),
    (10, "10 ms"),
    (312.5, "313 ms"),
    (999.4, "999 ms"),
    (999.5, "1.0 s"),
    (2100, "2.1 s"),
    (59_949, "59.9 s"),
    (59_950, "1m 00s"),
    (187_000, "3m 07s"),
    (3_599_499, "59m 59s"),
    (3_599_500, "1h 00m"),
    (3_720_000, "1h 02m"),
    (172_800_000, "48h 00m"),
    (-1500, "-1.5 s"),
]
COSTS = [
    (0, "$0"),
    (1e-9, "<$0.000001"),
    (0.000016, "$0.000016"),
    (0.00002, "$0.00002"),
    (0.0024, "$0.0024"),
    (0.01, "$0.0100"),
    (0.0123, "$0.0123"),
    (2, "$2.0000"),
    (9.99996, "$10.00"),
    (12.3, "$12.30"),
    (999.996, "$1,000"),
    (2059.4, "$2,059"),
    (-0.5, "-$0.5000"),
    (8.13145, "$8.1315"),
    (8.131449999999997, "$8.1315"),  # the same sum in another order
]
COUNTS = [
    (0, "0"),
    (999, "999"),
    (1000, "1.0k"),
    (8130, "8.1k"),
    (999_949, "999.9k"),
    (999_950, "1.0M"),
    (12e6, "12.0M"),
]
SHARES = [
    ((0, 7), ""),
    ((0, 0), ""),
    ((1, 10_000), "<0.1%"),
    ((1, 40), "2.5%"),
    ((0.0995, 1), "10%"),
    ((1, 4), "25%"),
    ((994, 1000), "99%"),
    ((995, 1000), "99.5%"),
    ((999, 1000), "99.9%"),
    ((9_999, 10_000), "99.9%"),
    ((7, 7), "100%"),
]
WRITERS: list[tuple[Callable[..., str], str, Sequence[tuple[Any, str]]]] = [
    (duration_text, "duration", DURATIONS),
    (cost_text, "cost", COSTS),
    (count_text, "count", COUNTS),
    (share_text, "percent", SHARES),
]


def test_the_costs_of_a_column_have_one_number_of_decimals() -> None:
    assert cost_texts([0.3, None, 0]) == ["$0.3000", "", "$0.0000"]
    assert cost_texts([9.6669, 58.6494, 0.2089, -0.5]) == ["$9.67", "$58.65", "$0.21", "-$0.50"]
    assert cost_texts([58.6494, 0.0123]) == ["$58.649", "$0.012"]
    assert cost_texts([58.6494, 1e-6]) == ["$58.6494", "<$0.0001"]
    assert cost_texts([0.000016, 0.0024]) == ["$0.00002", "$0.00240"]
    assert cost_texts([2059.4, 0.5]) == ["$2,059.40", "$0.50"]
    assert cost_texts([]) == []


@pytest.mark.parametrize(("write", "cases"), [(write, cases) for write, _, cases in WRITERS])
def test_a_figure_as_a_person_says_it(write: Callable[..., str], cases: Sequence[tuple[Any, str]]) -> None:
    assert [(of, write(*arguments(of))) for of, _ in cases] == list(cases)


@pytest.mark.skipif(shutil.which("node") is None, reason="needs Node.js")
def test_the_viewer_writes_the_same_text_for_the_same_number(tmp_path: Path) -> None:
    asked = [(name, arguments(of), write(*arguments(of))) for write, name, cases in WRITERS for of, _ in cases]
    some = random.Random(7)
    for _ in range(2000):
        ms, usd, number, part = (10 ** some.uniform(low, high) for low, high in ((-5, 9), (-8, 6), (0, 9), (-5, 0)))
        ties = some.randrange(200) / 20  # where Python and toFixed round in another way
        asked += [("duration", [of], duration_text(of)) for of in (ms, ties, ties * 100)]
        asked += [("cost", [of], cost_text(of)) for of in (usd, ties / 1000, ties * 10)]
        asked += [("count", [int(number)], count_text(int(number))), ("percent", [part, 1], share_text(part, 1))]
    module = tmp_path / "static" / "format.js"
    shutil.copytree(STATIC, module.parent)
    (tmp_path / "package.json").write_text('{"type": "module"}')
    (tmp_path / "asked.json").write_text(json.dumps([(name, given) for name, given, _ in asked]))
    (tmp_path / "ask.js").write_text(
        'import { readFileSync } from "node:fs";\n'
        'import * as format from "./static/format.js";\n'
        'const asked = JSON.parse(readFileSync("asked.json", "utf8"));\n'
        "console.log(JSON.stringify(asked.map(([name, given]) => format[name](...given))));\n"
    )
    done = subprocess.run(["node", "ask.js"], cwd=tmp_path, capture_output=True, encoding="utf-8", check=True)
    written = json.loads(done.stdout)
    differ = [
        (name, given, ours, theirs)
        for (name, given, ours), theirs in zip(asked, written, strict=True)
        if ours != theirs
    ]
    assert differ == []


@given(st.floats(0, 1e12))
@example(9.95)
@example(59_999.9)
@example(3_599_999.9)
def test_a_duration_never_shows_more_of_a_unit_than_there_is(ms: float) -> None:
    value, _, unit = duration_text(ms).partition(" ")
    if unit == "µs":
        assert 1 <= int(value) < 1000
    elif unit == "ms":
        assert float(value) < 1000
        assert ("." in value) == (0 < float(value) < 10)
    elif unit == "s":
        assert 1 <= float(value) < 60
    else:
        assert 0 <= int(unit[:-1]) < 60
        assert value[-1] + unit[-1] in ("ms", "hm")


@given(st.floats(1e-9, 1e6))
def test_what_costs_something_is_never_shown_as_nothing(usd: float) -> None:
    assert any(digit in cost_text(usd) for digit in "123456789")
    assert any(digit in duration_text(usd) for digit in "123456789")


def arguments(of: Any) -> list[Any]:
    """A case's arguments as a list."""
    return list(of) if isinstance(of, tuple) else [of]


@pytest.mark.parametrize(
    ("size", "text"),
    [
        (0, "0 bytes"),
        (1, "1 byte"),
        (999, "999 bytes"),
        (1000, "1.0 kB"),
        (999_949, "999.9 kB"),
        (999_950, "1.0 MB"),
        (9_400_000, "9.4 MB"),
        (2_100_000_000, "2.1 GB"),
        (1_234_500_000_000, "1,234.5 GB"),
    ],
)
def test_sizes(size: int, text: str) -> None:
    assert size_text(size) == text
