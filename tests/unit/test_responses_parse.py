"""What a chat each Responses request becomes, and what is refused by name."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from smmf_core.api import openai, responses
from smmf_core.errors import ApiError
from smmf_core.messages import Submit, encode

TOOL = {"type": "function", "name": "add", "description": "Sums.", "parameters": {}, "strict": True}
CUSTOM = {"type": "custom", "name": "patch", "format": {"type": "text"}}
USER = {"role": "user", "content": "hi"}


def body(**fields: Any) -> bytes:
    return json.dumps({"model": "m", "input": "hi", **fields}).encode()


def submit(defaults: dict[str, Any] | None = None, **fields: Any) -> Submit:
    return openai.finish(responses.parse(body(**fields)), defaults or {}).submit


def messages(*items: Any, **fields: Any) -> Any:
    return submit(input=list(items), **fields).messages


def refusal(**fields: Any) -> ApiError:
    with pytest.raises(ApiError) as raised:
        responses.parse(body(**fields))
    assert raised.value.status == 400
    return raised.value


def test_a_plain_request() -> None:
    found = submit({"temperature": 0.3, "top_p": 0.5}, top_p=0.9, max_output_tokens=16, seed=3)
    sampling = found.sampling
    assert found.messages == [USER]
    assert (sampling.max_tokens, sampling.temperature, sampling.top_p) == (16, 0.3, 0.9)
    assert (sampling.seed, sampling.is_seeded, sampling.logprobs) == (3, True, None)
    assert (found.stream, found.n, found.tools, found.tool_choice) == (False, 1, None, None)
    assert (found.add_generation_prompt, found.parallel_tool_calls) == (True, True)
    assert submit(temperature=0).sampling.temperature == 0
    assert openai.finish(responses.parse(body(safety_identifier="s")), {}).user == "s"


def test_nulls_are_omitted() -> None:
    names = (
        "instructions tools tool_choice parallel_tool_calls reasoning text truncation stream "
        "previous_response_id conversation stream_options max_output_tokens max_tool_calls store "
        "temperature top_p top_logprobs include background prompt context_management metadata "
        "user safety_identifier prompt_cache_key service_tier seed unknown_key"
    )
    found = submit(**dict.fromkeys(names.split()))
    assert (found.messages, found.sampling.max_tokens) == ([USER], None)


def test_what_does_not_change_the_answer_is_accepted() -> None:
    found = submit(
        store=True, truncation="disabled", service_tier="flex", metadata={"a": "b"},
        background=False,
        include=["reasoning.encrypted_content"], text={"verbosity": "low"}, max_tool_calls=3,
        prompt_cache_retention="24h", context_management=[], tool_choice="auto", whatever=1,
    )  # fmt: skip
    assert (found.messages, found.tool_choice) == ([USER], None)


def test_logprobs() -> None:
    wanted = ["message.output_text.logprobs"]
    assert submit(include=wanted).sampling.logprobs == 0
    assert submit(include=wanted, top_logprobs=5).sampling.logprobs == 5
    assert submit(top_logprobs=5).sampling.logprobs == 5
    assert submit(top_logprobs=0).sampling.logprobs is None


# --- items ---


def test_instructions_come_first_as_one_message() -> None:
    developer = {"role": "developer", "content": "And kind."}
    assert messages(developer, USER, instructions="Be brief.") == [
        {"role": "system", "content": "Be brief.\n\nAnd kind."}, USER,
    ]  # fmt: skip
    assert messages(developer, USER) == [developer, USER]
    assert messages(USER, developer) == [USER, developer]
    assert messages(USER, USER) == [{"role": "user", "content": "hi\n\nhi"}]


def test_parts_are_joined() -> None:
    parts = [{"type": "input_text", "text": "a"}, {"type": "input_text", "text": "b"}]
    assert messages({"type": "message", "role": "user", "content": parts}) == [
        {"role": "user", "content": "ab"}
    ]
    refused = [{"type": "refusal", "refusal": "No."}]
    assert messages(USER, {"role": "assistant", "content": refused})[1]["content"] == "No."


def test_an_agents_turns() -> None:
    call = {"type": "function_call", "id": "fc_1", "call_id": "c1", "name": "add"}
    found = messages(
        USER,
        {"type": "reasoning", "id": "rs_1", "summary": [{"type": "summary_text", "text": "s"}],
         "content": [{"type": "reasoning_text", "text": "Hm"}], "encrypted_content": None},
        {"type": "message", "id": "msg_1", "role": "assistant", "status": "completed",
         "content": [{"type": "output_text", "text": "Well", "annotations": []}]},
        {**call, "arguments": '{"a":1}', "status": "completed"},
        {"type": "custom_tool_call", "call_id": "c2", "name": "patch", "input": 'say "é"\n'},
        {"type": "function_call_output", "call_id": "c1", "output": "1"},
        {"type": "custom_tool_call_output", "call_id": "c2",
         "output": [{"type": "input_text", "text": "done"}]},
        {"type": "message", "role": "assistant", "content": "Good."},
        {"role": "user", "content": "Thanks."},
    )  # fmt: skip
    said = {
        "role": "assistant",
        "content": "Well",
        "reasoning_content": "Hm",
        "tool_calls": [
            {"id": "c1", "type": "function", "function": {"name": "add", "arguments": '{"a":1}'}},
            {"id": "c2", "type": "function",
             "function": {"name": "patch", "arguments": '{"input":"say \\"é\\"\\n"}'}},
        ],
    }  # fmt: skip
    assert found == [
        USER,
        said,
        {"role": "tool", "tool_call_id": "c1", "content": "1"},
        {"role": "tool", "tool_call_id": "c2", "content": "done"},
        {"role": "assistant", "content": "Good."},
        {"role": "user", "content": "Thanks."},
    ]


ITEMS: list[tuple[Any, str, str]] = [
    ({}, "missing_required_parameter", ".role"),
    ({"role": 3, "content": ""}, "invalid_type", ".role"),
    ({"role": "owl", "content": ""}, "invalid_value", ".role"),
    ({"role": "user"}, "missing_required_parameter", ".content"),
    ({"role": "user", "content": []}, "empty_array", ".content"),
    ({"role": "user", "content": 3}, "invalid_type", ".content"),
    ({"role": "user", "content": ["a"]}, "invalid_type", ".content[0]"),
    ({"role": "user", "content": [{}]}, "missing_required_parameter", ".content[0].type"),
    (
        {"role": "user", "content": [{"type": "input_text"}]},
        "missing_required_parameter",
        ".content[0].text",
    ),
    (
        {"role": "user", "content": [{"type": "input_text", "text": "a"}, {"type": "input_image"}]},
        "missing_required_parameter",
        ".content[1].image_url",
    ),
    (
        {"role": "user", "content": [{"type": "input_image", "image_url": "http://a/b.png"}]},
        "unsupported_value",
        ".content[0]",
    ),
    (
        {"role": "user", "content": [{"type": "input_image", "file_id": "file-1"}]},
        "unsupported_value",
        ".content[0]",
    ),
    (
        {"role": "system", "content": [{"type": "input_image", "image_url": "data:"}]},
        "unsupported_value",
        ".content[0].type",
    ),
    ({"type": 3}, "invalid_type", ".type"),
    ({"type": "web_search_call", "id": "w"}, "unsupported_value", ".type"),
    ({"type": "item_reference", "id": "msg_1"}, "unsupported_value", ".type"),
    ({"id": "msg_1"}, "unsupported_value", ".type"),
    ({"type": "function_call", "name": "f"}, "missing_required_parameter", ".arguments"),
    ({"type": "function_call_output", "output": "x"}, "missing_required_parameter", ".call_id"),
    ({"type": "function_call_output", "call_id": "c"}, "missing_required_parameter", ".output"),
    (
        {"type": "function_call_output", "call_id": "c", "output": [{"type": "input_file"}]},
        "unsupported_value",
        ".output[0].type",
    ),
    ({"type": "custom_tool_call", "call_id": "c"}, "missing_required_parameter", ".input"),
    ({"type": "reasoning", "content": 3}, "invalid_type", ".content"),
    ({"type": "reasoning", "content": [{"type": "output"}]}, "invalid_value", ".content[0].type"),
]


@pytest.mark.parametrize(("item", "code", "place"), ITEMS)
def test_wrong_items(item: Any, code: str, place: str) -> None:
    error = refusal(input=[USER, item])
    assert (error.code, error.param) == (code, f"input[1]{place}")


# --- tools and formats ---


def test_tools() -> None:
    found = submit(tools=[TOOL, CUSTOM], tool_choice="required", parallel_tool_calls=False)
    add, patch = found.tools or []
    assert add == {"type": "function", "function": {k: v for k, v in TOOL.items() if k != "type"}}
    assert patch["function"]["name"] == "patch"
    assert patch["function"]["parameters"]["required"] == ["input"]
    assert (found.tool_choice, found.parallel_tool_calls) == ("required", False)
    assert submit(tools=[]).tools is None
    assert submit(tools=[TOOL], tool_choice="none").tools is None


def test_namespaces_are_part_of_names() -> None:
    space = {"type": "namespace", "name": "files", "description": "", "tools": [TOOL, CUSTOM]}
    found = submit(tools=[TOOL, space])
    names = [tool["function"]["name"] for tool in found.tools or []]
    assert names == ["add", "files__add", "files__patch"]
    call = {
        "type": "function_call", "call_id": "c", "name": "add", "namespace": "files",
        "arguments": "{}",
    }  # fmt: skip
    (said,) = messages(call)
    assert said["tool_calls"][0]["function"]["name"] == "files__add"


def test_a_search_that_may_not_reach_the_web_is_left_out() -> None:
    search = {"type": "web_search", "external_web_access": False}
    assert len(submit(tools=[TOOL, search]).tools or []) == 1
    assert submit(tools=[search], tool_choice="auto").tools is None
    assert refusal(tools=[{**search, "external_web_access": True}]).param == "tools[0].type"


def test_tool_choices() -> None:
    def chosen(choice: Any) -> Any:
        return submit(tools=[TOOL, CUSTOM], tool_choice=choice).tool_choice

    add, patch = ({"type": "function", "function": {"name": n}} for n in ("add", "patch"))
    assert chosen({"type": "function", "name": "add"}) == add
    assert chosen({"type": "custom", "name": "patch"}) == patch
    listed = [{"type": "function", "name": "add"}, {"type": "custom", "name": "patch"}]
    assert chosen({"type": "allowed_tools", "mode": "auto", "tools": listed}) == {
        "type": "allowed_tools", "allowed_tools": {"mode": "auto", "tools": [add, patch]},
    }  # fmt: skip


def test_formats() -> None:
    schema = {"type": "json_schema", "name": "n", "schema": {"type": "object"}, "strict": True}
    assert submit(text={"format": schema}).response_format == {
        "type": "json_schema",
        "json_schema": {"name": "n", "schema": {"type": "object"}, "strict": True},
    }
    assert submit(text={"format": {"type": "json_object"}}).response_format == {
        "type": "json_object"
    }
    assert submit(text={"format": {"type": "text"}}).response_format is None


def test_the_effort_reaches_the_template() -> None:
    assert submit(reasoning={"effort": "high"}).template_args == {"reasoning_effort": "high"}
    off = submit(reasoning={"effort": "none"}).template_args
    assert off == {"reasoning_effort": "none", "enable_thinking": False}


NAMED = {"type": "function", "name": "none"}
WRONG: list[tuple[dict[str, Any], str, str]] = [
    ({"input": None}, "missing_required_parameter", "input"),
    ({"input": []}, "empty_array", "input"),
    ({"input": 3}, "invalid_type", "input"),
    ({"model": None}, "invalid_type", "model"),
    ({"max_output_tokens": 15}, "integer_below_min_value", "max_output_tokens"),
    ({"temperature": 2.1}, "decimal_above_max_value", "temperature"),
    ({"top_p": -1}, "decimal_below_min_value", "top_p"),
    ({"top_logprobs": 21}, "integer_above_max_value", "top_logprobs"),
    ({"previous_response_id": "resp_1"}, "previous_response_not_found", "previous_response_id"),
    ({"conversation": "conv_1"}, "unsupported_parameter", "conversation"),
    ({"conversation": {"id": "c"}}, "unsupported_parameter", "conversation"),
    ({"background": True}, "unsupported_parameter", "background"),
    ({"prompt": {"id": "pmpt_1"}}, "unsupported_parameter", "prompt"),
    ({"context_management": [{}]}, "unsupported_parameter", "context_management"),
    ({"truncation": "auto"}, "unsupported_value", "truncation"),
    ({"truncation": "middle"}, "invalid_value", "truncation"),
    ({"include": ["everything"]}, "invalid_value", "include[0]"),
    ({"service_tier": "gold"}, "invalid_value", "service_tier"),
    ({"reasoning": {"effort": "huge"}}, "invalid_value", "reasoning.effort"),
    ({"reasoning": {"summary": "long"}}, "invalid_value", "reasoning.summary"),
    ({"text": {"verbosity": "none"}}, "invalid_value", "text.verbosity"),
    ({"metadata": {"a": 3}}, "invalid_type", "metadata"),
    ({"metadata": {"a": "x" * 513}}, "invalid_value", "metadata"),
    ({"metadata": {str(i): "" for i in range(17)}}, "invalid_value", "metadata"),
    ({"stream_options": {}}, "invalid_value", "stream_options"),
    ({"tools": [{}]}, "missing_required_parameter", "tools[0].type"),
    ({"tools": [{"type": "web_search"}]}, "unsupported_value", "tools[0].type"),
    ({"tools": [{"type": "function"}]}, "missing_required_parameter", "tools[0].name"),
    ({"tools": [{**TOOL, "name": "a b"}]}, "invalid_value", "tools[0].name"),
    ({"tools": [TOOL, TOOL]}, "invalid_value", "tools[1].name"),
    (
        {"tools": [{"type": "namespace", "name": "n"}]},
        "missing_required_parameter",
        "tools[0].tools",
    ),
    ({"tools": [{"type": "namespace", "name": "n", "tools": []}]}, "empty_array", "tools[0].tools"),
    (
        {"tools": [{"type": "namespace", "name": "n", "tools": [{"type": "mcp"}]}]},
        "unsupported_value",
        "tools[0].tools[0].type",
    ),
    ({"tools": [{**TOOL, "parameters": []}]}, "invalid_type", "tools[0].parameters"),
    (
        {"tools": [{**CUSTOM, "format": {"type": "grammar"}}]},
        "unsupported_value",
        "tools[0].format.type",
    ),
    ({"tool_choice": "required"}, "invalid_value", "tool_choice"),
    ({"tool_choice": "some"}, "invalid_value", "tool_choice"),
    ({"tool_choice": NAMED}, "invalid_value", "tool_choice"),
    ({"tools": [TOOL], "tool_choice": NAMED}, "invalid_value", "tool_choice.name"),
    ({"tools": [TOOL], "tool_choice": {"type": "mcp"}}, "invalid_value", "tool_choice.type"),
    (
        {"tools": [TOOL], "tool_choice": {"type": "allowed_tools", "mode": "any", "tools": []}},
        "invalid_value",
        "tool_choice.mode",
    ),
    (
        {"tools": [TOOL],
         "tool_choice": {"type": "allowed_tools", "mode": "auto", "tools": [NAMED]}},
        "invalid_value",
        "tool_choice.tools[0].name",
    ),
    ({"text": {"format": {"type": "xml"}}}, "invalid_value", "text.format.type"),
    (
        {"text": {"format": {"type": "json_schema", "schema": {}}}},
        "missing_required_parameter",
        "text.format.name",
    ),
    (
        {"text": {"format": {"type": "json_schema", "name": "n"}}},
        "missing_required_parameter",
        "text.format.schema",
    ),
    ({"keep_alive": "soon"}, "invalid_value", "keep_alive"),
]  # fmt: skip


@pytest.mark.parametrize(("fields", "code", "param"), WRONG)
def test_what_is_refused(fields: dict[str, Any], code: str, param: str) -> None:
    with pytest.raises(ApiError) as raised:
        openai.finish(responses.parse(body(**fields)), {})
    error = raised.value
    assert (error.code, (error.param or "").split("[...]")[0]) == (code, param)
    assert len(error.message) < 500


def test_what_is_too_deep_or_too_big() -> None:
    deep = b'{"model":"m","input":[{"role":"user","content":' + b"[" * 5000 + b"]" * 5000 + b"}]}"
    with pytest.raises(ApiError) as raised:
        responses.parse(deep)
    assert raised.value.status == 400
    nested: Any = {}
    for _ in range(200):
        nested = {"properties": {"a": nested}}
    assert refusal(tools=[{**TOOL, "parameters": nested}]).param == "tools"
    assert refusal(tools=[{**TOOL, "parameters": {"a": 1 << 80}}]).param == "tools"
    assert len(refusal(input=[{"role": "user" * 99_999, "content": ""}]).message) < 300
    assert len(refusal(previous_response_id="x" * 99_999).message) < 300


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner),
    max_leaves=8,
)
FIELDS = (
    "type", "role", "content", "output", "call_id", "name", "arguments", "input", "summary", "id",
)  # fmt: skip
WORDS = st.sampled_from(
    ("message", "reasoning", "function_call", "function_call_output", "user", "assistant")
)


@given(st.dictionaries(st.sampled_from(FIELDS), JSON | WORDS), st.booleans())
def test_no_item_is_an_accident(item: Any, as_tool: bool) -> None:
    """Whatever comes is a chat that can go to a Worker, or an error that names its place."""
    fields = {"tools": [item], "tool_choice": item} if as_tool else {"input": [item]}
    try:
        encode(submit(**fields))
    except ApiError as error:
        refused = error
    else:
        return
    assert refused.status == 400
    assert len(refused.message) < 600


def test_tokens_are_counted_of_the_same_prompt() -> None:
    fields = {"instructions": "Be brief.", "tools": [TOOL], "reasoning": {"effort": "low"}}
    wanted = responses.parse_count(body(**fields), "1")
    asked: Any = wanted.submit
    chat = submit(**fields)
    assert (asked.messages, asked.tools) == (chat.messages, chat.tools)
    assert asked.template_args == chat.template_args
    with pytest.raises(ApiError, match="input"):
        responses.parse_count(b'{"model":"m"}', "1")
