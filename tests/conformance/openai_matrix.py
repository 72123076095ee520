"""What is wrong with a request, and what the client is told: one table for all levels of test."""

from __future__ import annotations

import json
from typing import Any, NamedTuple

USER = {"role": "user", "content": "hi"}
TOOL = {"type": "function", "function": {"name": "weather", "parameters": {"type": "object"}}}
CALL = {"id": "call_1", "type": "function", "function": {"name": "weather", "arguments": "{}"}}
ABSENT = object()


class Case(NamedTuple):
    dialect: str
    fields: dict[str, Any]
    code: str
    param: str | None


def body_of(case: Case) -> bytes:
    """A valid body with the case's fields over it; ABSENT takes one away."""
    prompt = {"messages": [USER]} if case.dialect == "chat" else {"prompt": "hi"}
    body = {"model": "echo", **prompt, **case.fields}
    return json.dumps({k: v for k, v in body.items() if v is not ABSENT}).encode()


def _message(message: Any) -> dict[str, Any]:
    return {"messages": [USER, message]}


_SHARED: list[tuple[dict[str, Any], str, str | None]] = [
    ({"model": ABSENT}, "missing_required_parameter", "model"),
    ({"model": 7}, "invalid_type", "model"),
    ({"model": None}, "invalid_type", "model"),
    ({"model": ""}, "invalid_value", "model"),
    ({"temperature": 200}, "decimal_above_max_value", "temperature"),
    ({"temperature": -0.1}, "decimal_below_min_value", "temperature"),
    ({"temperature": "hot"}, "invalid_type", "temperature"),
    ({"temperature": True}, "invalid_type", "temperature"),
    ({"temperature": [1]}, "invalid_type", "temperature"),
    ({"top_p": 1.01}, "decimal_above_max_value", "top_p"),
    ({"top_p": -1}, "decimal_below_min_value", "top_p"),
    ({"n": 0}, "integer_below_min_value", "n"),
    ({"n": 129}, "integer_above_max_value", "n"),
    ({"n": 1.5}, "invalid_type", "n"),
    ({"n": True}, "invalid_type", "n"),
    ({"n": "2"}, "invalid_type", "n"),
    ({"max_tokens": -1}, "integer_below_min_value", "max_tokens"),
    ({"max_tokens": 1.5}, "invalid_type", "max_tokens"),
    ({"max_tokens": 10**25}, "integer_above_max_value", "max_tokens"),
    ({"max_completion_tokens": -1}, "integer_below_min_value", "max_completion_tokens"),
    ({"presence_penalty": 2.1}, "decimal_above_max_value", "presence_penalty"),
    ({"frequency_penalty": -2.1}, "decimal_below_min_value", "frequency_penalty"),
    ({"logit_bias": {"1": 101}}, "decimal_above_max_value", "logit_bias"),
    ({"logit_bias": {"1": "x"}}, "invalid_type", "logit_bias"),
    ({"logit_bias": {"one": 1, "-2": 1}}, "invalid_value", "logit_bias"),
    ({"logit_bias": [1]}, "invalid_type", "logit_bias"),
    ({"seed": 2**63}, "integer_above_max_value", "seed"),
    ({"seed": -(2**63) - 1}, "integer_below_min_value", "seed"),
    ({"seed": 0.5}, "invalid_type", "seed"),
    ({"stop": ""}, "invalid_value", "stop"),
    ({"stop": ["a", ""]}, "invalid_value", "stop[1]"),
    ({"stop": list("abcde")}, "array_above_max_length", "stop"),
    ({"stop": [1]}, "invalid_type", "stop[0]"),
    ({"stop": 1}, "invalid_type", "stop"),
    ({"stream": "yes"}, "invalid_type", "stream"),
    ({"stream_options": {"include_usage": True}}, "invalid_value", "stream_options"),
    ({"stream": False, "stream_options": {}}, "invalid_value", "stream_options"),
    ({"stream": True, "stream_options": []}, "invalid_type", "stream_options"),
    (
        {"stream": True, "stream_options": {"include_usage": 1}},
        "invalid_type",
        "stream_options.include_usage",
    ),
    ({"user": 5}, "invalid_type", "user"),
    ({"min_tokens": -1}, "integer_below_min_value", "min_tokens"),
    ({"min_tokens": 9, "max_tokens": 8}, "invalid_value", "min_tokens"),
    ({"top_k": -2}, "integer_below_min_value", "top_k"),
    ({"min_p": 1.1}, "decimal_above_max_value", "min_p"),
    ({"repetition_penalty": 0}, "decimal_below_min_value", "repetition_penalty"),
    ({"stop_token_ids": [-1]}, "integer_below_min_value", "stop_token_ids[0]"),
    ({"ignore_eos": 1}, "invalid_type", "ignore_eos"),
    ({"priority": 0.5}, "invalid_type", "priority"),
    *(
        ({name: value}, "unsupported_parameter", name)
        for name, value in {
            "guided_json": {},
            "guided_regex": "a",
            "guided_choice": ["a"],
            "guided_grammar": "a",
            "structured_outputs": {"json": {}},
            "bad_words": ["a"],
            "allowed_token_ids": [1],
            "length_penalty": 2,
            "use_beam_search": True,
            "skip_special_tokens": False,
            "truncate_prompt_tokens": 5,
            "prompt_logprobs": 1,
            "prompt_embeds": "AA==",
            "chat_template": "a",
            "documents": [{}],
            "grammar": "a",
            "json_schema": {},
            "typical_p": 0.5,
            "mirostat": 2,
        }.items()
    ),
    ({"smmf_echo": []}, "invalid_type", "smmf_echo"),
    ({"smmf_echo": {"tokens": 10**30}}, "invalid_value", "smmf_echo"),
]

