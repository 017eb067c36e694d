"""Ids of spans: the same from the same trace and span, whatever else is known."""

from typing import Any

import pytest

from agentspan import ids
from agentspan.arriving.identity import run_id, span_id, span_id_of_number
from agentspan.otel.mapping.mapped import program_of

TRACE, SPAN = "ab" * 16, "cd" * 8
RUN = run_id("otel:trace:" + TRACE, 1_795_614_085_662_391_849, 77)


def test_an_id_has_the_runs_time_and_partition() -> None:
    assert ids.is_pfid(RUN)
    assert ids.decode(RUN)[:2] == (1_795_614_085_662, 77)
    made = span_id(RUN, TRACE, SPAN)
    assert ids.is_pfid(made)
    assert ids.decode(made)[:2] == (1_795_614_085_662, 77)


def test_ids_never_change() -> None:
    """They are stored, and later processes make them again: this text is part of the format."""
    assert span_id(RUN, TRACE, SPAN) == "01m89f14gy00002d0mr7av4g87xzvw8s"
    assert RUN == "01m89f14gy00002dzwmczxexfmhvck40"


@pytest.mark.parametrize("number", [1, 0x0102_0304_0506_0708, 2**64 - 1])
def test_a_span_has_the_same_id_by_its_number(number: int) -> None:
    assert span_id_of_number(RUN, TRACE, number) == span_id(RUN, TRACE, f"{number:016x}")


def test_each_part_makes_another_id() -> None:
    made = {span_id(RUN, TRACE, SPAN), span_id(RUN, SPAN + SPAN, SPAN), span_id(RUN, TRACE, SPAN[::-1])}
    assert len(made) == 3


@pytest.mark.parametrize("begun_ns", [-5, 0, 2**80])
def test_any_time_makes_an_id(begun_ns: int) -> None:
    assert ids.is_pfid(run_id("x", begun_ns, 0))


def test_a_process_is_known_by_its_resource() -> None:
    named = {"service.name": "travel-agent", "service.version": "1.2.0"}
    assert _told(named) == ("travel-agent", "1.2.0", "travel-agent:")
    assert _told({**named, "service.instance.id": "x"}) == ("travel-agent", "1.2.0", "travel-agent:x")
    assert _told({"service.name": "unknown_service:python", "process.pid": 7}) == ("python", None, "python:7")
    assert _told({}) == ("opentelemetry", None, "opentelemetry:")


def _told(resource: dict[str, Any]) -> tuple[str, str | None, str]:
    program = program_of(resource)
    return program.name, program.version, program.key
