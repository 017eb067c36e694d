"""Decodes the records of a Codex rollout into the steps of its thread.

The response items are what the model read and wrote; most events repeat them, and add what only the program knows: exit
codes, server answers, changed files. A step is made once, from both. The forms that the product has written over time
(bare items, envelopes, completed items) are decoded alike.

Left out on purpose, because it is a copy or bookkeeping: the copied begin of a fork, the encrypted text of reasoning,
snapshots of the prompt's parts (`world_state`: the messages hold the texts), rate limits, times of turns, begins of
calls, state lines of the first form, later copies of the header, and instructions that this file has had already.
"""

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

from agentspan.arriving import Record, Session, Step, Unread, id_in, json_of, list_in, object_in, part_of, present
from agentspan.sessions import codex_records as values
from agentspan.sessions.claude_facts import Recent
from agentspan.sessions.codex_answers import Answers
from agentspan.sessions.codex_calls import Calls
from agentspan.sessions.codex_records import texts_of
from agentspan.sessions.codex_thread import Tape, Thread
from agentspan.sessions.formats import LineDecoder

_MOST_SEEN = 5000
"""The fewest lines that are known again."""
COPIED_NS = 2_000_000_000
"""The time within which the copied begin of a fork is written, for versions whose turns have no timed ids."""
Handler = Callable[[dict[str, Any], int], None]
_OF_USER = ("user_message", "item_completed")
_TOLD = (
    "entered_review_mode", "exited_review_mode", "thread_rolled_back", "plan_update", "turn.completed", "turn_diff",
    "background_event", "undo_started", "undo_completed", "thread_goal_updated", "model_reroute", "guardian_assessment",
    "exec_approval_request", "apply_patch_approval_request", "request_user_input", "request_permissions",
    "elicitation_request", "session_configured", "mcp_startup_complete", "mcp_startup_update", "shutdown_complete",
)  # fmt: skip
_WARNED = ("warning", "deprecation_notice", "guardian_warning")
_ENDED = (
    "exec_command_end", "patch_apply_end", "mcp_tool_call_end", "web_search_end", "image_generation_end",
    "view_image_tool_call", "collab_agent_spawn_end", "collab_waiting_end", "collab_agent_interaction_end",
    "collab_close_end", "collab_resume_end",
)  # fmt: skip
_LEFT_OUT = (
    "exec_command_begin", "patch_apply_begin", "mcp_tool_call_begin", "web_search_begin", "image_generation_begin",
    "collab_agent_spawn_begin", "collab_waiting_begin", "collab_agent_interaction_begin", "collab_close_begin",
    "collab_resume_begin", "exec_command_output_delta", "terminal_interaction", "agent_reasoning_section_break",
    "item_started", "hook_started",
)  # fmt: skip
_ENDED_ITEMS = (
    "CommandExecution", "FileChange", "McpToolCall", "WebSearch", "ImageView", "ImageGeneration", "CollabAgentToolCall",
    "DynamicToolCall",
)  # fmt: skip


