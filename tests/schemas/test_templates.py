"""Summary templates: the rules of a summary one by one, agreement with Mustache, and nothing that a payload can do."""

import builtins
import json
from typing import Any

import chevron
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from agentspan.errors import TemplateError
from agentspan.schemas.templates import (
    MAX_DEPTH,
    MAX_INLINE,
    MAX_ITEMS,
    MAX_SUMMARY,
    MAX_TAGS,
    RESERVED,
    Template,
    inline,
)
from agentspan.text import one_line
from tests.strategies import any_text, json_objects, json_values

RESERVED_VALUES = {"_status": "failed", "_schema": "llm", "_duration": "2.1 s", "_error": "E: x"}
SOURCES = [
    "{{a}} {{b}} {{c}}",
    "{{a.b}} {{a.b.c}} {{a.0}} {{b.1.a}} {{a.-1}} {{a.00000001}}",
    "{{a._inline}} {{b._args}} {{c._count}} {{a.b._inline}}",
    "{{#a}}{{.}}{{b}}{{#b}}{{.}}{{a}}{{c._inline}}{{/b}}{{/a}}",
    "{{#a._inline}}→ {{.}}{{/a._inline}}{{^a}}none{{/a}}{{^b._count}}{{.}}{{/b._count}}",
    "{{^a._inline}}{{.}}{{b}}{{/a._inline}} {{#b._args}}{{.}} {{a}}{{/b._args}}{{#c}}{{a._inline}}{{/c}}",
    "\t{{a._inline}}",
    "{{_status}} {{_schema}} {{_duration}} {{#_error}}{{.}}{{/_error}}{{_error._count}}",
    "{{{a}}}{{& b}}{{! a comment }}\n {{# c }} x {{/ c }}\n",
]
TEMPLATES = [Template(source) for source in SOURCES]


def render(source: str, /, **payload: Any) -> str:
    """A template's summary over a payload."""
    return Template(source).render(payload)


def generated_source(monkeypatch: pytest.MonkeyPatch, source: str) -> str:
    """The Python source that a template is compiled to."""
    seen: list[str] = []
    run = builtins.exec

    def spy(code: str, scope: dict[str, Any]) -> None:
        seen.append(code)
        run(code, scope)

    with monkeypatch.context() as patch:
        patch.setattr(builtins, "exec", spy)
        Template(source)
    (code,) = seen
    return code


