"""The client library against real servers: `smmf_core.client`, sync and async."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import msgspec
import pytest
import uvloop
import zmq
from server import Server, echo_toml

from smmf_core.client import (
    AsyncClient,
    BadRequest,
    Cancelled,
    Client,
    ClientError,
    ConnectionLost,
    Delta,
    NotFound,
    Timeout,
    Unauthorized,
)
from smmf_core.lane_messages import PING_S, WINDOW_BYTES, Ask, Grant, Stop
from smmf_core.messages import encode

WAIT_S = 30.0
NewLoop = Callable[[], asyncio.AbstractEventLoop]
SLOW = {"tokens": 10_000, "step_ms": 20}
QUICK: dict[str, Any] = {"max_tokens": 2}
TOOL = {"type": "function", "function": {"name": "look", "parameters": {"type": "object"}}}

ASK_AND_DIE = """
import sys
from smmf_core.client import Client
client = Client(sys.argv[1])
slow = {"tokens": 10_000, "step_ms": 20}
stream = client.chat("x", model="two", stream=True, smmf_echo=slow)
print("begun", flush=True)
client.chat("x", model="two", smmf_echo=slow)
"""


LEFT_OPEN = """
import sys
from smmf_core.client import Client
client = Client(sys.argv[1])
stream = client.chat("x", model="two", stream=True, smmf_echo={"tokens": 9999, "step_ms": 9})
print("done")
"""

LEFT_OPEN_ASYNC = """
import asyncio, sys
from smmf_core.client import AsyncClient
async def main():
    client = AsyncClient(sys.argv[1])
    echo = {"tokens": 9999, "step_ms": 9}
    async for _ in await client.chat("x", model="two", stream=True, smmf_echo=echo):
        break
