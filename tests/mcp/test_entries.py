"""Entries in settings files: the rest of the text stays as it is, to the byte."""

import json
import tomllib
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentspan.mcp.entries import NotEditable, json_value, remove_json, remove_toml, set_json, set_toml

AT = ("mcpServers", "agentspan")
IN_TOML = ("mcp_servers", "agentspan")
ENTRY = {"command": "/usr/bin/agentspan", "args": ["mcp", "--db", 'a "quoted" \\ path']}

JSONC = [
    '{"a": 1}',
    "{}",
    '{"mcpServers": {"x": {"command": "y"}}, "z": [1, 2,]}',
    """{
  // a comment with "quotes", {braces} and a comma,
  "mcpServers": {
    "other": { "command": "x" }, // after, with a comma
    /* a block */
    "more": {
      "command": "y",
      "args": ["a",], // inside
    },
  },
  "url": "https://no.comment/" // last
}
""",
    '{\n\t"mcpServers": {\n\t\t"other": {"command": "x"} // no comma before this\n\t}\n}\n',
    '{\r\n    "a": 1\r\n}\r\n',
    "{\n  // only a comment\n}\n",
    '{"mcpServers": {"o": {"a": 1}}, }\n',
    '\ufeff{\n  "a": 1\n}\n',
    '{\n  "mcpServers": {\n    "z": {}\n  }, /* after */ "b": 2\n}',
    '// first\n{"agentspan": {"mcpServers": {"agentspan": 1}}}\n// last\n',
]
TOML = [
    "a = 1\n",
    '# first\n[mcp_servers.other]\ncommand = "x" # why\n',
    'x = """\n[mcp_servers.agentspan]\n"""\ny = [\n  "[a]", # [b]\n]\n[t]\nz = {a = [1]}\n',
    "a=1\r\n[b]\r\nc=2\r\n",
    "[a]\nx = 1\n\n\n# last\n",
    "[[list]]\na = '''[mcp_servers.agentspan]\n'''\n[[list]]\n",
    '[projects."/home/a]b"]\ntrust_level = "trusted"\n',
    '[projects."\\U0001F600"]\nx = 1\n',
]


@pytest.mark.parametrize("text", JSONC)
def test_an_entry_in_jsonc_is_set_and_taken_back(text: str) -> None:
    found = set_json(text, AT, ENTRY)
    assert json_value(found)["mcpServers"]["agentspan"] == ENTRY
    assert set_json(found, AT, ENTRY) == found
    assert remove_json(found, AT) == text
    assert remove_json(text, AT) == text
    other = set_json(found, AT, {"command": "other"})
    assert json_value(other)["mcpServers"]["agentspan"] == {"command": "other"}
    assert json_value(set_json(other, AT, ENTRY)) == json_value(found)
    for comment in ("// last", "// after, with a comma", "/* a block */", "// inside", "// only a comment"):
        assert (comment in found) == (comment in text)


@pytest.mark.parametrize("text", TOML)
def test_an_entry_in_toml_is_set_and_taken_back(text: str) -> None:
    found = set_toml(text, IN_TOML, ENTRY)
    assert tomllib.loads(found)["mcp_servers"]["agentspan"] == ENTRY
    assert found.startswith(text)
    assert set_toml(found, IN_TOML, ENTRY) == found
    assert remove_toml(found, IN_TOML) == text
    assert remove_toml(text, IN_TOML) == text


