"""Makes the model calls of a Codex thread from its response items, their mirrored events, and the counts of tokens."""

from typing import Any, Literal

from agentspan.arriving import Step, count_in, id_in, list_in, object_in, present
from agentspan.sessions import codex_records as values
from agentspan.sessions.codex_records import texts_of, without
from agentspan.sessions.codex_thread import Tape


class Answer:
    """One answer of the model: the response items between two counts of tokens."""

    __slots__ = ("calls", "end", "is_over", "key", "mirrored", "phase", "start", "texts", "thoughts")

    def __init__(self, key: str, start: int) -> None:
        self.key, self.start, self.end = key, start, start
        self.texts: list[str] = []
        self.thoughts: list[str] = []
        self.calls: list[dict[str, Any]] = []
        self.mirrored: list[tuple[str, str]] = []
        self.phase: str | None = None
        self.is_over = False

    def mirror(self, kind: str, text: str) -> None:
        """Note a text that an event repeats, before or after its item."""
        if text not in (self.thoughts if kind == "thought" else self.texts):
            self.mirrored.append((kind, text))

    def add(self, kind: str, text: str) -> None:
        """Add the text of an item."""
        if (kind, text) in self.mirrored:
            self.mirrored.remove((kind, text))
        (self.thoughts if kind == "thought" else self.texts).append(text)

    def result(self) -> dict[str, Any]:
        """Return the texts and calls. A text that is only in an event belongs to the answer, too."""
        texts = self.texts + [text for kind, text in self.mirrored if kind == "text"]
        thoughts = self.thoughts + [text for kind, text in self.mirrored if kind == "thought"]
        found: dict[str, Any] = {}
        if texts:
            found["text"] = "\n\n".join(texts)
        if thoughts:
            found["thinking"] = "\n\n".join(thoughts)
        if self.calls:
            found["tool_calls"] = self.calls
        return found if self.phase is None else {**found, "phase": self.phase}