@pytest.mark.parametrize(
    ("source", "payload", "shown"),
    [
        # What values look like.
        ("<{{a}}>", {}, "<>"),
        ("<{{a}}>", {"a": None}, "<>"),
        ("<{{a}}>", {"a": {"b": 1}}, "<>"),
        ("<{{a}}>", {"a": [1, 2]}, "<>"),
        ("<{{a}}>", {"a": ""}, "<>"),
        ("<{{a}}>", {"a": 0}, "<0>"),
        ("<{{a}}>", {"a": 0.0}, "<0.0>"),
        ("<{{a}}>", {"a": -1.5}, "<-1.5>"),
        ("<{{a}}>", {"a": True}, "<true>"),
        ("<{{a}}>", {"a": False}, "<false>"),
        ("<{{a}}>", {"a": '<b> & "c" \'d\''}, "<<b> & \"c\" 'd'>"),
        ("<{{{a}}}{{& a}}>", {"a": "<&>"}, "<<&><&>>"),
        ("<{{a}}>", {"a": "two\nlines\r\n\ttab"}, "<two lines tab>"),
        ("two\nlines {{a}}\n", {"a": 1}, "two lines 1"),
        ("<{{a}}>", {"a": "{{b}}", "b": 1}, "<{{b}}>"),
        ("no tags", {}, "no tags"),
        ("", {"a": 1}, ""),
        ("{{! says nothing }}", {}, ""),
        ('{"a": {{a}}}', {"a": 1}, '{"a": 1}'),
        # Paths.
        ("{{a.b.c}}", {"a": {"b": {"c": "deep"}}}, "deep"),
        ("{{a.b.c}}", {"a": {"b": "text"}}, ""),
        ("{{a.b.c}}", {"a": None}, ""),
        ("{{a.0}}{{a.2.b}}", {"a": ["x", "y", {"b": "z"}]}, "xz"),
        ("{{a.3}}{{a.-1}}{{a.+1}}{{a.1e0}}", {"a": ["x", "y", "z"]}, ""),
        ("{{a.0}}", {"a": "text"}, ""),
        ("{{a.0}}", {"a": {"0": "member"}}, "member"),
        ("{{ a }}{{a\n}}", {"a": 1}, "11"),
        # Sections.
        ("{{#a}}y{{/a}}{{^a}}n{{/a}}", {}, "n"),
        ("{{#a}}y{{/a}}{{^a}}n{{/a}}", {"a": None}, "n"),
        ("{{#a}}y{{/a}}{{^a}}n{{/a}}", {"a": ""}, "n"),
        ("{{#a}}y{{/a}}{{^a}}n{{/a}}", {"a": False}, "n"),
        ("{{#a}}y{{/a}}{{^a}}n{{/a}}", {"a": []}, "n"),
        ("{{#a}}y{{/a}}{{^a}}n{{/a}}", {"a": {}}, "n"),
        ("{{#a}}y{{/a}}{{^a}}n{{/a}}", {"a": True}, "y"),
        ("{{#a}}y{{/a}}{{^a}}n{{/a}}", {"a": 0}, "y"),
        ("{{#a}}y{{/a}}{{^a}}n{{/a}}", {"a": 0.0}, "y"),
        ("{{#a}}y{{/a}}{{^a}}n{{/a}}", {"a": " "}, "y"),
        ("{{#count}}{{count}} hits{{/count}}", {"count": 0}, "0 hits"),
        ("{{#a}}{{.}} {{/a}}", {"a": ["x", 0, None, True]}, "x 0 true"),
        ("{{#a}}{{b}}{{c}} {{/a}}", {"a": [{"b": 1}, {"b": 2, "c": "own"}], "c": "outer"}, "1outer 2own"),
        ("{{#a}}{{b}}{{/a}}", {"a": {"b": None}, "b": "outer"}, ""),
        ("{{#a}}{{b.c}}{{/a}}", {"a": {"b": 1}, "b": {"c": 2}}, ""),
        ("{{#a}}{{#b}}{{.}}{{x}}{{/b}};{{/a}}", {"a": [{"b": [1, 2]}, {"x": "-", "b": "t"}], "x": "+"}, "1+2+;t-;"),
        ("{{^a}}{{^b}}neither{{/b}}{{/a}}", {}, "neither"),
        ("{{#a}}{{/a}}{{^a}}{{/a}}x", {"a": 1}, "x"),
        # The three members of any value.
        ("{{a._inline}}", {"a": {"b": [1, None, True], "c": "d"}}, '{"b":[1,null,true],"c":"d"}'),
        ("{{a._inline}}", {"a": "two\nlines"}, "two lines"),
        ("<{{a._inline}}>", {"a": None}, "<>"),
        ("<{{a._inline}}>", {}, "<>"),
        ("{{a._inline}}{{b._inline}}", {"a": False, "b": 0}, "false0"),
        ("{{a._inline}}", {"a": []}, "[]"),
        ("{{a._inline}}", {"a": [{"type": "text", "text": "a\nb"}, {"type": "image", "source": {}}]}, "a b [image]"),
        ("{{a._inline}}", {"a": [{"type": "text"}, 1]}, '[{"type":"text"},1]'),
        ("{{a._args}}", {"a": {"q": "x y", "n": 3, "f": [1], "z": None}}, "q=x y, n=3, f=[1], z=null"),
        ("<{{a._args}}>", {"a": {}}, "<>"),
        ("{{a._args}}", {"a": {"all": False, "old": None, "path": "a.py"}}, "path=a.py, all=false, old=null"),
        ("{{a._args}}", {"a": {"path": "/home/mia/work/" + "x" * 40 + "/cart.py"}}, f"path=…{'x' * 31}/cart.py"),
        ("{{a._args}}", {"a": [1, "b"]}, '[1,"b"]'),
        ("{{a._args}}", {"a": "text"}, "text"),
        ("<{{a._args}}>", {}, "<>"),
        ("{{a._count}}{{b._count}}{{c._count}}", {"a": [1, 2], "b": {"x": 1}, "c": []}, "210"),
        ("<{{a._count}}{{b._count}}>", {"a": "text"}, "<>"),
        ("{{#a._count}}y{{/a._count}}", {"a": []}, "y"),
        ("{{a._count}}", {"a": {"_count": 99}}, "1"),
        ("{{_count}}", {"_count": "a member at the top"}, "a member at the top"),
        ("{{#a._inline}}<{{.}}>{{/a._inline}}", {"a": {"b": 1}}, '<{"b":1}>'),
    ],
)  # fmt: skip
def test_renders(source: str, payload: dict[str, Any], shown: str) -> None:
    assert Template(source).render(payload) == shown


