"""A run in which each text that a client can choose is an attack, every one between marks of its own."""

import json
import re
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

from agentspan import text
from agentspan.database import Database
from tests.browser.recorded import Recording, at

MARKED = re.compile(r"B\d{3}.*?E\d{3}")
ATTACKS = (
    "<img src=x onerror=\"window.hit='img'\">",
    "</script><script>window.hit='script'</script>",
    "javascript:window.hit='address'//",
    "\" onmouseover=\"window.hit='attribute'\" x='",
    " unseen hidden mark failed ",
    "<svg onload=window.hit='svg'><style>*{display:none}</style>",
    "\u202eright\u2066 \u200b\u2060\u00ad\ufeff\U000e0041\U000e0100 to left",
    '<a href="javascript:window.hit=\'link\'" style="display:none">x</a>',
    "{{7*7}}${7*7}<!--",
    "&lt;b&gt;&#x3c;script>",
    "W" * 3000,
    "__proto__",
)
PRINTABLE = [attack for attack in ATTACKS if attack.isprintable() and len(attack) < 100]


class Texts:
    """Attacks, each another one, between marks that no other has."""

    def __init__(self) -> None:
        self.count = 0

    def __call__(self, attacks: Any = ATTACKS) -> str:
        self.count += 1
        return f"B{self.count:03}{attacks[self.count % len(attacks)]}E{self.count:03}"


def marked(value: Any) -> list[str]:
    """All attacks in JSON: in its texts, in names of members, in JSON within texts."""
    if isinstance(value, dict):
        return [each for pair in value.items() for part in pair for each in marked(part)]
    if isinstance(value, list):
        return [each for item in value for each in marked(item)]
    if isinstance(value, str) and value.startswith("{"):
        return marked(json.loads(value))
    return [value] if isinstance(value, str) and MARKED.fullmatch(value) else []


def is_readable(attack: str, shown: str) -> bool:
    """Whether a page shows all of a text, as it is or as JSON; each character that cannot be seen is spelled out."""
    quoted = json.dumps(attack, ensure_ascii=False)[1:-1]
    return text.visible(attack) in shown or text.visible(quoted) in shown


class Hostile:
    """A recorded run of attacks.

    Attributes:
        spans: the payload and result of each span, by its row in the tree.
        said: those of them that are part of the conversation.
        run: the run's own texts.
    """

    def __init__(self, db: Database) -> None:
        self.next = t = Texts()
        self.spans: list[Any] = []
        self.parent: str | None = None
        self.said: list[Any] = []
        self.run: dict[str, Any] = {"metadata": {t(): t(), "deep": [{t(): t()}]}, "external_identifier": t(PRINTABLE)}
        names = {"external_identifier": t(PRINTABLE), "name": t(), "description": t()}
        self.run["agent"] = t(PRINTABLE)
        self.types = [t(PRINTABLE), t(PRINTABLE)]
        schemas = [
            {
                "name": name,
                "title": t(PRINTABLE),
                "description": t(),
                "params_schema": {"required": [t()]},
                "template": t(),
            }
            for name in self.types
        ]
        self.recording = Recording(
            db,
            self.run["agent"],
            agent_version=names,
            agent_schema_version={"span_type_schemas": schemas, "external_identifier": t()},
            idempotency_key=t()[:64],
            metadata=self.run["metadata"],
            external_identifier=self.run["external_identifier"],
        )
        self._agent()
        self._model()
        self._tools()
        self._others()
        self.run["result"], self.run["quality_payloads"] = {t(): t()}, {t(): {t(): t()}}
        self.run["error"] = {"type": t(), "message": t(), "stacktrace": t()}
        db.agent_instances.finish(self.recording.id, "failed", timestamp=at(99))
        self.terminated = Recording(db, t(PRINTABLE))
        self.reason = t()
        db.agent_instances.terminate(self.terminated.id, self.reason)

    def write(self, path: Path) -> None:
        """Write into the file what only a recording process, or a schema for quality, would."""
        with closing(sqlite3.connect(path)) as file, file:
            for column in ("result", "error", "quality_payloads"):
                value = json.dumps(self.run[column])
                file.execute(f"update agent_instances set {column} = ? where id = ?", (value, self.recording.id))

    def _span(self, name: str, payload: Any, result: Any, *, said: bool = False, **fields: Any) -> str:
        begin = len(self.spans)
        self.spans.append([payload, result])
        if said:
            self.said.append([payload, result])
        return self.recording.span(name, payload, result, parent=self.parent, begin=begin, end=begin + 0.5, **fields)

    def _agent(self) -> None:
        t = self.next
        self.parent = self._span("agent", {"name": t(PRINTABLE), "goal": t(), t(): t()}, {"output": t(), t(): t()})

    def _call(self, id: str) -> dict[str, Any]:
        t = self.next
        arguments = json.dumps({t(): t(), "body": {"text": t(), "bcc": t()}, "10": t(), "2": [t(), {t(): t()}]})
        return {"id": id, "type": "function", "function": {"name": t(), "arguments": arguments, t(): t()}, t(): t()}

    def _model(self) -> None:
        t = self.next
        parts = [{"type": "text", "text": t(), t(): t()}, {"type": t(), "data": t(), t(): {t(): t()}}]
        sent = [
            {"role": t(), "name": t(), "content": t(), t(): t()},
            {"role": " unseen", "content": t()},
            {"role": "user", "content": parts},
            {"role": "assistant", "content": t(), "tool_calls": [self._call("c0")]},
            {"role": "tool", "tool_call_id": "c0", "content": t()},
            {"role": "tool", "name": t(), "content": t()},
            {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "c1", "content": t(), t(): t()}]},
            {t(): t()},
            t(),
        ]
        payload = {
            "model": t(PRINTABLE), "system": t(), "messages": sent, "prompt": t(), "tools": [{"name": t(), t(): t()}],
            "temperature": t(), t(): t(),
        }  # fmt: skip
        self.call = self._call("c2")
        result = {
            "text": t(), "tool_calls": [self.call, t()], "output_messages": [{"role": t(), "content": t()}],
            "finish_reason": t(), t(): t(),
        }  # fmt: skip
        self._span("llm", payload, result, said=True)
        self._span("message", {"role": t(), "content": t(), t(): t()}, {t(): t()}, said=True)
        self._span("llm", {"model": t(PRINTABLE)}, {"error": t(), "text": t()}, said=True, status="failed")

    def _tools(self) -> None:
        t = self.next
        payload = {"name": t(), "arguments": {t(): t(), "more": [t(), {t(): t()}]}, "call_id": "c2", t(): t()}
        self._span("tool", payload, {"output": {t(): [t()]}, t(): t()}, said=True)
        error = {"type": t(), "message": t(), "stacktrace": t(), t(): t()}
        self._span("tool", {"name": t(), "arguments": t()}, {"error": error}, said=True, status="failed")
        self._span("tool", {"name": t()}, t(), said=True)
        self._span("tool", {"name": t()}, {"error": {"code": t()}}, said=True)

    def _others(self) -> None:
        t = self.next
        for name in self.types:
            self._span(
                name, {t(): t(), "a": {"$sensitive": "string", "labels": [t()], "value": "x"}}, [t(), {t(): t()}]
            )
        self._span(
            t(PRINTABLE), {t(): "{" + json.dumps(t()) + ":1}"}, {"error_type": t(), "message": t()}, status="failed"
        )
        for name in ("retrieval", "embedding", "chain", "step"):
            self._span(name, {"name": t(), "query": t(), "model": t()}, {t(): t()}, idempotency_key=t()[:64])
