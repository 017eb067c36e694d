"""Templates in Liquid, which clients send: rendered as Liquid does, within bounds, from the payload only."""

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from liquid import Environment

import agentspan
from agentspan import installing, schemas
from agentspan.errors import TemplateError
from agentspan.schemas.span_types import SpanType, describe
from agentspan.schemas.templates import LiquidMissing, LiquidTemplate, client_template, is_liquid
from agentspan.text import one_line
from tests.cli.calling import call
from tests.schemas.liquid_templates import TEMPLATES

ALL = [(source, number, text) for source, texts in TEMPLATES.items() for number, text in enumerate(texts)]
# A folder with npm's liquidjs in node_modules: npm install --prefix FOLDER liquidjs
LIQUIDJS = os.environ.get("AGENTSPAN_TEST_LIQUIDJS")
JAVASCRIPT = """
const { Liquid } = require("liquidjs");
const engine = new Liquid();
const cases = JSON.parse(require("fs").readFileSync(0, "utf8"));
console.log(JSON.stringify(cases.map(([template, payload]) => engine.parseAndRenderSync(template, payload))));
"""


def payloads(template: str) -> list[dict[str, Any]]:
    """Three payloads of the shape that a template reads: all of it, long texts in half of it, nothing but null."""
    tags = " ".join(re.findall(r"\{[{%](.*?)[}%]\}", template))
    bare = re.sub(r'(?<!\[)"[^"]*"', "", tags)
    paths = dict.fromkeys(re.findall(r'(?<![\w."])[a-zA-Z_]\w*(?:\.\w+|\["[^"]*"\])*', bare))
    words = {"if", "endif", "elsif", "else", "assign", "default", "truncate", "plus", "size", "slice", "cmd", "url"}
    found: list[dict[str, Any]] = [{}, {}, {}]
    for number, path in enumerate(path for path in paths if path not in words):
        names = [a or b for a, b in re.findall(r'\["([^"]*)"\]|(\w+)', path)]
        if names[-1] == "size":
            continue
        is_number = re.search(r"[Tt]okens|[Cc]ount|offset|limit|Messages|Calls|[Mm]s|Code|Length|size", path)
        first: Any = number + 3 if is_number else "cancelled" if names[-1] == "status" else f"the {names[-1]}"
        second: Any = None if number % 2 else number + 0.25 if is_number else "many words \n of text " * 8
        for payload, value in zip(found, (first, second, None), strict=True):
            where = payload
            for name in names[:-1]:
                inner = where.setdefault(name, {})
                where = inner if isinstance(inner, dict) else {}
            where.setdefault(names[-1], value)
    return found


def as_liquid(template: str, payload: dict[str, Any]) -> str:
    """What python-liquid makes of it by default; it cannot read `input.offset` and `input.limit`."""
    text = template.replace("input.offset", 'input["offset"]').replace("input.limit", 'input["limit"]')
    return Environment().from_string(text).render(**payload)


def shown(template: str, payload: dict[str, Any]) -> str | None:
    return client_template(template).render(payload)


@pytest.mark.parametrize(("source", "number", "template"), ALL, ids=[f"{s.split('/')[1]} {n}" for s, n, _ in ALL])
def test_the_templates_of_the_official_packages_read_as_liquid_makes_them(
    source: str, number: int, template: str
) -> None:
    for payload in payloads(template):
        assert shown(template, payload) == one_line(as_liquid(template, payload), 200), payload
    assert any(payloads(template)[0].values())


@pytest.mark.skipif(not LIQUIDJS, reason="opt-in: AGENTSPAN_TEST_LIQUIDJS names a folder with liquidjs in node_modules")
def test_the_templates_of_the_official_packages_read_as_liquidjs_makes_them() -> None:
    cases = [(template, payload) for _, _, template in ALL for payload in payloads(template)]
    done = subprocess.run(
        ["node", "-e", JAVASCRIPT], cwd=LIQUIDJS, input=json.dumps(cases), capture_output=True, text=True, check=True
    )
    for (template, payload), made in zip(cases, json.loads(done.stdout), strict=True):
        assert shown(template, payload) == one_line(made, 200), (template, payload)


