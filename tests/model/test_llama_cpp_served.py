"""llama.cpp behind the whole stack: a GGUF file given to `smmf serve`, adapters, vectors."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import gguf
import numpy as np
import pytest
from gguf_models import make_gguf, make_lora, make_tiny_bert
from openai import BadRequestError, NotFoundError, OpenAI
from server import Server

from configs.demo.export.to_gguf import export
from smmf_core.config import bundled, load_models

pytestmark = pytest.mark.timeout(400)
SCHEMA = {
    "type": "object",
    "properties": {"name": {"type": "string"}, "age": {"type": "integer"}},
    "required": ["name", "age"],
    "additionalProperties": False,
}


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[OpenAI]:
    folder: Path = tmp_path_factory.mktemp("models")
    export(bundled("demo"), folder / "demo.gguf", "f32")
    make_gguf(folder / "tiny")
    make_lora(folder / "tiny", folder / "red.gguf", 0)
    make_tiny_bert(folder / "bert.gguf", gguf.PoolingType.MEAN)
    start = '[model]\nbackend = "llama_cpp"\n'
    files = {
        "demo": f'{start}name = "demo"\npath = "demo.gguf"\n',
        "tiny": f'{start}name = "tiny"\npath = "tiny"\n[engine.adapters]\nred = "red.gguf"\n',
        "bert": f'{start}name = "bert"\npath = "bert.gguf"\ntask = "embed"\n',
    }
    for name, text in files.items():
        (folder / f"local-{name}.toml").write_text(text)
    server = Server(folder).start(wait=False)
    server.wait_ready(200)
    with OpenAI(base_url=server.base_url, api_key="unused", max_retries=0) as client:
        yield client
    assert server.stop() == 0


def test_a_gguf_file_is_a_target(tmp_path: Path) -> None:
    export(bundled("demo"), tmp_path / "demo.gguf", "f16")
    (config,) = load_models([str(tmp_path / "demo.gguf")])
    assert (config.model.name, config.model.backend) == ("demo", "llama_cpp")


def test_chat_finds_its_beginning_in_the_cache(client: OpenAI) -> None:
    messages = [{"role": "user", "content": "Who are you?"}]
    first = client.chat.completions.create(model="demo", messages=messages, temperature=0)
    text = first.choices[0].message.content
    assert text is not None
    assert "SMMF demo model" in text
    messages += [{"role": "assistant", "content": text}, {"role": "user", "content": "Hello."}]
    second = client.chat.completions.create(model="demo", messages=messages, temperature=0)
    assert first.usage is not None
    assert second.usage is not None
    details = second.usage.prompt_tokens_details
    assert details is not None
    assert details.cached_tokens is not None
    assert details.cached_tokens >= first.usage.prompt_tokens


def test_an_answer_keeps_to_its_schema(client: OpenAI) -> None:
    form = {"name": "person", "strict": True, "schema": SCHEMA}
    answer = client.chat.completions.create(
        model="demo",
        messages=[{"role": "user", "content": "Make a JSON object of name = Ada and age = 36."}],
        temperature=0,
        response_format={"type": "json_schema", "json_schema": form},
    )
    assert json.loads(answer.choices[0].message.content or "") == {"name": "Ada", "age": 36}


@pytest.mark.parametrize("stream", [False, True])
def test_a_schema_that_cannot_be_kept_is_a_400(client: OpenAI, stream: bool) -> None:
    form = {"name": "x", "schema": {"type": "thing"}}
    with pytest.raises(BadRequestError, match="unknown type") as caught:
        client.chat.completions.create(
            model="demo",
            messages=[{"role": "user", "content": "x"}],
            response_format={"type": "json_schema", "json_schema": form},
            stream=stream,
        )
    assert caught.value.param == "response_format.json_schema.schema"


def test_an_adapter_is_chosen_by_name(client: OpenAI) -> None:
    texts = [
        client.completions.create(model=model, prompt="the quick", max_tokens=8, temperature=0)
        .choices[0]
        .text
        for model in ("tiny", "tiny:red", "tiny")
    ]
    assert texts[0] == texts[2] != texts[1]
    with pytest.raises(NotFoundError):
        client.completions.create(model="tiny:blue", prompt="the", max_tokens=8)


def test_vectors(client: OpenAI) -> None:
    found = client.embeddings.create(model="bert", input=["river dogs", "a b", "river dogs"])
    vectors = np.array([entry.embedding for entry in found.data])
    assert vectors.shape == (3, 32)
    assert np.linalg.norm(vectors, axis=1) == pytest.approx(1, abs=1e-5)
    assert np.abs(vectors[0] - vectors[2]).max() < 1e-5
    assert vectors[0] @ vectors[1] < 0.999
