"""What was said is stored once in a run of a file, and payloads are read as they were, also by plain SQLite."""

import json
import sqlite3
import time
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import agentspan
from agentspan.jsontext import encode
from agentspan.model.changes import Move, Put, PutSpans, Refused, Remove, Unit
from agentspan.model.rows import AgentInstanceRow, AgentSpanRow
from agentspan.storage.memory import MemoryStorage
from agentspan.storage.protocol import Storage
from agentspan.storage.questions import Damage, Find, Query, RemoveRuns, SpansOf, SpansWith
from agentspan.storage.sqlite import SQLiteStorage
from agentspan.storage.sqlite.contents import ranges, split
from agentspan.storage.text_search import Matcher, terms
from agentspan.testing.contract.base import Rows, finish
from agentspan.tuning import STANDARD, Tuning
from tests.strategies import any_text, json_values
from tests.tiers import examples

ROWS = Rows()
AGENT = ROWS.agent("a")
VERSION, SCHEMA, RUN = ROWS.family(AGENT)
OTHER = RUN._replace(id=ROWS.ids.new())


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "runs.db"


def begun(storage: Storage) -> None:
    storage.apply([Unit(tuple(Put(row) for row in (AGENT, VERSION, SCHEMA, RUN, OTHER)))])


def message(number: int, size: int = 200) -> dict[str, Any]:
    return {"role": "user", "content": f"{number} " + "x" * size}


def history(length: int, **more: Any) -> str:
    return encode({"model": "m", "messages": [message(number) for number in range(length)], **more})[0]


def span(payload: str, result: str | None = None, run: AgentInstanceRow = RUN, **values: Any) -> AgentSpanRow:
    return ROWS.span(run, **values)._replace(payload=payload, result_payload=result)


def sql(path: Path, query: str) -> list[Any]:
    connection = sqlite3.connect(path)
    try:
        return connection.execute(query).fetchall()
    finally:
        connection.close()


def parts(path: Path) -> list[str]:
    return [text for (text,) in sql(path, "select text from contents order by id")]


def test_a_growing_history_is_a_range_and_each_message_one_row(path: Path) -> None:
    storage = SQLiteStorage(path)
    begun(storage)
    spans = [span(history(length)) for length in range(3, 20)]
    for each in spans[:8]:
        storage.apply([Unit((Put(each, minted=True),))])
    storage.apply([Unit((PutSpans(spans[8:]),))])
    assert [json.loads(text) for text in parts(path)] == [message(number) for number in range(19)]
    stored = [json.loads(payload) for (payload,) in sql(path, "select payload from agent_spans order by id")]
    assert [payload["messages"] for payload in stored] == [{"$contents": f"1-{length}"} for length in range(3, 20)]
    assert sql(path, "select distinct payload ->> '$.model' from agent_spans") == [("m",)]
    assert storage.ask(Query("agent_span")).rows == spans
    assert list(storage.ask(SpansOf(RUN.id))) == spans
    assert storage.ask(Find(spans[4].id)).rows[spans[4].id][1] == spans[4]
    assert sql(path, "select payload from spans order by span") == [(each.payload,) for each in spans]
    storage.close()


def test_each_run_counts_for_itself(path: Path) -> None:
    storage = SQLiteStorage(path)
    begun(storage)
    for length in (3, 4):
        storage.apply([Unit((PutSpans([span(history(length)), span(history(length), run=OTHER)]),))])
    assert len(parts(path)) == 8
    assert {payload for (payload,) in sql(path, "select payload ->> '$.messages' from agent_spans")} == {
        '{"$contents":"1-3"}',
        '{"$contents":"1-4"}',
    }


def test_a_long_text_is_stored_once_and_results_too(path: Path) -> None:
    storage = SQLiteStorage(path)
    begun(storage)
    system, answer = "be kind. " * 100, '{"text":"' + "y" * 600 + '","n":1}'
    spans = [span(history(2, system=system), status="active") for _ in range(3)]
    for each in spans:
        storage.apply([Unit((Put(each, minted=True),))])
        storage.apply([Unit((finish(each.id, result_payload=answer),))])
    found = storage.ask(Query("agent_span")).rows
    assert [(row.payload, row.result_payload) for row in found] == [(each.payload, answer) for each in spans]  # type: ignore[union-attr]
    assert len(parts(path)) == 2  # the system prompt and the answer: two messages are too short to be cut
    assert sql(path, "select distinct result_payload from spans") == [(answer,)]