def test_an_entry_amid_others_is_replaced_and_removed_alone() -> None:
    ours = '[mcp_servers.agentspan]\ncommand = "old"\n[mcp_servers.agentspan.env]\nA = "b"\n\n'
    text = f"[a]\nx=1\n\n{ours}# of b\n[b]\ny=2\n"
    assert remove_toml(text, IN_TOML) == "[a]\nx=1\n\n# of b\n[b]\ny=2\n"
    found = set_toml(text, IN_TOML, {"command": "new"})
    assert found == '[a]\nx=1\n\n[mcp_servers.agentspan]\ncommand = "new"\n\n# of b\n[b]\ny=2\n'
    amid = '{\n  "mcpServers": {\n    "a": 1,\n    "agentspan": {"command": "old"}, // ours\n    "z": 2\n  }\n}\n'
    assert json_value(remove_json(amid, AT)) == {"mcpServers": {"a": 1, "z": 2}}
    assert json_value(set_json("// only a comment", AT, ENTRY)) == {"mcpServers": {"agentspan": ENTRY}}
    first = '{\n  "mcpServers": {\n    "agentspan": {},\n    "z": 2\n  }\n}\n'
    assert remove_json(first, AT) == '{\n  "mcpServers": {\n    "z": 2\n  }\n}\n'


@pytest.mark.parametrize(
    "text",
    [
        '{"a": 1,, }',
        "{",
        "[1]",
        "1",
        '{"a" 1}',
        '{"a": tru}',
        '{"mcpServers": 5}',
        '{"a": "\n"}',
        "{" * 300,
        '{"a": 01.e}',
        '{"\\q": 1}',
    ],
)
def test_what_is_no_jsonc_object_is_refused(text: str) -> None:
    with pytest.raises(NotEditable):
        set_json(text, AT, ENTRY)


@pytest.mark.parametrize(
    "text",
    [
        "x = [\n",
        'mcp_servers = {other = {command = "x"}}\n',
        '[mcp_servers]\nagentspan = {command = "q"}\n',
        "mcp_servers = 1\n",
        f"a = {'[' * 9999}",
    ],
)
def test_what_cannot_be_changed_in_toml_is_refused(text: str) -> None:
    with pytest.raises(NotEditable):
        set_toml(text, IN_TOML, ENTRY)
    if "agentspan" in text:
        with pytest.raises(NotEditable):
            remove_toml(text, IN_TOML)


NAMES = st.sampled_from(["mcpServers", "agentspan", "a", 'q"{', "//", "é"])
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES, inner, max_size=3),
    max_leaves=8,
)
GAPS = st.sampled_from(["", " ", "\n  ", "\n// c, {\n", "/* } */", "\r\n\t"])


def written(draw: st.DrawFn, value: Any) -> str:
    """Return a value as JSONC, with drawn white space, comments and trailing commas."""
    if not isinstance(value, dict | list):
        return json.dumps(value, ensure_ascii=draw(st.booleans()))
    members = value.items() if isinstance(value, dict) else [(None, each) for each in value]
    texts = []
    for key, each in members:
        name = "" if key is None else f"{json.dumps(key)}{draw(GAPS)}:"
        texts.append(f"{draw(GAPS)}{name}{draw(GAPS)}{written(draw, each)}{draw(GAPS)}")
    trailing = draw(st.sampled_from(["", ","])) if texts else ""
    opening, closing = "{}" if isinstance(value, dict) else "[]"
    return f"{opening}{','.join(texts)}{trailing}{draw(GAPS)}{closing}"


@st.composite
def jsonc(draw: st.DrawFn) -> str:
    """Draw a JSONC text of an object."""
    return written(draw, draw(st.dictionaries(NAMES, VALUES, max_size=3)))


@given(jsonc())
def test_whatever_the_text_no_other_value_changes(text: str) -> None:
    before = json_value(text)
    try:
        found = set_json(text, AT, ENTRY)
    except NotEditable:
        assert not isinstance(before.get("mcpServers", {}), dict)
        return
    assert json_value(found) == {**before, "mcpServers": {**before.get("mcpServers", {}), "agentspan": ENTRY}}
    assert set_json(found, AT, ENTRY) == found
    try:
        back = json_value(remove_json(found, AT))
    except NotEditable:
        return
    rest = {key: value for key, value in before.get("mcpServers", {}).items() if key != "agentspan"}
    assert back == {
        **{key: value for key, value in before.items() if key != "mcpServers"},
        **({"mcpServers": rest} if rest else {}),
    }
