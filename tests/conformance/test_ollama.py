"""Ollama's API with its official client against a real server: answers, streamed or not."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from typing import Any

import ollama
import pytest
from ollama_models import FIVE, HEADERS, TEXT, USER, make_server
from pydantic import BaseModel
from server import Server

DURATIONS = ("total_duration", "load_duration", "prompt_eval_duration", "eval_duration")


class City(BaseModel):
    name: str
    people: int


def weather(city: str) -> str:
    """Of a city.

    Args:
      city: its name
    """
    return f"rain in {city}"


ADD: Any = {
    "type": "function",
    "function": {
        "name": "add",
        "parameters": {
            "type": "object",
            "properties": {"a": {"type": "integer"}},
            "required": ["a"],
        },
    },
}


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    server = make_server(tmp_path_factory.mktemp("ollama")).start()
    yield server
    assert server.stop() == 0


@pytest.fixture
def client(served: Server) -> Iterator[ollama.Client]:
    with ollama.Client(f"http://127.0.0.1:{served.port}", headers=HEADERS) as client:
        yield client


def joined(parts: list[Any], field: str) -> str:
    return "".join(part.message.get(field) or "" for part in parts)


def essence(answer: Any) -> Any:
    """What does not differ from answer to answer."""
    found = answer.model_dump() if isinstance(answer, BaseModel) else answer
    for name in (*DURATIONS, "created_at"):
        assert found.pop(name)
    return found


# --- chats and generations ---


def test_a_chat(client: ollama.Client) -> None:
    answer = client.chat("echo", [USER], options=FIVE)
    assert (answer.model, answer.done, answer.done_reason) == ("echo", True, "length")
    assert (answer.message.role, answer.message.content) == ("assistant", TEXT)
    assert answer.eval_count == 5
    assert answer.prompt_eval_count
    assert all(getattr(answer, name) > 0 for name in DURATIONS)
    assert answer.total_duration >= answer.eval_duration


def test_a_stream(client: ollama.Client) -> None:
    parts = list(client.chat("echo", [USER], stream=True, options=FIVE))
    assert joined(parts, "content") == TEXT
    assert [part.done for part in parts] == [False] * (len(parts) - 1) + [True]
    assert {part.message.role for part in parts} == {"assistant"}
    last = parts[-1]
    assert (last.message.content, last.done_reason, last.eval_count) == ("", "length", 5)
    assert all(getattr(last, name) > 0 for name in DURATIONS)


MATRIX: list[dict[str, Any]] = [
    {},
    {"options": {"num_predict": 3, "temperature": 0, "seed": 1, "top_k": 3, "top_p": 0.5}},
    {"options": {"stop": ["zebra", " fox"]}},
    {"messages": [{"role": "system", "content": "Be brief."}, USER], "options": FIVE},
    {"model": "parrot", "said": '<think>\nHm "so"\n\n</think>\n\nIt is <b>3</b>. 漢字\n'},
    {"model": "parrot", "said": "<think>never closed"},
    {"model": "parrot", "said": "hello", "think": False},
    {"tools": [ADD]},
    {"tools": [ADD], "options": {"num_predict": 7}},
    {"tools": [ADD], "messages": [USER, {"role": "tool", "content": "3", "tool_name": "add"}]},
    {"format": "json"},
    {"format": City.model_json_schema()},
    {"logprobs": True, "top_logprobs": 2, "options": FIVE},
    {"model": "echo:latest", "keep_alive": "1h", "options": FIVE},
    {"model": "demo", "options": {"temperature": 0, "num_predict": 20}},
    {"model": "demo", "options": {"temperature": 0.9, "seed": 5, "num_predict": 20}},
    {"model": "demo", "format": City.model_json_schema(), "options": {"seed": 1}},
]


def whole_of(parts: list[Any]) -> dict[str, Any]:
    """What a stream's lines add up to."""
    found = essence(parts[-1])
    found["message"]["content"] = joined(parts, "content")
    found["message"]["thinking"] = joined(parts, "thinking") or None
    calls = [call.model_dump() for part in parts for call in part.message.tool_calls or []]
    found["message"]["tool_calls"] = calls or None
    logprobs = [entry.model_dump() for part in parts for entry in part.logprobs or []]
    found["logprobs"] = logprobs or None
    return found


@pytest.mark.parametrize("fields", MATRIX)
def test_streams_and_whole_answers_agree(client: ollama.Client, fields: dict[str, Any]) -> None:
    said = fields.get("said")
    messages = [{"role": "user", "content": said}] if said else [USER]
    request = {"model": "echo", "messages": messages, **fields}
    request.pop("said", None)
    request.setdefault("options", {"num_predict": 100})
    whole, parts = client.chat(**request), list(client.chat(**request, stream=True))
    assert essence(whole) == whole_of(parts)
    if said:
        thought, _, rest = said.rpartition("</think>")
        assert (whole.message.content or "").strip() in (rest.strip(), "")
        assert "<think>" not in (whole.message.content or "") + (whole.message.thinking or "")
        assert bool(whole.message.thinking) is ("<think>" in said)
        assert not thought or "Hm" in (whole.message.thinking or "")


