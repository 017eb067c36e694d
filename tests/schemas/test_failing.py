"""`failing`: whether a step failed, and its error. SQL agrees with it: tests/storage/test_failed_steps.py."""

import pytest

from agentspan.schemas.failing import error_of, failed

MCP = '{"content":[{"type":"text","text":"no such"},{"type":"text","text":"file"}],"is_error":true}'


@pytest.mark.parametrize(
    ("status", "result", "expected"),
    [
        ("failed", None, True),
        ("failed", '{"is_error":false}', True),
        ("complete", '{"is_error": true}', True),
        ("complete", '{"is\\u005ferror":true}', True),
        ("complete", '{"is_error":false,"is_error":true}', True),
        ("complete", '{"is_error":true,"is_error":false}', False),
        ("complete", '{"is_error":"true"}', False),
        ("complete", '{"is_error":1}', False),
        ("complete", '{"is_error":null}', False),
        ("complete", '{"output":{"is_error":true}}', False),
        ("complete", '{"output":"\\"is_error\\":true"}', False),
        ("complete", '[{"is_error":true}]', False),
        ("complete", '{"is_error":true', False),
        ("complete", '{"is_error":true,"n":NaN}', False),
        ("complete", f'{{"n":{"1" * 5000},"is_error":true}}', True),
        ("complete", '{"text":"\\ud800","is_error":true}', True),
        ("complete", None, False),
        ("cancelled", '{"is_error":true}', False),
        ("active", '{"is_error":true}', False),
    ],
)
def test_a_step_failed_by_its_status_or_by_an_error_at_the_top_of_its_result(
    status: str, result: str | None, expected: bool
) -> None:
    assert failed(status, result) is expected


@pytest.mark.parametrize(
    ("status", "result", "expected"),
    [
        ("failed", '{"error":{"type":"m.E","message":"boom"},"output":"part"}', "E: boom"),
        ("failed", '{"output":"exit 1: no such file"}', "exit 1: no such file"),
        ("failed", '"no such file"', "no such file"),
        ("failed", "[1]", ""),
        ("failed", '{"text":"half an answer"}', ""),
        ("complete", '{"output":"no such file","is_error":true}', "no such file"),
        ("complete", '{"is_error":true,"error":{"type":"E","message":"boom"}}', "E: boom"),
        ("complete", MCP, "no such\nfile"),
        ("complete", '{"result":{"code":5},"is_error":true}', '{"code":5}'),
        ("complete", '{"output":"","stderr":"boom","is_error":true}', '{"stderr":"boom"}'),
        ("complete", '{"output":"","is_error":true}', ""),
        ("complete", '{"output":"all is well"}', ""),
        ("failed", None, ""),
        ("failed", '{"error":', ""),
    ],
)
def test_the_error_is_the_text_that_was_recorded_or_returned(status: str, result: str | None, expected: str) -> None:
    assert error_of(status, result) == expected
