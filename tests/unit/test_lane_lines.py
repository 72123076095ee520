"""The lane's lines: what a Router writes, natively or not, is what the client library reads."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from streams import ADMIT, ATTEMPT, CHOICE_END, KEY, LENGTH, REASONING, STOP, Bench

from smmf_core.api import openai
from smmf_core.api.lane import LaneRenderer
from smmf_core.client import RateLimited
from smmf_core.client.find import Endpoint, Folder, Port, find
from smmf_core.client.types import CallDelta, Delta, Details, Usage, deltas
from smmf_core.errors import ApiError
from smmf_core.messages import TokenBatch, TokenLogprob, ToolDelta
from smmf_core.messages import Usage as Counts

HARD = 'a "b"\\\n\r\x00\u2028 é 🙂'


@pytest.fixture
def bench() -> Iterator[Bench]:
    made = Bench()
    yield made
    made.close()


@pytest.fixture
def renderer() -> LaneRenderer:
    body = {"model": "m", "messages": [{"role": "user", "content": "x"}], "stream": True}
    parsed = openai.finish(openai.parse("chat", json.dumps(body).encode()), {})
    return LaneRenderer(parsed, "id", 0, "m", "smmf")


def test_what_is_framed_natively(bench: Bench, renderer: LaneRenderer) -> None:
    table = bench.table
    table.open(KEY, ATTEMPT, -1, renderer.frame, renderer.prefix, b"", b"", False, 1.0)
    bench.put(ADMIT)
    bench.text(HARD, kind=REASONING)
    bench.text(HARD)
    bench.text("more")  # there together: one line
    bench.text("other", choice=1)
    bench.put(CHOICE_END, choice=1, count=STOP)
    bench.put(CHOICE_END, count=LENGTH)
    bench.drain()
    [(key, lines)] = table.flush()
    assert key == KEY
    assert deltas(lines) == [
        Delta(0, reasoning=HARD),
        Delta(0, HARD + "more"),
        Delta(1, "other"),
        Delta(1, finish_reason="stop"),
        Delta(0, finish_reason="length"),
    ]


def test_what_is_framed_in_python(renderer: LaneRenderer) -> None:
    counts = Counts(7, 3, 2, 1)
    usage = Usage(7, 3, 10, Details(2), Details(0, 1))
    batch = TokenBatch(HARD, [1], [TokenLogprob(HARD.encode(), -0.5, [])])
    calls = [ToolDelta(0, "c1", "look", '{"a'), ToolDelta(0, "", "", '":1}')]
    lines = renderer.tokens(1, batch, None)
    lines += renderer.reasoning(0, HARD, counts)
    lines += renderer.tool_deltas(0, calls, None)
    lines += renderer.keepalive()
    lines += renderer.choice_end(0, 2, counts)
    lines += renderer.tail(counts)
    token, *rest = deltas(lines)
    assert isinstance(token, Delta)
    assert (token.choice, token.text) == (1, HARD)
    assert token.logprobs is not None
    assert [entry["token"] for entry in token.logprobs["content"]] == [HARD]
    assert rest == [
        Delta(0, reasoning=HARD, usage=usage),
        Delta(0, tool_calls=[CallDelta(0, "c1", "look", '{"a'), CallDelta(0, "", "", '":1}')]),
        Delta(0),
        Delta(0, finish_reason="tool_calls", usage=usage),
        Delta(usage=usage),
    ]


def test_an_error_in_a_stream_has_its_class(renderer: LaneRenderer) -> None:
    [error] = deltas(renderer.error_event(ApiError("queue_full", "no room", "model")))
    assert isinstance(error, RateLimited)
    assert (error.status, error.code, error.param) == (429, "queue_full", "model")


KEY_HEX = "0f" * 32
WRONG = [
    ("", "ipc://"),
    ("here", "ipc://"),
    ("ipc://here", "absolute"),
    ("udp://127.0.0.1:1", "tcp://"),
    ("tcp://127.0.0.1:1", "public key"),
    ("tcp://127.0.0.1", "host:port"),
    ("tcp://127.0.0.1:99999", "host:port"),
    ("tcp://:1", "host:port"),
    ("tcp://[::1:1", "host:port"),
    ("tcp://127.0.0.1:1/path", "host:port"),
    ("tcp://127.0.0.1:1?key=abc", "64 hexadecimal"),
    (f"tcp://127.0.0.1:1?key={'z' * 64}", "64 hexadecimal"),
]


@pytest.mark.parametrize(("address", "why"), WRONG)
def test_a_wrong_address_is_an_error(address: str, why: str) -> None:
    with pytest.raises(ValueError, match=why):
        find(address, None)


def test_the_key_is_given_or_in_the_address_or_in_the_environment(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    raw = bytes.fromhex(KEY_HEX)
    there = Endpoint("tcp://127.0.0.1:1", raw)
    monkeypatch.setenv("SMMF_SERVER_KEY", "1f" * 32)
    assert find("tcp://127.0.0.1:1", KEY_HEX).endpoint() == there
    assert find(f"tcp://127.0.0.1:1?key={KEY_HEX}", None).endpoint() == there
    monkeypatch.setenv("SMMF_SERVER_KEY", KEY_HEX)
    assert find("tcp://127.0.0.1:1", None).endpoint() == there
    six = find(f"tcp://[::1]:1?key={KEY_HEX}", None)
    assert str(six) == "tcp://[::1]:1"
    assert isinstance(six, Port)
    assert [six.endpoint(), six.endpoint()] == [Endpoint("tcp://[::1]:1", raw, True)] * 2
    name = find(f"tcp://here:1?key={KEY_HEX}", None)
    assert [name.endpoint(), name.endpoint()] == [
        Endpoint("tcp://here:1", raw, is_v6) for is_v6 in (False, True)
    ]


def test_a_socket_that_was_left_behind_is_none(tmp_path: Path) -> None:
    (tmp_path / "client-0-1.sock").touch()
    assert Folder(tmp_path).endpoint() is None
    assert Folder(tmp_path / "client-0-1.sock").endpoint() is None
    assert Folder(tmp_path / "nothing").endpoint() is None
