"""Liquid made to do harm: it is refused, or has no more in reach than the payload, and takes bounded time."""

import time
from collections.abc import Callable
from typing import Any

import pytest

from agentspan.errors import TemplateError
from agentspan.schemas.templates import client_template

SAFE_S = 1.0

REFUSED: dict[str, Callable[[], str]] = {
    "include of a file": lambda: "{% include '/etc/passwd' %}",
    "render of a file": lambda: "{% render 'secrets' %}",
    "extends": lambda: "{% extends 'base' %}",
    "macro": lambda: "{% macro 'x' %}{% endmacro %}",
    "tablerow": lambda: "{% tablerow i in (1..1000000) cols:2 %}x{% endtablerow %}",
    "liquid tag": lambda: "{% liquid\nassign a = 1\nrender 'x'\n%}",
    "unknown tag": lambda: "{% exec 'ls' %}",
    "unknown filter": lambda: "{{ a | system: 'ls' }}",
    "filter that decodes": lambda: "{{ a | base64_decode }}",
    "unclosed tag": lambda: "{% if a",
    "unclosed output": lambda: "{{ a | upcase",
    "unclosed block": lambda: "{% if a %}x",
    "end without a begin": lambda: "{% endif %}",
    "empty tag": lambda: "{% %}",
    "1 MB": lambda: "{% if a %}x{% endif %}" * 50_000,
    "white space for the lexer": lambda: "{{" + " " * 4000 + "| a",
    "white space in a tag": lambda: "{{" + " " * 3900 + "| a }}",
    "open tags for the lexer": lambda: "{% if a " * 500,
    "many tags": lambda: "{% if a %}{% endif %}" * 51,
    "blocks twenty deep": lambda: "{% if a %}" * 20 + "{% endif %}" * 20,
    "brackets a thousand deep": lambda: "{{ " + "a[" * 1000 + "b" + "]" * 1000 + " }}",
    "quotes for the lexer": lambda: "{{ a | append: " + "['" * 1000 + " }}",
    "parentheses for the lexer": lambda: "{{ " + "(" * 3000 + " | a }}",
    "raw for the lexer": lambda: "{% raw %}" * 400,
}

HOSTILE: dict[str, tuple[Callable[[], str], dict[str, Any], str | None]] = {
    "a loop of a billion": (lambda: "{% for i in (1..1000000000) %}{% endfor %}", {}, None),
    "a loop of a billion, reversed": (lambda: "{% for i in (1..1000000000) reversed %}x{% endfor %}", {}, None),
    "a loop of a billion that writes": (lambda: "{% for i in (1..99999) %}xy{% endfor %}", {}, "xy" * 99 + "x…"),
    "a loop over the payload's number": (lambda: "{% for i in (1..n) %}{% endfor %}", {"n": 10**12}, None),
    "loops in loops": (lambda: "{% for i in (1..99) %}" * 9 + "{% endfor %}" * 9, {}, None),
    "loops in loops over a list": (lambda: "{% for i in a %}" * 5 + "{% endfor %}" * 5, {"a": [1] * 1000}, None),
    "loops after loops": (lambda: "{% for i in (1..4999) %}{% endfor %}" * 45, {}, None),
    "text doubled by append": (
        lambda: "{% assign a = 'xx' %}" + "{% assign a = a | append: a %}" * 60 + "{{ a }}",
        {},
        None,
    ),
    "text doubled by capture": (lambda: "{% capture a %}{{ a }}{{ a }}x{% endcapture %}" * 24 + "{{ a }}", {}, None),
    "text doubled in a loop": (
        lambda: "{% for i in (1..900) %}{% assign a = a | append: a | append: 'x' %}{% endfor %}",
        {},
        None,
    ),
    "text by replace": (
        lambda: "{% assign b = a | replace: 'x', a | replace: 'x', a %}{{ b }}",
        {"a": "x" * 5000},
        None,
    ),
    "text by join": (lambda: "{{ a | split: '' | join: a }}", {"a": "x" * 900}, None),
    "a number squared again and again": (
        lambda: "{% assign a = 9 %}" + "{% assign a = a | times: a %}" * 60 + "{{ a }}",
        {},
        None,
    ),
    "a number of 4,000 digits": (lambda: "{{ 1 | plus: " + "9" * 4000 + " }}", {}, None),
    "division by zero": (lambda: "{{ 1 | divided_by: 0 }}", {}, None),
    "slice of a range": (lambda: "{{ (1..1000000000) | slice: 0, 100000000 | size }}", {}, "13"),
    "join of a range": (lambda: "{{ (1..1000000000) | join }}", {}, None),
    "equal lists": (
        lambda: "{% for i in (1..900) %}{% if a == b %}{% endif %}{% endfor %}",
        {"a": [[1] * 10**5] * 9, "b": [[1] * 10**5] * 9},
        "",
    ),
    "unique items": (lambda: "{{ a | uniq | size }}", {"a": [[n] for n in range(100_000)]}, None),
    "sort of what has no order": (lambda: "{{ a | sort | size }}", {"a": [1, "x", {}]}, None),
    "lists in lists": (lambda: "{{ a | join }}", {"a": [[[1] * 1000] * 1000] * 10}, None),
    "split into ten million": (lambda: "{{ a | split: '' | size }}", {"a": "x" * 10**7}, None),
    "ten megabytes": (lambda: "{{ a | truncate: 20 }}{{ a.size }}", {"a": "x" * 10**7}, "x" * 17 + "...10000000"),
    "ten megabytes, a hundred times": (lambda: "{{ a | upcase | size }}" * 99, {"a": "x" * 10**7}, None),
    "tags for the parser of HTML": (lambda: "{{ a | strip_html | size }}", {"a": "<" * 10**6}, "1000000"),
    "class": (lambda: "{{ a.__class__ }}{{ a.__class__.__mro__ | first }}", {"a": "text"}, ""),
    "globals": (lambda: "{{ a.format.__globals__ }}{{ a['__init__'] }}{{ a | map: '__class__' }}", {"a": {}}, ""),
    "the context": (lambda: "{{ 'a' | upcase: context: 1 }}", {}, None),
    "the environment": (
        lambda: "{{ forloop }}{{ template }}{{ self }}{{ context.env }}{{ steps }}{% if a %}{% endif %}",
        {},
        "",
    ),
    "the loop's object": (
        lambda: "{% for i in (1..1) %}{{ forloop.it }}{{ forloop.__class__ }}{{ forloop }}{% endfor %}",
        {},
        "",
    ),
    "a member called get": (lambda: "{{ a.get }}{{ a.keys }}{{ a.items | size }}{{ a.pop }}", {"a": {"x": 1}}, "0"),
    "terminal commands": (lambda: "{{ a | append: '\x1b[2J' }}", {"a": "\x1b[1m"}, "\ufffd[1m\ufffd[2J"),
    "conditions in a row": (lambda: "{% if " + "a and " * 100 + "a %}x{% endif %}", {"a": 1}, "x"),
    "filters in a row": (lambda: "{{ a" + " | upcase" * 400 + " }}", {"a": "x"}, "X"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_a_hostile_template_is_refused_in_bounded_time(name: str) -> None:
    start = time.process_time()
    with pytest.raises(TemplateError) as raised:
        client_template(REFUSED[name]())
    assert len(str(raised.value)) < 300
    assert time.process_time() - start < SAFE_S


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_template_is_harmless_in_bounded_time(name: str) -> None:
    source, payload, text = HOSTILE[name]
    start = time.process_time()
    template = client_template(source())
    assert template.render(payload) == text
    assert time.process_time() - start < SAFE_S
