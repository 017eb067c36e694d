"""Requests of exporters: both encodings, both compressions, and all that may be wrong with one."""

import builtins
import gzip
import json
import random
import tracemalloc
import zlib
from typing import Any, Literal, cast

import pytest

from agentspan.errors import InvalidValue
from agentspan.otel.otlp import protobuf_bodies
from agentspan.otel.otlp.json_bodies import MAX_ATTRIBUTES, MAX_REASONS, MAX_VALUES, BodyTooLarge, Decoded, MissingExtra
from agentspan.otel.otlp.requests import JSON, PROTOBUF, decode, plain
from tests.otel.recorded import NAMES
from tests.otel.requests import body_of, export_request, protobuf_of, requests_of

FORMS = (JSON, PROTOBUF)


def _encoded(request: dict[str, Any], form: str, signal: str = "traces") -> bytes:
    return body_of(request) if form == JSON else protobuf_of(request, signal)


def _decode(request: dict[str, Any], form: str) -> Decoded:
    return decode("traces", _encoded(request, form), form)


@pytest.mark.parametrize("name", NAMES)
def test_both_encodings_say_the_same(name: str) -> None:
    for signal, request in requests_of(name):
        kind = cast(Literal["traces", "logs"], signal)
        one, other = (decode(kind, _encoded(request, form, signal), f"{form}; charset=utf-8") for form in FORMS)
        assert (one.spans, one.logs, one.unusable) == (other.spans, other.logs, {})
        assert one.spans or one.logs


def _attribute(value: Any) -> dict[str, Any]:
    return {"attributes": [{"key": "a", "value": value}]}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize(
    ("value", "read"),
    [
        ({"stringValue": "x"}, "x"),
        ({"boolValue": False}, False),
        ({"intValue": "-9007199254740993"}, -9007199254740993),
        ({"intValue": 7}, 7),
        ({"doubleValue": 0.5}, 0.5),
        ({"doubleValue": "NaN"}, "nan"),
        ({"bytesValue": "aGk="}, "aGk="),
        ({"arrayValue": {"values": [{"intValue": 1}, {"stringValue": "b"}]}}, [1, "b"]),
        ({"kvlistValue": {"values": [{"key": "k", "value": {"boolValue": True}}]}}, {"k": True}),
        ({}, None),
    ],
)
def test_values_of_attributes(form: str, value: Any, read: Any) -> None:
    (span,) = _decode(export_request(_attribute(value)), form).spans
    assert span.attributes == {"a": read} if read != "nan" else str(span.attributes["a"]).lower() == "nan"


@pytest.mark.parametrize("form", FORMS)
def test_the_members_of_a_span(form: str) -> None:
    said = {
        "parentSpanId": "cd" * 8,
        "kind": 3,
        "status": {"code": 2, "message": "no"},
        "events": [{"name": "e", "timeUnixNano": "5", **_attribute({"intValue": 1})}],
        "links": [{"traceId": "ef" * 16, "spanId": "12" * 8, **_attribute({"intValue": 2})}],
        "droppedAttributesCount": 3,
    }
    request = export_request(said, name="scope", version="1.2")
    request["resourceSpans"][0]["scopeSpans"][0]["schemaUrl"] = "https://opentelemetry.io/schemas/1.37.0"
    (span,) = _decode(request, form).spans
    assert (span.trace_id, span.span_id, span.parent_span_id) == ("ab" * 16, "0" * 15 + "1", "cd" * 8)
    assert (span.start_ns, span.end_ns, span.kind, span.status, span.status_message) == (
        10**9,
        2 * 10**9,
        "CLIENT",
        "ERROR",
        "no",
    )
    assert (span.scope.name, span.scope.version) == ("scope", "1.2")
    assert span.scope.schema_url == "https://opentelemetry.io/schemas/1.37.0"
    assert [(event.name, event.time_ns, event.attributes) for event in span.events] == [("e", 5, {"a": 1})]
    assert [(link.trace_id, link.span_id, link.attributes) for link in span.links] == [("ef" * 16, "12" * 8, {"a": 2})]
    assert (span.resource, span.dropped) == ({"service.name": "agent"}, {"attributes": 3})


@pytest.mark.parametrize("name", NAMES)
def test_a_body_that_is_parted_first_says_the_same(name: str) -> None:
    bodies = [protobuf_of(request) for signal, request in requests_of(name) if signal == "traces"]
    at_once = [decode("traces", body, PROTOBUF) for body in bodies]
    assert [protobuf_bodies.spans(body, at_once=0) for body in bodies] == at_once


