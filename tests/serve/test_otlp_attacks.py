"""What nobody should send is answered with 4xx or partial success, takes bounded memory, and costs others nothing."""

import gzip
import json
import random
import tracemalloc
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from agentspan.ids import IdSource
from agentspan.otel import copies
from agentspan.otel.otlp.json_bodies import (
    LINK,
    MAX_ATTRIBUTES,
    MAX_ITEMS,
    MAX_MEMBERS,
    MAX_STATE,
    MAX_TRACES,
    VALUES_OF_REQUEST,
)
from agentspan.otel.otlp.requests import plain, read_file
from agentspan.storage.memory import MemoryStorage
from tests.otel.recorded import NAMES
from tests.otel.requests import body_of, export_request, protobuf_of, requests_of
from tests.serve.asgi import Client
from tests.serve.otlp import JSON, PROTOBUF, field, protobuf_spans, spans, string, wrapped
from tests.tiers import longer

pytestmark = pytest.mark.full

MUTATIONS = longer("AGENTSPAN_TEST_MUTATIONS", 50, 80, 20_000)
MB = 2**20
RUN = IdSource(1).new()
MANY = 1_000_000 if MUTATIONS > 1000 else 110_000


def send(client: Client, body: bytes, form: dict[str, str], **headers: str) -> Any:
    answer = client.post("/v1/traces", content=body, headers={**form, **headers})
    assert answer.status_code < 500, answer.content
    return answer


