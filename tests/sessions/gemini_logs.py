"""Records of event logs of Gemini CLI."""

from collections.abc import Sequence
from typing import Any


def at(second: float) -> str:
    return f"2026-03-04T05:{int(second) // 60:02}:{int(second) % 60:02}.{int(second * 1000) % 1000:03}Z"


def header(id: str = "abcdef12-main", second: float = 0, **more: Any) -> dict[str, Any]:
    return {"sessionId": id, "projectHash": "f00", "startTime": at(second), "lastUpdated": at(second), **more}


def asked(id: str, second: float, text: str, **more: Any) -> dict[str, Any]:
    return {"id": id, "timestamp": at(second), "type": "user", "content": [{"text": text}], **more}


def answered(id: str, second: float, text: str, calls: Sequence[Any] = (), **more: Any) -> dict[str, Any]:
    tokens = {"input": 100, "output": 20, "cached": 40, "thoughts": 5, "tool": 0, "total": 125}
    record = {"id": id, "timestamp": at(second), "type": "gemini", "content": text, "model": "gemini-2.5-pro"}
    return {**record, "tokens": tokens, **({"toolCalls": list(calls)} if calls else {}), **more}


def called(id: str, second: float, name: str = "read_file", status: str = "success", **more: Any) -> dict[str, Any]:
    response = {"functionResponse": {"id": id, "name": name, "response": {"output": f"output of {id}"}}}
    call = {"id": id, "name": name, "args": {"path": "keel.txt"}, "result": [response], "status": status}
    return {**call, "timestamp": at(second), "resultDisplay": "", "displayName": "ReadFile", **more}