@pytest.mark.full
def test_a_span_with_too_many_values_in_a_small_body_loses_only_itself() -> None:
    from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

    message = ExportTraceServiceRequest.FromString(protobuf_of(export_request({}, {})))
    many = _length_delimited(5, _length_delimited(1, b"") * (MAX_VALUES + 1))
    attribute = _length_delimited(1, b"k") + _length_delimited(2, many)
    message.resource_spans[0].scope_spans[0].spans[0].MergeFromString(_length_delimited(9, attribute))
    body = message.SerializeToString()
    assert len(body) < protobuf_bodies.AT_ONCE
    found = decode("traces", body, PROTOBUF)
    assert [span.span_id for span in found.spans] == ["0000000000000002"]
    assert found.unusable == {f"a span has more than {MAX_VALUES:,} values": 1}


def test_json_may_have_enums_as_names_ids_in_capitals_and_unknown_members() -> None:
    said = {"spanId": "AB" * 8, "kind": "SPAN_KIND_SERVER", "status": {"code": "STATUS_CODE_OK"}, "new": {"a": [1]}}
    (span,) = _decode(export_request({**said, "startTimeUnixNano": 1000}), JSON).spans
    assert (span.span_id, span.kind, span.status, span.start_ns) == ("ab" * 8, "SERVER", "OK", 1000)


@pytest.mark.parametrize("form", FORMS)
def test_a_span_that_cannot_be_used_loses_only_itself(form: str) -> None:
    decoded = _decode(export_request({}, {"spanId": "00" * 8}, {"traceId": "ab" * 15}, {"name": "last"}), form)
    assert [span.name for span in decoded.spans] == ["step", "last"]
    assert decoded.rejected == 2
    assert "hexadecimal digits" in decoded.why() or "bytes" in decoded.why()


def test_reasons_are_counted_and_few() -> None:
    decoded = Decoded()
    for number in range(1000):
        decoded.reject(f"reason {number}")
    assert (decoded.rejected, len(decoded.unusable)) == (1000, MAX_REASONS + 1)


def test_a_span_that_has_not_ended() -> None:
    for form in FORMS:
        (span,) = _decode(export_request({"endTimeUnixNano": "0"}), form).spans
        assert span.end_ns is None


@pytest.mark.parametrize("form", FORMS)
def test_log_records_outside_a_span_are_left_out(form: str) -> None:
    inside = {"traceId": "ab" * 16, "spanId": "cd" * 8, "eventName": "gen_ai.choice", "body": {"stringValue": "x"}}
    named = {**inside, "eventName": "", **_attribute({"intValue": 1}), "observedTimeUnixNano": "9"}
    named["attributes"].append({"key": "event.name", "value": {"stringValue": "old"}})
    request = {"resourceLogs": [{"scopeLogs": [{"logRecords": [inside, named, {"body": {"stringValue": "a line"}}]}]}]}
    decoded = decode("logs", _encoded(request, form, "logs"), form)
    assert [(log.event.name, log.event.body) for log in decoded.logs] == [("gen_ai.choice", "x"), ("old", "x")]
    assert (decoded.logs[1].event.time_ns, decoded.rejected) == (9, 0)


def test_an_empty_body_has_no_spans() -> None:
    for form in FORMS:
        assert decode("traces", b"", form) == Decoded()
    assert decode("traces", b"{}", JSON) == Decoded()


@pytest.mark.parametrize(
    "body",
    [b"{", b"[]", b"1", b"\xff", b'{"resourceSpans": [', b"[" * 10_000, b'{"a":' * 10_000, b"{" * 1_100_000],
    ids=["cut", "list", "number", "no UTF-8", "cut list", "deep list", "deep object", "many objects"],
)
def test_json_that_is_none(body: bytes) -> None:
    with pytest.raises(InvalidValue) as caught:
        decode("traces", body, JSON)
    assert "\xff" not in str(caught.value)


@pytest.mark.parametrize(
    "body", [b"\x0a", b"\x0a\xff", b"\x00\x00", b"\x0b", b"\x0a\x05\x0a", b"not protobuf", b"\xff" * 20]
)
def test_protobuf_that_is_none(body: bytes) -> None:
    with pytest.raises(InvalidValue):
        decode("traces", body, PROTOBUF)


def test_other_types_and_encodings_are_named() -> None:
    with pytest.raises(InvalidValue, match="application/x-protobuf"):
        decode("traces", b"{}", "text/plain")
    with pytest.raises(InvalidValue, match="gzip"):
        decode("traces", b"{}", JSON, "br")


