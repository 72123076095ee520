"""What a chat each Messages request becomes, and what is refused by name."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from smmf_core.api import anthropic, openai
from smmf_core.errors import ApiError
from smmf_core.messages import Submit, encode

USER = {"role": "user", "content": "hi"}
TOOL = {"name": "add", "description": "Sums.", "input_schema": {"type": "object"}}
CHAT_TOOL = {
    "type": "function",
    "function": {"name": "add", "parameters": {"type": "object"}, "description": "Sums."},
}


def body(**fields: Any) -> bytes:
    given = {"model": "m", "max_tokens": 9, "messages": [USER], **fields}
    return json.dumps(given).encode()


def submit(defaults: dict[str, Any] | None = None, **fields: Any) -> Submit:
    return openai.finish(anthropic.parse(body(**fields)), defaults or {}).submit


def refusal(**fields: Any) -> ApiError:
    with pytest.raises(ApiError) as raised:
        anthropic.parse(body(**fields))
    assert raised.value.status == 400
    return raised.value


def test_a_plain_request() -> None:
    found = submit({"temperature": 0.3, "top_p": 0.5}, top_p=0.9, top_k=4, stop_sequences=["a"])
    sampling = found.sampling
    assert found.messages == [USER]
    assert (sampling.max_tokens, sampling.temperature, sampling.top_p) == (9, 0.3, 0.9)
    assert (sampling.top_k, sampling.stop) == (4, ["a"])
    assert (found.stream, found.n, found.tools, found.tool_choice) == (False, 1, None, None)
    assert (found.add_generation_prompt, found.continue_final_message) == (True, False)
    parsed = openai.finish(anthropic.parse(body(metadata={"user_id": "u"}, stream=True)), {})
    assert (parsed.user, parsed.stream) == ("u", True)


@pytest.mark.parametrize(
    "system", ["Be brief.", [{"type": "text", "text": "Be brief.", "cache_control": {}}]]
)
def test_the_system_comes_first(system: Any) -> None:
    found = submit(system=system).messages
    assert found == [{"role": "system", "content": "Be brief."}, USER]


def test_an_agents_turns() -> None:
    turns = [
        USER,
        {
            "role": "assistant",
            "content": [
                {"type": "thinking", "thinking": "Hm.", "signature": "s"},
                {"type": "redacted_thinking", "data": "x"},
                {"type": "text", "text": "Let me see."},
                {"type": "tool_use", "id": "a", "name": "add", "input": {"x": [1, "é"]}},
                {"type": "tool_use", "id": "b", "name": "add", "input": {}},
            ],
        },
        {
            "role": "user",
            "content": [
                {"type": "tool_result", "tool_use_id": "a", "content": "3"},
                {
                    "type": "tool_result",
                    "tool_use_id": "b",
                    "is_error": True,
                    "content": [{"type": "text", "text": "No x."}],
                },
                {"type": "text", "text": "So?"},
            ],
        },
        {"role": "user", "content": "And?"},
    ]
    assistant = {
        "role": "assistant",
        "content": "Let me see.",
        "reasoning_content": "Hm.",
        "tool_calls": [
            {
                "id": "a",
                "type": "function",
                "function": {"name": "add", "arguments": '{"x":[1,"é"]}'},
            },
            {"id": "b", "type": "function", "function": {"name": "add", "arguments": "{}"}},
        ],
    }
    assert submit(messages=turns).messages == [
        USER,
        assistant,
        {"role": "tool", "tool_call_id": "a", "content": "3"},
        {"role": "tool", "tool_call_id": "b", "content": "Error: No x."},
        {"role": "user", "content": "So?\nAnd?"},
    ]


def test_a_begun_answer_is_continued() -> None:
    found = submit(messages=[USER, {"role": "assistant", "content": "It is"}])
    assert (found.add_generation_prompt, found.continue_final_message) == (False, True)


@pytest.mark.parametrize(
    ("choice", "tool_choice", "parallel"),
    [
        (None, None, True),
        ({"type": "auto"}, "auto", True),
        ({"type": "auto", "disable_parallel_tool_use": True}, "auto", False),
        ({"type": "any"}, "required", True),
        ({"type": "tool", "name": "add"}, {"type": "function", "function": {"name": "add"}}, True),
    ],
)
def test_tools(choice: Any, tool_choice: Any, parallel: bool) -> None:
    found = submit(tools=[TOOL], tool_choice=choice)
    assert found.tools == [CHAT_TOOL]
    assert (found.tool_choice, found.parallel_tool_calls) == (tool_choice, parallel)


def test_no_tools() -> None:
    assert submit(tools=[TOOL], tool_choice={"type": "none"}).tools is None
    assert submit(tools=[], tool_choice={"type": "none"}).tools is None


@pytest.mark.parametrize(
    ("fields", "args"),
    [
        ({}, None),
        ({"thinking": {"type": "adaptive"}}, None),
        ({"thinking": {"type": "disabled"}}, {"enable_thinking": False}),
        (
            {"thinking": {"type": "enabled", "budget_tokens": 1024}, "max_tokens": 2048},
            {"enable_thinking": True, "thinking_budget": 1024},
        ),
        (
            {"thinking": {"type": "disabled"}, "chat_template_kwargs": {"enable_thinking": 1}},
            {"enable_thinking": 1},
        ),
        ({"output_config": {"effort": "low"}}, {"reasoning_effort": "low"}),
    ],
)
def test_thinking_reaches_the_template(fields: dict[str, Any], args: Any) -> None:
    assert submit(**fields).template_args == args


def test_a_schema_for_the_answer() -> None:
    schema = {"type": "object"}
    found = submit(output_config={"format": {"type": "json_schema", "schema": schema}})
    assert found.response_format is not None
    assert found.response_format["json_schema"]["schema"] == schema


def turn(*blocks: Any, role: str = "user") -> dict[str, Any]:
    return {"messages": [{"role": role, "content": list(blocks)}]}


DEEP: Any = {}
for _ in range(200):
    DEEP = {"a": DEEP}


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"max_tokens": None}, "max_tokens"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"model": ""}, "model"),
        ({"messages": []}, "messages"),
        ({"messages": [{"role": "system", "content": "x"}]}, "messages"),
        ({"messages": [{"content": "x"}]}, "messages[0].role"),
        ({"messages": [{"role": "user"}]}, "messages[0].content"),
        ({"messages": [{"role": "user", "content": 3}]}, "messages[0].content"),
        ({"messages": [{"role": "user", "content": ""}]}, "messages[0].content"),
        ({"messages": [{"role": "user", "content": []}]}, "messages[0].content"),
        ({"system": [{"type": "image"}]}, "system[0]"),
        ({"system": 3}, "system"),
        (turn({"type": "image", "source": {}}), "messages[0].content[0]"),
        (turn({"type": "text", "text": "x"}, {"type": "document"}), "messages[0].content[1]"),
        (turn("x"), "messages[0].content[0]"),
        (turn({"text": "x"}), "messages[0].content[0].type"),
        (turn({"type": "text"}), "messages[0].content[0].text"),
        (turn({"type": "tool_result"}), "messages[0].content[0].tool_use_id"),
        (
            turn({"type": "tool_result", "tool_use_id": "a", "content": 0}),
            "messages[0].content[0].content",
        ),
        (
            turn({"type": "tool_result", "tool_use_id": "a", "content": [{"type": "image"}]}),
            "messages[0].content[0].content[0]",
        ),
        (
            turn({"type": "tool_use", "id": "a", "name": "f", "input": 3}, role="assistant"),
            "messages[0].content[0].input",
        ),
        (turn({"type": "tool_use", "id": "a", "name": "f", "input": {}}, role="assistant"),
         "messages"),
        (turn({"type": "image"}, role="assistant"), "messages[0].content[0]"),
        ({"temperature": 1.1}, "temperature"),
        ({"top_p": -0.1}, "top_p"),
        ({"top_k": -1}, "top_k"),
        ({"stop_sequences": [""]}, "stop_sequences[0]"),
        ({"stop_sequences": ["a"] * 129}, "stop_sequences"),
        ({"thinking": {"type": "enabled"}}, "thinking.budget_tokens"),
        ({"thinking": {"type": "enabled", "budget_tokens": 9}}, "thinking.budget_tokens"),
        ({"thinking": {"type": "enabled", "budget_tokens": 2000}}, "thinking.budget_tokens"),
        ({"thinking": {"type": "hard"}}, "thinking.type"),
        ({"tools": [{"name": "f"}]}, "tools[0].input_schema"),
        ({"tools": [{"input_schema": {}}]}, "tools[0].name"),
        ({"tools": [TOOL, {**TOOL, "name": "a b"}]}, "tools[1].name"),
        ({"tools": [TOOL, TOOL]}, "tools[1].name"),
        ({"tools": [{**TOOL, "name": 3}]}, "tools[0].name"),
        ({"tools": [{**TOOL, "description": 3}]}, "tools[0].description"),
        ({"tools": [{**TOOL, "input_schema": 3}]}, "tools[0].input_schema"),
        ({"tools": [{**TOOL, "input_schema": {"type": "array"}}]}, "tools[0].input_schema.type"),
        ({"tools": [{"type": "web_search_20250305", "name": "w"}]}, "tools[0].type"),
        ({"tools": [{**TOOL, "input_schema": DEEP}]}, "tools"),
        ({"tool_choice": {"type": "auto"}}, "tool_choice"),
        ({"tools": [TOOL], "tool_choice": {"type": "tool"}}, "tool_choice.name"),
        ({"tools": [TOOL], "tool_choice": {"type": "tool", "name": "f"}}, "tool_choice.name"),
        ({"tools": [TOOL], "tool_choice": {"type": "must"}}, "tool_choice.type"),
        ({"output_config": {"format": {"type": "xml"}}}, "output_config.format.type"),
        ({"output_config": {"format": {"type": "json_schema"}}}, "output_config.format.schema"),
        ({"output_config": {"effort": "none"}}, "output_config.effort"),
        ({"mcp_servers": [{}]}, "mcp_servers"),
        ({"container": "c"}, "container"),
    ],
)  # fmt: skip
def test_bad_input_is_named(fields: dict[str, Any], param: str) -> None:
    error = refusal(**fields)
    assert error.param == param
    assert len(error.message) < 300


def test_words_of_nested_fields_are_listed() -> None:
    listed = "Supported values are: 'low', 'medium', 'high', 'xhigh', 'max'."
    assert refusal(output_config={"effort": "none"}).message == f"Invalid value: 'none'. {listed}"
    assert "'auto', 'any', 'tool', 'none'" in refusal(tool_choice={"type": "must"}).message


def test_bytes_that_are_no_body() -> None:
    for bad in (b"", b"[]", b"{", b"\xff"):
        with pytest.raises(ApiError) as raised:
            anthropic.parse(bad)
        assert raised.value.code == "invalid_json"


_LEAF = st.none() | st.booleans() | st.integers() | st.text(max_size=5) | st.just({"type": "text"})
_JSON = st.recursive(
    _LEAF,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["type", "text", "role", "content", "name"]), inner)
    ),
    max_leaves=8,
)
_NAMES = ["system", "messages", "tools", "tool_choice", "thinking", "metadata", "output_config"]


@given(st.dictionaries(st.sampled_from(_NAMES), _JSON, min_size=1))
def test_any_json_is_taken_or_refused(fields: dict[str, Any]) -> None:
    error = None
    try:
        encode([submit(**fields)])
    except ApiError as refused:
        error = refused
    assert error is None or (error.status == 400 and len(error.body()) < 1000)