_CHAT: list[tuple[dict[str, Any], str, str | None]] = [
    ({"messages": ABSENT}, "missing_required_parameter", "messages"),
    ({"messages": []}, "empty_array", "messages"),
    ({"messages": None}, "invalid_type", "messages"),
    ({"messages": "hi"}, "invalid_type", "messages"),
    ({"messages": ["hi"]}, "invalid_type", "messages[0]"),
    (_message({"content": "x"}), "missing_required_parameter", "messages[1].role"),
    (_message({"role": 1, "content": "x"}), "invalid_type", "messages[1].role"),
    (_message({"role": "robot", "content": "x"}), "invalid_value", "messages[1].role"),
    (_message({"role": "user"}), "missing_required_parameter", "messages[1].content"),
    (_message({"role": "user", "content": None}), "invalid_type", "messages[1].content"),
    (_message({"role": "user", "content": 5}), "invalid_type", "messages[1].content"),
    (_message({"role": "user", "content": {"a": 1}}), "invalid_type", "messages[1].content"),
    (_message({"role": "user", "content": []}), "empty_array", "messages[1].content"),
    (_message({"role": "assistant"}), "missing_required_parameter", "messages[1].content"),
    (_message({"role": "assistant", "content": None}), "invalid_type", "messages[1].content"),
    (_message({"role": "user", "content": ["x"]}), "invalid_type", "messages[1].content[0]"),
    (
        _message({"role": "user", "content": [{"text": "x"}]}),
        "missing_required_parameter",
        "messages[1].content[0].type",
    ),
    (
        _message(
            {
                "role": "user",
                "content": [
                    {"type": "text", "text": "x"},
                    {"type": "image_url", "image_url": {"url": "u"}},
                ],
            }
        ),
        "unsupported_value",
        "messages[1].content[1]",
    ),
    (
        _message({"role": "user", "content": [{"type": "text"}]}),
        "missing_required_parameter",
        "messages[1].content[0].text",
    ),
    (
        _message({"role": "user", "content": [{"type": "text", "text": 5}]}),
        "invalid_type",
        "messages[1].content[0].text",
    ),
    (
        _message({"role": "tool", "content": "x"}),
        "missing_required_parameter",
        "messages[1].tool_call_id",
    ),
    (
        _message({"role": "tool", "content": "x", "tool_call_id": 5}),
        "invalid_type",
        "messages[1].tool_call_id",
    ),
    (
        _message({"role": "function", "content": "x"}),
        "missing_required_parameter",
        "messages[1].name",
    ),
    (
        _message({"role": "assistant", "tool_calls": {}}),
        "invalid_type",
        "messages[1].tool_calls",
    ),
    (
        _message({"role": "assistant", "tool_calls": [{"id": "a"}]}),
        "missing_required_parameter",
        "messages[1].tool_calls[0].function",
    ),
    (
        _message({"role": "assistant", "tool_calls": [{"function": {"name": "f"}}]}),
        "missing_required_parameter",
        "messages[1].tool_calls[0].function.arguments",
    ),
    (_message({"role": "user", "content": "x", "extra": 10**30}), "invalid_value", "messages[1]"),
    (
        _message({"role": "user", "content": [{"type": "refusal", "refusal": "no"}]}),
        "unsupported_value",
        "messages[1].content[0]",
    ),
    (
        _message({"role": "assistant", "content": [{"type": "refusal"}]}),
        "missing_required_parameter",
        "messages[1].content[0].refusal",
    ),
    (
        _message({"role": "assistant", "function_call": {"name": "f"}}),
        "missing_required_parameter",
        "messages[1].function_call.arguments",
    ),
    (
        _message({"role": "assistant", "function_call": "f"}),
        "invalid_type",
        "messages[1].function_call",
    ),
    ({"max_tokens": 0}, "integer_below_min_value", "max_tokens"),
    ({"max_completion_tokens": 0}, "integer_below_min_value", "max_completion_tokens"),
    ({"logprobs": 5}, "invalid_type", "logprobs"),
    ({"top_logprobs": 2}, "invalid_value", "top_logprobs"),
    ({"logprobs": False, "top_logprobs": 2}, "invalid_value", "top_logprobs"),
    ({"logprobs": True, "top_logprobs": 21}, "integer_above_max_value", "top_logprobs"),
    ({"logprobs": True, "top_logprobs": -1}, "integer_below_min_value", "top_logprobs"),
    ({"tools": {}}, "invalid_type", "tools"),
    ({"tools": [1]}, "invalid_type", "tools[0]"),
    ({"tools": [{}]}, "missing_required_parameter", "tools[0].type"),
    ({"tools": [{"type": "custom"}]}, "unsupported_value", "tools[0].type"),
    ({"tools": [{"type": "function"}]}, "missing_required_parameter", "tools[0].function"),
    (
        {"tools": [{"type": "function", "function": {}}]},
        "missing_required_parameter",
        "tools[0].function.name",
    ),
    (
        {"tools": [{"type": "function", "function": {"name": "two words"}}]},
        "invalid_value",
        "tools[0].function.name",
    ),
    (
        {"tools": [{"type": "function", "function": {"name": "x" * 65}}]},
        "invalid_value",
        "tools[0].function.name",
    ),
    (
        {"tools": [{"type": "function", "function": {"name": "f", "parameters": []}}]},
        "invalid_type",
        "tools[0].function.parameters",
    ),
    (
        {"tools": [{"type": "function", "function": {"name": "f", "strict": "yes"}}]},
        "invalid_type",
        "tools[0].function.strict",
    ),
    (
        _message({"role": "assistant", "content": "x", "reasoning_content": 5}),
        "invalid_type",
        "messages[1].reasoning_content",
    ),
    (
        _message({"role": "assistant", "content": "x", "reasoning": ["x"]}),
        "invalid_type",
        "messages[1].reasoning",
    ),
    ({"tool_choice": "auto"}, "invalid_value", "tool_choice"),
    ({"tools": [], "tool_choice": "auto"}, "invalid_value", "tool_choice"),
    ({"tools": [TOOL], "tool_choice": "maybe"}, "invalid_value", "tool_choice"),
    ({"tools": [TOOL], "tool_choice": 5}, "invalid_type", "tool_choice"),
    ({"tools": [TOOL], "tool_choice": {}}, "missing_required_parameter", "tool_choice.type"),
    ({"tools": [TOOL], "tool_choice": {"type": "x"}}, "invalid_value", "tool_choice.type"),
    (
        {"tools": [TOOL], "tool_choice": {"type": "function"}},
        "missing_required_parameter",
        "tool_choice.function",
    ),
    (
        {"tools": [TOOL], "tool_choice": {"type": "function", "function": {"name": "other"}}},
        "invalid_value",
        "tool_choice",
    ),
    (
        {
            "tools": [TOOL],
            "tool_choice": {"type": "allowed_tools", "allowed_tools": {"mode": "none"}},
        },
        "invalid_value",
        "tool_choice.allowed_tools.mode",
    ),
    ({"response_format": "json"}, "invalid_type", "response_format"),
    ({"response_format": {}}, "missing_required_parameter", "response_format.type"),
    ({"response_format": {"type": "xml"}}, "invalid_value", "response_format.type"),
    (
        {"response_format": {"type": "json_schema"}},
        "missing_required_parameter",
        "response_format.json_schema",
    ),
    (
        {"response_format": {"type": "json_schema", "json_schema": {}}},
        "missing_required_parameter",
        "response_format.json_schema.name",
    ),
    (
        {"response_format": {"type": "json_schema", "json_schema": {"name": "a", "schema": []}}},
        "invalid_type",
        "response_format.json_schema.schema",
    ),
    ({"parallel_tool_calls": "no"}, "invalid_type", "parallel_tool_calls"),
    ({"reasoning_effort": "huge"}, "invalid_value", "reasoning_effort"),
    ({"modalities": ["text", "audio"]}, "unsupported_value", "modalities[1]"),
    ({"functions": [{"name": "f"}]}, "unsupported_parameter", "functions"),
    ({"function_call": "auto"}, "unsupported_parameter", "function_call"),
    ({"chat_template_kwargs": []}, "invalid_type", "chat_template_kwargs"),
    ({"continue_final_message": True}, "invalid_value", "continue_final_message"),
    (
        {
            **_message({"role": "assistant", "content": "so"}),
            "continue_final_message": True,
            "add_generation_prompt": True,
        },
        "invalid_value",
        "continue_final_message",
    ),
]

