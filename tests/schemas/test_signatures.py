"""Signatures of failures: what counts, what does not, and that released ones never change."""

import json
import traceback
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agentspan.schemas.signatures import (
    ErrorParts,
    error_parts,
    key_of,
    named,
    own_frames,
    passes_on,
    without_values,
)
from tests.tiers import examples

VECTORS = json.loads((Path(__file__).parent / "signature_vectors.json").read_text())


@pytest.mark.parametrize("vector", VECTORS, ids=lambda vector: vector["id"])
def test_a_released_signature_never_changes(vector: dict[str, Any]) -> None:
    """A failure here means that groups of old failures get other names: make a new version beside this one."""
    error = error_parts(json.dumps(vector["result"]))
    found = named(key_of(vector["schema_name"], vector["label"], error))
    assert found._asdict() == {"id": vector["id"], "text": vector["text"]}


@pytest.mark.parametrize(
    ("message", "wanted"),
    [
        ("payment does not add up, total is 375, paid 299.50", "payment does not add up, total is <n>, paid <n>"),
        ("not enough seats on flight HAT290", "not enough seats on flight HAT<n>"),
        ("no order 'A 12' for \"ann\"; can't retry", "no order <text> for <text>; can't retry"),
        ("cannot open /home/ann/x.csv, ./data/a.bin or C:\\Users\\a", "cannot open <path>, <path> or <path>"),
        ("<Session at 0x7f8a9b0c1d2e> of commit 5f3a9c1b2d", "<Session at <hex>> of commit <hex>"),
        ("session 550e8400-e29b-41d4-a716-446655440000 is gone", "session <uuid> is gone"),
        ("no answer of https://api.example.com/v1?x=3", "no answer of <url>"),
        ("run 01m8xyz9a1b2c3 of\n  model gpt-4o", "run <id> of model gpt-<n>o"),
        ("either and/or neither", "either and/or neither"),
        ("", ""),
    ],
)
def test_values_are_left_out_of_a_message(message: str, wanted: str) -> None:
    assert without_values(message) == wanted


@settings(max_examples=examples(40))
@given(st.text(), st.integers(0, 10**9), st.integers(0, 10**9))
def test_other_numbers_are_the_same_message(text: str, one: int, other: int) -> None:
    assert without_values(f"{text} {one} ") == without_values(f"{text} {other} ")


@pytest.mark.parametrize("part", ["'", '"a', "a1", "/a", "1.", "0x", "a-", "~/", ".", "\\a", "C:/", "abcdef0 "])
def test_hostile_messages_take_linear_time(part: str) -> None:
    """A search that backtracks from each place would take minutes here."""
    assert len(without_values(part * 2_000_000)) <= 200


def ours(depth: int) -> None:
    if depth:
        ours(depth - 1)
    json.loads("{")


def test_frames_are_the_functions_of_the_program_without_lines() -> None:
    try:
        try:
            ours(3)
        except ValueError as error:
            raise RuntimeError("gave up") from error
    except RuntimeError:
        text = traceback.format_exc()
    assert own_frames(text) == (test_frames_are_the_functions_of_the_program_without_lines.__name__,)
    first = text.partition("\nThe above exception")[0]
    assert own_frames(first)[-1] == "ours"
    assert own_frames(first.replace('File "', 'File "/venv/lib/site-packages/')) == ()


def test_frames_of_javascript_have_the_innermost_first() -> None:
    text = "Error: x\n    at fetchPage (/app/a.js:3:7)\n    at async main (/app/b.js:9:1)\n    at run (node:x:1:1)"
    assert own_frames(text) == ("main", "fetchPage")


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (("E", "m", ""), True),
        (("", "", ""), True),
        (("Other", "gave up: m", ""), True),
        (("Other", "gave up", "E: m\n\nThe above exception was the direct cause"), True),
        (("Other", "gave up", ""), False),
    ],
)
def test_an_error_that_passes_on_another_one(error: tuple[str, str, str], expected: bool) -> None:
    assert passes_on(ErrorParts(*error), ErrorParts("E", "m", "")) is expected


@pytest.mark.parametrize(
    ("returned", "message"),
    [
        ("no room 7", "no room 7"),
        ([{"type": "text", "text": "no room"}, {"type": "image"}], "no room\n"),
        ({"content": [{"type": "text", "text": "no room"}]}, "no room"),
        ({"code": 7}, '{"code":7}'),
        (None, ""),
    ],
)
def test_an_error_that_a_call_returned_is_its_message(returned: Any, message: str) -> None:
    assert error_parts(json.dumps({"output": returned, "is_error": True})) == ErrorParts("", message, "")


@pytest.mark.parametrize("result", [None, "null", "7", "[]", "{}", "{", '{"error": {"message": 3}}', "[" * 5000])
def test_a_result_without_an_error_has_no_parts(result: str | None) -> None:
    assert error_parts(result) == ErrorParts("", "", "")
