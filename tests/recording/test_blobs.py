"""Images, audio and other bytes have a limit of their own, and are not searched for credentials."""

import hashlib
import json
from base64 import b64encode, urlsafe_b64encode
from random import Random
from typing import Any

import pytest

from agentspan.blobs import is_blob
from agentspan.recording.capture import values
from agentspan.recording.capture.capture import Capture
from agentspan.recording.capture.redaction import Redaction
from agentspan.recording.capture.values import Limits

PNG = b"\x89PNG\r\n\x1a\n" + Random(1).randbytes(3000)
B64 = b64encode(PNG).decode()
LIMITS = Limits(value=500, payload=2000, blob=4000)


def recorded(value: Any, limits: Limits = LIMITS, redaction: Redaction | None = None) -> Any:
    return json.loads(Capture(limits, redaction or Redaction()).object(value))


def image(data: str = B64) -> dict[str, Any]:
    return {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{data}"}}


@pytest.mark.parametrize(
    "value",
    [
        image(),
        {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": B64}},
        {"inline_data": {"mime_type": "image/png", "data": urlsafe_b64encode(PNG).decode()}},
        {"input_audio": {"data": b64encode(PNG[8:]).decode(), "format": "wav"}},
        {"output": B64},
    ],
)
def test_base64_within_its_limit_is_kept_whole_beside_the_limits_of_texts(value: Any) -> None:
    payload = {"messages": [{"role": "user", "content": [{"type": "text", "text": "see"}, value, value]}]}
    assert recorded(payload) == payload
    assert recorded(payload, redaction=Redaction(lambda name, value: value)) == payload


def test_bytes_are_kept_as_base64() -> None:
    for data in (PNG, bytearray(PNG), memoryview(PNG)[::1], bytes(3000)):
        assert recorded({"image": data}) == {"image": b64encode(data).decode()}


def test_what_is_larger_than_the_limit_has_a_mark_as_before() -> None:
    data = PNG + PNG
    text = b64encode(data).decode()
    of_text = {"bytes": len(text), "sha256": hashlib.sha256(text.encode()).hexdigest(), "start": text[:200]}
    of_bytes = {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
    expected = {"text": {"$truncated": of_text}, "bytes": {"$truncated": of_bytes}}
    assert recorded({"text": text, "bytes": data}) == expected
    assert recorded({"text": B64}, LIMITS._replace(blob=0))["text"]["$truncated"]["bytes"] == len(B64)


@pytest.mark.parametrize("text", [B64[:-1], B64 + "\n", f"so {B64}", "x" * 3000, f"data:image/png,{B64}"])
def test_what_is_no_base64_is_a_text(text: str) -> None:
    assert "$truncated" in recorded({"text": text})["text"]


def test_a_payload_keeps_a_few_times_the_limit() -> None:
    found = recorded({"images": [PNG] * 8})["images"]
    assert found[:5] == [B64] * 5
    assert all("$truncated" in mark for mark in found[5:])


def test_a_payload_that_is_cut_keeps_its_blobs() -> None:
    messages = [{"role": "user", "content": "y " * 100, "image": PNG if number == 3 else None} for number in range(40)]
    found = recorded({"model": "m", "messages": messages})
    assert found["model"] == "m"
    assert found["messages"][3]["image"] == B64
    assert found["messages"][-1]["$truncated"]["items"] > 20


def test_a_blob_in_the_member_of_a_credential_is_redacted_and_ones_own_rule_is_asked() -> None:
    assert recorded({"password": B64, "api_key": PNG}) == {"password": "[redacted]", "api_key": "[redacted]"}
    asked: list[str] = []

    def rule(name: str, value: Any) -> Any:
        asked.append(name)
        return "no images" if name == "image" else value

    assert recorded({"image": B64, "bytes": PNG}, redaction=Redaction(rule)) == {"image": "no images", "bytes": B64}
    assert asked == ["image", "bytes"]


def test_an_image_is_not_searched_for_credentials_and_other_bytes_are(monkeypatch: pytest.MonkeyPatch) -> None:
    searched: list[int] = []
    search = Redaction.text
    monkeypatch.setattr(Redaction, "text", lambda self, text: searched.append(len(text)) or search(self, text))
    assert recorded({"messages": [image(), {"a": B64}, {"b": PNG}]})["messages"][2]["b"] == B64
    assert max(searched, default=0) < 100
    body = b"POST / HTTP/1.1\r\nAuthorization: Bearer abcdefghijklmnop123456\r\n\r\n" + bytes(2000)
    assert b64encode(b"abcdefghijklmnop123456").decode() not in str(found := recorded({"body": body}))
    assert found["body"] == b64encode(body.replace(b"Bearer abcdefghijklmnop123456", b"[redacted]")).decode() or (
        max(searched) >= len(body)
    )


def test_how_much_is_looked_at_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    looked: list[int] = []
    monkeypatch.setattr(values, "is_blob", lambda text: looked.append(len(text)) or is_blob(text))
    recorded({"texts": ["ab" * 1000] * 500, "odd": [B64[:-1] + "\n"] * 500, "images": [B64] * 500})
    assert sum(looked) * 3 // 4 <= 4 * LIMITS.blob