@pytest.mark.parametrize("form", [PROTOBUF, JSON], ids=["protobuf", "json"])
def test_a_bomb_takes_no_more_memory_than_the_limit(form: dict[str, str], client: Client) -> None:
    for content in (b"\0", b'{"a":'):
        bomb = gzip.compress(content * (40 * MB // len(content)), 1)
        send(client, b"", form)
        tracemalloc.start()
        answer = send(client, bomb, form, **{"Content-Encoding": "gzip"})
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert answer.status_code == 413
        assert peak < 64 * MB


def test_very_many_attributes(client: Client, stored: MemoryStorage) -> None:
    many = [string(f"a{number}", "x") for number in range(20_000)]
    request = export_request({"attributes": many}, {"name": "other"})
    for body, form in ((body_of(request), JSON), (protobuf_of(request), PROTOBUF)):
        assert send(client, body, form).status_code == 200
    kept, other = sorted(spans(stored), key=lambda row: -len(row.payload))
    payload = json.loads(kept.payload)
    assert (len(payload["attributes"]), payload["dropped"]) == (MAX_ATTRIBUTES, {"attributes": 10_000})
    assert other.schema_name == "other"


@pytest.mark.nightly
def test_a_million_attributes_lose_their_span_only(client: Client, stored: MemoryStorage) -> None:
    pair = b"\x4a\x0b\x0a\x03abc\x12\x04\x0a\x02xy"
    (span,) = protobuf_spans(export_request({"name": "large"}))
    bodies = (
        wrapped(span + pair * MANY),
        wrapped(span + pair * MANY, *protobuf_spans(export_request({"spanId": "00000000000000cc", "name": "other"}))),
    )
    tracemalloc.start()
    answers = [send(client, body, PROTOBUF) for body in bodies]
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert [answer.status_code for answer in answers] == [200, 200]
    assert all(b"more than 100,000 values" in answer.content for answer in answers)
    assert [row.schema_name for row in spans(stored)] == ["other"]
    assert peak < 200 * MB


def test_nesting(client: Client, stored: MemoryStorage) -> None:
    (span,) = protobuf_spans(export_request({"name": "deep"}))
    (other,) = protobuf_spans(export_request({"spanId": "00000000000000cc", "name": "other"}))
    value = field(1, b"x")
    for _ in range(10_000):
        value = field(5, field(1, value))
    deep = span + field(9, field(1, b"k") + field(2, value))
    assert b"nested too deep" in send(client, wrapped(deep, other), PROTOBUF).content
    text = b'{"arrayValue":{"values":[' * 10_000 + b'{"stringValue":"x"}' + b"]}}" * 10_000
    attribute = b'[{"key":"k","value":' + text + b"}]"
    body = body_of(export_request({"spanId": "00000000000000dd", "attributes": []}, {"spanId": "00000000000000ee"}))
    answer = send(client, body.replace(b'"attributes": []}', b'"attributes": ' + attribute + b"}", 2), JSON)
    assert answer.status_code in (200, 400)
    assert "other" in [row.schema_name for row in spans(stored)]


def test_invalid_utf_8_and_wrong_wire_types_lose_their_span_only(client: Client, stored: MemoryStorage) -> None:
    (other,) = protobuf_spans(export_request({"spanId": "00000000000000cc", "name": "other"}))
    for number, name in enumerate((b"\xff\xfe", b"a\xc3", b"\xed\xa0\x80")):
        (span,) = protobuf_spans(export_request({"spanId": f"{number + 1:016x}", "name": ""}))
        answer = send(client, wrapped(span + field(5, name), other), PROTOBUF)
        assert b"no UTF-8" in answer.content
    (span,) = protobuf_spans(export_request({"name": ""}))
    for broken in (b"\x28\x05", b"\x2b", b"\x2f", b"\x2a\xff\xff\xff\xff\x0f"):  # name as number, group, 7, too long
        assert send(client, wrapped(span + broken, other), PROTOBUF).status_code in (200, 400)
    assert "other" in [row.schema_name for row in spans(stored)]


def test_cut_bodies(client: Client) -> None:
    body = protobuf_of(requests_of("openai-genai")[0][1])
    for size in range(1, len(body), max(1, len(body) // 60)):
        assert send(client, body[:size], PROTOBUF).status_code in (200, 400)
        assert send(client, gzip.compress(body)[: size // 8], PROTOBUF, **{"Content-Encoding": "gzip"}).status_code in (
            200,
            400,
        )


def test_mutations_of_recorded_bodies_are_never_a_fault(client: Client, stored: MemoryStorage) -> None:
    """`AGENTSPAN_TEST_ROUNDS=10000` makes more of them."""
    chance = random.Random(16)
    bodies = [(protobuf_of(each, signal), PROTOBUF, signal) for name in NAMES for signal, each in requests_of(name)]
    bodies += [(body_of(each), JSON, signal) for name in NAMES for signal, each in requests_of(name)]
    bodies = [each for each in bodies if len(each[0]) < 60_000]
    for _ in range(MUTATIONS):
        body, form, signal = chance.choice(bodies)
        broken = bytearray(body)
        for _ in range(chance.randint(1, 4)):
            at = chance.randrange(len(broken))
            match chance.randrange(4):
                case 0:
                    broken[at] = chance.randrange(256)
                case 1:
                    del broken[at : at + chance.randint(1, 30)]
                case 2:
                    broken[at:at] = bytes(chance.randrange(256) for _ in range(chance.randint(1, 30)))
                case _:
                    broken[at] ^= 1 << chance.randrange(8)
            broken = broken or bytearray(b"\0")
        answer = client.post(f"/v1/{signal}", content=bytes(broken), headers=form)
        assert answer.status_code in (200, 400), (answer.status_code, answer.content[:200])
    assert send(client, body_of(export_request({"name": "after all"})), JSON).status_code == 200
    assert "after all" in [row.schema_name for row in spans(stored)]


EMPTY = b"\x12\x00"
"""An empty message in field 2."""
TIMES = 1_000_000


def empty_spans(times: int) -> bytes:
    return field(1, field(2, EMPTY * times))


def in_json(form: str, times: int) -> bytes:
    return form.replace("ITEM", ",".join(["{}"] * times)).encode()


def text_attribute(items: bytes) -> bytes:
    return field(1, b"gen_ai.input.messages") + field(2, field(1, b"[" + items + b"{},[]]"))


SPANS = '{"resourceSpans":[{"scopeSpans":[{"spans":[ITEM]}]}]}'
SCOPES = '{"resourceSpans":[{"scopeSpans":[ITEM]}]}'
RESOURCES = '{"resourceSpans":[ITEM]}'
LOGS = '{"resourceLogs":[{"scopeLogs":[{"logRecords":[ITEM]}]}]}'
NUMBERS = b"\x28\x01"
"""A field with a number."""
MANY_BODIES: dict[str, tuple[str, Callable[[], bytes], dict[str, str]]] = {
    "spans": ("traces", lambda: empty_spans(TIMES), PROTOBUF),
    "spans, fewer": ("traces", lambda: empty_spans(60_000), PROTOBUF),
    "log records": ("logs", lambda: empty_spans(TIMES), PROTOBUF),
    "scopes": ("traces", lambda: field(1, EMPTY * TIMES), PROTOBUF),
    "resources": ("traces", lambda: b"\x0a\x00" * TIMES, PROTOBUF),
    "resources of a group": ("traces", lambda: field(1, b"\x0a\x00" * TIMES), PROTOBUF),
    "numbers": ("traces", lambda: field(1, NUMBERS * TIMES), PROTOBUF),
    "objects in a message": ("traces", lambda: wrapped(field(9, text_attribute(b"{}," * TIMES))), PROTOBUF),
    "lists in a message": ("logs", lambda: wrapped(field(6, text_attribute(b"[]," * TIMES))), PROTOBUF),
    "spans in JSON": ("traces", lambda: in_json(SPANS, TIMES), JSON),
    "spans in JSON, fewer": ("traces", lambda: in_json(SPANS, 60_000), JSON),
    "scopes in JSON": ("traces", lambda: in_json(SCOPES, TIMES), JSON),
    "resources in JSON": ("traces", lambda: in_json(RESOURCES, 60_000), JSON),
    "members in JSON": ("traces", lambda: b'{"a":0' + b',"a":0' * TIMES + b"}", JSON),
    "elements in JSON": ("traces", lambda: b'{"a":[' + b'"",' * TIMES + b"{}, {}]}", JSON),
    "log records in JSON": ("logs", lambda: in_json(LOGS, TIMES), JSON),
}


@pytest.mark.parametrize(("signal", "make", "form"), MANY_BODIES.values(), ids=MANY_BODIES.keys())
def test_too_many_messages_are_refused_before_they_are_decoded(
    client: Client, signal: str, make: Callable[[], bytes], form: dict[str, str]
) -> None:
    body = make()
    client.post(f"/v1/{signal}", content=b"", headers=form)
    tracemalloc.start()
    answer = client.post(f"/v1/{signal}", content=body, headers=form)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert answer.status_code == 400
    assert b"has more than" in answer.content
    assert peak < 4 * len(body) + 16 * MB + (100 * 60_000 if form is JSON else 0)


@pytest.mark.parametrize(
    ("item", "count"), [(b"\x4a\x00", 4_900_000), (b"\xf8\x06\x01", 4_000_000), (b"\x6a\x00", 5_000_000)]
)
def test_ten_kilobytes_do_not_become_ten_megabytes(client: Client, item: bytes, count: int) -> None:
    """Attributes, unknown fields, links: to count them took seconds."""
    (span,) = protobuf_spans(export_request({"name": "small"}))
    packed = gzip.compress(wrapped(span + item * count), 9)
    assert len(packed) < 12_000
    answer = send(client, packed, PROTOBUF, **{"Content-Encoding": "gzip"})
    assert answer.status_code == 413
    assert b"more than 1," in answer.content
    whole = gzip.compress(wrapped(span + item * (900_000 // len(item))), 9)
    assert send(client, whole, PROTOBUF, **{"Content-Encoding": "gzip"}).status_code == 200


def test_links_and_events_are_bounded_over_all_spans_of_a_request(client: Client, stored: MemoryStorage) -> None:
    most = VALUES_OF_REQUEST // LINK
    for kind, number in (("links", 13), ("events", 11)):
        heads = protobuf_spans(export_request(*({"spanId": f"{number}{n:014x}", "name": kind} for n in range(1, 301))))
        packed = wrapped(*[head + bytes([number << 3 | 2, 0]) * 500 for head in heads])
        in_json = export_request(*({"spanId": f"{number}{n:014x}", kind: [{}] * 500} for n in range(1001, 1301)))
        for body, form in ((packed, PROTOBUF), (body_of(in_json), JSON)):
            before = {row.id for row in spans(stored)}
            answer = send(client, body, form)
            assert (answer.status_code, b"500,000 values" in answer.content) == (200, True)
            new = [json.loads(row.payload) for row in spans(stored) if row.id not in before]
            assert most - 500 <= sum(len(payload[kind]) for payload in new) <= most


def test_a_request_has_so_many_traces(client: Client, stored: MemoryStorage) -> None:
    many = [{"traceId": f"{n + 1:032x}", "name": "root"} for n in range(MAX_TRACES + 3)]
    late = {"traceId": f"{1:032x}", "spanId": "f" * 16, "name": "late"}
    answer = send(client, body_of(export_request(*many, late)), JSON)
    assert (answer.status_code, answer.json()["partialSuccess"]["rejectedSpans"]) == (200, "3")
    assert "more than 3,000 traces; send fewer" in answer.json()["partialSuccess"]["errorMessage"]
    assert sorted(row.schema_name for row in spans(stored)) == ["late", *["root"] * MAX_TRACES]


def test_a_trace_state_is_cut_off(client: Client, stored: MemoryStorage) -> None:
    for number, (encode, form) in enumerate(((body_of, JSON), (protobuf_of, PROTOBUF))):
        send(client, encode(export_request({"spanId": f"{number + 1:016x}", "traceState": "a=b," * 50_000})), form)
    kept = {len(json.loads(row.payload)["otel"]["trace_state"]) for row in spans(stored)}
    assert kept == {MAX_STATE - 1}


def test_as_many_spans_as_may_come_are_taken(client: Client) -> None:
    answer = client.post("/v1/traces", content=empty_spans(MAX_ITEMS - 2), headers=PROTOBUF)
    assert answer.status_code == 200
    assert b"a span has no time" in answer.content
    assert client.post("/v1/traces", content=empty_spans(MAX_ITEMS - 1), headers=PROTOBUF).status_code == 400
    body = in_json(SPANS, MAX_ITEMS - 2)
    assert client.post("/v1/traces", content=body, headers=JSON).status_code == 200
    assert client.post("/v1/traces", content=in_json(SPANS, MAX_ITEMS), headers=JSON).status_code == 400


def test_as_many_members_as_may_come_are_taken(client: Client, stored: MemoryStorage) -> None:
    """What is within a text is no member."""
    (answer,) = [
        send(client, body_of(export_request({"name": "said", "attributes": [string("k", said)]})), JSON)
        for said in ['{"a": 1, "b": [1, 2]}, ' * (MAX_MEMBERS // 2)]
    ]
    assert (answer.status_code, answer.content) == (200, b"{}")
    assert [row.schema_name for row in spans(stored)] == ["said"]
    for count, status in ((MAX_MEMBERS, 200), (MAX_MEMBERS + 1, 400)):
        body = b"{" + b",".join(b'"%x":0' % number for number in range(count)) + b"}"
        assert send(client, body, JSON).status_code == status


def test_a_copy_with_very_many_values_keeps_them_as_a_text(client: Client, stored: MemoryStorage) -> None:
    many = json.dumps({"a": ["a1"] * copies.MAX_PARTS})
    for span_id, value in (("a", many), ("b", json.dumps({"a": [1] * copies.MAX_PARTS, "said": "[,]" * 900_000}))):
        said = {"agentspan.id": IdSource(1).new(), "agentspan.status": "complete", "input.value": value}
        request = export_request({"spanId": span_id * 16, "attributes": [string(*each) for each in said.items()]})
        group = request["resourceSpans"][0]
        group["resource"] = {"attributes": [string("agentspan.run.id", RUN)]}
        group["scopeSpans"][0]["scope"] = {"name": "agentspan"}
        assert send(client, body_of(request), JSON).content == b"{}"
    first, second = (json.loads(row.payload) for row in spans(stored))
    assert first == {"input.value": many}
    assert len(second["a"]) == copies.MAX_PARTS


def test_a_file_may_have_any_number(tmp_path: Path) -> None:
    (span,) = protobuf_spans(export_request({"name": "one"}))
    for name, body in (
        ("spans.pb", wrapped(span, *[b""] * (MAX_ITEMS + 1))),
        ("spans.json", in_json(SPANS, MAX_ITEMS + 1)),
    ):
        (tmp_path / name).write_bytes(body)
        with (tmp_path / name).open("rb") as file:
            ((_, decoded),) = read_file(file)
        assert decoded.rejected == MAX_ITEMS + 1


def test_members_of_gzip_are_bounded_and_take_linear_time(client: Client, stored: MemoryStorage) -> None:
    (span,) = protobuf_spans(export_request({"name": "parted"}))
    body = wrapped(span)
    parts = [gzip.compress(body[at : at + 1]) for at in range(len(body))]
    assert len(parts) < 1000
    for packed in (b"".join(parts), b"\0".join(parts) + b"\0" * 100_000):
        assert send(client, packed, PROTOBUF, **{"Content-Encoding": "gzip"}).status_code == 200
    assert [row.schema_name for row in spans(stored)] == ["parted"]
    empty = gzip.compress(b"")
    assert send(client, empty * 1000, PROTOBUF, **{"Content-Encoding": "gzip"}).status_code == 200
    refused = send(client, empty * 50_000, PROTOBUF, **{"Content-Encoding": "gzip"})
    assert (refused.status_code, b"members of gzip" in refused.content) == (400, True)


def test_a_member_is_decompressed_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Before, each member copied all that followed it."""
    body = gzip.compress(bytes(random.Random(1).randbytes(1000))) * 1000
    seen = 0
    original = zlib.decompressobj

    class Counted:
        def __init__(self, bits: int) -> None:
            self._stream = original(bits)

        def decompress(self, data: bytes, limit: int) -> bytes:
            nonlocal seen
            seen += len(data)
            return self._stream.decompress(data, limit)

        def __getattr__(self, name: str) -> Any:
            return getattr(self._stream, name)

    monkeypatch.setattr(zlib, "decompressobj", Counted)
    assert len(plain(body, "gzip")) == 1_000_000
    assert seen < 20 * len(body)
