"""From bytes to Submits: the request's own values, the model's defaults, OpenAI's defaults."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from smmf_core.api import openai
from smmf_core.api.openai.schema import ChatBody, CompletionBody
from smmf_core.errors import ApiError
from smmf_core.messages import Sampling, Submit, encode

USER = {"role": "user", "content": "hi"}
TOOL = {"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}
CALL = {"id": "call_1", "type": "function", "function": {"name": "f", "arguments": "{}"}}


def chat(defaults: dict[str, Any] | None = None, **fields: Any) -> openai.Parsed:
    body = json.dumps({"model": "m", "messages": [USER], **fields}).encode()
    return openai.finish(openai.parse("chat", body), defaults or {}, lambda: 99)


def complete(defaults: dict[str, Any] | None = None, **fields: Any) -> openai.Parsed:
    body = json.dumps({"model": "m", "prompt": "hi", **fields}).encode()
    return openai.finish(openai.parse("completion", body), defaults or {}, lambda: 99)


def test_a_bare_chat_has_openais_defaults() -> None:
    parsed = chat()
    assert parsed.submit == Submit(
        key=0, attempt=0, request_id="", model="m", stream=False, n=1, messages=[USER],
        prompts=None, sampling=Sampling(seed=99),
    )  # fmt: skip
    assert (parsed.model, parsed.dialect, parsed.n_choices) == ("m", "chat", 1)
    assert (parsed.stream, parsed.include_usage, parsed.continuous_usage) == (False,) * 3
    assert (parsed.max_tokens, parsed.priority, parsed.user, parsed.logprobs) == (
        None,
        0,
        "",
        False,
    )


def test_a_bare_completion_is_16_tokens() -> None:
    submit = complete().submit
    assert (submit.messages, submit.prompts, submit.sampling.max_tokens) == (None, ["hi"], 16)


def test_everything_arrives() -> None:
    parsed = chat(
        stream=True,
        stream_options={"include_usage": True, "continuous_usage_stats": True},
        n=3, max_tokens=5, min_tokens=2, temperature=0.5, top_p=0.25, top_k=40, min_p=0.125,
        presence_penalty=1, frequency_penalty=-1, repetition_penalty=1.5, logit_bias={"7": -100},
        seed=12, stop=["a", "b"], stop_token_ids=[3], include_stop_str_in_output=True,
        ignore_eos=True, logprobs=True, top_logprobs=4, user="me", priority=-3,
        smmf_echo={"tokens": 4}, chat_template_kwargs={"x": 1}, tools=[TOOL],
        tool_choice="required", response_format={"type": "json_object"},
    )  # fmt: skip
    submit = parsed.submit
    assert submit.sampling == Sampling(
        max_tokens=5, min_tokens=2, temperature=0.5, top_p=0.25, top_k=40, min_p=0.125,
        presence_penalty=1, frequency_penalty=-1, repetition_penalty=1.5, logit_bias={7: -100},
        seed=12, stop=["a", "b"], stop_token_ids=[3], include_stop=True, ignore_eos=True,
        logprobs=4, is_seeded=True,
    )  # fmt: skip
    assert (submit.stream, submit.n, submit.priority) == (True, 3, -3)
    assert (submit.tools, submit.tool_choice) == ([TOOL], "required")
    assert submit.response_format == {"type": "json_object"}
    assert (submit.echo, submit.template_args) == ({"tokens": 4}, {"x": 1})
    assert (parsed.include_usage, parsed.continuous_usage, parsed.logprobs) == (True,) * 3
    assert (parsed.n_choices, parsed.max_tokens, parsed.user) == (3, 5, "me")


def _optional(kind: type[msgspec.Struct]) -> dict[str, None]:
    return dict.fromkeys(f.name for f in msgspec.structs.fields(kind) if not f.required)


def test_null_means_omitted_everywhere() -> None:
    assert chat(**_optional(ChatBody)) == chat()
    assert complete(**_optional(CompletionBody)) == complete()


def test_unknown_fields_are_ignored() -> None:
    extra: dict[str, Any] = {
        "store": True,
        "metadata": {"a": [1]},
        "service_tier": "auto",
        "verbosity": "low",
    }
    assert chat(**extra, anything={"x": [{}]}) == chat()


def test_falsy_values_count() -> None:
    defaults = {"temperature": 0.7, "top_p": 0.9, "presence_penalty": 1.0, "seed": 5}
    sampling = chat(defaults, temperature=0, top_p=0, presence_penalty=0, seed=0).submit.sampling
    assert (sampling.temperature, sampling.top_p) == (0, 0)
    assert (sampling.presence_penalty, sampling.seed) == (0, 0)
    assert not chat({"ignore_eos": True}, ignore_eos=False).submit.sampling.ignore_eos


def test_the_models_defaults_fill_what_is_open() -> None:
    defaults = {"temperature": 0.7, "max_tokens": 512, "stop": "END", "top_k": -1, "seed": 4}
    sampling = chat(defaults).submit.sampling
    assert (sampling.temperature, sampling.max_tokens, sampling.stop) == (0.7, 512, ["END"])
    assert (sampling.top_k, sampling.seed) == (0, 4)
    assert chat(defaults, max_tokens=None).max_tokens == 512
    assert complete(defaults).max_tokens == 512
    assert chat({"min_tokens": 9}, max_tokens=3).submit.sampling.min_tokens == 3


def test_max_completion_tokens_wins() -> None:
    assert chat(max_tokens=9, max_completion_tokens=4).max_tokens == 4
    assert chat({"max_tokens": 7}, max_completion_tokens=4).max_tokens == 4
    assert complete(max_completion_tokens=4).max_tokens == 4


def test_integral_floats_are_integers() -> None:
    body = b'{"model":"m","messages":[{"role":"user","content":"hi"}],"n":2.0,"max_tokens":1.6e1}'
    parsed = openai.finish(openai.parse("chat", body), {})
    assert (parsed.n_choices, parsed.max_tokens) == (2, 16)
    assert isinstance(parsed.max_tokens, int)


def test_of_duplicate_keys_the_last_counts() -> None:
    body = b'{"model":"a","model":"b","messages":[{"role":"user","content":"hi"}]}'
    assert openai.parse("chat", body).model == "b"


def test_seeds_fit_an_engine() -> None:
    assert chat(seed=-1).submit.sampling.seed == 2**64 - 1
    assert chat(seed=-(2**63)).submit.sampling.seed == 2**63
    parsed = openai.finish(
        openai.parse("chat", msgspec.json.encode({"model": "m", "messages": [USER]})), {}
    )
    assert 0 <= parsed.submit.sampling.seed < 2**63


def test_stop_as_a_string_or_none() -> None:
    assert chat(stop="x").submit.sampling.stop == ["x"]
    assert chat(stop=[]).submit.sampling.stop == []


@pytest.mark.parametrize(
    ("content", "text"),
    [
        ("plain", "plain"),
        ([{"type": "text", "text": "Wh"}, {"type": "text", "text": "ill"}], "Whill"),
        ("", ""),
    ],
)
def test_contents_become_text(content: Any, text: str) -> None:
    messages = chat(messages=[{"role": "user", "content": content}]).submit.messages
    assert messages == [{"role": "user", "content": text}]


@pytest.mark.parametrize("given", [{"content": None}, {}, {"content": ""}, {"content": []}])
def test_an_assistant_may_say_nothing_but_calls(given: dict[str, Any]) -> None:
    messages = [USER, {"role": "assistant", **given, "tool_calls": [CALL]},
                {"role": "tool", "content": "sunny", "tool_call_id": "call_1"}]  # fmt: skip
    sent = chat(messages=messages).submit.messages
    assert sent is not None
    assert sent[1] == {"role": "assistant", "content": "", "tool_calls": [CALL]}
    assert sent[2]["tool_call_id"] == "call_1"


def test_what_an_assistant_refused_is_said() -> None:
    parts = [{"type": "text", "text": "I "}, {"type": "refusal", "refusal": "will not."}]
    for said in ({"content": parts}, {"content": None, "refusal": "I will not."}):
        (message,) = chat(messages=[{"role": "assistant", **said}]).submit.messages or []
        assert message["content"] == "I will not."


def test_functions_of_old_are_tools_to_templates() -> None:
    function = {"name": "f", "arguments": "{}"}
    asked = [{"role": "assistant", "content": None, "function_call": function},
             {"role": "function", "name": "f", "content": "3"},
             {"role": "assistant", "content": "So", "function_call": None}]  # fmt: skip
    assert chat(messages=asked).submit.messages == [
        {"role": "assistant", "content": "",
         "tool_calls": [{"id": "f", "type": "function", "function": function}]},
        {"role": "tool", "name": "f", "content": "3", "tool_call_id": "f"},
        {"role": "assistant", "content": "So"},
    ]  # fmt: skip


def test_what_changes_nothing_is_taken() -> None:
    """Other servers' fields, with the values that they have by themselves."""
    neutral = {
        "guided_json": None, "bad_words": [], "allowed_token_ids": [], "length_penalty": 1,
        "use_beam_search": False, "skip_special_tokens": True, "typical_p": 1.0, "mirostat": 0.0,
        "grammar": "", "documents": [], "chat_template": None,
    }  # fmt: skip
    assert chat(**neutral).submit == chat().submit
    assert complete(**neutral).submit == complete().submit


