"""JSON string escaping: whatever bytes come, the literal is valid and says what the text said."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from smmf_core.native._frames import escape_json


@given(st.text())
def test_escaped_text_reads_back(text: str) -> None:
    escaped = escape_json(text.encode("utf-8", "replace"))
    assert json.loads(b'"' + escaped + b'"') == text.encode("utf-8", "replace").decode()
    assert not any(byte < 0x20 or byte == 0x7F for byte in escaped)


@given(st.binary())
def test_any_bytes_become_valid_json(data: bytes) -> None:
    read = json.loads(b'"' + escape_json(data) + b'"')
    try:
        assert read == data.decode()
    except UnicodeDecodeError:
        assert "\ufffd" in read


@pytest.mark.parametrize("at", range(20))
@pytest.mark.parametrize(
    "code", [*range(0x20), 0x22, 0x5C, 0x7F, 0x80, 0xFF, 0x7FF, 0xFFFF, 0x10FFFF]
)
def test_every_special_character_at_every_place(at: int, code: int) -> None:
    text = "abcdefghijklmnopqrstuvwxyz"[:at] + chr(code) + "0123456789~ !#["
    escaped = escape_json(text.encode())
    assert json.loads(b'"' + escaped + b'"') == text


@pytest.mark.parametrize(
    "broken",
    [
        b"\x80",
        b"\xc0\xaf",
        b"\xe0\x80\x80",
        b"\xed\xa0\x80",
        b"\xf0\x80\x80\x80",
        b"\xf4\x90\x80\x80",
        b"\xf8",
        b"\xc3",
        b"\xe2\x82",
    ],
)
def test_broken_utf8_is_replaced_byte_by_byte(broken: bytes) -> None:
    assert escape_json(b"a" + broken) == b"a" + "\ufffd".encode() * len(broken)