_COMPLETION: list[tuple[dict[str, Any], str, str | None]] = [
    ({"prompt": ABSENT}, "missing_required_parameter", "prompt"),
    ({"prompt": None}, "invalid_type", "prompt"),
    ({"prompt": {}}, "invalid_type", "prompt"),
    ({"prompt": []}, "empty_array", "prompt"),
    ({"prompt": [[]]}, "empty_array", "prompt[0]"),
    ({"prompt": [-1]}, "integer_below_min_value", "prompt[0]"),
    ({"prompt": [[1, -1]]}, "integer_below_min_value", "prompt[0][1]"),
    ({"prompt": [1, "a"]}, "invalid_type", "prompt"),
    ({"prompt": ["a", [1]]}, "invalid_type", "prompt"),
    ({"prompt": [True]}, "invalid_type", "prompt[0]"),
    ({"prompt": [[2**31]]}, "integer_above_max_value", "prompt[0][0]"),
    ({"prompt": ["a"] * 129}, "invalid_value", "prompt"),
    ({"prompt": ["a", "b"], "n": 65}, "invalid_value", "prompt"),
    ({"max_tokens": 0}, "integer_below_min_value", "max_tokens"),
    ({"logprobs": 21}, "integer_above_max_value", "logprobs"),
    ({"logprobs": -1}, "integer_below_min_value", "logprobs"),
    ({"logprobs": True}, "invalid_type", "logprobs"),
    ({"echo": "yes"}, "invalid_type", "echo"),
    ({"best_of": 2}, "unsupported_value", "best_of"),
    ({"best_of": 1, "n": 2}, "unsupported_value", "best_of"),
    ({"suffix": "end"}, "unsupported_parameter", "suffix"),
    ({"response_format": {"type": "xml"}}, "invalid_value", "response_format.type"),
    ({"response_format": "json"}, "invalid_type", "response_format"),
]