@pytest.mark.parametrize("name", sorted(RESERVED))
def test_a_reserved_name_is_never_a_member_of_the_payload(name: str) -> None:
    source = f"{{{{{name}}}}}|{{{{#x}}}}{{{{{name}}}}}{{{{/x}}}}|{{{{#{name}}}}}y{{{{/{name}}}}}"
    payload = {name: "shadow", "x": [{name: "shadow"}]}
    assert Template(source).render(payload) == "||"
    assert Template(source).render(payload, {name: "real"}) == "real|real|y"


def test_a_reserved_name_below_the_top_is_a_member_like_any_other() -> None:
    assert render("{{x._error}}", x={"_error": "theirs"}) == "theirs"


def test_a_template_knows_which_reserved_names_it_uses() -> None:
    assert Template("{{a}}{{x._error}}").reserved == frozenset()
    assert Template("{{#_error}}{{_status}}{{/_error}}").reserved == {"_error", "_status"}


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("x" * 200, "x" * 200),
        ("x" * 201, "x" * 199 + "…"),
        ("x" * 198 + "e\u0301" * 10, "x" * 198 + "…"),
        ("x" * 198 + "👋\U0001f3fd!!", "x" * 198 + "…"),
        ("x" * 195 + " \n" * 50 + "end", "x" * 195 + " end"),
    ],
)
def test_a_summary_has_at_most_200_characters_cut_between_characters(text: str, shown: str) -> None:
    assert render("{{a}}", a=text) == shown


def test_inline_has_at_most_80_characters() -> None:
    assert render("{{a._inline}}", a="y" * 81) == "y" * 79 + "…"
    assert render("{{a._inline}}", a=["y" * 300]) == '["' + "y" * 77 + "…"
    assert render("{{a._args}}", a={"k": "y" * 300, "l": 1}) == "k=" + "y" * 39 + "…, l=1"
    assert len(render("{{a._args}}", a={f"k{n}": n for n in range(100)})) == MAX_INLINE


def test_a_section_shows_at_most_20_items() -> None:
    assert render("{{#a}}x{{/a}}", a=[1] * 1000) == "x" * MAX_ITEMS


def test_as_many_tags_and_sections_as_are_allowed() -> None:
    assert render("{{a}}" * MAX_TAGS, a="x") == "x" * MAX_TAGS
    opening, closing = "{{#a}}" * MAX_DEPTH, "{{/a}}" * MAX_DEPTH
    assert render(f"{opening}x{closing}{{{{^a}}}}y{{{{/a}}}}", a=True) == "x"
    with pytest.raises(TemplateError, match="more than 64 tags"):
        Template("{{a}}" * (MAX_TAGS + 1))
    with pytest.raises(TemplateError, match="deeper than 2"):
        Template("{{^a}}" + opening + closing + "{{/a}}")


def test_a_template_of_4096_characters_is_allowed() -> None:
    assert render("x" * 4096).endswith("x…")
    with pytest.raises(TemplateError, match="has 4097 characters; at most 4096"):
        Template("x" * 4097)