@pytest.mark.parametrize(
    ("template", "payload"),
    [
        ("{{ a | upcase }}{{ a | downcase }}{{ a | capitalize }}", {"a": "mIa li"}),
        ("{{ a | strip }}|{{ a | lstrip }}|{{ a | rstrip | append: '.' }}{{ a | squish }}", {"a": " x  y "}),
        (
            "{{ a | replace: 'o', '0' }}{{ a | replace_first: 'o', '0' }}{{ a | replace_last: 'o', '0' }}",
            {"a": "foo o"},
        ),
        ("{{ a | remove: 'o' }}{{ a | remove_first: 'o' }}{{ a | remove_last: 'o' }}", {"a": "foo o"}),
        ("{{ a | split: ',' | join: '-' }}{{ a | split: ',' | first }}{{ a | split: ',' | last }}", {"a": "x,y,z"}),
        ("{{ a | split: ',' | reverse | join }}{{ a | split: ',' | size }}{{ a | split: '' | size }}", {"a": "x,y,z"}),
        ("{{ a | sort | join }} {{ a | sort_natural | join }} {{ a | uniq | join }}", {"a": ["b", "A", "b", "a"]}),
        (
            "{{ a | map: 'n' | join }} {{ a | where: 'k', 'x' | map: 'n' | join }}",
            {"a": [{"n": 1, "k": "x"}, {"n": 2}]},
        ),
        (
            "{{ a | where: 'k' | size }}{{ a | reject: 'k' | size }}{{ a | has: 'k', 'x' }}",
            {"a": [{"k": "x"}, {"n": 2}]},
        ),
        ("{{ a | compact | size }}{{ a | concat: a | size }}{{ a | sum }}", {"a": [1, None, 2]}),
        ("{% assign b = a | find: 'n', 2 %}{{ b.n }}{{ a | sum: 'n' }}", {"a": [{"n": 1}, {"n": 2}]}),
        (
            "{{ a | plus: 1 }} {{ a | minus: 0.5 }} {{ a | times: 3 }} {{ a | divided_by: 2 }} {{ a | modulo: 4 }}",
            {"a": 7},
        ),
        ("{{ a | abs }} {{ a | ceil }} {{ a | floor }} {{ a | round }} {{ a | round: 1 }}", {"a": -2.46}),
        ("{{ a | at_least: 5 }} {{ a | at_most: 5 }} {{ '3' | plus: '4' }} {{ x | plus: 1 }}", {"a": 9}),
        ("{{ a | truncate: 10 }} {{ a | truncate: 10, '' }} {{ a | truncatewords: 2 }}", {"a": "one two three four"}),
        ("{% capture t %}{{ a }}{% endcapture %}{{ t | size }}", {"a": "x" * 5000}),
        ("{{ a | slice: 1 }} {{ a | slice: 1, 3 }} {{ a | slice: -3, 2 }}", {"a": "abcdef"}),
        ("{{ a | escape }} {{ a | url_encode }} {{ 'a%20b' | url_decode }} {{ a | escape_once }}", {"a": "<b>&x"}),
        (
            "{{ a | strip_html }}{{ b | strip_newlines }}{{ b | newline_to_br }}",
            {"a": "<p>x <b>y</b></p>", "b": "1\n2"},
        ),
        (
            "{{ a | date: '%Y-%m-%d %H:%M' }} {{ b | date: '%d %b %Y' }}",
            {"a": "2026-11-25T23:05:00", "b": "2026-01-02"},
        ),
        (
            "{{ a | default: 'none' }}{{ b | default: 'none' }}{{ c | default: 'no', allow_false: true }}",
            {"b": 0, "c": False},
        ),
        (
            "{% for x in a %}{{ forloop.index }}{{ x.n }}{% unless forloop.last %}, {% endunless %}{% endfor %}",
            {"a": [{"n": 1}, {"n": 2}]},
        ),
        ("{% for x in a limit: 2 offset: 1 %}{{ x }}{% else %}none{% endfor %}", {"a": [1, 2, 3, 4]}),
        ("{% for x in a reversed %}{{ x }}{% if x == 2 %}{% break %}{% endif %}{% endfor %}", {"a": [1, 2, 3]}),
        ("{% for i in (1..3) %}{% if i == 2 %}{% continue %}{% endif %}{{ i }}{% endfor %}", {}),
        ("{% for x in a %}none{% else %}empty{% endfor %}", {"a": []}),
        ("{% case a %}{% when 'x', 'y' %}one{% when 'z' %}two{% else %}three{% endcase %}", {"a": "y"}),
        (
            "{% if a contains 'x' and b > 1 %}1{% elsif a %}2{% endif %}{% if a == empty %}3{% endif %}",
            {"a": ["x"], "b": 2},
        ),
        (
            "{% capture t %}{{ a }}-{{ a }}{% endcapture %}{{ t }}{% increment n %}{% increment n %}{% decrement m %}",
            {"a": 1},
        ),
        (
            "{%- if a -%}  x  {%- endif -%} y{% comment %}no{% endcomment %}{% # no %}{% echo a %}",
            {"a": 1},
        ),
        ("{{ a | plus: 1 }}{% raw %}{{ a }}{% endraw %}", {"a": 1}),
        (
            "{{ a.size }} {{ a.first }} {{ a.last }} {{ a[1] }} {{ b['c d'] }} {{ b[k] }}",
            {"a": [1, 2], "b": {"c d": 3}, "k": "c d"},
        ),
    ],
)
def test_tags_and_filters_agree_with_python_liquid(template: str, payload: dict[str, Any]) -> None:
    assert LiquidTemplate(template).render(payload) == one_line(
        Environment().from_string(template).render(**payload), 200
    )


