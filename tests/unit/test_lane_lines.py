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
from smmf_core.client.find import check_address, find_endpoint
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


@pytest.mark.parametrize(
    "address", ["tcp://127.0.0.1:1", "/tmp/x", "ipc://x", "ipc://", "http://x"]
)
def test_an_address_is_a_path(address: str) -> None:
    with pytest.raises(ValueError, match="ipc://"):
        check_address(address)


def test_a_socket_that_was_left_behind_is_none(tmp_path: Path) -> None:
    (tmp_path / "client-0-1.sock").touch()
    assert find_endpoint(tmp_path) is None
    assert find_endpoint(tmp_path / "client-0-1.sock") is None
    assert find_endpoint(tmp_path / "nothing") is None
