"""The headers of W3C's Trace Context: what is valid, what is not, what is kept of others' members."""

import pytest

from agentspan.otel.identity import (
    Named,
    TraceParent,
    changed,
    read_member,
    read_parent,
    read_state,
    write_parent,
    write_state,
)

TRACE, SPAN = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"


@pytest.mark.parametrize(
    ("header", "flags"),
    [
        (f"00-{TRACE}-{SPAN}-01", "01"),
        (f" 00-{TRACE}-{SPAN}-00\t", "00"),
        (f"cc-{TRACE}-{SPAN}-09-what-the-future-will-be-like", "09"),
        (f"01-{TRACE}-{SPAN}-01", "01"),
    ],
)
def test_a_valid_parent(header: str, flags: str) -> None:
    assert read_parent(header) == TraceParent(TRACE, SPAN, flags)


@pytest.mark.parametrize(
    "header",
    [
        "",
        "00",
        f"00-{TRACE}-{SPAN}",
        f"ff-{TRACE}-{SPAN}-01",
        f"00-{TRACE}-{SPAN}-01-more",
        f"00-{TRACE}-{SPAN}-01.",
        f"01-{TRACE}-{SPAN}-01.",
        f"00-{'0' * 32}-{SPAN}-01",
        f"00-{TRACE}-{'0' * 16}-01",
        f"00-{TRACE.upper()}-{SPAN}-01",
        f"00-{TRACE[:-1]}-{SPAN}-01",
        f"00-{TRACE}-{SPAN}-0x",
        f"00-{TRACE}-{SPAN}-01\n",
    ],
)
def test_an_invalid_parent(header: str) -> None:
    assert read_parent(header) is None


def test_a_parent_is_written_with_the_flags_of_its_version() -> None:
    assert write_parent(TraceParent(TRACE, SPAN)) == f"00-{TRACE}-{SPAN}-01"
    assert write_parent(TraceParent(TRACE, SPAN, "fe")) == f"00-{TRACE}-{SPAN}-02"


def test_members_of_others_are_kept_behind_the_own_one() -> None:
    state = read_state("a=1, b@c=x y ,,agentspan=old,d=z")
    assert state == (("a", "1"), ("b@c", "x y"), ("agentspan", "old"), ("d", "z"))
    assert write_state(changed(state, "new")) == "agentspan=new,a=1,b@c=x y,d=z"
    assert write_state(changed(state, None)) == "a=1,b@c=x y,d=z"
    assert len(write_state((f"m{n}", "1") for n in range(40)).split(",")) == 32


@pytest.mark.parametrize(
    "header", ["a=1,a=2", "A=1", "a", "a=", "a=b=c", "a=ü", "=1", ",".join(f"m{n}=1" for n in range(33))]
)
def test_a_state_with_an_invalid_member_is_none(header: str) -> None:
    assert read_state(header) == ()


def test_what_the_member_names() -> None:
    run, span = "0" * 31 + "1", "0" * 31 + "2"
    assert read_member(f"{run}:{span}") == Named(run, span)
    assert read_member(f"{run}:{span}:{SPAN}") == Named(run, span, SPAN)
    assert read_member(f"{run}::{SPAN}") == Named(run, None, SPAN)
    assert read_member(run) == read_member(f"{run}:nonsense") == Named(run)
    assert read_member(f"nonsense:{span}") == read_member(None) == Named()
