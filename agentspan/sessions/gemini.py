"""Decodes the sessions of Gemini CLI: an event log of lines, and in older versions one JSON document.

A record with the id and the type of an earlier one replaces it. `$set.messages` replaces the list of messages. A resume
writes such a list, without tokens and tool calls. So all earlier messages of the log stay, and only unknown messages of
the list are added. `$rewindTo` removes messages: their steps stay, and are marked `rewound`.

The file has no start of a model call: a call starts at the end of what stands before it, a prompt or a tool result. A
tool call starts with the end of its model call. User records that only repeat results of tool calls are left out, as
are the display texts of tools (`description`, `renderOutputAsMarkdown`) and `lastUpdated`.
"""

import math
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from agentspan.arriving import (
    Record,
    Step,
    Unread,
    id_in,
    list_in,
    ns_of,
    object_in,
    parsed,
    task_of,
    text_in,
    unknown,
)
from agentspan.sessions import qwen
from agentspan.sessions.formats import Format, LineDecoder, Source, head_of, home, walk
from agentspan.sessions.google import (
    Log,
    asked_of,
    call_of,
    content_of,
    outcome_of,
    parts_of,
    record_of,
    text_of,
    thinking_of,
    tokens_of,
)
from agentspan.sessions.reading import opened, plain_path
from agentspan.sessions.timeline import ms_ns

ENDINGS = tuple(f"{name}{packed}" for name in (".jsonl", ".json") for packed in ("", ".gz", ".zst"))
_NAME = re.compile(r"session-\d{4}-\d\d-\d\dT\d\d-\d\d-(.+?)\.jsonl?(?:\.gz|\.zst)?")
_FOLDER = re.compile(r"(?:Workspace Directories:\*{0,2}\s+- |working in the directory: )(.+)")
_MADE = re.compile(r"-(\d{13})-[0-9a-f]{6,}")
"""The time in the id of a tool call, as older versions made them: their records have the time after all tools."""
_CONTEXTS = {"<session_context>": "session_context", "<hook_context>": "hook_context"}
"""The beginnings of user records that no person wrote."""
_AGE = re.compile(r"(\d{1,6})([hdwm])")
_DAYS = {"h": 1 / 24, "d": 1, "w": 7, "m": 30}
_LAST_TOOL = "complete_task"
"""The tool by which a sub-agent returns its answer."""
_SNAPSHOT = "<state_snapshot>"
_ACTIVE = frozenset({"validating", "scheduled", "executing", "awaiting_approval"})
_NOTICES = frozenset({"info", "warning", "error"})


class _At(NamedTuple):
    """A record that is being decoded."""

    record: dict[str, Any]
    key: str
    ns: int
    parts: list[dict[str, Any]]
    is_set: bool


