"""Replay recorded agent runs through agentspan: real conversations in, a file of runs and spans out.

FILE has one JSON object a line (`.gz` or plain): `task_id`, `trial`, `reward`, and `messages` in OpenAI chat form.
Each becomes a run; an assistant's message an llm span, a tool's answer a tool span, which fails when its content
starts with "Error"; what the user says is a message span. The run has the task and the score `reward`.

    python benchmarks/replay.py FILE [--db replay.db] [--runs N] [--whole-histories]

With `--whole-histories` the payload of an llm span has all messages so far, as an agent sends them, not the last one
only. Then the size of the file is compared with what was said, each message counted once in a run.
"""

import argparse
import gzip
import json
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click

import agentspan
from agentspan.api.resources import AgentInstance
from agentspan.storage.questions import SpansOf


class ToolFailed(Exception):
    """A tool answered with an error."""


def conversations(file: Path) -> Iterator[dict[str, Any]]:
    """Yield the runs of a file."""
    with gzip.open(file, "rt", encoding="utf-8") if file.suffix == ".gz" else file.open(encoding="utf-8") as lines:
        for line in lines:
            yield json.loads(line)


def replay(tracer: agentspan.Tracer, conversation: dict[str, Any], agent: str, *, whole: bool = False) -> int:
    """Record one run; return how many spans it has.

    Args:
        whole: put the whole history into the payload of each llm span.
    """
    task, trial, reward = (conversation.get(key) for key in ("task_id", "trial", "reward"))
    metadata = {"task_id": task, "trial": trial}
    with tracer.run(agent, version="gpt-4o", task=None if task is None else str(task), metadata=metadata) as run:
        spans = steps(tracer, conversation["messages"], whole=whole)
        run.set_result({"reward": reward})
        if reward is not None:
            run.score("reward", reward, by="code")
    return spans


def steps(tracer: agentspan.Tracer, messages: list[dict[str, Any]], *, whole: bool) -> int:
    """Record the steps of a conversation in the run that is open; return how many there are."""
    spans = 0
    calls: dict[str, dict[str, Any]] = {}
    for index, message in enumerate(messages):
        match message["role"]:
            case "user":
                with tracer.span("message", {"role": "user", "content": message["content"]}):
                    spans += 1
            case "assistant":
                begin = 0 if whole else max(0, index - 1)
                with tracer.span("llm", {"model": "gpt-4o", "messages": messages[begin:index]}) as span:
                    span.set_result(said(message))
                    spans += 1
                calls.update({call["id"]: call["function"] for call in message.get("tool_calls") or ()})
            case "tool":
                try:
                    call_tool(tracer, message, calls.get(message["tool_call_id"], {}))
                except ToolFailed:
                    pass
                spans += 1
    return spans


def said(message: dict[str, Any]) -> dict[str, Any]:
    """The result of an llm span."""
    result = {"text": message.get("content") or "", "finish_reason": "stop"}
    if message.get("tool_calls"):
        result = {"tool_calls": message["tool_calls"], "finish_reason": "tool_calls"}
    return result


def call_tool(tracer: agentspan.Tracer, message: dict[str, Any], function: dict[str, Any]) -> None:
    """Record a tool's answer, which may be an error."""
    arguments = json.loads(function.get("arguments") or "{}")
    payload = {"name": message["name"], "arguments": arguments, "call_id": message["tool_call_id"]}
    with tracer.span("tool", payload) as span:
        content = message["content"] or ""
        if content.startswith("Error"):
            raise ToolFailed(content.removeprefix("Error: "))
        span.set_result({"output": content})


def said_and_sent(conversation: dict[str, Any]) -> tuple[int, int]:
    """Return the bytes of a run's messages, each once, and of all that its llm calls send, as compact JSON in UTF-8."""
    texts = [json.dumps(message, ensure_ascii=False, separators=(",", ":")) for message in conversation["messages"]]
    sizes = [len(text.encode()) for text in texts]
    calls = [index for index, message in enumerate(conversation["messages"]) if message["role"] == "assistant"]
    return sum(dict(zip(texts, sizes, strict=True)).values()), sum(sum(sizes[:index]) for index in calls)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file", type=Path)
    parser.add_argument("--db", type=Path, default=Path("replay.db"))
    parser.add_argument("--runs", type=int, help="only the first N")
    parser.add_argument("--whole-histories", action="store_true", help="send all messages so far with each llm call")
    options = parser.parse_args()
    todo = list(conversations(options.file))[: options.runs]
    name = options.file.name.split(".")[0].removesuffix("-runs") + "-agent"
    tracer = agentspan.Tracer(options.db, raise_errors=True)
    began, spans = time.perf_counter(), 0
    with click.progressbar(todo, label="replay", item_show_func=lambda c: f"task {c['task_id']}" if c else None) as bar:
        for conversation in bar:
            spans += replay(tracer, conversation, name, whole=options.whole_histories)
    tracer.flush()  # until all are in the file
    seconds = time.perf_counter() - began
    tracer.shutdown()
    report(options.db, spans, seconds)
    if options.whole_histories:
        said, sent = (sum(sizes) for sizes in zip(*map(said_and_sent, todo), strict=True))
        size = os.path.getsize(options.db)
        print(f"said {said:,} bytes, sent {sent:,} bytes, file {size:,} bytes: {size / said:.1f} × what was said")


def report(path: Path, spans: int, seconds: float) -> None:
    """Print speed, size, and the slowest steps."""
    size = os.path.getsize(path)
    print(f"{spans} spans in {seconds:.2f} s: {spans / seconds:,.0f} spans/s, {seconds / spans * 1e6:.0f} µs each")
    print(f"{size / 2**20:.1f} MiB: {size / spans:,.0f} bytes per span")
    with agentspan.open(path, read_only=True) as db:
        runs: list[AgentInstance] = []
        offset = 0
        while page := db.agent_instances.list(offset=offset, page_size=100):
            runs += page
            offset += len(page)
        rows = [span for run in runs for span in db.storage.ask(SpansOf(run.id))]
        statuses = sorted({span.status for span in rows})
        print(", ".join(f"{sum(span.status == status for span in rows)} {status}" for status in statuses))
        print(f"{sum(not span.summary for span in rows)} without a summary, of {len(rows)} in {len(runs)} runs")
        print("slowest steps:")
        for span in sorted(rows, key=lambda span: -(span.duration_ms or 0))[:5]:
            print(f"  {span.duration_ms:8.3f} ms  {span.id}  {span.summary}")


if __name__ == "__main__":
    main()