@pytest.mark.parametrize(
    ("template", "payload", "text"),
    [
        ("{{ a }}{{ b | default: 'x' }}", {"a": {"n": 1}, "b": [1]}, ""),  # a bare object or array is empty
        ("{{ a | truncate: 60 }}{{ a | append: 'x' }}", {"a": {"n": 1}}, "x"),
        ("{{ a | join: ',' }}", {"a": [{"n": 1}, [2], "x"]}, ",2,x"),
        ("{{ a | append: '' }}{{ a | upcase }}", {"a": True}, "trueTRUE"),  # not `True`, as Python has it
        ("{{ a }}{% if true %}{% endif %}", {"a": "x\n\ny" + "z" * 300}, "x y" + "z" * 196 + "…"),
        ("{{ a | date: '%Y' }}{{ 'now' | date: '%Y' }}", {"a": "soon"}, "soonnow"),  # the same at any time
        ("{{ a | date: '%9999999d' }}", {"a": "2026-01-02"}, "2026-01-02"),
        (
            "{% if i.limit %}{{ i.limit }}{% endif %} {{ 'x.limit' }}{% if a.in %}{% endif %}",
            {"i": {"limit": 5}},
            "5 x.limit",
        ),
        ("{{ status | upcase }}{{ _status | upcase }}", {"status": "of the payload"}, "OF THE PAYLOADCOMPLETE"),
    ],
)
def test_values_are_shown_as_in_our_own_templates(template: str, payload: dict[str, Any], text: str) -> None:
    own = SpanType({"name": "x", "template": template}, trusted=True)
    assert describe(own, "x", "complete", payload, None, 1.0).summary == text


@pytest.mark.parametrize(
    ("template", "expected"),
    [
        ("{{ field }}", False),
        ("{{a.b}} {{#a}}x{{/a}}", False),
        ("a | b {{ c }}", False),
        ("{% if a %}b{% endif %}", True),
        ("{{ a | upcase }}", True),
        ('{{ inputs["ai.model.id"] }}', True),
        ("{{ a[0] }}", True),
        ("{{- a -}}", True),
    ],
)
def test_which_templates_are_liquid(template: str, expected: bool) -> None:
    assert is_liquid(template) == expected
    assert isinstance(client_template(template), LiquidTemplate) == expected


