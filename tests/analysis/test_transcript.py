"""A session in Markdown: a conversation to share, which no text of its payloads can break."""

import re
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

import agentspan
from agentspan.analysis.report import markdown
from agentspan.database import Database
from agentspan.storage.memory import MemoryStorage
from tests.tiers import longer

ANSWER = "# Done\n\nI wrote `Vec<u8>` and <b>that</b>:\n\n- ```rust\n  fn main() {}\n"
NASTY = "```\n</details>\n<script>\n# no heading"


def session(*steps: tuple[str, dict[str, Any], dict[str, Any] | None, int | None]) -> str:
    """Return the transcript of a session with these steps: type, payload, result, and the number of the step around."""
    with Database(MemoryStorage()) as db:
        metadata = {"session_id": "s", "cwd": "/work/shop", "title": "fix the tests"}
        run = db.agent_instances.register("claude-code", external_identifier="claude:s", metadata=metadata).id
        db.agent_instances.start(run, timestamp="2026-03-01T10:00:00.000000Z")
        ids: list[str] = []
        for type, payload, result, around in steps:
            parent = None if around is None else ids[around]
            ids.append(db.agent_spans.create(run, type, "complete", payload, result, parent_span_id=parent).id)
        return "\n".join(markdown(db.storage, [run]))


def said(text: str, role: str = "user") -> tuple[str, dict[str, Any], None, None]:
    return "message", {"role": role, "content": text}, None, None


def tags_of(document: str) -> list[str]:
    """Return the tags that a renderer of CommonMark takes for HTML, and the headings that it finds."""
    parser = pytest.importorskip("markdown_it", reason="needs markdown-it-py").MarkdownIt("commonmark")
    found: list[str] = []
    for token in parser.parse(document):
        for each in [token, *(token.children or [])]:
            if each.type in ("html_block", "html_inline"):
                found += re.findall(r"<[A-Za-z/!?][^>]*>?", each.content)
            elif each.type == "heading_open":
                found.append(each.tag)
    return found


def test_words_are_words_and_tools_and_thinking_are_folded() -> None:
    call = {"name": "Bash", "arguments": {"command": "cat <<x\n```\nx", "edits": [{"old": "a\nb", "new": "c"}]}}
    shown = without_figures(
        said("fix it\nnow"),
        ("llm", {"model": "m"}, {"text": "I look.", "thinking": "hm", "input_tokens": 7, "cost_usd": 0.5}, None),
        ("tool", call, {"output": "one\ntwo", "exit_code": 1, "is_error": True}, None),
        ("hook", {"name": "Stop"}, {}, None),
        ("llm", {"model": "m"}, {"text": ANSWER}, None),
    )
    assert shown.startswith("# shop: fix the tests\n\nclaude-code · m · 2026-03-01 10:00 UTC · 5 steps · 7 tok · $0.5")
    assert (
        "## User\n\nfix it  \nnow\n\n## Assistant\n\n<details><summary>Thinking</summary>\n\nhm\n\n</details>" in shown
    )
    assert "\n\nI look.\n\n<details><summary>✗ Bash cat &lt;&lt;x ``` x</summary>" in shown
    edits = "edits:\n    - old:\n          a\n          b\n      new: c"
    inside = f"````text\ncommand:\n    cat <<x\n    ```\n    x\n{edits}\n````"
    assert f"</summary>\n\n{inside}\n\nResult:\n\n```text\none\ntwo\n```\n\n</details>" in shown
    assert "### Done\n\nI wrote <code>Vec&#60;u8&#62;</code> and &lt;b>that&lt;/b>:" in shown
    assert "Stop" not in shown
    assert '{"' not in shown


def test_a_tool_that_completed_with_a_member_error_did_not_fail() -> None:
    shown = session(said("go"), ("tool", {"name": "lint"}, {"error": "none was found"}, None))
    assert "✗" not in shown
    assert "failed" not in shown