asyncio.run(main())
print("done")
"""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder: Path = tmp_path_factory.mktemp("lane")
    (folder / "local-echo.toml").write_text(echo_toml())
    (folder / "local-two.toml").write_text(echo_toml("two", deployment={"max_concurrency": 2}))
    for task in ("embed", "rerank"):
        text = echo_toml(task).replace('backend = "echo"', f'backend = "echo"\ntask = "{task}"')
        (folder / f"local-{task}.toml").write_text(text)
    started = Server(folder).start()
    yield started
    assert started.stop() == 0


@pytest.fixture
def client(server: Server) -> Iterator[Client]:
    with Client(address(server)) as made:
        yield made


def address(server: Server) -> str:
    return f"ipc://{server.run_dir}"


def over_http(server: Server, path: str, **body: Any) -> dict[str, Any]:
    status, _, answer = server.request("POST", f"/v1/{path}", body)
    assert status == 200, answer
    decoded: dict[str, Any] = json.loads(answer)
    return decoded


def text_of(deltas: list[Delta], choice: int = 0) -> str:
    return "".join(delta.text for delta in deltas if delta.choice == choice)


async def everything(stream: AsyncIterator[Delta]) -> str:
    return "".join([delta.text async for delta in stream]).strip()


def until(is_so: Callable[[], bool], wait_s: float = WAIT_S) -> float:
    began = time.monotonic()
    while not is_so():
        assert time.monotonic() - began < wait_s
        time.sleep(0.02)
    return time.monotonic() - began


def running(server: Server, model: str) -> float:
    return server.metrics().get(f'smmf_requests_running{{model="{model}"}}', 0.0)


# --- answers ---


def test_a_chat_is_what_http_answers(server: Server, client: Client) -> None:
    messages = [{"role": "user", "content": "hi"}]
    expected = over_http(server, "chat/completions", model="echo", messages=messages)
    whole = client.chat("hi", model="echo")
    stream = client.chat(messages, model="echo", stream=True)
    deltas = list(stream)
    choice = expected["choices"][0]
    assert whole.text == text_of(deltas) == choice["message"]["content"]
    reasons = [delta.finish_reason for delta in deltas if delta.finish_reason]
    assert [whole.choices[0].finish_reason] == reasons == [choice["finish_reason"]]
    assert whole.usage == stream.usage == deltas[-1].usage
    assert whole.usage.total_tokens == expected["usage"]["total_tokens"]
    assert whole.instance == stream.instance == "echo-0"
    assert whole.request_id != stream.request_id != ""


def test_a_completion_is_what_http_answers(server: Server, client: Client) -> None:
    fields: dict[str, Any] = {"n": 2, "max_tokens": 9, "echo": True}
    expected = over_http(server, "completions", model="echo", prompt='a\n"b" é', **fields)
    whole = client.complete('a\n"b" é', model="echo", **fields)
    deltas = list(client.complete('a\n"b" é', model="echo", stream=True, **fields))
    for index, choice in enumerate(expected["choices"]):
        assert whole.choices[index].text == text_of(deltas, index) == choice["text"]
    assert {delta.finish_reason for delta in deltas} == {None, "length"}


def test_logprobs_and_calls_of_tools_come_typed(server: Server, client: Client) -> None:
    fields: dict[str, Any] = {"logprobs": True, "top_logprobs": 2, "max_tokens": 4}
    whole = client.chat("hi", model="echo", **fields)
    deltas = list(client.chat("hi", model="echo", stream=True, **fields))
    assert whole.choices[0].logprobs is not None
    streamed = [entry for d in deltas if d.logprobs for entry in d.logprobs["content"]]
    assert streamed == whole.choices[0].logprobs["content"]

    tools: dict[str, Any] = {"tools": [TOOL], "tool_choice": "required"}
    call = client.chat("hi", model="echo", **tools).choices[0].message.tool_calls[0]
    calls = [c for d in client.chat("hi", model="echo", stream=True, **tools) for c in d.tool_calls]
    assert call.function.name == calls[0].name == "look"
    assert call.function.arguments == "".join(c.arguments for c in calls)


def test_vectors_and_rankings_are_what_http_answers(server: Server, client: Client) -> None:
    texts = ["one", "another text"]
    expected = over_http(server, "embeddings", model="embed", input=texts)
    found = client.embed(texts, model="embed")
    for row, vector in zip(expected["data"], found.vectors, strict=True):
        assert vector == pytest.approx(row["embedding"], rel=1e-6)
    query: dict[str, Any] = {"query": "one", "documents": [*texts, "one"]}
    ranked = over_http(server, "rerank", model="rerank", **query)["results"]
    ranking = client.rerank("one", [*texts, "one"], model="rerank", return_documents=True)
    assert [score.index for score in ranking.results] == [row["index"] for row in ranked]
    assert ranking.results[0].document is not None


def test_scores_and_tokens_are_what_http_answers(server: Server, client: Client) -> None:
    pairs: dict[str, Any] = {"text_1": "one", "text_2": ["one", "two"]}
    expected = over_http(server, "score", model="rerank", **pairs)
    scores = client.score("one", ["one", "two"], model="rerank")
    assert scores.scores == [row["score"] for row in expected["data"]]
    assert scores.usage.total_tokens == expected["usage"]["total_tokens"]
    found = client.tokenize("Gr\u00fcne V\u00f6gel", model="echo", return_token_strs=True)
    assert found.count == len(found.tokens) == len(found.token_strs or [])
    assert client.detokenize(found.tokens, model="echo") == "Gr\u00fcne V\u00f6gel"
    chat = client.chat("hi", model="echo", **QUICK)
    counted = client.tokenize([{"role": "user", "content": "hi"}], model="echo")
    assert counted.count == chat.usage.prompt_tokens


def test_what_a_schema_asks_for_comes_as_its_type(client: Client) -> None:
    class Bird(msgspec.Struct):
        name: str
        legs: int

    schema = msgspec.json.schema(Bird)["$defs"]["Bird"]
    form = {"type": "json_schema", "json_schema": {"name": "bird", "schema": schema}}
    said = client.chat("hi", model="echo", response_format=form).parsed(Bird)
    assert isinstance(said, Bird)
    tools: dict[str, Any] = {"tools": [TOOL], "tool_choice": "required"}
    (call,) = client.chat("hi", model="echo", **tools).tool_calls
    assert call.function.parsed() == json.loads(call.function.arguments)


def test_models_are_listed(client: Client) -> None:
    models = {model.id: model for model in client.models()}
    assert list(models) == ["echo", "embed", "rerank", "two"]
    assert models["embed"].task == "embed"
    assert models["echo"].status == "ready"


def test_async_does_the_same(server: Server, client: Client) -> None:
    async def ask() -> tuple[Any, ...]:
        async with AsyncClient(address(server)) as fast:
            stream = await fast.chat("hi", model="echo", stream=True)
            text = "".join([delta.text async for delta in stream])
            completion = await fast.complete("hi", model="echo", max_tokens=3)
            vectors = (await fast.embed("hi", model="embed")).vectors
            ranking = await fast.rerank("a", ["b", "a"], model="rerank")
            scores = await fast.score("a", ["b", "a"], model="rerank")
            assert scores.scores == client.score("a", ["b", "a"], model="rerank").scores
            tokens = await fast.tokenize("hi there", model="echo")
            assert await fast.detokenize(tokens.tokens, model="echo") == "hi there"
            models = await fast.models()
            return text, completion.text, vectors, ranking.results, models, stream.usage

    text, completion, vectors, results, models, usage = asyncio.run(ask())
    chat = client.chat("hi", model="echo")
    assert (text, usage) == (chat.text, chat.usage)
    assert completion == client.complete("hi", model="echo", max_tokens=3).text
    assert vectors == client.embed("hi", model="embed").vectors
    assert results == client.rerank("a", ["b", "a"], model="rerank").results
    assert models == client.models()


def test_a_thousand_small_requests_each_get_their_own_answer(
    server: Server, client: Client
) -> None:
    said = [f"number {n}" for n in range(1000)]
    options: dict[str, Any] = {"model": "echo", "smmf_echo": {"text": "echo"}, "max_tokens": 10}

    async def ask() -> list[str]:
        async with AsyncClient(address(server)) as fast:
            answers = await asyncio.gather(*[fast.chat(text, **options) for text in said])
            return [answer.text for answer in answers]

    assert [text.strip() for text in asyncio.run(ask())] == said
    with ThreadPoolExecutor(32) as threads:
        texts = list(threads.map(lambda text: client.chat(text, **options).text, said))
    assert [text.strip() for text in texts] == said


# --- errors ---


def test_bad_values_name_their_field(client: Client) -> None:
    with pytest.raises(BadRequest) as refused:
        client.chat("hi", model="echo", temperature=9)
    error = refused.value
    assert (error.status, error.param) == (400, "temperature")
    assert error.code == "decimal_above_max_value"
    assert error.request_id
    with pytest.raises(BadRequest, match="n") as refused:
        client.chat("hi", model="echo", stream=True, n=0)  # before any delta is asked for
    assert refused.value.param == "n"
    with pytest.raises(NotFound) as missing:
        client.embed("hi", model="nobody")
    assert (missing.value.code, missing.value.param) == ("model_not_found", "model")
    with pytest.raises(BadRequest) as wrong:
        client.chat("hi", model="embed")
    assert wrong.value.code == "unsupported_value"


def test_an_error_in_a_stream_is_raised_after_what_came(client: Client) -> None:
    fails = {"tokens": 10, "step_ms": 5, "fail": "error:3"}
    deltas: list[Delta] = []
    with pytest.raises(ClientError) as failed:
        deltas.extend(client.chat("hi", model="echo", stream=True, smmf_echo=fails))
    assert getattr(failed.value, "code", "") in ("internal_error", "upstream_error", "worker_lost")
    assert client.chat("hi", model="echo", **QUICK).text


def test_a_wrong_address_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="absolute"):
        Client("ipc://here")
    began = time.monotonic()
    nobody = Client(f"ipc://{tmp_path}", connect_timeout=0.2)
    with nobody, pytest.raises(ConnectionLost, match="no server answers"):
        nobody.models()
    assert time.monotonic() - began < WAIT_S


def test_the_default_is_this_users_server(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(server.run_root))
    with Client() as default:
        assert default.models()


def test_a_body_may_be_as_long_as_over_http(tmp_path: Path) -> None:
    (tmp_path / "local-echo.toml").write_text(echo_toml())
    (tmp_path / "smmf.toml").write_text("[server]\nmax_body_mb = 1\n")
    server = Server(tmp_path).start()
    try:
        with Client(address(server)) as client:
            with pytest.raises(BadRequest) as refused:
                client.chat("x" * (1 << 20), model="echo", **QUICK)
            assert (refused.value.status, refused.value.code) == (413, "request_too_large")
            with pytest.raises(ConnectionLost):  # not even read
                client.chat("x" * (1 << 22), model="echo", **QUICK)
            assert client.chat("hi", model="echo", **QUICK).text
    finally:
        assert server.stop() == 0


def test_frames_that_mean_nothing_are_answered_and_forgotten(
    server: Server, client: Client
) -> None:
    endpoint = f"ipc://{next(server.run_dir.glob('client-*.sock'))}"
    with zmq.Context() as context, context.socket(zmq.DEALER) as stranger:
        stranger.linger = 0
        stranger.connect(endpoint)
        for frame in (b"", b"\xc1", b"{}", encode([["Ask", "x"]]), encode([["Nobody", 1]])):
            stranger.send(frame)
            assert stranger.poll(WAIT_S * 1000)
            assert b"Misread" in stranger.recv()
        stranger.send(encode([Stop(7), Grant(7, 1 << 60), Ask(1, "/v1/nothing", b"{}")]))
        assert stranger.poll(WAIT_S * 1000)
        assert b"unknown_url" in stranger.recv()
        slow = b'{"model":"two","prompt":"x","stream":true,"smmf_echo":{"tokens":9999,"step_ms":9}}'
        twice = Ask(2, "/v1/completions", slow)
        stranger.send(encode([twice, twice, Grant(2, -5)]))
        assert stranger.poll(WAIT_S * 1000)
        assert b"Misread" in stranger.recv()
    until(lambda: running(server, "two") == 0)
    assert client.chat("hi", model="echo", **QUICK).text


# --- cancelling, time-outs, slow readers ---


def test_a_cancelled_stream_gives_its_slot_back(server: Server, client: Client) -> None:
    for _ in range(5):  # a model of two slots
        first = client.chat("x", model="two", stream=True, smmf_echo=SLOW)
        with client.chat("x", model="two", stream=True, smmf_echo=SLOW) as second:
            assert next(second).text
        first.cancel()
        assert list(first) == []
    assert client.chat("x", model="two", **QUICK).text
    until(lambda: running(server, "two") == 0)


def test_a_stream_that_nobody_has_any_more_is_cancelled(server: Server, client: Client) -> None:
    stream = client.chat("x", model="two", stream=True, smmf_echo=SLOW)
    assert running(server, "two") == 1
    del stream
    until(lambda: running(server, "two") == 0)


def test_a_loop_that_is_left_cancels_its_stream(server: Server) -> None:
    async def ask() -> None:
        async with AsyncClient(address(server)) as fast:
            async for delta in await fast.chat("x", model="two", stream=True, smmf_echo=SLOW):
                assert delta.text
                break
            await asyncio.to_thread(until, lambda: running(server, "two") == 0)

    asyncio.run(ask())


def test_a_cancelled_task_gives_its_slot_back(server: Server) -> None:
    async def ask() -> None:
        async with AsyncClient(address(server)) as fast:
            task = asyncio.create_task(fast.chat("x", model="two", smmf_echo=SLOW))
            await asyncio.to_thread(until, lambda: running(server, "two") == 1)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            await asyncio.to_thread(until, lambda: running(server, "two") == 0)

    asyncio.run(ask())


def test_time_is_out(server: Server, client: Client) -> None:
    with pytest.raises(Timeout):
        client.chat("x", model="two", timeout=0.1, smmf_echo=SLOW)
    until(lambda: running(server, "two") == 0)
    stalls = {"tokens": 10, "step_ms": 5_000}
    with pytest.raises(Timeout):
        list(client.chat("x", model="two", stream=True, timeout=0.2, smmf_echo=stalls))

    async def ask() -> None:
        async with AsyncClient(address(server), timeout=0.1) as fast:
            with pytest.raises(Timeout):
                await fast.chat("x", model="two", smmf_echo=SLOW)

    asyncio.run(ask())
    until(lambda: running(server, "two") == 0)


@pytest.mark.parametrize("script", [LEFT_OPEN, LEFT_OPEN_ASYNC])
def test_a_client_that_is_never_closed_does_not_keep_its_process(
    server: Server, script: str
) -> None:
    command = [sys.executable, "-c", script, address(server)]
    done = subprocess.run(command, capture_output=True, timeout=WAIT_S, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, b"done\n", b"")
    until(lambda: running(server, "two") == 0)


def test_closing_the_client_ends_what_is_open(server: Server) -> None:
    client = Client(address(server))
    stream = client.chat("x", model="two", stream=True, smmf_echo=SLOW)
    closer = threading.Timer(0.1, client.close)
    closer.start()
    with pytest.raises(ClientError):
        list(stream)
    closer.join()
    with pytest.raises(Cancelled):
        client.models()
    until(lambda: running(server, "two") == 0)


def test_a_killed_clients_requests_are_cancelled(server: Server) -> None:
    """One streams, one would be answered whole: that one the Router can only find out by pings."""
    command = [sys.executable, "-c", ASK_AND_DIE, address(server)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE)
    assert process.stdout is not None
    assert process.stdout.readline() == b"begun\n"
    until(lambda: running(server, "two") == 2)
    process.kill()
    process.wait()
    process.stdout.close()
    assert until(lambda: running(server, "two") == 0) < WAIT_S - PING_S


def test_a_slow_reader_gets_everything_and_holds_little(server: Server, client: Client) -> None:
    many: dict[str, Any] = {"max_tokens": 30_000, "smmf_echo": {"tokens": 30_000}}
    stream = client.chat("x", model="echo", stream=True, **many)
    until(lambda: running(server, "echo") == 0)  # it has been generated; the Router keeps it
    held = sum(map(len, queued(stream)))
    text = text_of(list(stream))
    assert text == client.chat("x", model="echo", **many).text
    assert held < 2 * WINDOW_BYTES < len(text)


def queued(stream: Any) -> list[bytes]:
    """The lines that wait for this stream's reader; they stay."""
    parts = [stream._parts.get() for _ in range(stream._parts.qsize())]
    for part in parts:
        stream._parts.put(part)
    return [part for part in parts if isinstance(part, bytes)]