def test_a_completion_may_have_a_form() -> None:
    form = {"type": "json_object"}
    assert complete(response_format=form).submit.response_format == form
    assert complete(response_format={"type": "text"}).submit.response_format is None


def test_reasoning_and_unknown_keys_of_messages_pass() -> None:
    said = {"role": "assistant", "content": "x", "reasoning_content": "y", "name": "bob", "z": [1]}
    assert chat(messages=[said, {"role": "developer", "content": "be brief"}]).submit.messages == [
        said, {"role": "developer", "content": "be brief"},
    ]  # fmt: skip


def test_no_choice_means_that_the_model_does_not_see_the_tools() -> None:
    assert chat(tools=[TOOL], tool_choice="none").submit.tools is None
    assert chat(tools=[TOOL]).submit.parallel_tool_calls is True
    assert chat(tools=[TOOL], parallel_tool_calls=None).submit.parallel_tool_calls is True
    assert chat(tools=[TOOL], parallel_tool_calls=False).submit.parallel_tool_calls is False


def test_empty_tools_are_no_tools() -> None:
    assert chat(tools=[]).submit.tools is None
    assert chat(response_format={"type": "text"}).submit.response_format is None


@pytest.mark.parametrize(
    "choice",
    [
        "none",
        "auto",
        "required",
        {"type": "function", "function": {"name": "f"}},
        {
            "type": "allowed_tools",
            "allowed_tools": {
                "mode": "auto",
                "tools": [{"type": "function", "function": {"name": "f"}}],
            },
        },
    ],
)
def test_tool_choices_pass(choice: Any) -> None:
    assert chat(tools=[TOOL], tool_choice=choice).submit.tool_choice == choice