def test_a_repeated_short_text_breaks_no_range(path: Path) -> None:
    storage = SQLiteStorage(path)
    begun(storage)
    said: list[Any] = [message(0, 600)]
    for number in range(1, 20):
        said += [{"role": "user", "content": "continue"}, message(number)]
        storage.apply([Unit((Put(span(encode({"messages": said})[0])),))])
    (last,) = sql(path, "select payload ->> '$.messages' from agent_spans order by id desc limit 1")
    assert last == ('{"$contents":"1-39"}',)


def test_a_history_of_which_the_start_is_cut_is_a_range_still(path: Path) -> None:
    storage = SQLiteStorage(path)
    begun(storage)
    messages = [message(number) for number in range(12)]
    for part in (messages, [messages[0], *messages[6:]], messages[9:4:-1]):
        storage.apply([Unit((Put(span(encode({"messages": part})[0])),))])
    found = sql(path, "select payload ->> '$.messages.\"$contents\"' from agent_spans order by id")
    assert found == [("1-12",), ("1,7-12",), ("10,9,8,7,6",)]
    assert len(parts(path)) == 12


def test_numbers_are_written_as_ranges() -> None:
    assert ranges([1, 2, 3, 5, 7, 8]) == "1-3,5,7-8"
    assert ranges([4]) == "4"
    assert ranges([2, 1, 2]) == "2,1-2"


@pytest.mark.parametrize(
    ("member", "is_cut"),
    [
        (f'"{"x" * 510}"', True),
        (f'"{"x" * 509}"', False),
        (f'"\\"{"x" * 508}"', True),
        (f'"\\\\{"é" * 508}"', True),
        (f'["{"x" * 254}","{"y" * 251}"]', True),
        (f'["{"x" * 254}","{"y" * 250}"]', False),
        (f'["a"],"b":"{"x" * 300}]"', False),
        (f'{{"inner":["{"x" * 600}"]}}', False),
        ('{"$content":1}', True),
    ],
)
def test_texts_and_lists_of_512_characters_are_stored_apart(member: str, is_cut: bool) -> None:
    text = f'{{"short":["a","b"],"m":{member},"filler":{{"a":"{"z" * 400}","b":"{"z" * 400}"}}}}'
    assert json.loads(text)
    assert (split(text) is not None) is is_cut


ODD = [
    '{"a":1.0,"b":1e400,"c":-0.0,"d":[1.50,"\\u00e9"],"é.k":"\\u001f\\ud83d","m":12345678901234567890123,"":null,"$x":{}',
    '{"a b":true,"a\'b":[],"x[0]":{"y":{"$contents":"1"}},"$.z":"\\"","n":{"$contents":"1-2"},"k":{"$content":1}',
    '{"n":{"$content":"no number"},"k":{"$contents":[1]},"l":{"$contents":"1","more":[{"$content":2}]}',
    '{"a":"\\\\","b":"","c":"\\\\\\"","d":"%s\\\\","e":["\\"","\\\\"]' % ('\\"' * 400),
]


@pytest.mark.parametrize("odd", ODD)
def test_any_json_text_is_read_byte_for_byte(path: Path, odd: str) -> None:
    storage = SQLiteStorage(path)
    begun(storage)
    messages = f'"messages":[{",".join(f"""["{number}{"x" * 200}"]""" for number in range(4))}]'
    first, last = f"{odd},{messages}}}", f'{{{messages},"last":{odd}}}}}'
    assert split(first) is not None
    assert split(last) is not None
    row = span(first, last)
    storage.apply([Unit((PutSpans([row]),))])
    assert storage.ask(Query("agent_span")).rows == [row]
    assert sql(path, "select payload, result_payload from spans") == [(first, last)]


