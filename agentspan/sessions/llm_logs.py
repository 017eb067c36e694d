"""Decodes `logs.db`, in which the command-line tool and library `llm` logs its calls. One session per conversation.

Two families of tables exist, and a file may have both: conversations with responses, and, since 0.32, threads with
turns, messages and parts. Only tables with rows count, whichever tables exist. A
conversation that goes on in the other family is one session. A call that failed left no row. Left out on purpose: the
raw answers of providers, which repeat the messages, and the tables for search.

The file is opened read-only. A conversation is read when a call of it is newer than the last one that was read before.
The ids of calls begin with their time, of which only the first digits are compared. So a conversation whose latest call
is up to a quarter of an hour earlier is read again, and its end is stored then. An older one counts as over.
"""

import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple

from agentspan.arriving import (
    Record,
    Session,
    Step,
    Unread,
    count_in,
    decoded,
    list_in,
    ns_of,
    number_in,
    object_in,
    part_of,
    present,
    task_of,
    text_in,
)
from agentspan.ground import blobs
from agentspan.sessions.formats import Format, Source, head_of, home
from agentspan.sessions.reading import database

NAME = "llm"
_MAGIC = b"SQLite format 3\x00"
_BYTES = "content"
"""The only column with bytes."""
_FAMILIES = {"responses": "conversation_id", "turns": "thread_id"}
"""The tables with one row for each call, and their columns with the conversation."""
_LOOKED_UP = {
    "responses": "conversation_id",
    "tool_calls": "response_id",
    "tool_results": "response_id",
    "tool_responses": "response_id",
}
"""The tables without an index in which rows are looked up, and the column by which."""
_AGE = 6
"""The characters of a ULID that are compared: the seventh changes every 17 minutes."""
_OVER_NS = 15 * 60 * 1_000_000_000
"""A conversation is over if it ended this long before the newest call of the file: less than `_AGE` leaves out."""
_ADDED = ("cache_read_input_tokens", "cache_creation_input_tokens")
_DETAILS = {
    "cached_tokens": ("cached_tokens", "cached", "cachedContentTokenCount", _ADDED[0]),
    "cache_write_tokens": (_ADDED[1],),
    "reasoning_tokens": ("reasoning_tokens", "thoughtsTokenCount"),
}
"""The names that providers give to details of tokens."""


class _Call(NamedTuple):
    """One call of a model, of either family.

    Attributes:
        row: its row.
        messages: what was said to the model: the key of the step, the role, the content.
        results: the results of tools: the id of the call, the name, and a result with `output` and `error`.
        answer: the result of the call: `text`, `thinking`, `tool_calls` ….
        tools: the names of the tools that the model got.
    """

    row: Mapping[str, Any]
    messages: Sequence[tuple[str, str, Any]]
    results: Sequence[tuple[Any, str, dict[str, Any]]]
    answer: dict[str, Any]
    tools: Sequence[str]


class _Base:
    """An open database, of which every table may be missing.

    Args:
        path: the file.
    """

    def __init__(self, path: Path) -> None:
        self.open = _connected(path)
        try:
            found = self.open.execute("select name from sqlite_master where type = 'table'").fetchall()
        except sqlite3.Error:
            self.open.close()
            raise
        self._tables = frozenset(name for (name,) in found)

    def has(self, *tables: str) -> bool:
        """Return whether all these tables exist."""
        return self._tables.issuperset(tables)

    def sort(self) -> None:
        """Make the tables that the lookups of rows use, outside of the file: its older tables have no indexes."""
        for table, column in _LOOKED_UP.items():
            if self.has(table):
                by = f"by_{table}"
                self.open.execute(f"create temp table {by} as select {column} as key, rowid as place from {table}")
                self.open.execute(f"create index temp.{by}_key on {by} (key)")

    def rows_of(self, table: str, key: Any) -> Iterator[dict[str, Any]]:
        """Yield the rows of a table that belong to a conversation or a call, in the order of their ids."""
        sql = f"""select {table}.* from by_{table} join {table} on {table}.rowid = place where key = ?
            order by {table}.id"""
        return self.rows(table, sql, key)

    def rows(self, tables: str, sql: str, *values: Any) -> Iterator[dict[str, Any]]:
        """Yield the rows of a query as objects; none if one of the tables is missing."""
        if not self.has(*tables.split()):
            return
        cursor = self.open.execute(sql, values)
        names = [column[0] for column in cursor.description]
        for row in cursor:
            yield {name: _plain_value(name, value) for name, value in zip(names, row, strict=True)}


