"""Structured output through the whole stack, with the official client: whole, streamed, refused."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import jsonschema
import pytest
from engines_env import require
from openai import BadRequestError, OpenAI
from pydantic import BaseModel, Field
from server import Server

from smmf_core.config import bundled

pytestmark = pytest.mark.timeout(400)
BACKENDS = ("reference", "transformers", "mlx")


class Address(BaseModel):
    city: str
    country: Literal["NL", "DE"] | None


class Person(BaseModel):
    name: str
    age: int = Field(ge=0, le=150)
    emails: list[str] = Field(max_length=2)
    address: Address


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[OpenAI]:
    folder: Path = tmp_path_factory.mktemp("grammar")
    for backend in BACKENDS:
        if backend != "reference":
            require(backend)
        text = f'[model]\nname = "{backend}"\nbackend = "{backend}"\npath = "{bundled("demo")}"\n'
        (folder / f"local-{backend}.toml").write_text(text)
    server = Server(folder).start(wait=False)
    server.wait_ready(200)
    with OpenAI(base_url=server.base_url, api_key="unused", max_retries=0) as client:
        yield client
    assert server.stop() == 0


def asked(model: str, **fields: Any) -> dict[str, Any]:
    messages = [{"role": "user", "content": "Answer as JSON: Ada from Utrecht is 36"}]
    return {"model": model, "messages": messages, "seed": 7, **fields}


@pytest.mark.parametrize("model", BACKENDS)
def test_a_parsed_answer(client: OpenAI, model: str) -> None:
    for temperature in (0, 1):
        answer = client.chat.completions.parse(
            **asked(model, temperature=temperature), response_format=Person
        )
        person = answer.choices[0].message.parsed
        assert isinstance(person, Person)
        with client.chat.completions.stream(
            **asked(model, temperature=temperature), response_format=Person
        ) as stream:
            events = list(stream)
            last = stream.get_final_completion()
        assert last.choices[0].message.parsed == person
        assert last.choices[0].message.content == answer.choices[0].message.content
        assert sum(event.type == "content.delta" for event in events) > 1


@pytest.mark.parametrize("model", BACKENDS)
def test_whole_and_streamed_are_the_same(client: OpenAI, model: str) -> None:
    schema = {"type": "object", "properties": {"n": {"enum": ["\u4f60\u597d", "\U0001f600"]}},
              "required": ["n"]}  # fmt: skip
    for form, wanted in (
        ({"type": "json_object"}, {"type": "object"}),
        ({"type": "json_schema", "json_schema": {"name": "x", "schema": schema}}, schema),
        ({"type": "json_object", "schema": schema}, schema),
    ):
        fields: Any = asked(model, response_format=form, temperature=0.8, max_tokens=200)
        whole = client.chat.completions.create(**fields)
        usage = {"stream_options": {"include_usage": True}}
        chunks = list(client.chat.completions.create(**fields, **usage, stream=True))
        parts = [choice for chunk in chunks for choice in chunk.choices]
        text = "".join(part.delta.content or "" for part in parts)
        assert text == whole.choices[0].message.content
        assert [part.finish_reason for part in parts if part.finish_reason] == ["stop"]
        assert whole.choices[0].finish_reason == "stop"
        assert chunks[-1].usage == whole.usage
        jsonschema.validate(json.loads(text), wanted)


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("model", BACKENDS)
def test_a_schema_that_cannot_be_followed_is_a_400(
    client: OpenAI, model: str, stream: bool
) -> None:
    for schema, word in (
        ({"properties": {"a": {"not": {}}}}, "'not' at 'properties.a'"),
        ({"type": "string", "pattern": "(?=a)"}, "look-ahead"),
        ({"type": "string", "pattern": "(a{1000}){1000}"}, "repetitions"),
    ):
        form = {"type": "json_schema", "json_schema": {"name": "x", "schema": schema}}
        with pytest.raises(BadRequestError, match=word) as caught:
            client.chat.completions.create(**asked(model, response_format=form), stream=stream)
        assert caught.value.param == "response_format.json_schema.schema"


def test_the_limit_may_cut_an_answer(client: OpenAI) -> None:
    form = {"type": "json_schema", "json_schema": {"name": "x", "schema": {
        "type": "object", "properties": {"a": {"type": "string", "minLength": 500}},
        "required": ["a"]}}}  # fmt: skip
    answer = client.chat.completions.create(
        **asked("reference", response_format=form, max_tokens=9)
    )
    assert answer.choices[0].finish_reason == "length"
    assert answer.usage is not None
    assert answer.usage.completion_tokens == 9
