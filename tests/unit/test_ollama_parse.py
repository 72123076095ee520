"""From Ollama's bodies to Submits: options, formats, messages, tools, and what is wrong."""

from __future__ import annotations

import json
from typing import Any

import pytest

from smmf_core.api import ollama, openai
from smmf_core.api.openai import Parsed
from smmf_core.errors import ApiError
from smmf_core.messages import Embed, Sampling, Submit, Tokenize

USER = {"role": "user", "content": "hi"}
SUM = {"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"]}
WRAPPED = {"name": "format", "schema": SUM, "strict": True}
TOOL = {"type": "function", "function": {"name": "add", "parameters": SUM}}


def parsed(parse: Any, body: dict[str, Any], defaults: dict[str, Any] | None = None) -> Parsed:
    found = parse(json.dumps({"model": "m", **body}).encode())
    return openai.finish(found, defaults or {}, lambda: 7)


def read(body: bytes) -> None:
    """All that a Router reads of a body."""
    found: Any = ollama.parse_chat(body)
    openai.parse_require(found.smmf)
    openai.finish(found, {})


def chat(**fields: Any) -> Submit:
    return parsed(ollama.parse_chat, {"messages": [USER], **fields}).submit


def generation(**fields: Any) -> Submit:
    return parsed(ollama.parse_generate, {"prompt": "Say", **fields}).submit


def sampling(defaults: dict[str, Any] | None = None, **options: Any) -> Sampling:
    body = {"messages": [USER], "options": options}
    return parsed(ollama.parse_chat, body, defaults).submit.sampling


def refused(parse: Any, **body: Any) -> ApiError:
    with pytest.raises(ApiError) as caught:
        parse(json.dumps({"model": "m", **body}).encode())
    assert caught.value.status == 400
    assert len(caught.value.message) < 300
    return caught.value


# --- options ---


def test_without_options_the_models_own_hold() -> None:
    assert sampling() == Sampling(seed=7)
    own = {"temperature": 0.3, "max_tokens": 5, "top_k": 9}
    assert sampling(own) == Sampling(seed=7, temperature=0.3, max_tokens=5, top_k=9)
    assert sampling(own, temperature=0, top_k=0) == Sampling(seed=7, temperature=0, max_tokens=5)


def test_options_by_their_names() -> None:
    given = sampling(
        num_predict=9, temperature=0.5, top_k=3, top_p=0.9, min_p=0.1, seed=5, stop=["a", "b"],
        repeat_penalty=1.1, repeat_last_n=64, presence_penalty=0.5, frequency_penalty=-0.5,
        num_ctx=4096, num_gpu=1, num_thread=4, mirostat=0, typical_p=1.0, tfs_z=1, unheard="of",
    )  # fmt: skip
    assert given == Sampling(
        max_tokens=9, temperature=0.5, top_k=3, top_p=0.9, min_p=0.1, seed=5, is_seeded=True,
        stop=["a", "b"], repetition_penalty=1.1, presence_penalty=0.5, frequency_penalty=-0.5,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"num_predict": -1}, Sampling(seed=7)),
        ({"num_predict": -2}, Sampling(seed=7)),
        ({"seed": -1}, Sampling(seed=7)),
        ({"seed": 0}, Sampling(seed=0, is_seeded=True)),
        ({"stop": "END"}, Sampling(seed=7, stop=["END"])),
        ({"stop": []}, Sampling(seed=7)),
        ({"stop": ""}, Sampling(seed=7)),
        ({"top_k": -1}, Sampling(seed=7)),
        ({"top_k": 4.0, "num_ctx": 8192.0}, Sampling(seed=7, top_k=4)),
        ({"repeat_penalty": 1.5, "repeat_last_n": 0}, Sampling(seed=7)),
        ({"repeat_penalty": 1.5, "repeat_last_n": -1}, Sampling(seed=7, repetition_penalty=1.5)),
        ({"temperature": None, "stop": None}, Sampling(seed=7)),
    ],
)
def test_what_options_mean(options: dict[str, Any], expected: Sampling) -> None:
    assert sampling(**options) == expected


