"""Addresses of pages across runs: parsed into a filter, and made into links that keep it."""

from urllib.parse import parse_qsl, urlsplit

from hypothesis import given
from hypothesis import strategies as st

from agentspan.analysis.filter_words import NAMES
from agentspan.storage.questions import RunFilter
from agentspan.viewer.address import address_of

NAME = st.sampled_from([*NAMES, "by", "sort", "offset", "a", "page", "self"])
TEXT = st.text(st.characters(codec="utf-8"), max_size=12)


def test_conditions_have_the_names_of_the_command_line_and_others_are_the_pages_own() -> None:
    address = address_of([("agent", "a"), ("agent", " b "), ("tag", "x"), ("tag", "y"), ("failed", "yes"), ("by", "d")])
    assert address.filter() == RunFilter(agent="b", tags=("x", "y"), failed=True)
    assert (address.word("agent"), address.get("by"), address.word("by"), address.get("agent")) == ("b", "d", "", "")


def test_an_invalid_condition_is_ignored_and_named() -> None:
    address = address_of([("since", "the day before"), ("status", "well"), ("score", "reward>=1")])
    assert address.words == (("score", "reward>=1"),)
    assert [name for name, _ in address.ignored] == ["since", "status"]
    assert "the day before" not in str(address.ignored)


def test_a_link_keeps_the_filter_but_not_the_parameters_of_another_page() -> None:
    address = address_of([("agent", "a b"), ("tag", "x"), ("sort", "cost"), ("offset", "50")])
    assert address.link("failures") == "failures?agent=a+b&tag=x"
    assert address.link() == "./?agent=a+b&tag=x"
    assert address.link(agent=None, tag=None) == "./"
    assert address.link("cost", by="day", agent="c") == "cost?tag=x&by=day&agent=c"
    assert address.same(offset=100) == "./?agent=a+b&tag=x&sort=cost&offset=100"
    assert address.without(("tag", "x")) == "./?agent=a+b&sort=cost"


def test_a_link_to_some_runs_keeps_each_score_of_the_filter_and_can_remove_a_condition() -> None:
    address = address_of([("score", "style>=1"), ("agent", "a")])
    assert address.of_runs({"score": "reward<1", "agent": ""}) == "./?score=style%3E%3D1&score=reward%3C1"


@given(st.lists(st.tuples(NAME, TEXT)))
def test_a_link_leads_to_the_same_filter_and_parameters(pairs: list[tuple[str, str]]) -> None:
    address = address_of(pairs)
    again = address_of(parse_qsl(urlsplit(address.same("failures")).query))
    assert again.filter() == address.filter()
    assert dict(again.own) == dict(address.own)