@pytest.mark.parametrize(
    "text",
    [
        '{"a": 1,"m":["%s"]}',
        '{"a":{"b" :1},"m":["%s"]}',
        '{"a\\n":1,"m":["%s"]}',
        '{"a":1,"a":2,"m":["%s"]}',
        '{"m":["%s"],"a":{"b" :1}}',
        '{"m":["%s"],"a":{"b":1} ,"a":2}',
        '{"a":{"b":' + "[" * 900 + "]" * 900 + '},"m":["%s"]}',
        '{"a":' + "1" * 5000 + ',"m":["%s"]}',
        '["%s"]',
        '{"m":["%s"],"n":{"$contents":"1"}} ',
    ],
)
def test_what_sqlite_would_not_give_back_as_it_was_stays_whole(path: Path, text: str) -> None:
    storage = SQLiteStorage(path)
    begun(storage)
    row = span(text % ("x" * 600))
    storage.apply([Unit((Put(row),))])
    assert storage.ask(Query("agent_span")).rows == [row]
    assert parts(path) == []


@pytest.mark.full
@settings(max_examples=examples(60), deadline=None)
@given(st.lists(st.tuples(st.dictionaries(any_text, json_values, max_size=4), st.integers(0, 9)), max_size=6))
def test_any_payloads_are_read_as_they_were_in_both_backends(
    tmp_path_factory: pytest.TempPathFactory, said: list[tuple[dict[str, Any], int]]
) -> None:
    path = tmp_path_factory.mktemp("contents") / "runs.db"
    storages: list[Storage] = [SQLiteStorage(path), MemoryStorage()]
    texts = [encode({**more, "messages": [*map(message, range(length)), more]})[0] for more, length in said]
    rows = [span(text, text) for text in texts]
    for storage in storages:
        begun(storage)
        for row in rows[::2]:
            storage.apply([Unit((Put(row, minted=True),))])
        storage.apply([Unit((PutSpans(rows[1::2]),))])
        assert sorted(storage.ask(Query("agent_span")).rows) == sorted(rows)
    assert storages[0].ask(Damage()) == []
    assert sql(path, "select payload from spans order by span") == [(row.payload,) for row in rows]
    for storage in storages:
        storage.close()


SAID = st.text(st.sampled_from('abé1 ."\\n{}[]_→'), max_size=8)


@settings(max_examples=examples(40), deadline=None)
@given(
    st.lists(st.tuples(SAID, st.integers(0, 4), st.sampled_from(["", "$content", "$contents", "$blob:1"])), min_size=1),
    st.lists(SAID, min_size=1, max_size=2),
)
def test_a_search_in_a_run_finds_what_its_whole_payloads_say(
    tmp_path_factory: pytest.TempPathFactory, said: list[tuple[str, int, str]], words: list[str]
) -> None:
    file, memory = SQLiteStorage(tmp_path_factory.mktemp("contents") / "runs.db"), MemoryStorage()
    rows = [
        span(
            history(length, **({name: length} if name else {}), more=[message(1, 600), {name or "a": text}]),
            encode({"output": text, "text": f"{text} {'y ' * 300}", "like": {name: "1-2"}})[0],
            summary=text,
        )
        for text, length, name in said
    ]
    for storage in (file, memory):
        begun(storage)
        storage.apply([Unit((PutSpans(rows),))])
    asked = [*words, *(f"{word}*" for word in words), "role user", "1 x*", "contents 1", "messages role", "y text"]
    asked += [f"{said[0][0]} more", f"{said[0][0]} y"]
    for each in map(terms, ([one] for one in asked)):
        if each:
            found = file.ask(SpansWith(RUN.id, each))
            assert found == memory.ask(SpansWith(RUN.id, each)), each
    file.close()


def test_a_search_in_a_run_reads_each_stored_text_once(path: Path) -> None:
    storage = SQLiteStorage(path)
    begun(storage)
    storage.apply([Unit((PutSpans([span(history(length)) for length in range(60)]),))])
    read: list[str] = []
    original = Matcher.matches

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Matcher, "matches", lambda self, row: read.append(row.id) or original(self, row))
        assert len(storage.ask(SpansWith(RUN.id, ["20 xxx*"]))) == 39
    assert read == []
    storage.close()


def test_a_refused_span_leaves_no_parts(path: Path) -> None:
    storage = SQLiteStorage(path)
    begun(storage)
    first = span(history(4))
    storage.apply([Unit((Put(first),))])
    stranger = RUN._replace(id=ROWS.ids.new())
    for change in (
        Put(first._replace(payload=history(9)), minted=True),
        PutSpans([span(history(9)), first]),
        Put(span(history(9), run=stranger), minted=True),
        PutSpans([span(history(9), run=stranger)]),
        finish(ROWS.ids.new(), result_payload=history(9)),
        Move("agent_span", first.id, frozenset({"failed"}), {"result_payload": history(9), "updated_at": "x"}),
    ):
        assert isinstance(storage.apply([Unit((change,))])[0], Refused), change
        assert len(parts(path)) == 4, change
    assert sql(path, "select count(*) from content_runs") == [(1,)]