def test_thoughts_have_a_field_of_their_own(client: ollama.Client) -> None:
    asked = [{"role": "user", "content": "<think>Hm.</think>So."}]
    message = client.chat("parrot", asked, think=True).message
    assert (message.thinking, message.content) == ("Hm.", "So.")
    answer = client.generate("parrot", "<think>Hm.</think>So.", think="high")
    assert (answer.thinking, answer.response) == ("Hm.", "So.")


def test_a_generation(client: ollama.Client) -> None:
    answer = client.generate("echo", "Say", system="Be brief.", options=FIVE)
    assert (answer.response, answer.done_reason, answer.eval_count) == (TEXT, "length", 5)
    parts = list(client.generate("echo", "Say", stream=True, options=FIVE))
    assert "".join(part.response or "" for part in parts) == TEXT
    assert parts[-1].done_reason == "length"
    assert all(getattr(parts[-1], name) > 0 for name in DURATIONS)


def test_more_is_asked_for_than_fits(client: ollama.Client) -> None:
    answer = client.chat("demo", [USER], options={"num_predict": 10**6, "stop": [" "]})
    assert answer.done_reason in ("stop", "length")
    with pytest.raises(ollama.ResponseError) as caught:
        client.generate("demo", "word " * 100_000)
    assert caught.value.status_code == 400
    assert "context length" in caught.value.error


def test_a_raw_generation_has_no_template(client: ollama.Client) -> None:
    asked = "<think>this is text</think>\n"
    assert client.generate("parrot", asked, raw=True).response == asked
    parts = client.generate("parrot", asked, raw=True, stream=True)
    assert "".join(part.response or "" for part in parts) == asked


def test_an_answer_follows_a_schema(client: ollama.Client) -> None:
    schema = City.model_json_schema()
    answer = client.chat("echo", [USER], format=schema)
    City.model_validate_json(answer.message.content or "")
    City.model_validate_json(client.generate("echo", "Say", format=schema).response or "")
    some_json = client.chat("echo", [USER], format="json").message.content
    assert isinstance(json.loads(some_json or ""), dict)


def test_calls_of_functions(client: ollama.Client) -> None:
    messages: list[Any] = [USER]
    answer = client.chat("echo", messages, tools=[weather, ADD])
    (call,) = answer.message.tool_calls or ()
    assert (call.function.name, call.function.arguments) == ("weather", {"city": "text"})
    assert (answer.done_reason, answer.message.content) == ("stop", "")
    messages += [
        answer.message,
        {"role": "tool", "content": weather(**call.function.arguments), "tool_name": "weather"},
    ]
    final = client.chat("echo", messages, tools=[weather, ADD], options=FIVE)
    assert (final.message.content, final.message.tool_calls) == (TEXT, None)


def test_the_async_client(served: Server) -> None:
    async def run() -> None:
        async with ollama.AsyncClient(f"http://127.0.0.1:{served.port}", headers=HEADERS) as client:
            whole = await client.chat("echo", [USER], options=FIVE)
            assert whole.message.content == TEXT
            parts = [p async for p in await client.chat("echo", [USER], stream=True, options=FIVE)]
            assert joined(parts, "content") == TEXT
            generated = await client.generate("echo", "Say", options=FIVE)
            assert generated.response == TEXT
            vectors = await client.embed("vectors", ["a", "b"])
            assert len(vectors.embeddings) == 2
            names = [model.model for model in (await client.list()).models]
            assert "echo:latest" in names

    asyncio.run(run())


# --- embeddings ---


def test_embeddings(client: ollama.Client) -> None:
    many, one = client.embed("vectors", ["a", "b"]), client.embed("vectors", "a")
    assert [len(row) for row in many.embeddings] == [8, 8]
    assert many.embeddings[0] == one.embeddings[0]
    assert one.prompt_eval_count == 1
    assert one.total_duration
    old = client.embeddings("vectors", "a")
    assert list(old.embedding) == list(one.embeddings[0])
    assert client.embed("vectors", "").embeddings == []
    assert list(client.embeddings("vectors", "").embedding) == []


def test_long_texts_are_cut_unless_told_not_to(client: ollama.Client) -> None:
    long = "word " * 20_000
    assert len(client.embed("vectors", long).embeddings) == 1
    with pytest.raises(ollama.ResponseError) as caught:
        client.embed("vectors", long, truncate=False)
    assert caught.value.status_code == 400