def test_who_reads_nothing_for_too_long_is_cut_off(server: Server, client: Client) -> None:
    endless = {"tokens": 30_000, "text": "words"}
    wide: dict[str, Any] = {"n": 16, "smmf_echo": endless, "max_tokens": 30_000}
    stream = client.chat("x", model="echo", stream=True, **wide)
    until(lambda: running(server, "echo") == 0)
    assert client.chat("hi", model="echo", **QUICK).text  # others are not affected
    with pytest.raises(ClientError, match="not read"):
        list(stream)


# --- servers that go and come ---


def test_a_server_that_comes_back_is_found(tmp_path: Path) -> None:
    (tmp_path / "local-echo.toml").write_text(echo_toml())
    server = Server(tmp_path).start()
    with Client(address(server), connect_timeout=WAIT_S) as client:
        expected = client.chat("hi", model="echo").text
        stream = client.chat("x", model="echo", stream=True, smmf_echo=SLOW)
        os.kill(server.pid_of("router"), signal.SIGKILL)
        with pytest.raises(ConnectionLost):
            list(stream)
        assert client.chat("hi", model="echo").text == expected  # waits for the next Router
        assert server.stop() == 0
        assert list(server.run_dir.glob("client-*")) == []
        with pytest.raises(ConnectionLost), Client(address(server), connect_timeout=0.2) as late:
            late.models()
        waiting = ThreadPoolExecutor(1)
        answer = waiting.submit(client.chat, "hi", model="echo")
        server.start()
        assert answer.result(WAIT_S).text == expected
        waiting.shutdown()
    assert server.stop() == 0