def test_protobuf_without_its_package_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def missing(name: str, *args: Any, **kwargs: Any) -> Any:
        if name.startswith("opentelemetry"):
            raise ImportError(name)
        return real(name, *args, **kwargs)

    monkeypatch.setattr(protobuf_bodies, "_loaded", [])
    monkeypatch.setattr(builtins, "__import__", missing)
    with pytest.raises(MissingExtra, match=r"agentspan-sqlite\[otlp\]"):
        decode("traces", b"\x0a\x00", PROTOBUF)


# Compression


@pytest.mark.parametrize(
    ("encoding", "compress"),
    [
        ("gzip", gzip.compress),
        ("GZIP", lambda data: gzip.compress(data[:5]) + gzip.compress(data[5:])),
        ("deflate", zlib.compress),
        ("deflate", lambda data: zlib.compress(data)[2:-4]),
        ("identity", bytes),
        (None, bytes),
    ],
)
def test_compressions(encoding: str | None, compress: Any) -> None:
    data = body_of(export_request({}))
    assert plain(compress(data), encoding) == data
    assert plain(compress(data), encoding, len(data)) == data
    with pytest.raises(BodyTooLarge):
        plain(compress(data), encoding, len(data) - 1)


@pytest.mark.parametrize("encoding", ["gzip", "deflate"])
def test_a_compressed_body_that_is_cut_off_or_none(encoding: str) -> None:
    whole = (gzip.compress if encoding == "gzip" else zlib.compress)(body_of(export_request({})))
    for broken in (whole[:-9], whole[: len(whole) // 2], b"hello", b"\x1f\x8b", b"\x78\x9c"):
        with pytest.raises(InvalidValue):
            decode("traces", broken, JSON, encoding)


def test_a_bomb_is_never_inflated_beyond_the_limit() -> None:
    bomb = gzip.compress(bytes(30_000_000))
    tracemalloc.start()
    with pytest.raises(BodyTooLarge, match="1,000,000 bytes"):
        plain(bomb, "gzip", 1_000_000)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 10_000_000


# Memory, depth and noise


def _nested(depth: int) -> dict[str, Any]:
    value: dict[str, Any] = {"stringValue": "x"}
    for _ in range(depth):
        value = {"arrayValue": {"values": [value]}}
    return value


def test_values_that_are_nested_too_deep() -> None:
    (span,) = _decode(export_request(_attribute(_nested(90))), JSON).spans
    assert "nested too deep" in json.dumps(span.attributes)
    decoded = _decode(export_request(_attribute(_nested(40))), PROTOBUF)
    assert len(decoded.spans) == 1
    text = b'{"arrayValue":{"values":[' * 10_000
    with pytest.raises(InvalidValue):
        decode("traces", text, JSON)


def _length_delimited(number: int, data: bytes) -> bytes:
    size, out = len(data), bytearray([number << 3 | 2])
    while size > 127:
        out.append(size & 127 | 128)
        size >>= 7
    return bytes(out + bytes([size]) + data)


def _with_span(span: bytes) -> bytes:
    """A request with one good span, the given one, and another good one."""
    ids = _length_delimited(1, b"\xab" * 16) + _length_delimited(2, b"\xcd" * 8) + b"\x39" + b"\x01" * 8
    spans = b"".join(_length_delimited(2, each) for each in (ids, ids + span, ids))
    return _length_delimited(1, _length_delimited(2, spans))


def _deep_protobuf(depth: int) -> bytes:
    value = b""
    for _ in range(depth):
        value = _length_delimited(5, _length_delimited(1, value))
    return _length_delimited(9, _length_delimited(1, b"a") + _length_delimited(2, value))


@pytest.mark.full
@pytest.mark.parametrize(
    "span",
    [
        _deep_protobuf(10_000),
        _length_delimited(9, _length_delimited(1, b"\xff\xfe")),
        _length_delimited(5, b"\xff\xfe"),
        b"\x4a\x00" * 1_000_000,
        _length_delimited(9, _length_delimited(2, _length_delimited(5, b"\x0a\x00" * 500_000))),
        b"\x4a\x7f" + bytes(300_000),
    ],
    ids=["deep", "key no UTF-8", "name no UTF-8", "1,000,000 attributes", "500,000 values", "broken"],
)
def test_a_hostile_span_of_protobuf_loses_only_itself(span: bytes) -> None:
    decoded = decode("traces", _with_span(span), PROTOBUF)
    assert (len(decoded.spans), decoded.rejected) == (2, 1)


@pytest.mark.parametrize("field", [b"\x49" + bytes(8), b"\x48\x05", b"\x08\x05", b"\x15\x01\x02\x03\x04"])
def test_fields_of_another_wire_type_are_ignored(field: bytes) -> None:
    decoded = decode("traces", _with_span(field), PROTOBUF)
    assert (len(decoded.spans), decoded.rejected) == (3, 0)


@pytest.mark.full
def test_a_span_of_json_with_too_many_attributes() -> None:
    many = [{"key": f"k{number}", "value": {"intValue": 1}} for number in range(MAX_ATTRIBUTES + 5)]
    (span,) = _decode(export_request({"attributes": many}), JSON).spans
    assert (len(span.attributes), span.dropped) == (MAX_ATTRIBUTES, {"attributes": 5})
    values = {"arrayValue": {"values": [{"intValue": 1}] * 100_001}}
    decoded = _decode(export_request(_attribute(values), {}), JSON)
    assert (len(decoded.spans), decoded.rejected) == (1, 1)


WRONG: list[Any] = [None, 1, -1, 2**70, 1.5, "x", "", True, [], {}, [None], [1], [[]], {"values": 1}]


@pytest.mark.parametrize("wrong", ["--5", "-", "", "5-", "+5", "\u0665", "1" * 21])
def test_a_text_that_is_no_number_is_none(wrong: str) -> None:
    (span,) = _decode(export_request(_attribute({"intValue": wrong})), JSON).spans
    assert span.attributes == {"a": None}


@pytest.mark.parametrize("wrong", WRONG)
def test_members_of_wrong_types_in_json(wrong: Any) -> None:
    members = [
        *("traceId", "spanId", "parentSpanId", "name", "kind", "startTimeUnixNano", "endTimeUnixNano", "attributes"),
        *("events", "links", "status", "droppedAttributesCount"),
    ]
    spans = [{name: wrong} for name in members]
    spans += [{"attributes": [{"key": wrong, "value": wrong}, wrong]}, {"events": [wrong, {"attributes": wrong}]}]
    spans += [
        _attribute({name: wrong}) for name in ("stringValue", "intValue", "doubleValue", "arrayValue", "kvlistValue")
    ]
    spans += [_attribute({"kvlistValue": {"values": wrong}}), {"status": {"code": wrong, "message": wrong}}]
    decoded = _decode(export_request(*spans), JSON)
    assert len(decoded.spans) + decoded.rejected == len(spans)
    json.dumps([span.attributes for span in decoded.spans], allow_nan=False)
    for request in (
        {"resourceSpans": wrong},
        {"resourceSpans": [{"resource": wrong, "scopeSpans": wrong, "schemaUrl": wrong}]},
    ):
        assert not _decode(request, JSON).spans
    for name in ("scope", "spans", "schemaUrl"):
        request = export_request({})
        request["resourceSpans"][0]["scopeSpans"][0][name] = wrong
        _decode(request, JSON)


@pytest.mark.parametrize("form", FORMS)
def test_random_mutations_of_recorded_bodies(form: str) -> None:
    """Each is decoded, in whole or in part, or refused; never another exception."""
    noise = random.Random(7)
    bodies = [_encoded(request, form, signal) for signal, request in requests_of("openai-agents-genai")]
    refused = 0
    for _ in range(400):
        body = bytearray(noise.choice(bodies))
        for _ in range(noise.choice((1, 1, 2, 8))):
            at = noise.randrange(len(body))
            match noise.randrange(4):
                case 0:
                    body[at] = noise.randrange(256)
                case 1:
                    del body[at : at + noise.randrange(1, 20)]
                case 2:
                    body[at:at] = noise.randbytes(noise.randrange(1, 9))
                case _:
                    body[at:] = b""
            if not body:
                break
        try:
            decoded = decode("traces", bytes(body), form)
        except InvalidValue:
            refused += 1
        else:
            json.dumps([[span.attributes, span.name] for span in decoded.spans], allow_nan=False)
    assert 0 < refused < 400


@pytest.mark.parametrize("encoding", ["protobuf", "json"])
def test_attributes_of_scopes_and_states_of_links_are_read(encoding: str) -> None:
    team = [{"key": "team", "value": {"stringValue": "search"}}]
    link = {"traceId": "a" * 32, "spanId": "b" * 16, "traceState": "vendor=1"}
    span: dict[str, Any] = {"traceId": "c" * 32, "spanId": "d" * 16, "name": "x", "startTimeUnixNano": "1"}
    span |= {"links": [link], "traceState": "vendor=2"}
    scope = {"scope": {"name": "my.http", "attributes": team}, "spans": [span]}
    request = {"resourceSpans": [{"scopeSpans": [scope]}]}
    body = protobuf_of(request) if encoding == "protobuf" else body_of(request)
    (found,) = decode("traces", body, f"application/{'x-protobuf' if encoding == 'protobuf' else 'json'}").spans
    assert found.scope.attributes == {"team": "search"}
    assert (found.trace_state, found.links[0].trace_state) == ("vendor=2", "vendor=1")