def _plain_value(name: str, value: Any) -> Any:
    is_text = type(value) is bytes and name != _BYTES
    return value.decode("utf-8", "replace") if is_text else value


def _connected(path: Path) -> sqlite3.Connection:
    connection = database(path)
    connection.text_factory = lambda data: data.decode("utf-8", "replace")
    return connection


# The older tables


def _responses(base: _Base, conversation: str) -> Iterator[_Call]:
    alone = base.rows("responses", "select * from responses where id = ? and conversation_id is null", conversation)
    for row in chain(alone, base.rows_of("responses", conversation)):
        id = row.get("id")
        if not any(base.rows("turns", "select 1 from turns where id = ?", id)):  # else it was copied to the new tables
            yield _response(base, row)


def _response(base: _Base, row: dict[str, Any]) -> _Call:
    id = row.get("id")
    messages: list[tuple[str, str, Any]] = []
    system = _with_fragments(base, "system_fragments", id, row.get("system"))
    if system:
        messages.append((f"{id}:system", "system", system))
    blocks = [_attachment(each) for each in base.rows("prompt_attachments attachments", _PROMPT_ATTACHMENTS, id)]
    prompt = _with_fragments(base, "prompt_fragments", id, row.get("prompt"))
    if prompt or blocks:
        content = [*([{"type": "text", "text": prompt}] if prompt else []), *blocks] if blocks else prompt
        messages.append((f"{id}:prompt", "user", content))
    answer = {"text": row.get("response") or "", "thinking": text_in(row.get("reasoning"))}
    calls = [_called(call) for call in base.rows_of("tool_calls", id)]
    results = [
        (each.get("tool_call_id"), str(each.get("name")), _result(base, each))
        for each in base.rows_of("tool_results", id)
    ]
    tools = [each["name"] for each in base.rows("tools tool_responses", _TOOLS_OF_RESPONSE, id)]
    return _Call(row, messages, results, {**present(answer), **({"tool_calls": calls} if calls else {})}, tools)


_PROMPT_ATTACHMENTS = """select attachments.* from prompt_attachments join attachments on attachments.id = attachment_id
where response_id = ? order by "order" """
_TOOLS_OF_RESPONSE = """select name from by_tool_responses join tool_responses on tool_responses.rowid = place
join tools on tools.id = tool_id where key = ? order by tools.id"""
_RESULT_ATTACHMENTS = """select attachments.* from tool_results_attachments join attachments
on attachments.id = attachment_id where tool_result_id = ? order by "order" """


def _with_fragments(base: _Base, table: str, response: Any, text: Any) -> str:
    join = f"{table} join fragments on fragments.id = fragment_id"
    sql = f'select content from {join} where response_id = ? order by "order"'
    fragments = [str(row["content"]) for row in base.rows(f"{table} fragments", sql, response)]
    return "\n".join([*fragments, *([text] if type(text) is str and text else [])])


def _called(call: Mapping[str, Any]) -> dict[str, Any]:
    return present(
        {"id": call.get("tool_call_id"), "name": call.get("name"), "arguments": decoded(call.get("arguments"))}
    )


def _result(base: _Base, row: Mapping[str, Any]) -> dict[str, Any]:
    blocks = [
        _attachment(each)
        for each in base.rows("tool_results_attachments attachments", _RESULT_ATTACHMENTS, row.get("id"))
    ]
    return _outcome(row.get("output"), row.get("exception"), blocks)