@pytest.mark.parametrize("new_loop", [asyncio.new_event_loop, uvloop.new_event_loop])
def test_async_clients_come_back_too(tmp_path: Path, new_loop: NewLoop) -> None:
    (tmp_path / "local-echo.toml").write_text(echo_toml())
    server = Server(tmp_path).start()

    async def ask() -> None:
        async with AsyncClient(address(server), connect_timeout=WAIT_S) as client:
            assert (await client.chat("hi", model="echo", **QUICK)).text
            stream = await client.chat("x", model="echo", stream=True, smmf_echo=SLOW)
            os.kill(await asyncio.to_thread(server.pid_of, "router"), signal.SIGKILL)
            with pytest.raises(ConnectionLost):
                await everything(stream)
            answers = [client.chat("hi", model="echo", **QUICK) for _ in range(50)]
            assert len({answer.text for answer in await asyncio.gather(*answers)}) == 1

    with asyncio.Runner(loop_factory=new_loop) as runner:
        runner.run(ask())
    assert server.stop() == 0


def test_what_had_no_answer_yet_is_asked_again(tmp_path: Path) -> None:
    (tmp_path / "local-echo.toml").write_text(echo_toml())
    server = Server(tmp_path).start()
    late: dict[str, Any] = {"model": "echo", "smmf_echo": {"tokens": 20, "step_ms": 300}}
    with Client(address(server)) as client, ThreadPoolExecutor(2) as threads:
        expected = client.chat("hi", model="echo", smmf_echo={"tokens": 20}).text
        answer = threads.submit(client.chat, "hi", **late)
        with Client(address(server), retries=0) as proud:
            refused = threads.submit(proud.chat, "hi", **late)
            until(lambda: running(server, "echo") == 2)
            os.kill(server.pid_of("router"), signal.SIGKILL)
            with pytest.raises(ConnectionLost):
                refused.result(WAIT_S)
        assert answer.result(WAIT_S).text == expected
    assert server.stop() == 0


