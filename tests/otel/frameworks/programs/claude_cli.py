#!/usr/bin/env python3
"""Stands for the command of the Claude Agent SDK: answers a question after one use of a tool."""

import json
import sys


def tell(type_, **members):
    sys.stdout.write(json.dumps({"type": type_, "session_id": "s1", **members}) + "\n")
    sys.stdout.flush()


def say(id, content, given, made):
    usage = {"input_tokens": given, "output_tokens": made}
    message = {"id": id, "model": "claude-sonnet-4-5", "role": "assistant", "content": [content], "usage": usage}
    tell("assistant", message=message)


if "-v" in sys.argv:
    sys.stdout.write("2.9.0 (Claude Code)\n")
    sys.exit()
for line in sys.stdin:
    asked = json.loads(line)
    if asked["type"] == "control_request":
        answer = {"subtype": "success", "request_id": asked["request_id"], "response": {"commands": []}}
        tell("control_response", response=answer)
    elif asked["type"] == "user":
        tell("system", subtype="init", model="claude-sonnet-4-5", tools=["Bash"], cwd="/")
        say("m1", {"type": "tool_use", "id": "t1", "name": "Bash", "input": {"command": "ls"}}, 1500, 40)
        tell(
            "user", message={"role": "user", "content": [{"type": "tool_result", "tool_use_id": "t1", "content": "a"}]}
        )
        say("m2", {"type": "text", "text": "sunny"}, 2000, 50)
        usage = {"input_tokens": 3500, "output_tokens": 90}
        facts = {"duration_ms": 5, "duration_api_ms": 4, "is_error": False, "num_turns": 2, "result": "sunny"}
        tell("result", subtype="success", total_cost_usd=0.012, usage=usage, **facts)
        break
sys.stdin.read()