def test_reasoning_effort_reaches_the_template() -> None:
    assert chat(reasoning_effort="low").submit.template_args == {"reasoning_effort": "low"}
    args = chat(reasoning_effort="none", chat_template_kwargs={"a": 1}).submit.template_args
    assert args == {"reasoning_effort": "none", "enable_thinking": False, "a": 1}


def test_the_final_message_may_be_continued() -> None:
    said = {"role": "assistant", "content": "Once"}
    submit = chat(messages=[USER, said], continue_final_message=True).submit
    assert (submit.continue_final_message, submit.add_generation_prompt) == (True, False)
    assert not chat(add_generation_prompt=False).submit.add_generation_prompt


@pytest.mark.parametrize(
    ("prompt", "prompts"),
    [
        ("a", ["a"]),
        (["a", "b"], ["a", "b"]),
        ([1, 2], [[1, 2]]),
        ([[1, 2], [3]], [[1, 2], [3]]),
    ],
)
def test_prompts_have_four_forms(prompt: Any, prompts: list[Any]) -> None:
    parsed = complete(prompt=prompt, n=2)
    assert parsed.submit.prompts == prompts
    assert parsed.n_choices == 2 * len(prompts)


def test_completion_options() -> None:
    parsed = complete(echo=True, max_tokens=0, logprobs=0, best_of=1, suffix="")
    assert parsed.submit.echo_prompt
    assert (parsed.max_tokens, parsed.submit.sampling.logprobs, parsed.logprobs) == (0, 0, True)
    assert complete(n=3, best_of=3).n_choices == 3
    assert complete(logprobs=20).submit.sampling.logprobs == 20


def test_128_choices_are_the_most() -> None:
    assert complete(prompt=["a"] * 64, n=2).n_choices == 128


def test_sizes_are_estimated() -> None:
    assert chat(messages=[{"role": "user", "content": "x" * 1000}]).prompt_bytes == 1000
    assert complete(prompt=[[1] * 10, [2] * 5]).prompt_bytes == 60


def test_usage_goes_with_streams_only() -> None:
    parsed = chat(stream=True, stream_options={"continuous_usage_stats": True})
    assert (parsed.include_usage, parsed.continuous_usage) == (False, False)


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3)
    ),
    max_leaves=8,
)
_NAMES = st.sampled_from(
    ["model", "messages", "prompt", "n", "stop", "logit_bias", "tools", "tool_choice", "seed",
     "response_format", "stream_options", "temperature", "max_tokens", "logprobs", "smmf_echo"]
)  # fmt: skip


@settings(max_examples=300, deadline=None)
@given(st.sampled_from(["chat", "completion"]), st.dictionaries(_NAMES, _JSON, max_size=6))
def test_any_body_is_a_submit_or_a_400(dialect: str, fields: dict[str, Any]) -> None:
    body = {"model": "m", "messages": [USER], "prompt": "x", **fields}
    error = None
    try:
        encode([openai.finish(openai.parse(dialect, json.dumps(body).encode()), {}).submit])
    except ApiError as refusal:
        error = refusal
    assert error is None or (error.status == 400 and len(error.body()) < 1000)
