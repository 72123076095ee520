"""Keep-alives in every place of a stream, read by official clients: they change nothing."""

from __future__ import annotations

import asyncio
import struct
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import anthropic
import openai
import pytest
from router_shell_rig import USAGE, Rig, WorkerEnd, run_test, until

from smmf_core import messages as m
from smmf_core.http.protocol import HttpProtocol, Limits
from smmf_core.router.stream_answer import StreamAnswer

USER: Any = {"role": "user", "content": "hi"}
TEXTS = ("Once", " upon", " a time")
QUIET_S = 16.0
Ask = Callable[[str], Awaitable[str]]


async def _chat(url: str) -> str:
    async with openai.AsyncOpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0) as client:
        stream = client.chat.completions.stream(model="m", messages=[USER])
        async with stream as events:
            final = await events.get_final_completion()
        assert final.choices[0].finish_reason == "stop"
        assert final.choices[0].message.role == "assistant"
        return final.choices[0].message.content or ""


async def _completion(url: str) -> str:
    async with openai.AsyncOpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0) as client:
        chunks = await client.completions.create(model="m", prompt="x", stream=True)
        return "".join([chunk.choices[0].text async for chunk in chunks])


async def _response(url: str) -> str:
    async with openai.AsyncOpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0) as client:
        async with client.responses.stream(model="m", input="x") as events:
            numbers = [event.sequence_number async for event in events]
            final = await events.get_final_response()
        assert numbers == list(range(len(numbers)))
        return final.output_text


async def _message(url: str) -> str:
    async with anthropic.AsyncAnthropic(base_url=url, api_key="none", max_retries=0) as client:
        stream = client.messages.stream(model="m", max_tokens=9, messages=[USER])
        async with stream as events:
            return await events.get_final_text()


async def _work(rig: Rig, worker: WorkerEnd) -> None:
    """It takes its time: before the first token, between tokens, and before the end."""
    submit = await worker.submit()
    worker.put(submit, (m.ADMIT, 1, bytes(4)))
    for count, text in enumerate([*TEXTS, ""], start=1):
        await until(lambda: worker.writer.used_bytes == 0)  # the Router has read it
        worker.writer.step(count)
        rig.shell.on_tick(time.monotonic() + QUIET_S)
        if text:
            worker.put(submit, (m.TOKENS, 1, struct.pack("<i", count) + text.encode()))
    worker.put(submit, (m.CHOICE_END, m.STOP, b""), (m.FINISH, 0, USAGE))


@pytest.mark.parametrize("ask", [_chat, _completion, _response, _message])
def test_a_client_reads_on(tmp_path: Path, ask: Ask, monkeypatch: pytest.MonkeyPatch) -> None:
    async def test(rig: Rig) -> None:
        (worker,) = await rig.start()
        sent: list[int] = []
        append = StreamAnswer.keep_alive
        monkeypatch.setattr(StreamAnswer, "keep_alive", lambda a: (sent.append(1), append(a)))
        server = await asyncio.get_running_loop().create_server(
            lambda: HttpProtocol(rig.routes, Limits(), rig.state), "127.0.0.1", 0
        )
        port = server.sockets[0].getsockname()[1]
        try:
            text, _ = await asyncio.gather(ask(f"http://127.0.0.1:{port}"), _work(rig, worker))
        finally:
            server.close()
        assert text == "".join(TEXTS)
        assert len(sent) == len(TEXTS) + 1
        await until(lambda: not rig.state.connections)

    run_test(tmp_path, test)