def _outcome(output: Any, exception: Any, blocks: list[dict[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {"output": output}
    if blocks:
        found["output"] = [*([{"type": "text", "text": output}] if output else []), *blocks]
    if exception:
        kind, _, message = str(exception).partition(": ")
        found |= {"is_error": True, "error": {"type": kind, "message": message or str(exception)}}
    return found


def _attachment(row: Mapping[str, Any]) -> dict[str, Any]:
    """Return the content block of an attachment: its bytes as base64, else its URL or path."""
    media_type, content = text_in(row.get("type")), row.get("content")
    kind = (media_type or "").partition("/")[0]
    source: dict[str, Any] = {"type": "url", "url": row.get("url")}
    if type(content) is bytes:
        source = {
            "type": "base64",
            "media_type": media_type or "application/octet-stream",
            "data": blobs.encoded(content),
        }
    elif row.get("path"):
        source = {"type": "file", "path": row["path"]}
    return {"type": kind if kind in ("image", "audio", "video") else "document", "source": source}


# The newer tables


def _turns(base: _Base, thread: str) -> Iterator[_Call]:
    seen: set[Any] = set(_inherited(base, thread))
    for row in base.rows("turns messages parts", "select * from turns where thread_id = ? order by id", thread):
        sent = _new_before(base, row.get("parent_message_hash"), seen)
        made = _new_before(base, row.get("tip_message_hash"), seen)
        tools = [each["name"] for each in base.rows("tools turn_tools", _TOOLS_OF_TURN, row.get("id"))]
        yield _turn(base, row, sent, made, tools)


_TOOLS_OF_TURN = "select name from tools join turn_tools on tools.id = tool_id where turn_id = ? order by tools.id"


def _inherited(base: _Base, thread: str) -> Iterator[Any]:
    """Yield the hashes of the last messages of each turn of the thread that this one forks."""
    sql = """select turns.tip_message_hash as hash from turns join threads on threads.forked_from = turns.thread_id
    where threads.id = ?"""
    for row in base.rows("turns threads", sql, thread):
        yield row["hash"]


def _new_before(base: _Base, hash: Any, seen: set[Any]) -> list[dict[str, Any]]:
    """Return the messages up to one, the earliest first, as far as they are new; note them as seen."""
    found: list[dict[str, Any]] = []
    while hash is not None and hash not in seen:
        seen.add(hash)
        message = next(base.rows("messages", "select * from messages where hash = ?", hash), None)
        if message is None:
            break
        found.append(message)
        hash = message.get("parent_hash")
    return found[::-1]


def _turn(
    base: _Base, row: dict[str, Any], sent: list[dict[str, Any]], made: list[dict[str, Any]], tools: list[str]
) -> _Call:
    messages: list[tuple[str, str, Any]] = []
    results: list[tuple[Any, str, dict[str, Any]]] = []
    for message in sent:
        parts = [*_parts(base, message)]
        results += _results(base, parts)
        content = _content(base, parts)
        if content or message.get("role") not in ("tool", None):
            messages.append((str(message.get("hash")), str(message.get("role")), content))
            calls = [_called(part) for part in parts if part.get("type") == "tool_call"]
            if calls:
                messages[-1] = (
                    *messages[-1][:2],
                    [*list_in(content), *({"type": "tool_call", **call} for call in calls)],
                )
    answered = [part for message in made for part in _parts(base, message)]
    results += _results(base, answered)
    answer = {
        name: "".join(str(part.get("text") or "") for part in answered if part.get("type") == kind)
        for name, kind in (("text", "text"), ("thinking", "reasoning"))
    }
    blocks = _blocks(base, answered)
    calls = [_called(part) for part in answered if part.get("type") == "tool_call"]
    more = present({"tool_calls": calls or None, "content": blocks or None, "thinking": answer["thinking"] or None})
    return _Call(row, messages, results, {"text": answer["text"], **more}, tools)


def _parts(base: _Base, message: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    sql = "select * from parts where message_hash = ? order by position, id"
    for row in base.rows("parts", sql, message.get("hash")):
        part = {**object_in(decoded(row.get("payload"))), "type": row.get("type")}
        if row.get("text") is not None:
            part["text"] = row["text"]
        pieces = list_in(part.pop("text_ref", None))
        if pieces:
            part["text"] = "".join(_piece(base, object_in(piece)) for piece in pieces)
        yield part


def _piece(base: _Base, piece: Mapping[str, Any]) -> str:
    if "literal" in piece:
        return str(piece["literal"])
    id = count_in(piece.get("fragment"))
    row = next(base.rows("fragments", "select content from fragments where id = ?", id), {})
    return str(row.get("content") or "")


def _content(base: _Base, parts: Sequence[Mapping[str, Any]]) -> Any:
    texts = [{"type": "text", "text": part.get("text")} for part in parts if part.get("type") == "text"]
    blocks = _blocks(base, parts)
    if len(texts) == 1 and not blocks:
        return texts[0]["text"]
    return [*texts, *blocks]


def _blocks(base: _Base, parts: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return the blocks of the parts that are attachments, or of a kind that is not known."""
    known = ("text", "reasoning", "tool_call", "tool_result")
    found: list[dict[str, Any]] = []
    for part in parts:
        if part.get("type") == "attachment":
            found += _attached(base, [part.get("attachment")])
        elif part.get("type") not in known:
            found.append(dict(part))
    return found


def _attached(base: _Base, refs: Sequence[Any]) -> list[dict[str, Any]]:
    ids = [text_in(object_in(ref).get("id")) for ref in refs]
    sql = "select * from attachments where id = ?"
    return [_attachment(row) for id in ids if id is not None for row in base.rows("attachments", sql, id)]


def _results(base: _Base, parts: Sequence[Mapping[str, Any]]) -> Iterator[tuple[Any, str, dict[str, Any]]]:
    for part in parts:
        if part.get("type") == "tool_result":
            blocks = _attached(base, list_in(part.get("attachments")))
            result = _outcome(part.get("output"), part.get("exception"), blocks)
            yield part.get("tool_call_id"), str(part.get("name")), result


# Sessions


class _Conversation:
    """Makes the steps of one conversation from its calls.

    Args:
        id: its id.
        about: its row: `name`, `forked_from`.
        over_ns: the time before which a conversation that ended is over.
    """

    def __init__(self, id: str, about: Mapping[str, Any], over_ns: int) -> None:
        self._over_ns = over_ns
        self._id = id
        self._about = about
        self._open: list[tuple[Any, Step]] = []
        self._last_ns = 0
        self._models: dict[str, None] = {}
        self._session: Session | None = None

    def call(self, call: _Call) -> Iterator[Record]:
        """Return the steps of the next call."""
        row, id = call.row, str(call.row.get("id"))
        at = ns_of(row.get("datetime_utc")) or self._last_ns or _ulid_ns(id)
        if self._session is None:
            yield self._begun(call, at)
        results = [*call.results]
        yield from self._returned(results, at)
        for key, role, content in call.messages:
            time = self._time(at)
            yield Step(self._id, key, None, "message", time, time, "complete", {"role": role, "content": content})
        start = self._time(at)
        end = start + int((number_in(row.get("duration_ms")) or 0) * 1e6)
        payload, result = _asked(call), {**call.answer, **_tokens(row)}
        result |= present({"response_id": text_in(object_in(decoded(row.get("response_json"))).get("id"))})
        yield Step(self._id, id, None, "llm", start, end, "complete", payload, result)
        self._last_ns = max(self._last_ns, end)
        self._models[payload["model"]] = None
        for number, made in enumerate(list_in(call.answer.get("tool_calls"))):
            self._open.append((made.get("id"), self._tool(made, f"{id}:{number}", self._time(end))))
        yield from self._returned(results, end)
        for number, (call_id, name, result) in enumerate(results):  # of calls that are not in this conversation
            step = self._tool({"id": call_id, "name": name}, f"{id}:result:{number}", self._time(end))
            yield _finished(step, result, step.start_ns)
        self._note(call, max(end, at))

    def rest(self) -> Iterator[Record]:
        """Return the tools without a result, and the Session."""
        for _, step in self._open:
            yield step
        self._open.clear()
        if self._session is not None:
            yield self._session._replace(is_over=(self._session.ended_ns or 0) < self._over_ns)

    def _begun(self, call: _Call, at: int) -> Session:
        prompt = next((_plain(content) for _, role, content in call.messages if role == "user"), None)
        system = next((content for _, role, content in call.messages if role == "system"), None)
        parts = {"model": _asked(call)["model"]}
        hashed = {"system_prompt": system, "tools": sorted(str(tool) for tool in call.tools) or None}
        parts |= {name: part_of(value) for name, value in hashed.items() if value}
        self._session = Session(
            self._id, "llm", at, ended_ns=at, outcome="answered", task=task_of(prompt) or None if prompt else None,
            conversation=text_in(self._about.get("forked_from")), fingerprint=parts,
            metadata=present({"title": text_in(self._about.get("name"))}),
        )  # fmt: skip
        return self._session

    def _note(self, call: _Call, end: int) -> None:
        assert self._session is not None
        metadata = {**self._session.metadata, "models": [*self._models]}
        output = call.answer.get("text") or self._session.output
        ended_ns = max(end, self._session.ended_ns or 0)
        self._session = self._session._replace(ended_ns=ended_ns, output=output, metadata=metadata)

    def _tool(self, made: Mapping[str, Any], key: str, at: int) -> Step:
        payload = {"name": str(made.get("name")), "arguments": made.get("arguments"), "call_id": made.get("id")}
        return Step(self._id, key, None, "tool", at, at, "cancelled", present(payload))

    def _returned(self, results: list[tuple[Any, str, dict[str, Any]]], at: int) -> Iterator[Step]:
        """Yield the step of each open tool call that has a result here. Remove these results from the list."""
        for returned in [*results]:
            id, name, result = returned
            found = next((each for each in self._open if each[0] == id and each[1].payload["name"] == name), None)
            if found is not None:
                self._open.remove(found)
                results.remove(returned)
                yield _finished(found[1], result, max(at, found[1].start_ns))

    def _time(self, at: int) -> int:
        """Return a time after all that were returned: microseconds keep the order."""
        self._last_ns = max(at, self._last_ns + 1000)
        return self._last_ns


def _finished(step: Step, result: dict[str, Any], at: int) -> Step:
    return step._replace(end_ns=at, status="failed" if "error" in result else "complete", result=result)


def _plain(content: Any) -> str:
    if type(content) is str:
        return content
    return " ".join(str(part.get("text")) for part in list_in(content) if object_in(part).get("type") == "text")


def _asked(call: _Call) -> dict[str, Any]:
    """Return the payload of a call: the model, its options, its tools and the schema of its answer."""
    row = call.row
    model, resolved = str(row.get("model") or "?"), text_in(row.get("resolved_model"))
    payload = {**object_in(decoded(row.get("options_json"))), "model": resolved or model}
    if resolved not in (None, model):
        payload["requested_model"] = model
    return payload | present({"tools": list(call.tools) or None, "schema": decoded(row.get("schema"))})


def _tokens(row: Mapping[str, Any]) -> dict[str, Any]:
    """Return the tokens of a call. Those of Anthropic's cache are not in the input tokens, and are added."""
    details = object_in(decoded(row.get("token_details")))
    flat = {**details}
    for group in details.values():
        flat.update(object_in(group))
    sent = count_in(row.get("input_tokens"))
    if sent is not None:
        sent += sum(count_in(flat.get(name)) or 0 for name in _ADDED)
    found: dict[str, Any] = {
        name: next((count for each in names if (count := count_in(flat.get(each))) is not None), None)
        for name, names in _DETAILS.items()
    }
    counts = {"input_tokens": sent, "output_tokens": count_in(row.get("output_tokens"))}
    return present({**counts, **found, "token_details": details or None})


_DIGITS = "0123456789abcdefghjkmnpqrstvwxyz"


def _ulid_ns(id: str) -> int:
    """Return the time in a ULID, in nanoseconds since the epoch; 0 for another id."""
    digits = [_DIGITS.find(each) for each in id[:10].lower()]
    if len(id) != 26 or min(digits) < 0:
        return 0
    return sum(digit << 5 * place for place, digit in enumerate(reversed(digits))) % 2**43 * 1_000_000


# The format


def decode(path: Path, after: str | None) -> Iterator[Record]:
    """Decode the conversations of a file that have a call since `position` returned `after`."""
    try:
        base = _Base(path)
        with closing(base.open):
            base.sort()
            over_ns = _ulid_ns(_newest(base)) - _OVER_NS
            for id in [*_changed(base, after)]:
                yield from _readable(_conversation(base, id, over_ns), id)
    except sqlite3.Error:
        yield Unread(None, "a database that cannot be read whole")


def _readable(records: Iterator[Record], id: str) -> Iterator[Record]:
    try:
        yield from records
    except (sqlite3.Error, RecursionError):
        yield Unread(id, "a conversation that cannot be read whole")


def _changed(base: _Base, after: str | None) -> Iterator[str]:
    since = "" if after is None or len(after) != 26 else after[:_AGE]
    found: dict[str, None] = {}
    for table, column in _FAMILIES.items():
        sql = f"select distinct coalesce({column}, id) as conversation from {table} where id >= ? order by id"
        found |= dict.fromkeys(str(row["conversation"]) for row in base.rows(table, sql, since))
    yield from found


def _conversation(base: _Base, id: str, over_ns: int) -> Iterator[Record]:
    about: dict[str, Any] = {}
    for table in ("conversations", "threads"):
        about |= next(base.rows(table, f"select * from {table} where id = ?", id), {})
    conversation = _Conversation(id, about, over_ns)
    for calls in (_responses(base, id), _turns(base, id)):
        for call in calls:
            yield from conversation.call(call._replace(row={**call.row, "schema": _schema(base, call.row)}))
    yield from conversation.rest()


def _schema(base: _Base, row: Mapping[str, Any]) -> Any:
    id = row.get("schema_id")
    return (
        None if id is None else next(base.rows("schemas", "select * from schemas where id = ?", id), {}).get("content")
    )


def position(path: Path) -> str:
    """Return the greatest id of a call; an empty text without any."""
    try:
        base = _Base(path)
        with closing(base.open):
            return _newest(base)
    except sqlite3.Error:
        return ""


def _newest(base: _Base) -> str:
    found = [row["id"] for table in _FAMILIES for row in base.rows(table, f"select max(id) as id from {table}")]
    return max((id for id in found if type(id) is str), default="")


def _roots(environment: Mapping[str, str]) -> list[Path]:
    folder = environment.get("LLM_USER_PATH")
    if folder:
        return [Path(folder, "logs.db")]
    settings = environment.get("XDG_CONFIG_HOME") or home(environment) / ".config"
    mac = home(environment) / "Library" / "Application Support"
    return [Path(each, "io.datasette.llm", "logs.db") for each in (settings, mac)]


def _sources(path: Path) -> Iterator[Source]:
    if path.is_dir():
        path = path / "logs.db"
    if head_of(path, 16) == _MAGIC and _is_log(path):
        yield Source(NAME, path)


def _is_log(path: Path) -> bool:
    try:
        base = _Base(path)
        with closing(base.open):
            return base.has("_llm_migrations") and (base.has("responses") or base.has("turns"))
    except sqlite3.Error:
        return False


FORMATS: list[Format] = [Format(NAME, "llm", _roots, _sources, decode=decode, position=position)]