def test_the_result_template_is_the_outcome() -> None:
    own = SpanType(
        {
            "name": "exec",
            "template": "exec: {{ input.command | truncate: 20 }}",
            "result_template": "{% if output.exitCode == 0 %}exit 0{% else %}exit {{ output.exitCode }}{% endif %}",
        },
        trusted=True,
    )
    payload = {"input": {"command": "ls"}}
    assert describe(own, "exec", "active", payload, None, None).summary == "exec: ls"
    assert describe(own, "exec", "complete", payload, {"output": {"exitCode": 0}}, 1.0).summary == "exec: ls → exit 0"
    failed = describe(own, "exec", "failed", payload, {"error_type": "Error", "message": "gone"}, 1.0)
    assert failed.summary == "exec: ls → Error: gone"
    alone = SpanType({"name": "x", "result_template": "{{output}}"}, trusted=True)
    assert describe(alone, "x", "complete", {}, {"output": "done"}, 1.0).summary == "done"


def test_ones_own_types_are_mustache() -> None:
    with pytest.raises(TemplateError, match="looks like Liquid"):
        agentspan.span_type("mine", template="{{ a | upcase }}")


@contextmanager
def without_liquid() -> Iterator[None]:
    """As if python-liquid were not installed."""
    with pytest.MonkeyPatch.context() as patch:
        for module in ("liquid_engine", "liquid_filters"):
            patch.delitem(sys.modules, f"agentspan.schemas.{module}", raising=False)
            patch.delattr(schemas, module, raising=False)
        for module in [name for name in sys.modules if name == "liquid" or name.startswith("liquid.")]:
            patch.setitem(sys.modules, module, None)
        yield


def test_without_the_extra_a_template_says_what_would_render_it() -> None:
    own = SpanType({"name": "x", "template": "{{ a | upcase }}"}, trusted=True)
    with without_liquid():
        with pytest.raises(LiquidMissing, match=r'is Liquid; .* install .*"agentspan-sqlite\[liquid\]"'):
            client_template("{{ a | upcase }}")
        assert describe(own, "x", "complete", {"a": "b"}, None, 1.0).summary is None
        assert own.lacks_liquid


def test_without_the_extra_nothing_takes_a_summary_away_that_a_server_rendered(tmp_path: Path) -> None:
    path = tmp_path / "runs.db"
    types = [{"name": "x", "template": "say {{ a | upcase }}"}]
    with agentspan.open(path) as db:
        run = db.agent_instances.register("a", agent_schema_version={"span_type_schemas": types})
        db.agent_instances.start(run.id)
        span = db.agent_spans.create(run.id, "x", status="active", payload={"a": "b"})
        assert span.summary == "say B"
    with without_liquid(), agentspan.open(path) as db:
        output = call(path, "doctor", "--schemas", columns=120).output
        assert f"no summary: the template is Liquid; to have it rendered, run: {installing.extra('liquid')}" in output
        call(path, "rederive")
        assert db.agent_spans.get(span.id).summary == "say B"
        db.agent_instances.terminate(run.id, "enough")
        assert (db.agent_spans.get(span.id).status, db.agent_spans.get(span.id).summary) == ("failed", "say B")


@pytest.mark.full
def test_python_liquid_is_imported_for_the_first_liquid_template_only() -> None:
    program = """
import sys, agentspan
with agentspan.open("memory://") as db:
    for template in ("{{ a }}", "{{ a | upcase }}"):
        types = [{"name": "x", "template": template}]
        run = db.agent_instances.register("a", agent_schema_version={"span_type_schemas": types})
        print(db.agent_spans.create(run.id, "x", status="active", payload={"a": "b"}).summary, "liquid" in sys.modules)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["b", "False", "B", "True"]
