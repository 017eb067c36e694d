"""Base64 is found in texts as clients of providers send it, and nothing else is taken for it."""

import json
from base64 import b64encode, urlsafe_b64encode
from collections.abc import Callable
from random import Random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentspan.blobs import ANY_TYPE, LEAST, blobs_in, described, encoded, ending_of, is_blob, pictures_in, replaced

PNG = b"\x89PNG\r\n\x1a\n" + Random(1).randbytes(3000)
B64 = b64encode(PNG).decode()
OTHER = b64encode(Random(2).randbytes(3000)).decode()


def found(value: Any) -> list[tuple[str, bytes]]:
    text = json.dumps(value, separators=(",", ":"))
    blobs = list(blobs_in(text))
    assert [text[blob.start : blob.end] for blob in blobs] == [
        encoded(blob.data, is_for_urls=blob.is_for_urls) for blob in blobs
    ]
    return [(blob.media_type, blob.data) for blob in blobs]


@pytest.mark.parametrize(
    ("media_type", "content"),
    [
        ("image/webp", {"type": "image_url", "image_url": {"url": f"data:image/webp;base64,{B64}", "detail": "low"}}),
        ("image/jpeg", {"type": "input_image", "image_url": f"data:image/jpg;charset=x;base64,{B64}"}),
        ("audio/wav", {"type": "input_audio", "input_audio": {"data": B64, "format": "wav"}}),
        ("audio/mpeg", {"type": "input_audio", "input_audio": {"format": "mp3", "data": B64}}),
        ("image/gif", {"type": "image", "source": {"type": "base64", "media_type": "image/gif", "data": B64}}),
        ("application/pdf", {"source": {"data": B64, "type": "base64", "media_type": "application/pdf"}}),
        ("image/webp", {"inline_data": {"mime_type": "image/webp", "data": B64}}),
        ("image/heic", {"inlineData": {"data": B64, "mimeType": "image/heic"}}),
        ("image/png", {"output": B64}),
        ("image/png", [B64]),
        ("image/png", {"arguments": json.dumps({"image": B64})}),
        ("image/webp", {"arguments": json.dumps({"mime_type": "image/webp", "image": B64})}),
        ("image/png", {"text": f"see ![it](data:image/png;base64,{B64})"}),
        ("image/svg+xml", {"url": f"data:image/svg+xml;base64,{B64}"}),
        (ANY_TYPE, {"url": f"data:text/html<script>;base64,{OTHER}"}),
    ],
)
def test_each_form_of_a_provider_is_found_with_its_type(media_type: str, content: Any) -> None:
    for value in (content, {"messages": [{"role": "user", "content": [{"type": "text", "text": "so"}, content]}]}):
        ((said, data),) = found(value)
        assert said == (media_type if data == PNG else ANY_TYPE)


@pytest.mark.parametrize(
    ("start", "media_type"),
    [
        (b"\xff\xd8\xff\xe0", "image/jpeg"),
        (b"GIF89a", "image/gif"),
        (b"RIFF\x10\x00\x00\x00WEBPVP8 ", "image/webp"),
        (b"RIFF\x10\x00\x00\x00WAVEfmt ", "audio/wav"),
        (b"%PDF-1.7", "application/pdf"),
        (b"OggS", "audio/ogg"),
        (b"fLaC", "audio/flac"),
        (b"ID3\x04", "audio/mpeg"),
        (b"<html>", ANY_TYPE),
    ],
)
@pytest.mark.parametrize("encode", [b64encode, urlsafe_b64encode])
def test_a_type_that_is_not_said_is_known_by_the_first_bytes(
    start: bytes, media_type: str, encode: Callable[[bytes], bytes]
) -> None:
    data = start + Random(3).randbytes(1500)
    assert found({"data": encode(data).decode()}) == [(media_type, data)]