CASES = [
    *(Case(dialect, *row) for dialect in ("chat", "completion") for row in _SHARED),
    *(Case("chat", *row) for row in _CHAT),
    *(Case("completion", *row) for row in _COMPLETION),
]

HEAD = b'{"model":"echo","messages":[{"role":"user","content":"hi"}]'
BROKEN: dict[str, bytes] = {
    "empty": b"",
    "cut": HEAD,
    "array": b"[]",
    "null": b"null",
    "number": b"1",
    "string": b'"x"',
    "deep array": b"[" * 1_000_000,
    "deep ignored field": HEAD + b',"x":' + b"[" * 1_000_000,
    "deep object": HEAD + b',"x":' + b'{"a":' * 200_000 + b"1" + b"}" * 200_000 + b"}",
    "NaN": HEAD + b',"temperature":NaN}',
    "Infinity": HEAD + b',"temperature":Infinity}',
    "bad UTF-8": b'{"model":"\xff\xfe"}',
    "lone surrogate": b'{"model":"\\ud800"}',
    "low surrogate": b'{"model":"\\udc00x"}',
    "control character": b'{"model":"a\nb"}',
    "byte order mark": b"\xef\xbb\xbf" + HEAD + b"}",
    "UTF-16": (HEAD + b"}").decode().encode("utf-16"),
    "single quotes": b"{'model': 'echo'}",
    "trailing comma": HEAD + b",}",
    "trailing garbage": HEAD + b"} x",
    "form": b"model=echo&messages=hi",
}
