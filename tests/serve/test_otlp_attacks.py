"""What nobody should send is answered with 4xx or partial success, takes bounded memory, and costs others nothing."""

import gzip
import json
import random
import tracemalloc
from typing import Any

import pytest

from agentspan.otel.otlp.decoded import MAX_ATTRIBUTES
from agentspan.storage.memory import MemoryStorage
from tests.otel.recorded import NAMES
from tests.otel.requests import body_of, export_request, protobuf_of, requests_of
from tests.serve.asgi import Client
from tests.serve.otlp import JSON, PROTOBUF, field, protobuf_spans, spans, string, wrapped
from tests.tiers import longer

pytestmark = pytest.mark.full

MUTATIONS = longer("AGENTSPAN_TEST_MUTATIONS", 50, 300, 20_000)
MB = 2**20
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