@given(st.sampled_from(TEMPLATES), json_objects)
@example(TEMPLATES[0], {"a": "\ud800\x1b[2J\u202e", "b": "\n" * 500, "c": 10**5000})
def test_rendering_never_raises_and_gives_one_short_line(template: Template, payload: dict[str, Any]) -> None:
    for reserved in ({}, RESERVED_VALUES):
        summary = template.render(payload, reserved)
        assert len(summary) <= MAX_SUMMARY
        assert len(summary.splitlines()) <= 1
        assert summary == one_line(summary, MAX_SUMMARY)


@given(st.sampled_from(SOURCES), json_objects)
def test_rendering_is_deterministic_and_changes_nothing(source: str, payload: dict[str, Any]) -> None:
    before = repr(payload)
    summaries = {Template(source).render(payload, RESERVED_VALUES) for _ in range(3)}
    assert len(summaries) == 1
    assert repr(payload) == before


@given(any_text.filter(lambda text: "{{" not in text and "{%" not in text))
def test_a_template_without_tags_shows_itself(text: str) -> None:
    assert render(text) == one_line(text, MAX_SUMMARY)


@given(any_text, any_text)
def test_any_text_as_a_template_renders_or_is_refused(before: str, after: str) -> None:
    for source in (before, before + "{{" + after, before + "{{a}}" + after, "{{" + before + "}}" + after):
        try:
            template = Template(source)
        except TemplateError:
            continue
        assert len(template.render({"a": before})) <= MAX_SUMMARY


@given(json_values, st.integers(1, 120))
def test_any_value_fits_on_a_line(value: Any, limit: int) -> None:
    line = inline(value, limit)
    assert len(line) <= limit
    assert len(line.splitlines()) <= 1


simple = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-1000, 1000)
    | st.sampled_from([0.0, -2.5, 1e22])
    | st.text("abc", max_size=3),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text("abc", max_size=3), inner, max_size=3),
    max_leaves=8,
)


@given(simple)
@example({"a": [1, -2.5, True, False, None, "text", {"b": []}], "c": {}})
def test_a_small_value_on_a_line_is_its_compact_json(value: Any) -> None:
    text = json.dumps(value, separators=(",", ":"))
    if type(value) is not str and len(text) <= MAX_INLINE and "[" * 9 not in text:
        assert inline(value, MAX_INLINE) == text


# Agreement with Mustache: strings without what HTML escapes, sections over objects and lists of them.

words = st.text("abcxyz ,.:é", max_size=6)
literals = st.text("abc ,:→\n", max_size=5)
variables = st.sampled_from(["x", "y", "z", "o.x", "o.p.y", "missing", "o.missing"]).map("{{{{{}}}}}".format)


def sections(inner: st.SearchStrategy[str], names: list[str], kinds: str = "#^") -> st.SearchStrategy[str]:
    return st.tuples(st.sampled_from(kinds), st.sampled_from(names), inner).map(
        lambda parts: "{{{{{0}{1}}}}}{2}{{{{/{1}}}}}".format(*parts)
    )