def test_clients_go_to_another_router(tmp_path: Path) -> None:
    (tmp_path / "local-echo.toml").write_text(echo_toml())
    server = Server(tmp_path, "--routers", "2").start()
    try:
        until(lambda: len(list(server.run_dir.glob("client-*.sock"))) == 2)
        clients = [Client(address(server)) for _ in range(8)]
        for client in clients:
            assert client.models()
        victim = server.pid_of("router")
        os.kill(victim, signal.SIGTERM)  # it drains
        for client in clients:
            for _ in range(20):
                assert client.chat("hi", model="echo", **QUICK).text
        for client in clients:
            client.close()
    finally:
        assert server.stop() == 0


def test_where_keys_are_needed_the_lane_needs_one(tmp_path: Path) -> None:
    (tmp_path / "local-echo.toml").write_text(echo_toml())
    (tmp_path / "smmf.toml").write_text('[server]\napi_keys = ["secret"]\n')
    server = Server(tmp_path).start()
    try:
        with Client(address(server), api_key="") as nobody, pytest.raises(Unauthorized) as refused:
            nobody.models()
        assert refused.value.code == "invalid_api_key"
        with Client(address(server), api_key="secret") as known:
            assert known.chat("hi", model="echo", **QUICK).text
        sockets = list(server.run_dir.glob("client-*.sock"))
        assert [path.stat().st_mode & 0o777 for path in sockets] == [0o600]
    finally:
        assert server.stop() == 0


def test_many_streams_share_one_connection(server: Server) -> None:
    async def ask() -> list[str]:
        async with AsyncClient(address(server)) as fast:
            streams = [
                await fast.chat(f"number {n}", model="echo", stream=True, smmf_echo=paced)
                for n in range(32)
            ]
            return await asyncio.gather(*[everything(stream) for stream in streams])

    paced = {"text": "echo", "step_ms": 2}
    assert asyncio.run(ask()) == [f"number {n}" for n in range(32)]