@pytest.mark.parametrize(
    ("options", "param"),
    [
        ({"temperature": -0.1}, "options.temperature"),
        ({"temperature": "hot"}, "options.temperature"),
        ({"top_p": 1.1}, "options.top_p"),
        ({"min_p": 2}, "options.min_p"),
        ({"top_k": 2.5}, "options.top_k"),
        ({"num_predict": 0}, "options.num_predict"),
        ({"num_predict": -3}, "options.num_predict"),
        ({"repeat_penalty": 0}, "options.repeat_penalty"),
        ({"presence_penalty": 3}, "options.presence_penalty"),
        ({"stop": ["a", ""]}, "options.stop[1]"),
        ({"stop": ["a"] * 129}, "options.stop"),
        ({"seed": 2**64}, "options.seed"),
        ({"mirostat": 1}, "options.mirostat"),
        ({"typical_p": 0.5}, "options.typical_p"),
        ({"tfs_z": 0.5}, "options.tfs_z"),
    ],
)
def test_wrong_options_are_named(options: dict[str, Any], param: str) -> None:
    assert refused(ollama.parse_chat, messages=[USER], options=options).param == param


# --- fields ---


@pytest.mark.parametrize(("stream", "expected"), [(None, True), (True, True), (False, False)])
def test_it_streams_unless_told_not_to(stream: bool | None, expected: bool) -> None:
    assert chat(stream=stream).stream is expected
    assert generation(stream=stream).stream is expected


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (None, None),
        ("", None),
        ("json", {"type": "json_object"}),
        (SUM, {"type": "json_schema", "json_schema": WRAPPED}),
    ],
)
def test_formats(given: Any, expected: Any) -> None:
    assert chat(format=given).response_format == expected
    assert generation(format=given).response_format == expected


@pytest.mark.parametrize(
    ("think", "expected"),
    [
        (None, None),
        (True, {"enable_thinking": True}),
        (False, {"enable_thinking": False}),
        ("high", {"enable_thinking": True, "reasoning_effort": "high"}),
    ],
)
def test_thoughts_are_the_templates(think: Any, expected: Any) -> None:
    assert chat(think=think).template_args == expected
    assert generation(think=think).template_args == expected


def test_what_is_wanted_may_be_more_than_fits() -> None:
    assert chat().may_be_cut
    assert generation(raw=True).may_be_cut


