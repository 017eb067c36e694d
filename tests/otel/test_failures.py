"""Errors of spans: what each instrumentor says of one, as type, message and stack trace."""

from typing import Any

import pytest

from agentspan.otel.mapping.mapped import map_span
from tests.otel.recorded import exception, mapped, span

TRACEBACK = 'Traceback (most recent call last):\n\n  File "a.py", line 1, in f\n    no()\n\nBookingError: no seats'


def _error(**fields: Any) -> Any:
    told = map_span(span(fields.pop("attributes", {}), **{"status": "ERROR", **fields}))
    assert told.status == "failed"
    return (told.result_payload or {})["error"]


def test_the_last_exception_event_is_the_error() -> None:
    events = (exception("ValueError", "first"), exception("tools.BookingError", "no seats", "Traceback …"))
    told = map_span(span({}, status="ERROR", status_message="BookingError: no seats", events=events))
    assert told.result_payload == {
        "error": {"type": "tools.BookingError", "message": "no seats", "stacktrace": "Traceback …"}
    }
    assert [event["name"] for event in told.payload["events"]] == ["exception"], "the first one did not end the span"


def test_an_exception_that_was_recorded_did_not_end_the_span() -> None:
    told = map_span(span({}, events=(exception("ValueError", "tried again"),)))
    assert told.status == "complete"
    assert told.payload["events"][0]["attributes"]["exception.message"] == "tried again"


def test_langsmith_has_the_status_ok_and_an_exception() -> None:
    said = exception("Exception", f"BookingError('no seats'){TRACEBACK}")
    told = map_span(span({"langsmith.span.kind": "llm"}, status="OK", events=(said,)))
    assert told.status == "failed"
    assert told.result_payload == {"error": {"type": "BookingError", "message": "no seats", "stacktrace": TRACEBACK}}


@pytest.mark.parametrize(
    ("message", "type_", "text"),
    [
        ("BookingError: no seats", "BookingError", "no seats"),
        ("a.b.TimeoutError: late: very", "a.b.TimeoutError", "late: very"),
        ("BookingError('no seats')", "BookingError", "no seats"),
        ("no seats", "Error", "no seats"),
        ("{'message': 'Error in agent run', 'data': {'error': '429'}}", "Error", "Error in agent run: 429"),
        (
            "Error running tool (non-fatal): {'tool_name': 'f', 'error': 'no'}",
            "Error",
            "Error running tool (non-fatal): no",
        ),
        (f"BookingError('no seats'){TRACEBACK}", "BookingError", "no seats"),
    ],
)
def test_the_status_has_the_error_where_no_event_has(message: str, type_: str, text: str) -> None:
    error = _error(status_message=message)
    assert (error["type"], error["message"]) == (type_, text)


def test_the_attribute_has_the_type_where_nothing_else_has() -> None:
    assert _error(attributes={"error.type": "tool_error"}) == {"type": "tool_error"}
    assert _error(attributes={"error.type": "_OTHER"}, status_message="no") == {"type": "Error", "message": "no"}


def test_an_error_without_any_word() -> None:
    assert _error() == {"type": "Error"}


def test_litellm_has_its_stack_trace_in_an_attribute() -> None:
    told = _error(
        attributes={"error.message": "no", "error.stack_trace": "Traceback …", "error.type": "X"}, scope="litellm"
    )
    assert told == {"type": "X", "message": "no", "stacktrace": "Traceback …"}


def test_an_output_and_an_error_are_both_kept() -> None:
    said = {"gen_ai.operation.name": "execute_tool", "gen_ai.tool.name": "f", "gen_ai.tool.call.result": "it broke"}
    told = mapped(said, status="ERROR", status_message="no")
    assert told.result_payload == {"output": "it broke", "error": {"type": "Error", "message": "no"}}