class Answers:
    """The model calls of a thread, and its compactions.

    Args:
        tape: the place in the rollout.

    Attributes:
        open: the answer that may go on; None between answers.
        total: the last sum of tokens, which says whether an event of tokens is new.
        error: the message of the last error of the turn.
    """

    def __init__(self, tape: Tape) -> None:
        self._tape = tape
        self.open: Answer | None = None
        self.total: Any = None
        self.error: str | None = None
        self._said: tuple[list[str], list[str]] = [], []
        self._counts_records = False
        self._sizes: tuple[int, int] = 0, 0
        self._closed_ns = 0
        self._compaction: Step | None = None
        self._unconfirmed = 0

    def answering(self, time: int) -> Answer:
        """Return the open answer. An item after the output of a tool begins the next one."""
        if self.open is not None and self.open.is_over:
            self.close({})
        if self.open is None:
            self.open = Answer(f"llm:{self._tape.line}", self._tape.call_start(time))
        self.open.end = max(self.open.end, time)
        return self.open

    def message(self, payload: dict[str, Any], time: int) -> None:
        """Add a message of the model."""
        answer = self.answering(time)
        answer.phase = id_in(payload.get("phase")) or answer.phase
        for text in texts_of(payload.get("content")):
            answer.add("text", text)

    def reasoning(self, payload: dict[str, Any], time: int) -> None:
        """Add the readable parts of reasoning, if there are any."""
        answer = self.answering(time)
        for text in texts_of(payload.get("summary")) + texts_of(payload.get("content")):
            answer.add("thought", text)

    def _mirror(self, kind: str, texts: list[str], time: int) -> None:
        said = self._said[kind == "thought"]
        for text in texts:
            if self.open is None and text in said:
                said.remove(text)
            else:
                self.answering(time).mirror(kind, text)

    def agent_repeated(self, told: dict[str, Any], time: int) -> None:
        """Note that an event (by its `message`) or a completed item (by its `content`) repeats a message."""
        self._mirror("text", texts_of(told.get("message")) + texts_of(told.get("content")), time)

    def thought_repeated(self, told: dict[str, Any], time: int) -> None:
        """Note that an event or a completed item repeats reasoning."""
        texts = [text for name in ("text", "summary_text", "raw_content") for text in texts_of(told.get(name))]
        self._mirror("thought", texts, time)

    def close(self, usage: dict[str, Any], status: Literal["complete", "cancelled"] = "complete") -> None:
        """End the open answer, with its tokens. Tokens without an answer are of a call that the file leaves out."""
        answer, self.open = self.open, None
        if answer is None:
            if not any(type(value) is int and value for value in usage.values()):
                return
            tape = self._tape
            answer = Answer(f"llm:{tape.line}", tape.call_start(tape.time))
            answer.end = tape.time
        self._said = answer.texts[-8:], answer.thoughts[-8:]
        self._closed_ns = answer.end
        step = self.step(answer, usage, status)
        text = (step.result or {}).get("text")
        if text is not None:
            self._tape.thread.output = text
            if not self._tape.has_turns and not answer.calls:
                self._tape.thread.end("answered")
        self._tape.emit(step)

    def step(self, answer: Answer, usage: dict[str, Any], status: Literal["complete", "cancelled"]) -> Step:
        """Return the step of an answer, as it is now."""
        thread, result = self._tape.thread, {**answer.result(), **usage} or None
        return Step(thread.id, answer.key, None, "llm", answer.start, answer.end, status, thread.call, result)

    def fail(self, error: Any, time: int, retry: dict[str, Any] | None = None) -> None:
        """Add a model call that failed. A second record of the same error adds nothing.

        Args:
            retry: the known facts about the attempt, if the call was tried again; the turn then goes on.
        """
        outcome, found = values.error_of(error)
        if retry is None:
            self._tape.thread.end(outcome, found)
            if self.error == found["message"]:
                return
            self.error = found["message"]
        self.close({})
        payload = self._tape.thread.call | ({} if retry is None else {"retry": retry})
        start, key = self._tape.call_start(time), f"llm:{self._tape.line}"
        self._tape.emit(Step(self._tape.thread.id, key, None, "llm", start, time, "failed", payload, {"error": found}))
        self._tape.read(time)

    def error_event(self, payload: dict[str, Any], time: int) -> None:
        """Add the error that ended a turn."""
        self.fail(without(payload, "type"), time)

    def stream_error(self, payload: dict[str, Any], time: int) -> None:
        """Add a failed attempt of a model call that was tried again."""
        self.fail(without(payload, "type"), time, without(payload, "type", "codex_error_info"))

    def usage(self, payload: dict[str, Any], time: int) -> None:
        """End the answer with the record of its tokens. In a file with such records, nothing else counts tokens."""
        self._counts_records = True
        usage = object_in(payload.get("usage"))
        self._grew(count_in(usage.get("total_tokens")))
        self.close({**values.usage_of(usage), **present({"response_id": id_in(payload.get("response_id"))})})

    def count(self, payload: dict[str, Any], time: int) -> None:
        """Attribute tokens to the open answer. An event whose total has not changed repeats the one before.

        The totals of a fork go on from those of the other thread, so its first total may be the other thread's.
        """
        info = payload.get("info")
        if type(info) is not dict:
            return
        total, last = info.get("total_token_usage"), object_in(info.get("last_token_usage"))
        if total is None and not last:
            self._tape.told(payload, time)
            return
        is_new, before, self.total = total != self.total, self.total, total
        size = count_in(last.get("total_tokens"))
        self._compacted_to(size)
        if not self._counts_records:
            self._grew(size)
        if self._counts_records or not is_new or (before is None and self._tape.thread.header.get("history_base")):
            return
        self.close(values.usage_of(last) if last else values.usage_between(before, total))

    def _grew(self, size: int | None) -> None:
        """Note the size of the context after a call."""
        if size and size != self._sizes[1]:
            self._sizes = self._sizes[1], size

    def _compacted_to(self, size: int | None) -> None:
        """Give the last compaction the size of the context after it, which the next count of tokens states."""
        if self._compaction is not None and size is not None:
            step, self._compaction = self._compaction, None
            self._tape.emit(step._replace(result={**(step.result or {}), "tokens_after": size}))

    def compacted(self, payload: dict[str, Any], time: int) -> None:
        """Add a compaction: its summary is its message, or the history that replaced the old one."""
        self._unconfirmed += 1
        self._compact(payload, time)

    def _compact(self, payload: dict[str, Any], time: int) -> None:
        self.close({})
        history = [each for each in list_in(payload.get("replacement_history")) if type(each) is dict]
        summary: Any = id_in(payload.get("message")) or [_short(each) for each in history] or None
        # The call that wrote the summary may have a short context of its own, so it is the greater of the last two.
        size, self._sizes = max(self._sizes) or None, (0, 0)
        before = present({"trigger": "auto" if self._tape.prompts else "manual", "tokens_before": size})
        result = present({"summary": summary, "messages_kept": len(history) or None})
        start, key = (
            max(self._tape.call_start(time), min(self._closed_ns + 1_000, time)),
            f"compaction:{self._tape.line}",
        )
        self._compaction = Step(
            self._tape.thread.id, key, None, "compaction", start, time, "complete", before, result or None
        )
        self._tape.emit(self._compaction)
        self._tape.read(time)

    def confirmed(self, payload: dict[str, Any], time: int) -> None:
        """Count a compaction that its own record has added already; add it where there is no such record."""
        if self._unconfirmed:
            self._unconfirmed -= 1
        else:
            self._compact({}, time)


def _short(item: dict[str, Any]) -> dict[str, Any]:
    """Return a message of the history after a compaction: its role and content; of other items the readable members."""
    if "content" in item and "role" in item:
        return present({"role": item["role"], "content": values.content_of(item["content"])})
    return without(item, "encrypted_content", "id")
