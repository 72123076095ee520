"""The official client against a real server with an echo model, through all layers.

The echo engine says " the quick brown fox jumps over ..." a word per token, and stops by itself.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import openai
import pydantic
import pytest

MESSAGES: Any = [{"role": "user", "content": "Tell me a story."}]
FIVE = {"smmf_echo": {"tokens": 5}}
TEXT = " the quick brown fox jumps"


@pytest.fixture
def client(server: Any) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=server.base_url, api_key="none", max_retries=0) as client:
        yield client


def test_a_chat(client: openai.OpenAI, server: Any) -> None:
    answer = client.chat.completions.create(
        model=server.model, messages=MESSAGES, extra_body=FIVE, temperature=0
    )
    (choice,) = answer.choices
    assert (choice.message.content, choice.message.role) == (TEXT, "assistant")
    assert choice.finish_reason == "stop"
    assert answer.id.startswith("chatcmpl-")
    assert (answer.object, answer.model) == ("chat.completion", server.model)
    assert answer.usage is not None
    assert answer.usage.completion_tokens == 5
    assert answer.usage.total_tokens == answer.usage.prompt_tokens + 5


def test_a_chat_stream(client: openai.OpenAI, server: Any) -> None:
    stream = client.chat.completions.create(
        model=server.model, messages=MESSAGES, extra_body=FIVE, stream=True
    )
    chunks = list(stream)
    assert len({(c.id, c.created, c.model, c.system_fingerprint) for c in chunks}) == 1
    assert chunks[0].choices[0].delta.role == "assistant"
    assert all(c.choices[0].delta.role is None for c in chunks[1:])
    assert "".join(c.choices[0].delta.content or "" for c in chunks) == TEXT
    assert [c.choices[0].finish_reason for c in chunks if c.choices[0].finish_reason] == ["stop"]
    assert all(len(c.choices) == 1 and c.usage is None for c in chunks)


def test_streams_and_whole_answers_agree(client: openai.OpenAI, server: Any) -> None:
    options: Any = {
        "model": server.model, "messages": MESSAGES, "extra_body": FIVE, "n": 2, "max_tokens": 4,
    }  # fmt: skip
    whole = client.chat.completions.create(**options)
    chunks = list(
        client.chat.completions.create(
            **options, stream=True, stream_options={"include_usage": True}
        )
    )
    assert chunks[-1].choices == []
    assert chunks[-1].usage == whole.usage
    assert [c.choices[0].index for c in chunks[:2]] == [0, 1]
    for choice in whole.choices:
        deltas = [c.choices[0] for c in chunks[:-1] if c.choices[0].index == choice.index]
        assert "".join(d.delta.content or "" for d in deltas) == choice.message.content
        assert deltas[-1].finish_reason == choice.finish_reason == "length"


def test_the_stream_accumulator(client: openai.OpenAI, server: Any) -> None:
    with client.chat.completions.stream(
        model=server.model, messages=MESSAGES, extra_body=FIVE, n=2
    ) as stream:
        for _ in stream:
            pass
        answer = stream.get_final_completion()
    assert [c.message.content for c in answer.choices] == [TEXT, TEXT]
    assert [c.message.role for c in answer.choices] == ["assistant", "assistant"]
    assert [c.finish_reason for c in answer.choices] == ["stop", "stop"]


def test_many_at_once(server: Any) -> None:
    async def ask(client: openai.AsyncOpenAI) -> str:
        stream = await client.chat.completions.create(
            model=server.model, messages=MESSAGES, extra_body=FIVE, stream=True
        )
        return "".join([chunk.choices[0].delta.content or "" async for chunk in stream])

    async def main() -> list[str]:
        async with openai.AsyncOpenAI(
            base_url=server.base_url, api_key="none", max_retries=0
        ) as client:
            return await asyncio.gather(*(ask(client) for _ in range(20)))

    assert asyncio.run(main()) == [TEXT] * 20


@pytest.mark.parametrize("stop", [" fox", ["n f", "zebra"]])
def test_stop_strings(client: openai.OpenAI, server: Any, stop: Any) -> None:
    answer = client.chat.completions.create(
        model=server.model, messages=MESSAGES, extra_body=FIVE, stop=stop
    )
    assert answer.choices[0].finish_reason == "stop"
    assert answer.choices[0].message.content in (" the quick brown", " the quick brow")


def test_max_tokens_cut(client: openai.OpenAI, server: Any) -> None:
    answer = client.chat.completions.create(
        model=server.model, messages=MESSAGES, max_tokens=99, max_completion_tokens=3
    )
    assert answer.choices[0].finish_reason == "length"
    assert answer.choices[0].message.content == " the quick brown"


@pytest.mark.parametrize("stream", [False, True])
def test_logprobs(client: openai.OpenAI, server: Any, stream: bool) -> None:
    options: Any = {
        "model": server.model, "messages": MESSAGES, "extra_body": FIVE, "logprobs": True,
        "top_logprobs": 2,
    }  # fmt: skip
    if stream:
        chunks = list(client.chat.completions.create(**options, stream=True))
        parts = [c.choices[0].logprobs for c in chunks if c.choices[0].logprobs]
        tokens = [token for part in parts for token in part.content or []]
    else:
        answer = client.chat.completions.create(**options)
        assert answer.choices[0].logprobs is not None
        tokens = answer.choices[0].logprobs.content or []
    assert "".join(token.token for token in tokens) == TEXT
    assert b"".join(bytes(token.bytes or []) for token in tokens) == TEXT.encode()
    assert all(len(token.top_logprobs) == 2 and token.logprob <= 0 for token in tokens)


def test_characters_outside_ascii_survive(client: openai.OpenAI, server: Any) -> None:
    said = 'Ünï "quoted" \\ 漢字 🦊\n'
    messages: Any = [{"role": "user", "content": said}]
    echo = {"smmf_echo": {"text": "echo"}}
    whole = client.chat.completions.create(model=server.model, messages=messages, extra_body=echo)
    stream = client.chat.completions.create(
        model=server.model, messages=messages, extra_body=echo, stream=True
    )
    assert whole.choices[0].message.content == said
    assert "".join(chunk.choices[0].delta.content or "" for chunk in stream) == said


class Weather(pydantic.BaseModel):
    city: str
    degrees: int
    sunny: bool


def test_a_schema_is_answered_by_an_instance_of_it(client: openai.OpenAI, server: Any) -> None:
    answer = client.chat.completions.parse(
        model=server.model, messages=MESSAGES, response_format=Weather
    )
    assert isinstance(answer.choices[0].message.parsed, Weather)


# --- completions ---


def test_a_completion(client: openai.OpenAI, server: Any) -> None:
    answer = client.completions.create(
        model=server.model, prompt=["a", "b"], n=2, max_tokens=5, logprobs=1
    )
    assert [choice.index for choice in answer.choices] == [0, 1, 2, 3]
    for choice in answer.choices:
        assert (choice.text, choice.finish_reason) == (TEXT, "length")
        assert choice.logprobs is not None
        assert "".join(choice.logprobs.tokens or []) == TEXT
        assert choice.logprobs.text_offset == [0, 4, 10, 16, 20]
    assert answer.usage is not None
    assert answer.usage.completion_tokens == 20


def test_a_completion_of_16_tokens_by_default(client: openai.OpenAI, server: Any) -> None:
    answer = client.completions.create(model=server.model, prompt="a")
    assert answer.usage is not None
    assert answer.usage.completion_tokens == 16


def test_a_completion_stream(client: openai.OpenAI, server: Any) -> None:
    stream = client.completions.create(
        model=server.model, prompt=[1, 2, 3], max_tokens=5, stream=True,
        stream_options={"include_usage": True},
    )  # fmt: skip
    chunks = list(stream)
    assert "".join(c.choices[0].text for c in chunks[:-1]) == TEXT
    assert [c.choices[0].finish_reason for c in chunks[:-1]][-1] == "length"
    assert (chunks[-1].choices, chunks[-1].object) == ([], "text_completion")
    assert chunks[-1].usage is not None
    assert (chunks[-1].usage.prompt_tokens, chunks[-1].usage.completion_tokens) == (3, 5)


def test_echo_scores_a_prompt(client: openai.OpenAI, server: Any) -> None:
    answer = client.completions.create(
        model=server.model, prompt=[[1, 2, 3]], max_tokens=0, echo=True, logprobs=1
    )
    logprobs: Any = answer.choices[0].logprobs
    assert "".join(logprobs.tokens) == answer.choices[0].text == " quick brown fox"
    assert (logprobs.token_logprobs[0], logprobs.top_logprobs[0]) == (None, None)
    assert all(value < 0 for value in logprobs.token_logprobs[1:])
    assert len(logprobs.token_logprobs) == len(logprobs.top_logprobs) == 3


# --- errors ---


def test_a_wrong_value_is_a_bad_request(client: openai.OpenAI, server: Any) -> None:
    for stream in (False, True):
        with pytest.raises(openai.BadRequestError) as caught:
            client.chat.completions.create(
                model=server.model, messages=MESSAGES, temperature=3, stream=stream
            )
        error = caught.value
        assert (error.code, error.param) == ("decimal_above_max_value", "temperature")
        assert error.type == "invalid_request_error"
        assert error.request_id


def test_an_unknown_model_is_not_found(client: openai.OpenAI) -> None:
    for stream in (False, True):
        with pytest.raises(openai.NotFoundError) as caught:
            client.chat.completions.create(model="none", messages=MESSAGES, stream=stream)
        assert (caught.value.code, caught.value.param) == ("model_not_found", "model")


def test_a_prompt_over_the_context(client: openai.OpenAI, server: Any) -> None:
    for stream in (False, True):
        with pytest.raises(openai.BadRequestError, match="maximum context length") as caught:
            client.chat.completions.create(
                model=server.model, stream=stream,
                messages=[{"role": "user", "content": "word " * 100_000}],
            )  # fmt: skip
        assert caught.value.code == "context_length_exceeded"


def test_a_failure_after_the_first_token_raises(client: openai.OpenAI, server: Any) -> None:
    stream = client.chat.completions.create(
        model=server.model, messages=MESSAGES, stream=True,
        extra_body={"smmf_echo": {"fail": "error:3", "step_ms": 20}},
    )  # fmt: skip
    with pytest.raises(openai.APIError) as caught:
        list(stream)
    assert caught.value.code == "internal_error"


# --- models ---


def test_models(client: openai.OpenAI, server: Any) -> None:
    listed = list(client.models.list())
    assert server.model in [model.id for model in listed]
    for model in listed:
        assert client.models.retrieve(model.id) == model
        assert (model.object, model.owned_by) == ("model", "smmf")
    found: Any = client.models.retrieve(server.model)
    assert found.status == "ready"
    assert found.max_model_len > 0


@pytest.mark.parametrize("name", ["none", "org/name", "org/deep/name:tag", "ünï"])
def test_names_of_unknown_models_come_back_decoded(client: openai.OpenAI, name: str) -> None:
    with pytest.raises(openai.NotFoundError, match="does not exist") as caught:
        client.models.retrieve(name)
    assert name in caught.value.message
