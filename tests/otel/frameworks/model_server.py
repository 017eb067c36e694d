"""A model on loopback that answers as it is told: chat completions, responses, and Anthropic's messages.

With tools it asks for the first one, and after its result it says `sunny`. Each call takes 10 tokens and makes 4.
"""

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import count
from typing import Any

_numbers = count(1)
_SAID = {"dspy": "[[ ## answer ## ]]\nsunny\n\n[[ ## completed ## ]]"}
_ARGUMENTS = '{"city": "Rome"}'
_USAGE = {
    "prompt_tokens": 10,
    "completion_tokens": 4,
    "total_tokens": 14,
    "prompt_tokens_details": {"cached_tokens": 2},
    "completion_tokens_details": {"reasoning_tokens": 0},
}


@contextmanager
def serving() -> Iterator[str]:
    """Serve for the length of a block; yield the address."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *args: Any) -> None:
        """Say nothing."""

    def do_POST(self) -> None:
        """Answer a call."""
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        if self.path.endswith("/chat/completions"):
            if body.get("stream"):
                self._stream(_chunks(body))
                return
            answer = _completion(body)
        else:
            answer = _response(body) if self.path.endswith("/responses") else _message(body)
        data = json.dumps(answer).encode()
        self.send_response(200)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def _stream(self, chunks: list[dict[str, Any]]) -> None:
        self.send_response(200)
        self.send_header("content-type", "text/event-stream")
        self.send_header("connection", "close")
        self.end_headers()
        for chunk in chunks:
            self.wfile.write(f"data: {json.dumps(chunk)}\n\n".encode())
        self.wfile.write(b"data: [DONE]\n\n")
        self.close_connection = True


def _said(body: dict[str, Any]) -> tuple[dict[str, Any], str]:
    is_answered = any(message.get("role") == "tool" for message in body["messages"])
    if not body.get("tools") or is_answered:
        return {"role": "assistant", "content": _SAID.get(body["model"], "sunny")}, "stop"
    function = {"name": body["tools"][0]["function"]["name"], "arguments": _ARGUMENTS}
    call = {"id": f"call_{next(_numbers)}", "index": 0, "type": "function", "function": function}
    return {"role": "assistant", "content": None, "tool_calls": [call]}, "tool_calls"


def _completion(body: dict[str, Any]) -> dict[str, Any]:
    message, reason = _said(body)
    choices = [{"index": 0, "message": message, "finish_reason": reason}]
    return {"id": f"c{next(_numbers)}", "object": "chat.completion", "created": 1, "model": body["model"],
            "choices": choices, "usage": _USAGE}  # fmt: skip


def _chunks(body: dict[str, Any]) -> list[dict[str, Any]]:
    message, reason = _said(body)
    base = {"id": f"c{next(_numbers)}", "object": "chat.completion.chunk", "created": 1, "model": body["model"]}
    return [
        {**base, "choices": [{"index": 0, "delta": message, "finish_reason": None}]},
        {**base, "choices": [{"index": 0, "delta": {}, "finish_reason": reason}]},
        {**base, "choices": [], "usage": _USAGE},
    ]


def _response(body: dict[str, Any]) -> dict[str, Any]:
    given, number = body["input"], next(_numbers)
    is_answered = isinstance(given, list) and any(item.get("type") == "function_call_output" for item in given)
    if body.get("tools") and not is_answered:
        item = {"type": "function_call", "call_id": f"call_{number}", "name": body["tools"][0]["name"],
                "arguments": _ARGUMENTS}  # fmt: skip
    else:
        text = {"type": "output_text", "text": "sunny", "annotations": []}
        item = {"type": "message", "role": "assistant", "content": [text]}
    usage = {"input_tokens": 10, "input_tokens_details": {"cached_tokens": 2}, "output_tokens": 4,
             "output_tokens_details": {"reasoning_tokens": 0}, "total_tokens": 14}  # fmt: skip
    return {"id": f"r{number}", "object": "response", "created_at": 1, "status": "completed", "model": body["model"],
            "output": [{"id": f"i{number}", "status": "completed", **item}], "parallel_tool_calls": True,
            "tool_choice": "auto", "tools": body.get("tools", []), "usage": usage}  # fmt: skip


def _message(body: dict[str, Any]) -> dict[str, Any]:
    usage = {"input_tokens": 10, "output_tokens": 4, "cache_read_input_tokens": 0, "cache_creation_input_tokens": 0}
    return {"id": f"m{next(_numbers)}", "type": "message", "role": "assistant", "model": body["model"],
            "content": [{"type": "text", "text": "sunny"}], "stop_reason": "end_turn", "stop_sequence": None,
            "usage": usage}  # fmt: skip
