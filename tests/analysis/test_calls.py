"""Calls of tools as people read them: one line, the lines of an edit, the entries of a to-do list; the edited files."""

from typing import Any

import pytest

from agentspan.analysis.calls import MOST_LINES, Edited, File, files_of, shown_call
from agentspan.database import Database
from agentspan.storage.questions import SpansOf
from tests.viewer.recorded import Recorded

PATCH = """*** Begin Patch
*** Update File: src/a.py
*** Move to: src/c.py
@@ def f():
-    return 1
+    return 2
+    # two
*** Add File: b.txt
+new
*** Delete File: old.txt
*** End Patch
"""
EDIT = {"file_path": "/work/shop/main.go", "old_string": "a\nb\nc", "new_string": "a\nB\nc\nd"}
DIFF = [("@", "/work/shop/main.go"), (" ", "a"), ("-", "b"), ("+", "B"), (" ", "c"), ("+", "d")]


@pytest.mark.parametrize(
    ("name", "arguments", "line"),
    [
        ("Bash", {"command": "git diff --stat", "description": "what changed"}, "Bash git diff --stat"),
        ("Bash", '{"command": "ls"}', "Bash ls"),
        ("shell", {"command": ["bash", "-lc", "ls -la"]}, "shell ls -la"),
        ("Read", {"file_path": "/a/b/main.go", "limit": 5}, "Read main.go"),
        ("Grep", {"pattern": "x+", "path": "/a/src/"}, "Grep x+ in src"),
        ("Task", {"description": "look around", "prompt": "Long …"}, "Task look around"),
        ("TaskUpdate", {"taskId": "4", "status": "done"}, "TaskUpdate taskId=4, status=done"),
        ("TaskList", {}, "TaskList"),
        ("js", "const a = 1;\nb()", "js const a = 1; b()"),
        ("js", "{broken", "js {broken"),
        ("x", None, "x"),
        ("x", {"command": None, "edits": 7, "todos": [1], "file_path": "a", "changes": 3}, "x a"),
    ],
)
def test_a_call_is_one_line_that_says_what_it_was_asked_for(name: str, arguments: Any, line: str) -> None:
    shown = shown_call(name, arguments)
    assert (shown.line, shown.lines, shown.edited) == (line, [], [])


@pytest.mark.parametrize(
    "arguments",
    [
        EDIT,
        {
            "file_path": EDIT["file_path"],
            "edits": [{"old_string": EDIT["old_string"], "new_string": EDIT["new_string"]}],
        },
        {"filePath": EDIT["file_path"], "oldString": EDIT["old_string"], "newString": EDIT["new_string"]},
        {
            "path": EDIT["file_path"],
            "command": "str_replace",
            "old_str": EDIT["old_string"],
            "new_str": EDIT["new_string"],
        },
    ],
)
def test_an_edit_is_a_diff_whichever_names_its_arguments_have(arguments: dict[str, Any]) -> None:
    shown = shown_call("Edit", arguments)
    assert (shown.line, shown.lines) == ("Edit main.go +2 −1", DIFF)


def test_a_new_file_has_all_lines_added_and_a_long_one_counts_what_is_left_out() -> None:
    shown = shown_call("Write", {"file_path": "n.txt", "content": "one\n" * 1000})
    assert (shown.line, len(shown.lines), shown.more) == ("Write n.txt +1,000", MOST_LINES, 1001 - MOST_LINES)
    assert shown.lines[:2] == [("@", "n.txt"), ("+", "one")]


@pytest.mark.parametrize(
    "arguments", [PATCH, {"input": PATCH}, {"command": ["bash", "-lc", f"apply_patch <<E\n{PATCH}E"]}]
)
def test_a_patch_has_each_of_its_files(arguments: Any) -> None:
    shown = shown_call("apply_patch", arguments)
    assert shown.line == "apply_patch c.py +2 −1 · b.txt +1 · old.txt"
    assert shown.edited == [Edited("src/c.py", 2, 1), Edited("b.txt", 1, 0), Edited("old.txt", 0, 0)]
    assert shown.lines[:3] == [("@", "src/c.py"), ("@", "def f():"), ("-", "    return 1")]


def test_changes_by_file_are_edits_too() -> None:
    changes = {"a.py": {"update": 0, "unified_diff": "@@ -1 +1 @@\n-x\n+y\n"}, "b.py": {"content": "z"}, "c.py": 7}
    shown = shown_call("patch", {"changes": changes})
    assert shown.line == "patch a.py +1 −1 · b.py +1 · c.py"


def test_a_to_do_list_has_its_entries_with_their_states() -> None:
    states = ("completed", "in_progress", "pending", "cancelled", 7)
    shown = shown_call("TodoWrite", {"todos": [{"status": each, "content": f"do {each}"} for each in states]})
    assert shown.line == "TodoWrite 1 of 5 done"
    assert [mark for mark, _ in shown.lines] == ["✓", "▸", "○", "✗", "○"]
    assert shown_call("update_plan", {"plan": [{"step": "read", "status": "completed"}]}).lines == [("✓", "read")]
    assert shown_call("ExitPlanMode", {"plan": "# Plan"}).line == "ExitPlanMode plan=# Plan"


def test_the_edited_files_have_their_sums_without_calls_that_failed_or_were_refused(db: Database) -> None:
    run = Recorded(db)
    first = run.add("tool", {"name": "Edit", "arguments": EDIT}, {"output": "ok"})
    run.add("tool", {"name": "Edit", "arguments": EDIT}, {"output": "ok"})
    run.add("tool", {"name": "Write", "arguments": {"path": "b", "content": "x"}}, {"error": "no"}, status="failed")
    run.add("tool", {"name": "Write", "arguments": {"path": "c", "content": "x"}}, {}, status="cancelled")
    run.add("llm", {"model": "m", "arguments": EDIT}, {})
    assert files_of(db.storage.ask(SpansOf(run.run))) == [File("/work/shop/main.go", 4, 2, 2, first)]


def test_lines_that_look_like_the_head_of_a_diff_are_counted() -> None:
    patch = "*** Begin Patch\n*** Update File: a.sql\n@@\n--- old comment\n+-- new comment\n select 1\n*** End Patch"
    assert shown_call("apply_patch", {"input": patch}).line == "apply_patch a.sql +1 −1"
    changes = {"a.sql": {"unified_diff": "--- a.sql\n+++ a.sql\n@@ -1,2 +1,1 @@\n--- old comment\n select 1\n"}}
    assert shown_call("patch", {"changes": changes}).line == "patch a.sql −1"
