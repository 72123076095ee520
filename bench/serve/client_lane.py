"""The client library's lane against the HTTP endpoint: CPU of the server and of the client.

The same closed loop of tasks in this process asks the same server: through `smmf_core.client`, on
this machine's socket and over TCP with CURVE, and through the official OpenAI client. The server's
cost with HTTP is also taken with the raw load generator, whose requests have none of that client's
headers.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Any

from openai import AsyncOpenAI

from bench.serve.asking import MESSAGES, chat, closed, echo, errors, measure
from bench.serve.contestants import Smmf
from smmf_core.client import AsyncClient
from smmf_core.loadgen.local import free_port

Ask = Callable[[], Awaitable[int]]
_CLIENTS = 16


def client_lane() -> dict[str, Any]:
    """16 clients: CPU per request of whole answers, and per token of paced streams."""
    figures: dict[str, Any] = {"clients": _CLIENTS}
    plans = {"request": (16, 4000, False, 0), "token": (128, 160, True, 5)}
    for unit, (tokens, requests, stream, step_ms) in plans.items():
        settings = f"[server]\nzmq_port = {free_port()}\n"
        server = Smmf({"echo": echo(tokens=tokens, step_ms=step_ms)}, config=settings)
        try:
            measured = asyncio.run(_compare(server, tokens, requests, stream))
            measured["http_server_us"] = _http(server, tokens, requests, stream)
        finally:
            server.stop()
        figures |= {f"{name}_per_{unit}": figure for name, figure in measured.items()}
        figures[f"server_ratio_per_{unit}"] = (
            measured["lane_server_us"] / measured["http_server_us"]
        )
    return figures


def _http(server: Smmf, tokens: int, requests: int, stream: bool) -> float:
    """The server's CPU microseconds per unit, with the raw load generator."""
    request = chat(server, tokens, stream)
    measure(server, closed(server, request, stream, _CLIENTS, requests // 10))
    cpu_s, outcomes, _ = measure(server, closed(server, request, stream, _CLIENTS, requests))
    if failed := errors(outcomes):
        raise RuntimeError(str(failed))
    return 1e6 * cpu_s / (requests * tokens if stream else requests)


async def _compare(server: Smmf, tokens: int, requests: int, stream: bool) -> dict[str, float]:
    near, far = f"ipc://{server.folder}/smmf/default", server.client_address
    units = requests * tokens if stream else requests
    figures: dict[str, float] = {}
    async with (
        AsyncClient(near) as fast,
        AsyncClient(far) as encrypted,
        AsyncOpenAI(base_url=f"{server.url}/v1", api_key="none") as openai,
    ):
        for name, ask in (
            ("lane", _lane(fast, stream)),
            ("tcp_lane", _lane(encrypted, stream)),
            ("openai", _openai(openai, stream)),
        ):
            await _closed(ask, requests // 10, tokens)
            served, used = server.cpu_s(), time.process_time()
            await _closed(ask, requests, tokens)
            figures[f"{name}_client_us"] = 1e6 * (time.process_time() - used) / units
            figures[f"{name}_server_us"] = 1e6 * (server.cpu_s() - served) / units
    return figures


async def _closed(ask: Ask, requests: int, tokens: int) -> None:
    """So many requests by a fixed number of tasks. Raises RuntimeError for a short answer."""
    left = iter(range(requests))

    async def one() -> None:
        for _ in left:
            if await ask() != tokens:
                raise RuntimeError("an answer has not all its tokens")

    await asyncio.gather(*[one() for _ in range(_CLIENTS)])


def _lane(client: AsyncClient, stream: bool) -> Ask:
    async def whole() -> int:
        return (await client.chat(MESSAGES, model="echo")).usage.completion_tokens

    async def streamed() -> int:
        answer = await client.chat(MESSAGES, model="echo", stream=True)
        async for _ in answer:
            pass
        return answer.usage.completion_tokens if answer.usage is not None else 0

    return streamed if stream else whole


def _openai(client: AsyncOpenAI, stream: bool) -> Ask:
    async def whole() -> int:
        answer = await client.chat.completions.create(model="echo", messages=MESSAGES)
        return answer.usage.completion_tokens if answer.usage is not None else 0

    async def streamed() -> int:
        answer = await client.chat.completions.create(
            model="echo", messages=MESSAGES, stream=True, stream_options={"include_usage": True}
        )
        found = 0
        async for chunk in answer:
            if chunk.usage is not None:
                found = chunk.usage.completion_tokens
        return found

    return streamed if stream else whole