def sequences(*parts: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    return st.lists(st.one_of(*parts), max_size=4).map("".join)


flat = sequences(literals, variables)
# chevron itself fails on an inverted section inside a section over a list.
within = sequences(literals, variables, sections(flat, ["u"], "#"))
mustache = sequences(literals, variables, sections(within, ["s", "missing"]), sections(flat, ["t"]))

leaves = st.dictionaries(st.sampled_from(["x", "y", "z"]), words, min_size=1, max_size=3)  # {} is nothing to chevron
inner_objects = st.builds(
    lambda own, t, u: {**own, "t": t, "u": u},
    leaves,
    leaves | st.lists(leaves, max_size=3),
    st.lists(leaves, max_size=2),
)
contexts = st.builds(
    lambda own, s, t, o: {**own, "s": s, "t": t, "o": o},
    leaves,
    inner_objects | st.lists(inner_objects, max_size=3),
    st.lists(leaves, max_size=3),
    st.fixed_dictionaries({"x": words, "p": leaves}),
)


@given(mustache, contexts)
@example(
    "{{#s}}{{x}}{{#t}}{{x}}{{y}}{{/t}}{{/s}}", {"x": "a", "s": [{"x": "b", "t": [{"y": "c"}]}, {"t": []}], "t": []}
)
def test_agrees_with_chevron_where_both_mean_mustache(source: str, context: dict[str, Any]) -> None:
    expected = chevron.render(source, context, partials_path=None)
    assert Template(source).render(context) == one_line(expected, MAX_SUMMARY)


# Not of empty text: chevron leaves those out.
@given(
    st.lists(words.filter(bool), max_size=5),
    st.sampled_from(["{{#a}}{{.}}{{/a}}", "{{#a}}[{{.}}]{{/a}}{{^a}}none{{/a}}"]),
)
def test_agrees_with_chevron_on_lists_of_text(items: list[str], source: str) -> None:
    expected = chevron.render(source, {"a": items}, partials_path=None)
    assert Template(source).render({"a": items}) == one_line(expected, MAX_SUMMARY)


# Templates are compiled to a function: nothing of one may end up in its source.

any_name = st.text(
    st.characters(exclude_categories=("Z", "Cc"), exclude_characters=".{}|%#^/>=!&\u001c\u001d\u001e\u001f\u0085"),
    min_size=1,
).filter(lambda name: name not in RESERVED | {"_inline", "_args", "_count"})
hostile_texts = st.sampled_from(
    ['"', "'", "\\", "\n", '"""', "'''", "\\N{DASH}", "#", "\r", "\0", "{0}", "k0", "); import os"]
)


@given(any_text.filter(lambda text: "{" not in text and text.strip()) | hostile_texts, any_name)
@example("\\", 'a");__import__("os")[0]("x')
@example("\n'''\n", "k0]=open('x')#")
def test_the_generated_source_depends_on_the_shape_of_a_template_only(literal: str, name: str) -> None:
    shape = "{text}{{{{{key}}}}}{{{{#{key}.{key}}}}}{{{{.}}}}{{{{^{key}}}}}{text}{{{{/{key}}}}}{{{{/{key}.{key}}}}}"
    with pytest.MonkeyPatch.context() as patch:
        plain = generated_source(patch, shape.format(text="plain", key="plain"))
        assert generated_source(patch, shape.format(text=literal, key=name)) == plain


def test_the_generated_source_is_made_of_fixed_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    assert generated_source(monkeypatch, "Hi {{a.b._inline}}{{#s}}{{x}}{{/s}}{{_error}}").splitlines() == [
        "def render(c0, reserved=None):",
        " out = ''",
        " clean = constants_are_clean",
        " out += k0",
        " out += (_inline(m) if (m := member(c0.get(k1), k2)) is not None else None) or ''",
        " v = c0.get(k3)",
        " for c1 in items(v) if v or (v is not None and type(v) in numbers) else nothing:",
        "  if len(out) > 800: break",
        "  v = (c1[k4] if type(c1) is dict and k4 in c1 else c0.get(k4))",
        "  if type(v) is not str or len(v) > 800: v = shown(v)",
        "  clean = clean and len(v) <= 80 and v.isprintable()",
        "  out += v",
        " v = (reserved.get(k5) if reserved else None)",
        " if type(v) is not str or len(v) > 800: v = shown(v)",
        " clean = clean and len(v) <= 80 and v.isprintable()",
        " out += v",
        " if clean and len(out) <= 200 and '  ' not in out and out.strip() == out:",
        "  return out",
        " return one_line(out, 200)",
    ]


@given(any_name, any_text)
def test_a_name_of_any_characters_finds_its_member(name: str, value: str) -> None:
    assert render(f"{{{{{name}}}}}", **{name: value}) == one_line(value, MAX_SUMMARY)


@pytest.mark.parametrize(
    "name", ["open", "exec", "eval", "__import__", "shown", "items", "search", "member", "out", "v"]
)
def test_a_name_of_the_generated_function_is_a_name_like_any_other(name: str) -> None:
    source = f"{{{{{name}}}}}{{{{#{name}}}}}y{{{{/{name}}}}}{{{{^{name}}}}}n{{{{/{name}}}}}"
    assert render(source) == "n"
    assert render(source, **{name: "theirs"}) == "theirsy"