def test_a_sub_agent_is_folded_in_its_call_with_its_own_conversation_and_sums() -> None:
    shown = without_figures(
        said("go"),
        ("tool", {"name": "Task", "arguments": {"prompt": "look"}}, {"output": "found"}, None),
        ("agent", {"name": "Explore"}, {"output": "found"}, 1),
        ("message", {"role": "user", "content": "look"}, None, 2),
        ("llm", {"model": "m"}, {"text": "found", "input_tokens": 5, "output_tokens": 1}, 2),
    )
    agent = (
        "<details><summary>Agent Explore · 2 steps · 6 tok</summary>\n\n#### User\n\nlook\n\n#### Assistant\n\nfound"
    )
    assert f"<details><summary>Task look</summary>\n\n```text\nprompt: look\n```\n\n{agent}" in shown
    assert tags_of(shown).count("<details>") == tags_of(shown).count("</details>") == 2


def without_figures(*steps: tuple[str, dict[str, Any], dict[str, Any] | None, int | None]) -> str:
    """Return the transcript of a session, whose prompts have headings without their times and figures."""
    return re.sub(r"(?m)^## User · \d+ · .*$", "## User", session(*steps))


def test_a_prompt_is_a_chapter_an_edit_a_diff_and_a_to_do_list_a_list() -> None:
    edit = {"file_path": "/work/shop/a_b.py", "old_string": "x\n```", "new_string": "x\ny"}
    todos = {"todos": [{"content": "<b>plant", "status": "completed"}, {"content": "water", "status": "pending"}]}
    shown = session(
        said("fix <b>it"),
        ("llm", {"model": "m"}, {"text": "I fix.", "input_tokens": 7, "cost_usd": 0.5}, None),
        ("tool", {"name": "Edit", "arguments": edit}, {"output": "done"}, None),
        ("tool", {"name": "TodoWrite", "arguments": todos}, {"output": "ok"}, None),
        said("and now?"),
    )
    head = shown.partition("## User")[0]
    assert re.search(r"\n\n1\. fix \\<b\\>it · 20\S+ \d\d:\d\d UTC · 7 tok · \$0.5000\b.*\n2\. and now\? · ", head)
    assert "\n\nEdited: a\\_b.py +1 −1\n" in head
    assert re.search(r"\n## User · 1 · 20.* · 7 tok · \$0.5000\b.*\n\nfix &lt;b>it\n\n## Assistant\n\nI fix\.", shown)
    assert re.search(r"\n## User · 2 · 20.*\n\nand now\?", shown)
    diff = "````diff\n@/work/shop/a_b.py\n x\n-```\n+y\n````"
    assert f"<summary>Edit a_b.py +1 −1</summary>\n\nResult:\n\n```text\ndone\n```\n\n</details>\n\n{diff}\n" in shown
    assert "</details>\n\n```diff\n✓<b>plant\n○water\n```" in shown


@given(st.lists(st.text(st.sampled_from("`~<b>/!\\ \t\n-#>1.a&[](*|$"), max_size=24), min_size=3, max_size=3))
@settings(max_examples=longer("AGENTSPAN_TEST_EXAMPLES", 25, 300, 5000), deadline=None)
@example([NASTY, f"- {NASTY}", "~~~ a`b\n</details>"])
@example(["1. `a\n2. <b> `x`", "\\`<b>`", "`` <b> ` <i> ``"])
def test_no_text_breaks_the_document(texts: list[str]) -> None:
    first, second, third = texts
    shown = session(
        said(first),
        ("llm", {"model": first}, {"text": second, "thinking": third}, None),
        ("tool", {"name": second, "arguments": {"a": first}}, {"output": third}, None),
        said(third),
        said("the end"),
    )
    assert "\nthe end" in shown
    tags = [tag for tag in tags_of(shown) if tag not in ("<code>", "</code>")]
    folded = shown.count("\n<details><summary>")
    assert tags.count("<details>") == tags.count("</details>") == tags.count("<summary>") == folded
    headings = {"h1", "h2", "h3", "h4", "h5", "h6"}
    assert set(tags) <= {"<details>", "</details>", "<summary>", "</summary>", *headings}
    assert tags.count("h1") >= 1


def test_the_run_of_a_program_keeps_its_report(db: Database) -> None:
    tracer = agentspan.Tracer(db.storage, raise_errors=True)
    with tracer.run("a") as run, tracer.span("tool", {"name": "x"}):
        pass
    assert tracer.flush()
    assert "## Steps" in [*markdown(db.storage, [run.id])]
