"""Bodies of very many small parts: a Router reads them on its only thread, so no reader may take
the square of their number, which here is minutes."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any

import msgspec
import pytest

from smmf_core.api import anthropic, ollama, openai, responses

PIECES = 200_000
GUARD_S = 60  # far above what a slow machine takes for a pass over them
LINE = "x" * 100
CALL = {"function": {"name": "f", "arguments": {}}}
BODIES: dict[str, tuple[Callable[[bytes], Any], dict[str, Any]]] = {
    "Messages: turns": (
        anthropic.parse,
        {"max_tokens": 1, "messages": [{"role": "assistant", "content": LINE}] * PIECES},
    ),
    "Messages: thoughts": (
        anthropic.parse,
        {
            "max_tokens": 1,
            "messages": [
                {"role": "assistant", "content": [{"type": "thinking", "thinking": LINE}] * PIECES}
            ],
        },
    ),
    "Responses: turns": (
        responses.parse,
        {"input": [{"role": "user", "content": LINE}] * PIECES},
    ),
    "Responses: instructions": (
        responses.parse,
        {"input": [{"role": "developer", "content": LINE}] * PIECES},
    ),
    "Chat: parts": (
        lambda body: openai.parse(openai.CHAT, body),
        {"messages": [{"role": "user", "content": [{"type": "text", "text": LINE}] * PIECES}]},
    ),
    "Ollama: calls and answers": (
        ollama.parse_chat,
        {
            "messages": [
                {"role": "assistant", "tool_calls": [CALL] * (PIECES // 2)},
                *[{"role": "tool", "tool_name": "f", "content": ""}] * (PIECES // 2),
            ]
        },
    ),
}


@pytest.fixture(autouse=True)
def guard() -> Iterator[None]:
    def stop(number: int, frame: FrameType | None) -> None:
        raise TimeoutError("this takes the square of the pieces' number")

    before = signal.signal(signal.SIGALRM, stop)
    signal.alarm(GUARD_S)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


@pytest.mark.parametrize("name", BODIES)
def test_many_pieces_are_read_in_one_pass(name: str) -> None:
    parse, fields = BODIES[name]
    parse(msgspec.json.encode({"model": "m", **fields}))