def test_logprobs() -> None:
    assert chat().sampling.logprobs is None
    assert chat(top_logprobs=3).sampling.logprobs is None
    assert chat(logprobs=True).sampling.logprobs == 0
    assert chat(logprobs=True, top_logprobs=3).sampling.logprobs == 3
    assert generation(logprobs=True, top_logprobs=2, raw=True).sampling.logprobs == 2


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"format": "xml"}, "format"),
        ({"format": 5}, "format"),
        ({"think": "much"}, "think"),
        ({"think": 3}, "think"),
        ({"keep_alive": "soon"}, "keep_alive"),
        ({"top_logprobs": 21, "logprobs": True}, "top_logprobs"),
        ({"stream": "yes"}, "stream"),
        ({"options": []}, "options"),
        ({"messages": "hi"}, "messages"),
        ({"messages": [{"content": "x"}]}, "messages[0].role"),
        ({"messages": [{"role": "robot", "content": "x"}]}, "messages[0].role"),
        ({"messages": [{"role": 5, "content": "x"}]}, "messages[0].role"),
        ({"messages": [{"role": "user", "content": ["x"]}]}, "messages[0].content"),
        ({"messages": [{**USER, "images": "aGk="}]}, "messages[0].images"),
        ({"messages": [{**USER, "images": ["aGk=", "a"]}]}, "messages[0].images[1]"),
        ({"messages": [{**USER, "images": ["http://a/b.png"]}]}, "messages[0].images[0]"),
        ({"messages": [{"role": "system", "images": ["aGk="]}]}, "messages[0].images"),
        ({"messages": [{"role": "assistant", "thinking": 4}]}, "messages[0].thinking"),
        ({"messages": [{"role": "assistant", "tool_calls": 4}]}, "messages[0].tool_calls"),
        ({"messages": [{"role": "assistant", "tool_calls": [4]}]}, "messages[0].tool_calls[0]"),
        (
            {"messages": [{"role": "assistant", "tool_calls": [{}]}]},
            "messages[0].tool_calls[0].function",
        ),
        (
            {"messages": [{"role": "assistant", "tool_calls": [{"function": {}}]}]},
            "messages[0].tool_calls[0].function.name",
        ),
        (
            {
                "messages": [
                    {
                        "role": "assistant",
                        "tool_calls": [{"function": {"name": "f", "arguments": "{}"}}],
                    }
                ]
            },
            "messages[0].tool_calls[0].function.arguments",
        ),
        ({"tools": [{"type": "function"}]}, "tools[0].function"),
        ({"tools": [{"type": "web", "function": {}}]}, "tools[0].type"),
        ({"tools": {}}, "tools"),
        ({"smmf": {"requires": 1}}, "smmf.requires"),
    ],
)
def test_wrong_fields_are_named(body: dict[str, Any], param: str) -> None:
    given = {"messages": [USER], **body}
    with pytest.raises(ApiError) as caught:
        read(json.dumps({"model": "m", **given}).encode())
    assert (caught.value.status, caught.value.param) == (400, param)


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b"null", b'{"model": ""}', b"{}", b"\xff"])
@pytest.mark.parametrize("parse", [ollama.parse_chat, ollama.parse_generate])
def test_what_is_no_request_is_refused(parse: Any, body: bytes) -> None:
    with pytest.raises(ApiError) as caught:
        parse(body)
    assert caught.value.status == 400


# --- messages ---


def test_messages_and_calls_as_a_chat_has_them() -> None:
    call = {"function": {"name": "add", "arguments": {"a": 1}}}
    named = {"id": "c9", "function": {"index": 1, "name": "sub", "arguments": {}}}
    submit = chat(
        messages=[
            {"role": "System", "content": "Be brief."},
            USER,
            {"role": "assistant", "thinking": "Hm.", "tool_calls": [call, named, call]},
            {"role": "tool", "content": "2", "tool_name": "sub"},
            {"role": "tool", "content": "1"},
            {"role": "tool", "content": "3", "tool_call_id": "call_2_2"},
            {"role": "tool", "content": "?", "tool_name": "other"},
        ],
        tools=[{"function": TOOL["function"]}],
    )
    assert submit.messages is not None
    assert submit.messages[:2] == [{"role": "system", "content": "Be brief."}, USER]
    said = submit.messages[2]
    assert (said["reasoning_content"], said["content"]) == ("Hm.", "")
    assert [c["id"] for c in said["tool_calls"]] == ["call_2_0", "c9", "call_2_2"]
    assert said["tool_calls"][0]["function"] == {"name": "add", "arguments": '{"a":1}'}
    answers = [(m["content"], m["tool_call_id"], m.get("name")) for m in submit.messages[3:]]
    assert answers == [
        ("2", "c9", "sub"),
        ("1", "call_2_0", "add"),
        ("3", "call_2_2", "add"),
        ("?", "call_messages[6]", "other"),
    ]
    assert submit.tools == [TOOL]


def test_an_answer_that_has_begun_goes_on() -> None:
    begun = chat(messages=[USER, {"role": "assistant", "content": "It is"}])
    assert (begun.continue_final_message, begun.add_generation_prompt) == (True, False)
    assert chat().continue_final_message is False


# --- generations ---


def test_a_generation_is_a_chat() -> None:
    assert generation(system="Be brief.").messages == [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "Say"},
    ]
    assert generation().messages == [{"role": "user", "content": "Say"}]


