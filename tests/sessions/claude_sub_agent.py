"""Records of a session of Claude Code with one sub-agent: the task, the sub-agent's own records, and the end."""

from typing import Any

from tests.sessions.claude_files import SESSION, assistant, result, text, tool, user

SIDE = {"isSidechain": True, "agentId": "a7"}
TASK = [
    user("u1", None, 0, "go"),
    assistant("a1", "u1", 1, tool("t1", "Task", subagent_type="Explore", prompt="Find it.")),
]
AGENT = [
    user("s1", None, 2, "Find it.", **SIDE),
    assistant(
        "s2",
        "s1",
        3,
        tool("t2", "Grep", pattern="it"),
        id="msg_s1",
        usage={"input_tokens": 1, "output_tokens": 2},
        **SIDE,
    ),
    result("s3", "s2", 4, "t2", "here", **SIDE),
    assistant("s4", "s3", 5, text("It is here."), id="msg_s2", stop_reason="end_turn", **SIDE),
]
DONE = {
    "agentId": "a7",
    "status": "completed",
    "totalTokens": 99,
    "prompt": "Find it.",
    "content": [text("It is here.")],
}
END = [
    result("r1", "a1", 6, "t1", [text("It is here.")], DONE),
    assistant("a2", "r1", 7, text("Done."), id="msg_2", stop_reason="end_turn"),
]
FILE = f"{SESSION}/subagents/agent-a7.jsonl"
META = f"{SESSION}/subagents/agent-a7.meta.json"


def progress(agent: str, call: str) -> dict[str, Any]:
    return {
        "type": "progress", "uuid": "p1", "parentUuid": "a1", "timestamp": "2026-03-01T10:00:02.000Z",
        "sessionId": SESSION, "parentToolUseID": call,
        "data": {"type": "agent_progress", "agentId": agent, "message": {}},
    }  # fmt: skip