class CodexDecoder(LineDecoder):
    """Decodes one rollout, line by line. Keeps open calls and the open answer, and the last texts of an answer.

    Args:
        id: the thread's id as the file's name has it; the header's id goes before it.
    """

    def __init__(self, id: str) -> None:
        self._thread = Thread(id)
        self._tape = Tape(self._thread)
        self._answers = Answers(self._tape)
        self._calls = Calls(self._tape, self._answers)
        self._copied: int | None = None
        self._has_turn_ids = False
        self._has_user_events = False
        self._pending: tuple[str, int, dict[str, Any]] | None = None
        self._prompted: str | None = None
        self._noted: set[str] = set()
        self._seen: Recent[int, bool] = Recent(_MOST_SEEN)
        self._records: dict[str, Handler] = {
            "session_meta": self._header,
            "turn_context": self._settings,
            "response_item": self._item,
            "event_msg": self._event,
            "compacted": self._answers.compacted,
            "token_usage_record": self._answers.usage,
            "world_state": _nothing,
            "inter_agent_communication_metadata": _nothing,
        }
        self._items = self._item_handlers()
        self._events = self._event_handlers()
        self._completed_items = self._completed_handlers()

    def _item_handlers(self) -> dict[str, Handler]:
        told = dict.fromkeys(
            ("ghost_snapshot", "compaction", "compaction_summary", "context_compaction"), self._tape.told
        )
        return {
            **told,
            "message": self._message,
            "reasoning": self._answers.reasoning,
            "agent_message": self._from_agent,
            "function_call": self._calls.called,
            "function_call_output": self._calls.output,
        }

    def _event_handlers(self) -> dict[str, Handler]:
        answers, calls = self._answers, self._calls
        return {
            "user_message": self._user_event,
            "agent_message": answers.agent_repeated,
            "agent_reasoning": answers.thought_repeated,
            "agent_reasoning_raw_content": answers.thought_repeated,
            "token_count": answers.count,
            "task_started": self._turn,
            "turn_started": self._turn,
            "task_complete": self._turn_ended,
            "turn_complete": self._turn_ended,
            "turn_aborted": self._aborted,
            "context_compacted": answers.confirmed,
            "thread_settings_applied": self._applied,
            "thread_name_updated": self._renamed,
            "item_completed": self._completed,
            "error": answers.error_event,
            "stream_error": answers.stream_error,
            "dynamic_tool_call_request": calls.began,
            "dynamic_tool_call_response": calls.answered,
            "sub_agent_activity": calls.spawned,
            "hook_completed": self._hook,
            **dict.fromkeys(_ENDED, calls.end_event),
            **dict.fromkeys(_LEFT_OUT, _nothing),
            **dict.fromkeys(_TOLD, self._tape.told),
            **dict.fromkeys(_WARNED, self._warned),
        }

    def _completed_handlers(self) -> dict[str, Handler]:
        answers, told = self._answers, ("Plan", "EnteredReviewMode", "ExitedReviewMode", "HookPrompt")
        return {
            "UserMessage": self._user_item,
            "AgentMessage": answers.agent_repeated,
            "Reasoning": answers.thought_repeated,
            "ContextCompaction": answers.confirmed,
            "SubAgentActivity": self._calls.spawned,
            **dict.fromkeys(_ENDED_ITEMS, self._calls.end_event),
            **dict.fromkeys(told, self._tape.told),
        }

    def feed(self, file: Path, line: bytes) -> Iterable[Record]:
        """Decode one line of the rollout."""
        tape = self._tape
        out: list[Record] = []
        tape.out = out
        tape.line += 1
        session = self._thread.id if self._thread.is_begun else None
        if self._seen[hashed := hash(line)]:
            return out  # as after two files were put together
        try:
            record = json_of(line)
        except (ValueError, RecursionError):
            return [Unread(session, "a line that is no JSON")]
        if type(record) is not dict:
            return [Unread(session, "a record that is no object")]
        if "timestamp" in record:
            self._seen.put(hashed, True)
        self._record(record)
        tape.out = []  # else it would keep what is long while that is stored
        return out

    def rest(self) -> Iterator[Record]:
        """Return the session, and the open steps: a message, an answer, calls."""
        if not self._thread.is_begun:
            return
        yield self._session()
        if self._pending is not None:
            key, time, said = self._pending
            yield self._prompt_step(key, time, said["content"])
        if self._answers.open is not None:
            yield self._answers.step(self._answers.open, {}, "complete")
        yield from self._calls.active()

    def _session(self) -> Session:
        """Return the session as it is now. Where no event says that a turn ended, the last answer does."""
        session, answer = self._thread.session(), self._answers.open
        if self._tape.has_turns or answer is None or answer.calls or not answer.texts:
            return session
        ended_ns = max(session.ended_ns or 0, answer.end)
        return session._replace(outcome="answered", output=answer.result()["text"], ended_ns=ended_ns)

    def _record(self, record: dict[str, Any]) -> None:
        kind, payload = record.get("type"), record.get("payload")
        if type(payload) is not dict:
            kind, payload = self._of_flat(record, kind)
            if payload is None:
                return
        time = self._tape.time_of(record.get("timestamp"))
        if not self._thread.is_begun:
            self._begin(kind, payload)
            if kind == "session_meta":
                return
            time = self._tape.time
        if self._copied is not None and self._is_copied(kind, payload, time):
            return
        if self._pending is not None and not (kind == "event_msg" and payload.get("type") in _OF_USER):
            self._settle_pending()
        handler = self._records.get(kind) if type(kind) is str else None
        if handler is None:
            self._tape.not_known(record, time, kind, payload.get("type"))
        else:
            handler(payload, time)

    def _pass(self, handlers: dict[str, Handler], payload: dict[str, Any], time: int, within: str) -> None:
        """Pass a payload to the handler of its type."""
        kind = payload.get("type")
        handler = handlers.get(kind) if type(kind) is str else None
        if handler is None:
            self._tape.not_known(payload, time, within, kind)
        else:
            handler(payload, time)

    def _of_flat(self, record: dict[str, Any], kind: Any) -> tuple[Any, dict[str, Any] | None]:
        """Return the kind and the payload of a record of the first form, which has no envelope."""
        if "payload" in record:
            return kind, {"payload": record["payload"]}
        if "record_type" in record:
            return None, None
        self._tape.is_flat = True
        if kind is None and "id" in record:
            return "session_meta", record
        return ("response_item" if type(kind) is str and kind not in self._records else kind), record

    def _begin(self, kind: Any, payload: dict[str, Any]) -> None:
        thread, tape = self._thread, self._tape
        is_header = kind == "session_meta"
        thread.begin(payload if is_header else {}, tape.stamp if tape.stamp > 0 else None)
        if tape.stamp <= 0:
            tape.stamp = tape.time = thread.started_ns
        thread.ended_ns = max(thread.ended_ns, tape.time)
        if is_header and thread.copies_history:
            self._copied = tape.stamp
        tape.out.append(thread.session())
        if is_header:
            base = object_in(payload.get("base_instructions"))
            self._note("base_instructions", id_in(base.get("text")))
            self._note("instructions", id_in(payload.get("instructions")))
            self._note("dynamic_tools", list_in(payload.get("dynamic_tools")) or None)

    def _is_copied(self, kind: Any, payload: dict[str, Any], time: int) -> bool:
        """Return whether a record is one of the thread that this one was forked from.

        The copies have the time of the fork. The fork's own records begin with the first turn whose id is not older
        than the thread. Versions whose turns have no such ids are told by a pause after the copies.
        """
        if kind == "event_msg" and payload.get("type") in ("task_started", "turn_started"):
            turn = payload.get("turn_id")
            self._has_turn_ids = self._has_turn_ids or values.is_later_id(turn, "")
            if values.is_later_id(turn, self._thread.id):
                self._copied = None
                return False
        if not self._has_turn_ids and time - (self._copied or 0) > COPIED_NS:
            self._copied = None
            return False
        self._learn(kind, payload)
        return True

    def _learn(self, kind: Any, payload: dict[str, Any]) -> None:
        """Keep the values of a copied record that later records need: the total of tokens, settings, instructions."""
        if kind == "session_meta" and (id := id_in(payload.get("id"))) not in (None, self._thread.id):
            self._thread.root = id
        elif kind == "turn_context":
            self._thread.settle(payload)
        elif kind == "event_msg" and payload.get("type") == "token_count":
            self._answers.total = object_in(payload.get("info")).get("total_token_usage", self._answers.total)
        elif kind == "response_item" and payload.get("role") in ("user", "developer"):
            self._thread.read(texts_of(payload.get("content")))

    def _header(self, payload: dict[str, Any], time: int) -> None:
        """Leave out a later header.

        Only one in the second line, of another thread, counts: copies of its records follow.
        """
        if self._tape.line == 2 and id_in(payload.get("id")) not in (None, self._thread.id):
            self._copied = time
            self._learn("session_meta", payload)

    def _settings(self, payload: dict[str, Any], time: int) -> None:
        self._thread.settle(payload)
        own = id_in(payload.get("user_instructions"))
        self._thread.instruct(own)
        self._note("user_instructions", own)
        self._note("developer_instructions", id_in(payload.get("developer_instructions")))

    def _applied(self, payload: dict[str, Any], time: int) -> None:
        self._thread.settle(object_in(payload.get("thread_settings")))

    def _renamed(self, payload: dict[str, Any], time: int) -> None:
        self._thread.title = id_in(payload.get("thread_name")) or self._thread.title

    def _note(self, name: str, content: Any, role: str | None = None) -> None:
        """Keep instructions and other texts that the program put into the conversation, each once in a file."""
        if content is None or (hashed := part_of(content)) in self._noted:
            return
        self._noted.add(hashed)
        payload = {"name": name, "level": "info", "content": content, **present({"role": role})}
        self._tape.emit(self._tape.moment(f"{name}:{self._tape.line}", "event", self._tape.time, payload))
        self._tape.read(self._tape.time)

    def _warned(self, payload: dict[str, Any], time: int) -> None:
        self._tape.told(payload, time, "warning")

    def _message(self, payload: dict[str, Any], time: int) -> None:
        role, content = payload.get("role"), payload.get("content")
        if role == "assistant":
            self._answers.message(payload, time)
        elif role == "user":
            self._asked(content, time)
        else:
            name = id_in(role) or "message"
            self._thread.read(texts_of(content))
            self._note(name, values.content_of(content), name)

    def _asked(self, content: Any, time: int) -> None:
        """Hold a message of the role user back until the next record says whether a person wrote it."""
        texts = texts_of(content)
        text = "\n".join(texts)
        if self._prompted is not None and text in (self._prompted, ""):
            self._prompted = None
            return
        self._thread.read(texts)
        said = {"text": text, "content": values.content_of(content)}
        self._pending = (f"prompt:{self._tape.line}", time, said)

    def _settle_pending(self) -> None:
        """Keep a message that no event repeats: it is a prompt only in files without such events."""
        assert self._pending is not None
        (key, time, said), self._pending = self._pending, None
        mark = values.mark_of(said["text"])
        if mark is None and (self._tape.is_flat or not self._has_user_events):
            self._prompt(key, time, said["text"], said["content"])
            return
        name = "turn_aborted message" if mark == "turn_aborted" else mark or "context"
        payload = {"name": name, "level": "info", "content": said["content"], "role": "user"}
        self._tape.emit(self._tape.moment(key, "event", time, payload))
        self._tape.read(time)

    def _user_event(self, payload: dict[str, Any], time: int) -> None:
        text = id_in(payload.get("message")) or ""
        images = [{"type": "input_image", "image_url": each} for each in list_in(payload.get("images"))]
        self._prompted_by(text, [{"type": "text", "text": text}, *images], time)

    def _user_item(self, item: dict[str, Any], time: int) -> None:
        content = item.get("content")
        self._prompted_by("\n".join(texts_of(content)), content, time)

    def _prompted_by(self, text: str, content: Any, time: int) -> None:
        """Keep a prompt. If its message came before, keep the message's content, which has the images."""
        self._has_user_events = True
        if self._pending is not None:
            (key, time, said), self._pending = self._pending, None
            self._prompt(key, time, text or said["text"], said["content"])
            return
        self._prompted = text
        self._prompt(f"prompt:{self._tape.line}", time, text, values.content_of(content))

    def _prompt(self, key: str, time: int, text: str, content: Any) -> None:
        self._thread.ask(text, content)
        if not self._tape.has_turns:
            self._thread.end(None)
        self._tape.emit(self._prompt_step(key, time, content))
        self._tape.prompts += 1
        self._tape.read(time)

    def _prompt_step(self, key: str, time: int, content: Any) -> Step:
        steering = True if self._tape.prompts and self._tape.has_turns else None
        payload = {"role": "user", "content": content, **present({"steering": steering})}
        return self._tape.moment(key, "message", time, payload)

    def _from_agent(self, payload: dict[str, Any], time: int) -> None:
        """Keep a message between agents."""
        more = present({"author": payload.get("author"), "recipient": payload.get("recipient")})
        message = {"role": "agent", "content": values.content_of(payload.get("content")), **more}
        self._tape.emit(self._tape.moment(f"message:{self._tape.line}", "message", time, message))
        self._tape.read(time)

    def _turn(self, payload: dict[str, Any], time: int) -> None:
        self._tape.has_turns = True
        self._end_open(time)
        self._tape.prompts, self._answers.error = 0, None
        self._tape.read(time)
        self._thread.end(None)

    def _end_open(self, time: int) -> None:
        self._calls.cancel(time)
        self._answers.close({})
        self._thread.ended_ns = max(self._thread.ended_ns, time)

    def _turn_ended(self, payload: dict[str, Any], time: int) -> None:
        self._tape.has_turns = True
        self._end_open(time)
        answer = id_in(payload.get("last_agent_message"))
        if payload.get("error") is not None:
            self._answers.fail(payload["error"], time)
        elif self._answers.error is None or answer is not None:
            self._thread.output = answer or self._thread.output
            self._thread.end("answered")

    def _aborted(self, payload: dict[str, Any], time: int) -> None:
        if self._answers.open is not None and not self._answers.open.is_over:
            self._answers.close({}, "cancelled")
        self._end_open(time)
        self._warned(payload, time)
        self._thread.end("limit" if payload.get("reason") == "budget_limited" else "interrupted")

    def _item(self, payload: dict[str, Any], time: int) -> None:
        kind = payload.get("type")
        kind = kind if type(kind) is str else ""
        handler = self._items.get(kind)
        if handler is not None:
            handler(payload, time)
        elif kind.endswith("_call"):
            self._calls.called(payload, time)
        elif kind.endswith("_output"):
            self._calls.output(payload, time)
        else:
            self._tape.not_known(payload, time, "response_item", kind)

    def _event(self, payload: dict[str, Any], time: int) -> None:
        self._pass(self._events, payload, time, "event_msg")

    def _completed(self, payload: dict[str, Any], time: int) -> None:
        item = object_in(payload.get("item"))
        if self._pending is not None and item.get("type") != "UserMessage":
            self._settle_pending()
        self._pass(self._completed_items, item, time, "item_completed")

    def _hook(self, payload: dict[str, Any], time: int) -> None:
        run = object_in(payload.get("run"))
        event = id_in(run.get("event_name"))
        named = present({"name": id_in(run.get("id")) or event or "hook", "event": event})
        step = self._tape.moment(f"hook:{self._tape.line}", "hook", time, named)
        more = {name: value for name, value in run.items() if name not in ("entries", "id", "event_name")}
        self._tape.emit(step._replace(result={"output": run.get("entries"), "structured": more}))


def _nothing(payload: dict[str, Any], time: int) -> None:
    """Leave out a record that is bookkeeping."""