def test_what_is_late_in_a_terminated_run_has_its_parts(path: Path) -> None:
    storage = SQLiteStorage(path)
    begun(storage)
    ended = {"status": "terminated", "closed_by": "terminated", "updated_at": "x"}
    open_ = span(history(3))
    storage.apply([Unit((Put(open_),)), Unit((Move("agent_instance", RUN.id, frozenset({"active"}), ended),))])
    late = span(history(5))
    (outcome,) = storage.apply([Unit((Put(late, minted=True),))])
    assert outcome.terminated is not None  # type: ignore[union-attr]
    assert storage.ask(Find(late.id)).rows[late.id][1] == late
    assert len(parts(path)) == 5


def test_an_update_of_an_open_payload_leaves_no_long_texts_behind(path: Path) -> None:
    with agentspan.open(path) as db:
        tracer = agentspan.Tracer(db.storage, durability="commit", raise_errors=True)
        with tracer.run("writer"), tracer.span("llm", {"text": ""}) as written:
            for length in range(1, 30):
                written.update_payload({"text": "so far " * 100 * length})
        tracer.flush()
        assert parts(path) == []
        (found,) = db.storage.ask(Query("agent_span")).rows
        assert json.loads(found.payload)["text"] == "so far " * 2900  # type: ignore[union-attr]


def test_parts_go_with_their_run(path: Path) -> None:
    storage = SQLiteStorage(path)
    begun(storage)
    storage.apply([Unit((Put(span(history(4))), Put(span(history(5), run=OTHER))))])
    ended = {"status": "complete", "updated_at": "x"}
    for row in storage.ask(Query("agent_span")).rows:
        storage.apply([Unit((finish(row.id),))])
    storage.apply([Unit((Move("agent_instance", RUN.id, frozenset({"active"}), ended),))])
    assert storage.ask(RemoveRuns([RUN.id], 5.0)) == (1, 1)
    assert len(parts(path)) == 5
    (last,) = storage.ask(Query("agent_span")).rows
    storage.apply([Unit((Remove("agent_span", last.id), Remove("agent_instance", OTHER.id)))])
    assert parts(path) == []
    assert sql(path, "select count(*) from content_runs") == [(0,)]
    again = span(history(6))
    storage.apply([Unit((Put(RUN), Put(again)))])  # a number of a run is used again
    assert storage.ask(Query("agent_span")).rows == [again]


def test_a_transaction_that_is_rolled_back_leaves_no_parts(path: Path) -> None:
    storage = SQLiteStorage(path)
    begun(storage)

    def work(group: Storage) -> None:
        group.apply([Unit((Put(span(history(4))),))])
        raise InterruptedError

    with pytest.raises(InterruptedError):
        storage.group(work, 5.0)
    assert parts(path) == []
    row = span(history(5))
    storage.apply([Unit((Put(row),))])
    assert storage.ask(Query("agent_span")).rows == [row]


def test_a_guard_on_a_payload_compares_the_whole(path: Path) -> None:
    storage = SQLiteStorage(path)
    begun(storage)
    row = span(history(4))
    storage.apply([Unit((Put(row),))])
    move = Move("agent_span", row.id, frozenset(), {"summary": "s"}, unchanged={"payload": row.payload})
    assert not isinstance(storage.apply([Unit((move,))])[0], Refused)
    assert isinstance(storage.apply([Unit((move._replace(unchanged={"payload": "{}"}),))])[0], Refused)
    assert storage.ask(Query("agent_span", {"payload": row.payload})).rows == [row._replace(summary="s")]


def test_the_error_of_a_span_is_in_the_view_however_long(path: Path) -> None:
    storage = SQLiteStorage(path)
    begun(storage)
    long = "it broke \\n" * 100
    results = [f'{{"error":"{long}"}}', f'{{"error":{{"message":"{long}"}},"m":["{"x" * 600}"]}}', '{"error":"short"}']
    for result in results:
        storage.apply([Unit((Put(span("{}", result, status="failed")),))])
    text = long.replace("\\n", "\n")
    assert sql(path, "select error from spans order by span") == [(text,), (text,), ("short",)]