def test_a_raw_one_is_a_completion_that_ends_by_itself() -> None:
    submit = generation(raw=True, options={"temperature": 0})
    assert (submit.messages, submit.prompts) == (None, ["Say"])
    assert submit.sampling == Sampling(seed=7, temperature=0)
    assert generation(raw=True, options={"num_predict": 3}).sampling.max_tokens == 3
    own = parsed(ollama.parse_generate, {"prompt": "Say", "raw": True}, {"max_tokens": 5})
    assert own.submit.sampling.max_tokens == 5


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"suffix": "end"}, "suffix"),
        ({"template": "{{ .Prompt }}"}, "template"),
        ({"context": [1, 2]}, "context"),
        ({"images": ["a"]}, "images[0]"),
        ({"raw": True, "images": ["aGk="]}, "images"),
        ({"raw": True, "system": "x"}, "system"),
        ({"raw": True, "format": "json"}, "format"),
        ({"prompt": 5}, "prompt"),
        ({"prompt": ["a"]}, "prompt"),
    ],
)
def test_what_generations_cannot_do(body: dict[str, Any], param: str) -> None:
    assert refused(ollama.parse_generate, **{"prompt": "Say", **body}).param == param


def test_empty_ones_of_these_are_not_asked_for() -> None:
    empty: dict[str, Any] = {
        "suffix": "",
        "template": "",
        "context": [],
        "images": [],
        "system": "",
    }
    assert generation(**empty).messages == [{"role": "user", "content": "Say"}]


# --- loads ---


@pytest.mark.parametrize(
    ("parse", "body"),
    [
        (ollama.parse_chat, {}),
        (ollama.parse_chat, {"messages": []}),
        (ollama.parse_generate, {}),
        (ollama.parse_generate, {"prompt": ""}),
        (ollama.parse_generate, {"prompt": "", "raw": True}),
    ],
)
def test_nothing_asked_is_a_load(parse: Any, body: dict[str, Any]) -> None:
    load = parse(json.dumps({"model": "m", "keep_alive": "5m", **body}).encode())
    assert (load.model, load.keep_alive_s) == ("m", 300.0)
    wanted = load.wanted(1_700_000_000)
    assert isinstance(wanted.submit, Tokenize)
    assert (wanted.submit.model, wanted.submit.text, wanted.keep_alive_s) == ("m", "", 300.0)
    answer = json.loads(load.body("m:latest", 1_700_000_000, "unload"))
    assert answer["done_reason"] == "unload"
    assert answer["model"] == "m:latest"
    assert answer["done"] is True


# --- embeddings ---


def embed(**fields: Any) -> Any:
    body = json.dumps({"model": "m", **fields}).encode()
    return ollama.parse_embed(body, "1").submit


def test_embeddings() -> None:
    one, more = embed(input="a", dimensions=8), embed(input=["a", "b"], truncate=False)
    assert isinstance(one, Embed)
    assert (one.inputs, one.dimensions, one.max_tokens) == (["a"], 8, -1)
    assert (more.inputs, more.dimensions, more.max_tokens) == (["a", "b"], None, 0)
    old = ollama.parse_embeddings(b'{"model":"m","prompt":"a"}', "1").submit
    assert isinstance(old, Embed)
    assert (old.inputs, old.max_tokens) == (["a"], -1)


@pytest.mark.parametrize("given", [None, "", []])
def test_nothing_to_embed_is_a_load(given: Any) -> None:
    assert isinstance(embed(input=given), Tokenize)
    assert isinstance(ollama.parse_embeddings(b'{"model":"m"}', "1").submit, Tokenize)


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"input": 5}, "input"),
        ({"input": [1, 2]}, "input"),
        ({"input": ["a", ""]}, "input[1]"),
        ({"input": ["a"] * 2049}, "input"),
        ({"input": "a", "dimensions": 0}, "dimensions"),
        ({"input": "a", "keep_alive": []}, "keep_alive"),
    ],
)
def test_wrong_embeddings_are_named(body: dict[str, Any], param: str) -> None:
    with pytest.raises(ApiError) as caught:
        embed(**body)
    assert (caught.value.status, (caught.value.param or "")[: len(param)]) == (400, param)