@pytest.mark.parametrize(
    "text",
    [
        "x" * 4096,
        "0123456789abcdef" * 200,
        B64[:-1],
        B64[:-4] + "AB==" if B64[-1] != "=" else B64.rstrip("="),
        B64 + "\n",
        " " + B64,
        B64[:2000] + "\n" + B64[2000:],
        B64[:1500] + "-_" + B64[1502:1998] + "+/" + B64[2000:],
        B64[: LEAST - 4],
        f"so {OTHER}",
        f"data:image/png,{B64}",
    ],
)
def test_what_is_not_base64_and_nothing_else_is_text(text: str) -> None:
    assert found({"data": text}) == []
    assert not is_blob(text)
    assert described(text) == text


def test_several_blobs_and_texts_between_them() -> None:
    value = {"a": "x" * 700, "b": [B64, "y" * 513, OTHER], "c": B64 * 2, "d": OTHER}
    assert [len(data) for _, data in found(value)] == [3008, 3000, 3000] if B64.endswith("=") else [
        3008, 3000, 6016, 3000
    ]  # fmt: skip


@given(st.integers(0, 1200), st.binary(min_size=768, max_size=900), st.booleans())
def test_a_blob_is_found_wherever_it_is(before: int, some: bytes, is_for_urls: bool) -> None:
    data = PNG[:8] + some
    text = "a b" * (before // 3) + '"' + encoded(data, is_for_urls=is_for_urls) + '"' + "c d" * 200
    (blob,) = blobs_in(text)
    assert (blob.data, blob.media_type) == (data, "image/png")


@given(
    st.binary(min_size=760, max_size=1000),
    st.sampled_from(["", "data:image/png;base64,", "data:a,"]),
    st.sampled_from(["", "=", "\n", "-", "+", "ä"]),
    st.integers(0, 1400),
    st.booleans(),
)
def test_a_text_is_a_blob_where_one_is_found_in_it(
    some: bytes, before: str, odd: str, at: int, is_for_urls: bool
) -> None:
    base64 = encoded(some, is_for_urls=is_for_urls)
    text = before + base64[:at] + odd + base64[at:]
    found = list(blobs_in(text))
    assert is_blob(text) == (len(found) == 1 and found[0].end == len(text) and text[: found[0].start] == before)


def test_a_blob_is_described_by_type_and_size() -> None:
    assert is_blob(B64)
    assert is_blob(f"data:image/png;base64,{B64}")
    assert described(f'{{"a":"data:image/png;base64,{B64}"}}') == '{"a":"data:image/png;base64,[image/png, 3.0 kB]"}'


def test_a_file_has_an_ending_of_a_fixed_list() -> None:
    assert ending_of("image/jpeg") == "jpg"
    assert ending_of("text/../../x") == ending_of(ANY_TYPE) == "bin"


SHORT = b"\x89PNG\r\n\x1a\n" + Random(3).randbytes(60)


def test_a_short_image_in_a_data_url_is_a_picture_and_no_blob() -> None:
    url = f"data:image/png;base64,{b64encode(SHORT).decode()}"
    for text in (
        url,
        json.dumps({"url": url}),
        json.dumps({"arguments": json.dumps([url])}),
        f"![it]({url}) and {url}",
    ):
        assert not list(blobs_in(text))
        assert next((blob.media_type, blob.data) for blob in pictures_in(text)) == ("image/png", SHORT)
        assert replaced(text, lambda blob: blob.media_type, found_in=pictures_in) != text
    long = f"data:image/png;base64,{B64}"
    assert [blob.data for blob in pictures_in(json.dumps([url, long, url]))] == [SHORT, PNG, SHORT]
    assert list(pictures_in(long)) == list(blobs_in(long))


@pytest.mark.parametrize(
    "url",
    [
        "data:image/png;base64,AAAAAAAAAAAAAAAAAAAAAAAA",  # no PNG
        f"data:image/svg;base64,{b64encode(b'<svg>' * 9).decode()}",
        f"data:image/png;base64,{b64encode(SHORT).decode()[:-1]}",
        f"data:text/html;base64,{b64encode(SHORT).decode()}",
        f"data:image/png;base64,{b64encode(SHORT).decode()} and more",
        "data:image/png;base64,",
    ],
)
def test_what_only_looks_like_a_short_image_stays_text(url: str) -> None:
    assert not list(pictures_in(json.dumps(url)))