def test_parts_that_are_gone_are_damage(path: Path) -> None:
    storage = SQLiteStorage(path)
    begun(storage)
    storage.apply([Unit((Put(span(history(4, system="x" * 600))),))])
    connection = sqlite3.connect(path)
    connection.execute("delete from contents where id % 2 = 0")
    connection.execute("update contents set text = '[' where id % 4 = 3")
    connection.commit()
    connection.close()
    assert storage.ask(Damage()) == [
        "1 row of contents cannot be read",
        "1 reference of payload to contents that are not there",
    ]


def test_a_history_is_compared_with_the_last_one_only_if_nobody_else_has_written(path: Path) -> None:
    storages = [SQLiteStorage(path), SQLiteStorage(path)]
    begun(storages[0])
    rows = []
    for number in range(12):
        storage = storages[number // 3 % 2]
        rows.append(span(encode({"messages": [message(each + number // 6) for each in range(number + 3)]})[0]))
        storage.apply([Unit((Put(rows[-1]),))])
    assert len(parts(path)) == 15
    assert storages[0].ask(Query("agent_span")).rows == rows
    for storage in storages:
        storage.close()


@pytest.mark.parametrize(
    "few", [STANDARD._replace(known_content_runs=1), STANDARD._replace(known_content_parts=1)], ids=["runs", "parts"]
)
def test_few_runs_and_parts_are_kept_in_memory(path: Path, few: Tuning) -> None:
    storage = SQLiteStorage(path, tuning=few)
    begun(storage)
    rows = [span(history(number + 4), run=(RUN, OTHER)[number % 2]) for number in range(10)]
    storage.apply([Unit((PutSpans(rows[:4]),)), *[Unit((Put(row),)) for row in rows[4:7]], Unit((PutSpans(rows[7:]),))])
    assert len(parts(path)) == 12 + 13
    assert storage.ask(Query("agent_span")).rows == rows
    storage.close()


def test_what_was_rolled_back_is_not_compared_with(path: Path) -> None:
    storage = SQLiteStorage(path)
    begun(storage)

    def work(group: Storage) -> None:
        group.apply([Unit((Put(span(history(6))),))])
        raise InterruptedError

    storage.apply([Unit((Put(span(history(4))),))])
    with pytest.raises(InterruptedError):
        storage.group(work, 5.0)
    other = [*(message(number) for number in range(4)), message(77), message(5)]
    rows = [span(encode({"messages": other})[0]), span(history(7))]
    key_taken = span(history(8))
    for row in rows:
        storage.apply([Unit((Put(row),))])
        storage.apply([Unit((Put(key_taken), Put(row)))])  # the second is refused, and takes the first with it
    assert [row for row in storage.ask(Query("agent_span")).rows if row.id != key_taken.id][1:] == rows
    assert storage.ask(Damage()) == []


def test_a_history_that_grew_is_not_hashed_again(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from agentspan.storage.sqlite.contents import Numbering

    asked: list[int] = []
    original = Numbering._known

    def known(self: Numbering, texts: Any, apart: bool) -> Any:
        asked.append(len(texts))
        return original(self, texts, apart)

    monkeypatch.setattr(Numbering, "_known", known)
    storage = SQLiteStorage(path)
    begun(storage)
    for length in range(20, 40):
        storage.apply([Unit((Put(span(history(length))),))])
    assert asked == [20, *[1] * 19]


def test_what_is_answered_breaks_no_range(path: Path) -> None:
    storage = SQLiteStorage(path)
    begun(storage)
    rows = []
    for length in range(4, 20):
        result = encode({"text": f"{length} " + "y" * 600, "output": [message(1000 + length, 600)]})[0]
        rows.append(span(history(length, system=f"{length} " + "be kind " * 80), result))
        storage.apply([Unit((Put(rows[-1]),))])
    found = sql(path, "select payload ->> '$.messages.\"$contents\"' from agent_spans order by id")
    assert found == [(f"1-{length}",) for length in range(4, 20)]
    storage.close()
    storage = SQLiteStorage(path)  # which reads what is there
    for length in range(20, 24):
        rows.append(span(history(length), rows[0].result_payload))
        storage.apply([Unit((Put(rows[-1]),))])
    assert storage.ask(Query("agent_span")).rows == rows
    assert sql(path, "select count(*) from contents") == [(23 + 3 * 16,)]
    assert storage.ask(Damage()) == []


def test_a_payload_that_is_learnt_at_the_end_is_stored_once_like_others(path: Path) -> None:
    storage = SQLiteStorage(path)
    begun(storage)
    before = span(history(3))
    late = span("{}", status="active")._replace(result_payload=None)
    storage.apply([Unit((Put(before),)), Unit((Put(late),))])
    payload, result = history(4, instructions="be brief " * 100), encode({"text": "t" * 2000})[0]
    end = finish(late.id, payload=payload, result_payload=result, finished_at=late.started_at)
    known = len(parts(path))
    storage.apply([Unit((end._replace(instance_id=RUN.id),))])
    assert len(parts(path)) == known + 3, "the new message, the long text, and the text of the result"
    stored = storage.ask(Find(late.id)).rows[late.id][1]
    assert isinstance(stored, AgentSpanRow)
    assert (stored.payload, stored.result_payload) == (payload, result)


def steps(path: Path, query: str) -> int:
    """Return how many instructions of SQLite's machine a query takes."""
    connection = sqlite3.connect(path)
    connection.execute("select count(*) from agent_spans").fetchall()  # which reads the schema
    counted = 0

    def count() -> None:
        nonlocal counted
        counted += 1

    connection.set_progress_handler(count, 1)
    try:
        connection.execute(query).fetchall()
    finally:
        connection.close()
    return counted


def test_a_payload_with_one_reference_is_read_without_joining_its_other_members(path: Path) -> None:
    with closing(SQLiteStorage(path)) as storage:
        begun(storage)
        members = {f"member_{number}": number for number in range(50)}
        alone, both = history(4, **members), history(4, tools=[message(9)] * 3, **members)
        rows = [span(alone), span(both)]
        storage.apply([Unit((Put(row),)) for row in rows])
    queries = [f"select payload from spans where span = '{row.id}'" for row in rows]
    assert [sql(path, query) for query in queries] == [[(alone,)], [(both,)]]
    few, many = (steps(path, query) for query in queries)
    assert 4 * few < many


@pytest.mark.parametrize(
    "quoted", ['{"$contents":"1-2"}', '{"$content":1}', '[{"$contents":"1-2"}]', '{"a":{"$contents":"1-2"}}']
)
def test_a_reference_that_a_payload_quotes_in_a_deeper_object_stays(path: Path, quoted: str) -> None:
    texts = [history(4).replace('"model":"m"', f'"model":{{"quoted":{quoted}}}'), history(3, said=json.loads(quoted))]
    texts += [f'{{"x":{quoted},"text":"{"y" * 600}"}}', f'{{"text":"{"y" * 600}","x":{{"$contents":"{"z" * 600}"}}}}']
    with closing(SQLiteStorage(path)) as storage:
        begun(storage)
        storage.apply([Unit((Put(span(text, text)),)) for text in texts])
    shown = sql(path, "select payload, result_payload from spans order by span")
    assert sorted(shown) == sorted((text, text) for text in texts)


def test_a_payload_whose_parts_are_gone_shows_its_reference(path: Path) -> None:
    with closing(SQLiteStorage(path)) as storage:
        begun(storage)
        storage.apply([Unit((Put(span(f'{{"model":"m","text":"{"y" * 600}"}}')),))])
    connection = sqlite3.connect(path)
    connection.execute("delete from contents")
    connection.commit()
    connection.close()
    assert sql(path, "select payload from spans") == [('{"model":"m","text":{"$content":2147483649}}',)]


def test_equal_elements_of_a_list_take_no_longer_than_others(path: Path) -> None:
    """Before, 70,000 of them, 2.5 MB, took 14 s."""
    took: dict[bool, float] = {}
    with closing(SQLiteStorage(path)) as storage:
        begun(storage)
        for is_equal, run in ((False, RUN), (True, OTHER)):
            items = [["Accept", f"{0 if is_equal else number:030}"] for number in range(16_000)]
            row = span(encode({"headers": items})[0], run=run)
            start = time.process_time()
            storage.apply([Unit((Put(row),))])
            took[is_equal] = time.process_time() - start
            assert storage.ask(Find(row.id)).rows[row.id][1] == row
    assert took[True] < 5 * took[False]