class _Log(Log):
    """One session.

    Attributes:
        starts: the starts of steps, by key: a record that is replaced keeps them.
        calls: the keys of tool calls, whose results may be repeated.
        held: the steps of the newest answer. A record of the same id often follows, with the answer's tool calls: an
            earlier state of a step is not returned, so that reading a file again never stores one.
    """

    def __init__(self, id: str, agent: str, provider: str | None) -> None:
        super().__init__(id, agent)
        self.provider = provider
        self.starts: dict[str, int] = {}
        self.calls: set[str] = set()
        self.open: dict[str, Step] = {}
        self.held: dict[str, Step] = {}
        self.held_key: str | None = None
        self.tokens = 0
        self.rewinds = 0

    def start(self, key: str, ns: int) -> int:
        """Return the start of a step: that of its earlier state, else one of its own."""
        found = self.starts.get(key)
        if found is None:
            found = self.starts[key] = self.time.at(ns)
        return found

    def steps_of(self, record: dict[str, Any], *, size: int, is_set: bool = False) -> Iterator[Step | Unread]:
        """Return the steps of a message record."""
        kind, id = id_in(record.get("type")), id_in(record.get("id"))
        ns = ns_of(record.get("timestamp")) or self.ended_ns or self.started_ns or 1
        self.ended_ns = max(self.ended_ns, ns)
        key = f"{kind}:{id}"
        decode = self._answer if kind == "gemini" else self._user if kind == "user" else self._notice
        found = [*decode(_At(record, key, ns, parts_of(record.get("content")), is_set))]
        steps = [each for each in found if isinstance(each, Step)]
        self.branch.add(key, steps, size)
        self.last_ns = max(self.last_ns, ns)
        yield from (each for each in found if isinstance(each, Unread))
        if self.held_key != key:
            yield from self.released()
        if kind == "gemini":
            self.held_key = key
            self.held |= {step.key: step for step in steps}
        else:
            yield from steps

    def released(self) -> list[Step]:
        """Return the steps of the newest answer, and hold them no longer."""
        steps, self.held, self.held_key = [*self.held.values()], {}, None
        return steps

    def _user(self, at: _At) -> Iterator[Step | Unread]:
        results = [part for part in at.parts if "functionResponse" in part]
        if results:
            if not all(_answered(part) in self.calls for part in results):
                yield unknown(self.id, at.key, None, "functionResponse", self.start(at.key, at.ns), at.record)
                yield Unread(self.id, "a tool result without a call")
            return
        text = text_of(at.parts)
        context = next((name for begin, name in _CONTEXTS.items() if text.lstrip().startswith(begin)), None)
        if context is None and _SNAPSHOT in text and at.is_set:
            yield self._compaction(at, text)
            return
        payload: dict[str, Any] = {"role": "user", "content": content_of(at.parts)}
        if context is not None:
            payload = {"role": "system", "content": payload["content"], "kind": context}
            if found := _FOLDER.search(text):
                self.metadata.setdefault("cwd", found[1].strip())
        else:
            shown = parts_of(at.record.get("displayContent"))
            if shown and shown != at.parts:
                payload["display"] = content_of(shown)
            typed = text_of(shown) or text
            self.task, self.goal = self.task or task_of(typed) or None, self.goal or typed
            self.outcome = None
        yield self.moment(at.key, "message", self.start(at.key, at.ns), payload)

    def _compaction(self, at: _At, text: str) -> Step:
        payload = {"tokens_before": self.tokens} if self.tokens else {}
        return self.moment(at.key, "compaction", self.start(at.key, at.ns), payload, {"summary": text})

    def _notice(self, at: _At) -> Iterator[Step | Unread]:
        kind = id_in(at.record.get("type")) or "?"
        start = self.start(at.key, at.ns)
        if kind not in _NOTICES:
            yield unknown(self.id, at.key, None, kind, start, at.record)
            yield Unread(self.id, f"record of type {kind[:40]}")
            return
        text = text_of(at.parts)
        if kind == "error":
            self.outcome, self.error = "error", {"type": "error", "message": text}
        elif "cancelled" in text.lower():
            self.outcome = "interrupted"
        payload = {"name": kind, "level": kind, "content": content_of(at.parts)}
        yield Step(self.id, at.key, None, "event", start, start, "failed" if kind == "error" else "complete", payload)

    def _answer(self, at: _At) -> Iterator[Step | Unread]:
        record = at.record
        model, tokens, calls = id_in(record.get("model")), record.get("tokens"), list_in(record.get("toolCalls"))
        if at.is_set and model is None and not tokens and not calls:  # put there by the program, such as an "OK"
            payload = {"role": "assistant", "content": content_of(at.parts)}
            yield self.moment(at.key, "message", self.start(at.key, at.ns), payload)
            return
        if model is not None:
            self.models[model] = None
        start = self.start(at.key, min(self.last_ns or at.ns, at.ns))
        text = text_of(at.parts)
        result = self._result(record, text, at.parts, calls)
        payload = {"model": model or next(reversed(self.models), "unknown")}
        if self.provider is not None:
            payload["provider"] = self.provider
        ended = min([at.ns, *filter(None, (_made(object_in(call)) for call in calls))])
        yield Step(self.id, at.key, None, "llm", start, max(start, ended), "complete", payload, result)
        if text:
            self.answer = text
        steps = [self._tool(at, object_in(call), number) for number, call in enumerate(calls)]
        yield from steps
        is_done = any(step.payload.get("name") == _LAST_TOOL and step.status == "complete" for step in steps)
        is_open = calls and not is_done
        self.outcome = "interrupted" if any(step.status == "cancelled" for step in steps) else None
        self.outcome = self.outcome or (None if is_open else "answered")

    def _result(
        self, record: dict[str, Any], text: str, parts: list[dict[str, Any]], calls: list[Any]
    ) -> dict[str, Any]:
        result: dict[str, Any] = {"text": text}
        thoughts = [object_in(each) for each in list_in(record.get("thoughts"))]
        said = [f"**{each.get('subject') or ''}** {each.get('description') or ''}".strip() for each in thoughts]
        if thinking := "\n\n".join(said) or thinking_of(parts):
            result["thinking"] = thinking
        if calls:
            result["tool_calls"] = [asked_of(each) for each in map(object_in, calls)]
        if type(tokens := record.get("tokens")) is dict:
            get = tokens.get
            result |= tokens_of(get("input"), get("cached"), get("output"), get("thoughts"), get("tool"), get("total"))
            self.tokens = result["input_tokens"] + result["output_tokens"]
        return result

    def _tool(self, at: _At, call: dict[str, Any], number: int) -> Step:
        id = id_in(call.get("id"))
        key, name = id or f"{at.key}:{number}", text_in(call.get("name")) or "?"
        if id is not None:
            self.calls.add(id)
        status = text_in(call.get("status")) or ""
        ended = ns_of(call.get("timestamp")) or at.ns
        start = self.start(key, min(_made(call) or at.ns, ended))
        kind, payload = call_of(name, call.get("args"), id, text_in(call.get("displayName")))
        if text_in(call.get("agentId")):
            payload["agent"] = call["agentId"]
        if status in _ACTIVE:
            step = Step(self.id, key, None, kind, start, None, "active", payload)
            self.open[key] = step
            return step
        result = outcome_of(parts_of(call.get("result")), kind, name)
        if (structured := call.get("resultDisplay")) not in (None, "", result.get("output")):
            result["structured"] = structured
        if status == "error":
            result["is_error"] = True
        state: Any = {"error": "failed", "cancelled": "cancelled"}.get(status, "complete")
        self.open.pop(key, None)
        self.ended_ns, self.last_ns = max(self.ended_ns, ended), max(self.last_ns, ended)
        return Step(self.id, key, None, kind, start, max(start, ended), state, payload, result)

    def replace_all(self, records: list[Any], size: int) -> Iterator[Step | Unread]:
        """Take the messages of a `$set`: unknown ones are added, and the list is the branch from now on."""
        keys = []
        for record in records:
            if type(record) is not dict:
                yield Unread(self.id, "a message that is no object")
                continue
            key = f"{id_in(record.get('type'))}:{id_in(record.get('id'))}"
            keys.append(key)
            if key not in self.starts and not self._is_repeated(record):
                yield from self.steps_of(record, size=size // len(records), is_set=True)
        self.branch.restart(keys)

    def _is_repeated(self, record: dict[str, Any]) -> bool:
        """Return whether a record only repeats results of tool calls that are known."""
        parts = parts_of(record.get("content"))
        return bool(parts) and all(_answered(part) in self.calls for part in parts)

    def rewind(self, target: str) -> Iterator[Step]:
        """Mark the steps that a rewind removed."""
        records = {f"{kind}:{target}" for kind in ("user", "gemini", *_NOTICES)}
        steps, count = self.branch.cut(records, is_kept=False)
        for step in steps:
            self.open.pop(step.key, None)
        yield from self.released()
        self.rewinds += 1
        ns = max(self.ended_ns, self.started_ns, 1)
        yield from self.rewound(f"rewind:{self.rewinds}", {"to": target, "messages": count}, steps, ns)

    def set_metadata(self, found: Mapping[str, Any]) -> None:
        """Take the fields of a header or of a `$set`."""
        started = ns_of(found.get("startTime"))
        if not self.started_ns and started is not None:
            self.started_ns = started
        if (updated := ns_of(found.get("lastUpdated"))) is not None:
            self.ended_ns = max(self.ended_ns, updated)
        if title := text_in(found.get("summary")):
            self.metadata["title"] = title
        for name in ("projectHash", "directories", "kind", "memoryScratchpad"):
            if found.get(name) is not None:
                self.metadata[name] = found[name]


def _answered(part: dict[str, Any]) -> str | None:
    """Return the id of the tool call that a part answers."""
    return id_in(object_in(part.get("functionResponse")).get("id"))


def _made(call: dict[str, Any]) -> int | None:
    """Return the time in the id of a tool call; None if it has none."""
    found = _MADE.search(text_in(call.get("id")) or "")
    return ms_ns(int(found[1])) if found else None


_HEADER = frozenset({"sessionId", "startTime", "lastUpdated", "projectHash", "kind", "directories", "summary"})
_KNOWN = _HEADER | {"messages", "memoryScratchpad"}


class GeminiDecoder(LineDecoder):
    """Decodes the log of a session, its further files, and those of its sub-agents.

    Args:
        agent: the name of the product.
        provider: the provider of its models; None if they have many.
    """

    def __init__(self, source: Source, agent: str = "gemini-cli", provider: str | None = "google") -> None:
        self._source, self._agent, self._provider = source, agent, provider
        self._by_file: dict[Path, _Log] = {}
        self._logs: dict[str, _Log] = {}
        self._spawned: dict[str, tuple[str, str, str]] = {}
        self._newest: _Log | None = None

    def feed(self, file: Path, line: bytes) -> Iterable[Record]:
        """Decode one line."""
        log = self._by_file.get(file)
        record = record_of(line, None if log is None else log.id)
        if record is None or isinstance(record, Unread):
            return () if record is None else [record]
        return self._records(file, record, len(line))

    def rest(self) -> Iterable[Record]:
        """Return the sessions, and the tool calls that have not ended."""
        for log in self._logs.values():
            self._attach(log)
            yield log.session()
            yield from log.held.values()
            yield from (step for key, step in log.open.items() if key not in log.held)

    def document(self, file: Path, found: dict[str, Any], size: int) -> Iterator[Record]:
        """Decode a whole document: a header with its messages."""
        messages = found.get("messages")
        yield from self._records(file, {name: value for name, value in found.items() if name != "messages"}, 0)
        for message in list_in(messages):
            if type(message) is dict:
                yield from self._records(file, message, size // len(list_in(messages)))
            else:
                yield Unread(self._by_file[file].id, "a message that is no object")
        yield from self.rest()

    def _records(self, file: Path, record: dict[str, Any], size: int) -> list[Record]:
        is_header = type(record.get("sessionId")) is str and "id" not in record
        log = self._by_file.get(file)
        found: list[Record] = []
        if log is not self._newest and self._newest is not None:
            found += self._newest.released()
        if log is None:
            log = self._opened(file, record if is_header else {})
            if not is_header:
                log.started_ns = log.started_ns or ns_of(record.get("timestamp")) or 0
            found.append(log.session())
        self._newest = log
        if "$rewindTo" in record:
            found += log.rewind(id_in(record["$rewindTo"]) or "?")
        elif type(record.get("$set")) is dict:
            found += self._set(log, record["$set"], size)
        elif is_header:
            found += self._set(log, record, size)
        elif type(record.get("id")) is str:
            found += log.steps_of(record, size=size)
            self._link(log, record)
        else:
            start = log.time.at(max(log.ended_ns, log.started_ns, 1))
            found += [unknown(log.id, f"unknown:{start}", None, "record", start, record)]
            found.append(Unread(log.id, "a record without an id"))
        return found

    def _set(self, log: _Log, found: dict[str, Any], size: int) -> Iterator[Step | Unread]:
        log.set_metadata(found)
        if len(found) == 1 and "lastUpdated" in found:  # after every record
            return
        for name in found.keys() - _KNOWN:
            yield Unread(log.id, f"a field {name[:40]} of the session")
        if type(found.get("messages")) is list and found["messages"]:
            yield from log.replace_all(found["messages"], size)

    def _link(self, log: _Log, record: dict[str, Any]) -> None:
        """Note which sub-agents the tool calls of a record started."""
        for call in map(object_in, list_in(record.get("toolCalls"))):
            agent, id = id_in(call.get("agentId")), id_in(call.get("id"))
            if agent and id and agent != log.id:
                name = text_in(object_in(call.get("args")).get("agent_name")) or text_in(call.get("name")) or "subagent"
                self._spawned[agent] = log.id, id, name

    def _attach(self, log: _Log) -> None:
        """Attach a sub-agent to the tool call that started it, once that is known."""
        if log.parent is not None and (found := self._spawned.get(log.id)) is not None:
            log.parent, log.name = found[:2], found[2]

    def _opened(self, file: Path, header: dict[str, Any]) -> _Log:
        id = id_in(header.get("sessionId")) or plain_path(file).stem
        log = self._logs.get(id)
        if log is None:
            log = self._logs[id] = _Log(id, self._agent, self._provider)
            log.set_metadata(header)
            if header.get("kind") == "subagent":
                log.parent = self._parent_of(file), None
                self._attach(log)
        self._by_file[file] = log
        return log

    def _parent_of(self, file: Path) -> str:
        main = self._by_file.get(self._source.path)
        return file.parent.name if main is None or main.parent is not None else main.id


def _sources(path: Path, format: str, wanted: Callable[[Path], bool]) -> Iterator[Source]:
    """Yield the sources of the event log's form in a folder, or of a file. Files of one session are one source."""
    if path.is_dir():
        folders = dict.fromkeys(file.parent for file in walk(path, *ENDINGS) if _NAME.fullmatch(file.name))
        for folder in folders:
            yield from (source for source in _in_folder(folder, format) if wanted(source.path))
    elif path.is_file() and wanted(path) and is_session(path):
        near = _in_folder(path.parent, format) if _NAME.fullmatch(path.name) else ()
        yield next((source for source in near if path in source.files), Source(format, path, (), _project(path.parent)))


def _in_folder(folder: Path, format: str) -> list[Source]:
    try:
        names = sorted(each.name for each in folder.iterdir())
    except OSError:
        return []
    grouped: dict[str, list[Path]] = {}
    for name in names:
        if found := _NAME.fullmatch(name):
            is_document = plain_path(Path(name)).suffix == ".json"
            grouped.setdefault(name if is_document else found[1], []).append(folder / name)
    sources = []
    for short, files in grouped.items():
        inner = [name for name in names if name.startswith(short) and (folder / name).is_dir()]
        parts = [file for name in inner for file in _sub_agents(folder / name)]
        sources.append(Source(format, files[0], (*files[1:], *parts), _project(folder)))
    return sources


def _sub_agents(folder: Path) -> list[Path]:
    """Return the files of sub-agents by their starts: one that started another one comes before it."""
    files = [(_started(file), file) for file in walk(folder, ".jsonl", ".jsonl.gz", ".jsonl.zst")]
    return [file for _, file in sorted(files)]


def _started(file: Path) -> str:
    return text_in(_header(file).get("startTime")) or ""


def _header(file: Path) -> dict[str, Any]:
    """Return the header of a log, or the document's fields that stand before its messages."""
    if file.suffix in (".gz", ".zst"):
        return {}
    head = head_of(file)
    line, end, _ = head.partition(b"\n")
    for text in (line, head.partition(b'"messages"')[0].rstrip(b", \r\n\t") + b"}") if end or head else ():
        if found := object_in(parsed(text)):
            return found
    return {}


def is_session(file: Path) -> bool:
    """Return whether a file is a session of this form; of a compressed one, only the name says it."""
    if file.suffix in (".gz", ".zst"):
        return _NAME.fullmatch(file.name) is not None
    header = _header(file)
    return type(header.get("sessionId")) is str and "projectHash" in header and "uuid" not in header


def _project(folder: Path) -> str | None:
    """Return the project's folder, which the program notes beside the sessions."""
    found = head_of(folder.parent / ".project_root", 4096).decode(errors="replace").strip()
    return found if found.startswith("/") else None


def _document(path: Path, agent: str, provider: str | None) -> Iterator[Record]:
    with opened(path) as file:
        text = file.read()
    found = parsed(text)
    if type(found) is dict:
        yield from GeminiDecoder(Source("", path), agent, provider).document(path, found, len(text))
    else:
        yield Unread(None, "a document that is no JSON object")


def _is_qwen(path: Path) -> bool:
    return ".qwen" in path.parts


def _home(environment: Mapping[str, str]) -> Path:
    base = environment.get("GEMINI_CLI_HOME")
    return (Path(base) if base else home(environment)) / ".gemini"


def _keeps_days(environment: Mapping[str, str]) -> int | None:
    """Return the age at which the program deletes a session: 30 days, unless its settings say another, or none."""
    settings = object_in(parsed(head_of(_home(environment) / "settings.json", 2**20)))
    kept = object_in(object_in(settings.get("general")).get("sessionRetention"))
    if kept.get("enabled") is False:
        return None
    found = _AGE.fullmatch(text_in(kept.get("maxAge")) or "30d")
    return 30 if found is None else math.ceil(int(found[1]) * _DAYS[found[2]])


GEMINI = Format(
    "gemini",
    "Gemini CLI",
    lambda environment: [_home(environment) / "tmp"],
    lambda path: _sources(path, "gemini", lambda file: not _is_qwen(file)),
    lines=GeminiDecoder,
    decode=lambda path, after: _document(path, "gemini-cli", "google"),
    keeps_days=_keeps_days,
    version=2,
)


def _qwen_roots(environment: Mapping[str, str]) -> list[Path]:
    homes = [environment.get("QWEN_RUNTIME_DIR"), environment.get("QWEN_HOME")]
    bases = [Path(base) for base in homes if base] or [home(environment) / ".qwen"]
    return [base / folder for base in bases for folder in ("projects", "tmp")]


def _qwen_sources(path: Path) -> Iterator[Source]:
    yield from qwen.sources(path)
    yield from _sources(path, "qwen", _is_qwen)


def _qwen_lines(source: Source) -> LineDecoder:
    is_log = _NAME.fullmatch(source.path.name) is not None
    return GeminiDecoder(source, qwen.AGENT, None) if is_log else qwen.QwenDecoder(source)


QWEN = Format(
    "qwen",
    "Qwen Code",
    _qwen_roots,
    _qwen_sources,
    lines=_qwen_lines,
    decode=lambda path, after: _document(path, qwen.AGENT, None),
    version=2,
)
FORMATS: list[Format] = [GEMINI, QWEN]
