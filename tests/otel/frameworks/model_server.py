"""A model on loopback for programs of frameworks: chat completions, responses, and Anthropic's messages, without a key.

    python model_server.py python weather.py

The program finds it by the variables that the clients of models read. With tools, the model asks for the first one once
for each city of the question, then it answers. Each call takes 420 tokens, of which 128 were cached, and makes 36.
A model whose name begins with `gone` does not exist.
"""

import json
import os
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import count
from typing import Any, NamedTuple

TOKENS = (420, 36)
"""The tokens in and out of each call."""
_CACHED = 128
_KEYS = ("OPENAI_API_KEY", "ANTHROPIC_API_KEY", "LANGFUSE_PUBLIC_KEY", "LANGFUSE_SECRET_KEY")
_CITY = re.compile("Rome|Oslo")
_numbers = count(1)


class _Step(NamedTuple):
    """The next move of the model: the call of a tool, or, without a name, a text."""

    tool: str
    arguments: dict[str, str]
    text: str


@contextmanager
def serving() -> Iterator[dict[str, str]]:
    """Serve for the length of a block; yield the variables by which clients of models find the server."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    at = f"http://127.0.0.1:{server.server_address[1]}"
    addresses = {"MODEL": at, "OPENAI_BASE_URL": f"{at}/v1", "OPENAI_API_BASE": f"{at}/v1", "ANTHROPIC_BASE_URL": at}
    try:
        yield addresses | {"LANGFUSE_BASE_URL": at} | dict.fromkeys(_KEYS, "x")
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
        data = self.rfile.read(int(self.headers["content-length"]))
        path = self.path.partition("?")[0]
        if not path.endswith(("/completions", "/responses", "/messages")):
            self._answer(200, {})  # what a library sends to its own backend
            return
        body = json.loads(data)
        if body["model"].startswith("gone"):
            self._answer(
                404, {"error": {"message": f"The model `{body['model']}` does not exist", "code": "model_not_found"}}
            )
        elif path.endswith("/responses"):
            self._answer(200, _response(body))
        elif body.get("stream"):
            self._stream(_chunks(body) if path.endswith("/completions") else _events(_message(body)))
        else:
            self._answer(200, _completion(body) if path.endswith("/completions") else _message(body))

    def _answer(self, status: int, answer: dict[str, Any]) -> None:
        data = json.dumps(answer).encode()
        self.send_response(status)
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
            event = f"event: {chunk['type']}\n" if "type" in chunk else ""
            self.wfile.write(f"{event}data: {json.dumps(chunk)}\n\n".encode())
        if "id" in chunks[0]:
            self.wfile.write(b"data: [DONE]\n\n")
        self.close_connection = True


def _step(body: dict[str, Any]) -> _Step:
    """Return the next step: a tool for each city, then `final_answer` if there is such a tool, else a text."""
    said = body.get("messages") or body["input"]
    text, messages = json.dumps(said), [said] if isinstance(said, str) else [json.dumps(each) for each in said]
    cities = [*dict.fromkeys(_CITY.findall(text))]
    answer = "It is dry in Rome. I could not find out about Oslo." if "Oslo" in cities else "sunny"
    if "[[ ## next_tool_name ## ]]" in text:  # DSPy's loop of tools, in which a tool is called in a text
        done = len({*re.findall(r"\[\[ ## observation_(\d)", text)})
        name, arguments = ("weather", {"city": cities[done]}) if done < len(cities) else ("finish", {})
        called = {"next_tool_name": name, "next_tool_args": json.dumps(arguments)}
        return _Step("", {}, _fields({"next_thought": "One city after the other.", **called}))
    if "[[ ## answer ## ]]" in text:
        return _Step("", {}, _fields({"reasoning": "A station for each city.", "answer": answer}))
    question = next((number for number, each in enumerate(messages) if _CITY.search(each)), 0)
    later = "".join(messages[question + 1 :])  # the calls so far, in the form of any API, and their results
    left = [city for city in cities if city not in later]
    tools = [tool.get("name") or tool["function"]["name"] for tool in body.get("tools") or ()]
    if tools and left:
        return _Step(next((tool for tool in tools if tool.endswith("weather")), tools[0]), {"city": left[0]}, "")
    return _Step("final_answer", {"answer": answer}, "") if "final_answer" in tools else _Step("", {}, answer)


def _fields(fields: dict[str, str]) -> str:
    return "\n\n".join(f"[[ ## {name} ## ]]\n{text}" for name, text in {**fields, "completed": ""}.items())


def _said(body: dict[str, Any]) -> tuple[dict[str, Any], str]:
    step = _step(body)
    if not step.tool:
        return {"role": "assistant", "content": step.text}, "stop"
    function = {"name": step.tool, "arguments": json.dumps(step.arguments)}
    call = {"id": f"call_{next(_numbers)}", "index": 0, "type": "function", "function": function}
    return {"role": "assistant", "content": None, "tool_calls": [call]}, "tool_calls"


_USAGE = {
    "prompt_tokens": TOKENS[0],
    "completion_tokens": TOKENS[1],
    "total_tokens": sum(TOKENS),
    "prompt_tokens_details": {"cached_tokens": _CACHED},
    "completion_tokens_details": {"reasoning_tokens": 0},
}


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
    step, number = _step(body), next(_numbers)
    if step.tool:
        item: dict[str, Any] = {"type": "function_call", "call_id": f"call_{number}", "name": step.tool,
                "arguments": json.dumps(step.arguments)}  # fmt: skip
    else:
        text = {"type": "output_text", "text": step.text, "annotations": []}
        item = {"type": "message", "role": "assistant", "content": [text]}
    usage = {"input_tokens": TOKENS[0], "input_tokens_details": {"cached_tokens": _CACHED}, "output_tokens": TOKENS[1],
             "output_tokens_details": {"reasoning_tokens": 0}, "total_tokens": sum(TOKENS)}  # fmt: skip
    return {"id": f"r{number}", "object": "response", "created_at": 1, "status": "completed", "model": body["model"],
            "output": [{"id": f"i{number}", "status": "completed", **item}], "parallel_tool_calls": True,
            "tool_choice": "auto", "tools": body.get("tools", []), "usage": usage}  # fmt: skip


def _message(body: dict[str, Any]) -> dict[str, Any]:
    step, number = _step(body), next(_numbers)
    part: dict[str, Any] = {"type": "text", "text": step.text}
    if step.tool:
        part = {"type": "tool_use", "id": f"toolu_{number}", "name": step.tool, "input": step.arguments}
    usage = {"input_tokens": TOKENS[0] - _CACHED, "output_tokens": TOKENS[1], "cache_read_input_tokens": _CACHED,
             "cache_creation_input_tokens": 0}  # fmt: skip
    return {"id": f"m{number}", "type": "message", "role": "assistant", "model": body["model"], "content": [part],
            "stop_reason": "tool_use" if step.tool else "end_turn", "stop_sequence": None, "usage": usage}  # fmt: skip


def _events(message: dict[str, Any]) -> list[dict[str, Any]]:
    """Return a message of Anthropic's as the events of its stream."""
    (part,) = message["content"]
    if part["type"] == "tool_use":
        start, delta = {**part, "input": {}}, {"type": "input_json_delta", "partial_json": json.dumps(part["input"])}
    else:
        start, delta = {**part, "text": ""}, {"type": "text_delta", "text": part["text"]}
    reason = {"stop_reason": message["stop_reason"], "stop_sequence": None}
    return [
        {"type": "message_start", "message": {**message, "content": [], "stop_reason": None}},
        {"type": "content_block_start", "index": 0, "content_block": start},
        {"type": "content_block_delta", "index": 0, "delta": delta},
        {"type": "content_block_stop", "index": 0},
        {"type": "message_delta", "delta": reason, "usage": message["usage"]},
        {"type": "message_stop"},
    ]


if __name__ == "__main__":
    with serving() as variables:
        sys.exit(subprocess.run(sys.argv[1:], env=os.environ | variables, check=False).returncode)
