"""Images for a model of text, as the official clients send them: a 400 that names the part, and
nothing is fetched. (Models that see are vLLM's: model/test_vllm_vision.py.)"""

from __future__ import annotations

import base64
import json
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import anthropic
import ollama
import openai
import pytest
from server import Server, echo_toml

PNG = base64.b64encode(b"\x89PNG\r\n\x1a\n" + bytes(64)).decode()
URL = f"data:image/png;base64,{PNG}"


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder: Path = tmp_path_factory.mktemp("images")
    (folder / "local-echo.toml").write_text(echo_toml())
    started = Server(folder).start()
    yield started
    assert started.stop() == 0


@pytest.fixture
def client(served: Server) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=served.base_url, api_key="unused", max_retries=0) as client:
        yield client


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    """Nobody must come."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        listening.setblocking(False)
        yield listening
        with pytest.raises(BlockingIOError):
            listening.accept()


def chat(url: str) -> Any:
    image = {"type": "image_url", "image_url": {"url": url, "detail": "low"}}
    return [{"role": "user", "content": [{"type": "text", "text": "What is it?"}, image]}]


@pytest.mark.parametrize("stream", [False, True])
def test_openai_chat(client: openai.OpenAI, stream: bool) -> None:
    with pytest.raises(openai.BadRequestError, match="takes no images") as caught:
        client.chat.completions.create(model="echo", messages=chat(URL), stream=stream)
    assert caught.value.param == "messages[0].content[1]"
    assert caught.value.code == "unsupported_value"


@pytest.mark.parametrize("stream", [False, True])
def test_openai_responses(client: openai.OpenAI, stream: bool) -> None:
    part = {"type": "input_image", "image_url": URL, "detail": "auto"}
    asked: Any = [{"role": "user", "content": [{"type": "input_text", "text": "?"}, part]}]
    with pytest.raises(openai.BadRequestError, match="takes no images") as caught:
        client.responses.create(model="echo", input=asked, stream=stream)
    assert caught.value.param == "input[0].content[1]"


@pytest.mark.parametrize("stream", [False, True])
def test_anthropic_messages(served: Server, stream: bool) -> None:
    source = {"type": "base64", "media_type": "image/png", "data": PNG}
    content = [{"type": "text", "text": "?"}, {"type": "image", "source": source}]
    messages: Any = [{"role": "user", "content": content}]
    named = r"'messages\[0\]\.content\[1\]': this model takes no images"
    with anthropic.Anthropic(
        base_url=served.base_url[:-3], api_key="unused", max_retries=0
    ) as client:
        with pytest.raises(anthropic.BadRequestError, match=named):
            client.messages.create(model="echo", messages=messages, max_tokens=9, stream=stream)
        with pytest.raises(anthropic.BadRequestError, match=named):
            client.messages.count_tokens(model="echo", messages=messages)


@pytest.mark.parametrize("stream", [False, True])
def test_ollama(served: Server, stream: bool) -> None:
    message = {"role": "user", "content": "?", "images": [PNG]}
    named = r"'messages\[0\]\.images\[0\]': this model takes no images"
    with ollama.Client(host=served.base_url[:-3]) as client:
        with pytest.raises(ollama.ResponseError, match=named) as caught:
            list(client.chat("echo", messages=[message], stream=stream))
        assert caught.value.status_code == 400
        with pytest.raises(ollama.ResponseError, match=r"'images\[0\]': this model takes no"):
            list(client.generate("echo", "?", images=[PNG], stream=stream))


def test_nothing_is_fetched(client: openai.OpenAI, listener: socket.socket) -> None:
    url = f"http://127.0.0.1:{listener.getsockname()[1]}/a.png"
    with pytest.raises(openai.BadRequestError, match="as a 'data:' URL") as caught:
        client.chat.completions.create(model="echo", messages=chat(url))
    assert caught.value.param == "messages[0].content[1]"


def test_tokens_of_an_image(served: Server) -> None:
    body = {"model": "echo", "messages": chat(URL)}
    status, _, answer = served.request("POST", "/tokenize", body)
    assert (status, json.loads(answer)["error"]["param"]) == (400, "messages[0].content[1]")


def test_nobody_sees_here(client: openai.OpenAI) -> None:
    require = {"smmf": {"require": {"vision": True}}}
    for more in (require, {}):
        with pytest.raises(openai.NotFoundError, match=r"No model here .*vision"):
            client.chat.completions.create(model="auto", messages=chat(URL), extra_body=more)


def test_a_large_image_is_read_whole(served: Server) -> None:
    """A body near its limit, and an image at its own: refused for what it is."""
    large = base64.b64encode(bytes(20 << 20)).decode()
    body = {"model": "echo", "messages": chat(f"data:image/png;base64,{large}")}
    status, _, answer = served.request("POST", "/v1/chat/completions", body)
    assert (status, json.loads(answer)["error"]["param"]) == (400, "messages[0].content[1]")
