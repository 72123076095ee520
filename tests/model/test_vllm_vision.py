"""Images in the vllm backend: by hand under its interpreter, and behind a real server."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import anthropic
import pytest
from openai import BadRequestError, OpenAI
from server import Server, echo_toml
from tiny_vision import IMAGE_TOKENS, make_vision_model, png
from vllm_env import run_cases

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

TEXT = "the quick brown fox"
TOKENS = 10


def test_its_own_cases(vllm_python: str, tmp_path: Path) -> None:
    assert "passed" in run_cases(vllm_python, tmp_path, "tests/model/vllm_vision_cases.py")


# --- behind the server ---


@pytest.fixture(scope="module")
def server(vllm_python: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder: Path = tmp_path_factory.mktemp("vision")
    model = make_vision_model(folder / "model")
    for name in ("sees", "apart"):
        write_model(folder, name, model, vllm_python)
    (folder / "local-blind.toml").write_text(echo_toml("blind"))
    server = Server(folder)
    server.start(wait=False)
    server.wait_ready(600)
    yield server
    assert server.stop() == 0


def write_model(folder: Path, name: str, model: Path, python: str) -> None:
    """`apart` has its core in a process of its own."""
    (folder / f"local-{name}.toml").write_text(f"""[model]
name = "{name}"
cost = {1 if name == "sees" else 2}
backend = "vllm"
path = "{model}"
[optimization]
dtype = "float32"
[deployment]
python = "{python}"
[engine]
kv_cache_memory_bytes = 33554432
max_model_len = 256
in_process = {json.dumps(name == "sees")}
""")


@pytest.fixture
def client(server: Server) -> Iterator[OpenAI]:
    with OpenAI(base_url=server.base_url, api_key="unused", max_retries=0, timeout=120) as client:
        yield client


def encoded(data: bytes) -> str:
    return base64.b64encode(data).decode()


def turn(data: bytes) -> list[Any]:
    url = f"data:image/png;base64,{encoded(data)}"
    image = {"type": "image_url", "image_url": {"url": url, "detail": "low"}}
    return [{"role": "user", "content": [image, {"type": "text", "text": TEXT}]}]


def chat(client: OpenAI, data: bytes, **fields: Any) -> Any:
    fields = {"model": "sees", "max_tokens": TOKENS, "temperature": 0, **fields}
    return client.chat.completions.create(messages=turn(data), **fields)


def test_all_dialects_show_the_same_image(server: Server, client: OpenAI) -> None:
    known = chat(client, png(1))
    text, tokens = known.choices[0].message.content, known.usage.prompt_tokens
    plain: Any = [{"role": "user", "content": TEXT}]
    blind = client.chat.completions.create(model="sees", messages=plain, max_tokens=TOKENS)
    assert blind.usage is not None
    assert tokens == blind.usage.prompt_tokens + IMAGE_TOKENS
    assert text != chat(client, png(2)).choices[0].message.content

    chunks = chat(client, png(1), stream=True)
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks) == text

    part = {"type": "input_image", "image_url": turn(png(1))[0]["content"][0]["image_url"]["url"]}
    asked: Any = [{"role": "user", "content": [part, {"type": "input_text", "text": TEXT}]}]
    response = client.responses.create(
        model="sees", input=asked, max_output_tokens=16, temperature=0
    )
    assert response.usage is not None
    assert response.usage.input_tokens == tokens
    assert response.output_text.startswith(text)

    source = {"type": "base64", "media_type": "image/png", "data": encoded(png(1))}
    blocks: Any = [{"type": "image", "source": source}, {"type": "text", "text": TEXT}]
    messages: Any = [{"role": "user", "content": blocks}]
    with anthropic.Anthropic(base_url=server.base_url[:-3], api_key="x", max_retries=0) as other:
        said = other.messages.create(
            model="sees", messages=messages, max_tokens=TOKENS, extra_body={"temperature": 0}
        )
        assert said.usage.input_tokens + (said.usage.cache_read_input_tokens or 0) == tokens
        assert said.content[0].type == "text"
        assert said.content[0].text == text
        counted = other.messages.count_tokens(model="sees", messages=messages)
        assert counted.input_tokens == tokens

    options = {"temperature": 0, "num_predict": TOKENS}
    body = {"model": "sees", "stream": False, "options": options}
    shown = {"images": [encoded(png(1))]}
    for path, field, question in (
        ("/api/chat", "message", {"messages": [{"role": "user", "content": TEXT, **shown}]}),
        ("/api/generate", "response", {"prompt": TEXT, **shown}),
    ):
        status, _, raw = server.request("POST", path, {**body, **question})
        answer = json.loads(raw)
        assert status == 200, answer
        assert answer["prompt_eval_count"] == tokens
        assert (answer[field] if field == "response" else answer[field]["content"]) == text
    status, _, raw = server.request(
        "POST", "/tokenize", {"model": "sees", "messages": turn(png(1))}
    )
    assert (status, json.loads(raw)["count"]) == (200, tokens)


def test_a_core_of_its_own_sees_the_same(client: OpenAI) -> None:
    def text(model: str, seed: int) -> str:
        return str(chat(client, png(seed), model=model).choices[0].message.content)

    known = [text("sees", seed) for seed in range(6)]
    with ThreadPoolExecutor(6) as pool:
        together = list(pool.map(lambda seed: text("apart", seed), [*range(6)] * 2))
    assert together == known * 2
    assert len(set(known)) == 6


@pytest.mark.parametrize("model", ["sees", "apart"])
@pytest.mark.parametrize("stream", [False, True])
def test_what_is_no_image_is_a_400(client: OpenAI, model: str, stream: bool) -> None:
    with pytest.raises(BadRequestError) as caught:
        chat(client, b"no image", model=model, stream=stream)
    assert caught.value.param == "messages[0].content[0]"


def test_auto_finds_who_sees(client: OpenAI) -> None:
    require = {"smmf": {"require": {"vision": True}}}
    for more in (require, {}):
        assert chat(client, png(1), model="auto", extra_body=more).model == "sees"
    with pytest.raises(BadRequestError, match="takes no images"):
        chat(client, png(1), model="blind")


def test_it_is_said_who_sees(server: Server) -> None:
    for model, sees in (("sees", True), ("apart", True), ("blind", False)):
        status, _, raw = server.request("POST", "/api/show", {"model": model})
        assert status == 200
        assert ("vision" in json.loads(raw)["capabilities"]) is sees


@pytest.mark.parametrize("model", ["sees", "apart"])
def test_a_large_picture_passes(client: OpenAI, model: str) -> None:
    """13 MB of noise: through the Router, to the Worker, into the model's small size."""
    answer = chat(client, png(9, 2200, 2000), model=model)
    assert answer.usage.prompt_tokens == chat(client, png(1), model=model).usage.prompt_tokens
