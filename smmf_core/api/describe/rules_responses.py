"""What the bodies of Responses leave open and their rules demand, field by field.

Owns the description of items and tools; the rules themselves are api.responses'.
"""

from __future__ import annotations

from typing import Any

from smmf_core.api.describe.forms import (
    BOOL,
    DATA_URL,
    DETAIL,
    EXTENSIONS,
    LONG_NAME,
    NONE_OF_IT,
    NULL,
    OBJECT,
    TEXT,
    Schema,
    const,
    items,
    maybe,
    one_of,
    thing,
    words,
)
from smmf_core.api.responses.schema import InputBody, Reasoning, ResponsesBody, TextConfig

_SAID = thing({"type": words("input_text", "output_text"), "text": TEXT})
_REFUSED = thing({"type": const("refusal"), "refusal": TEXT})
_SHOWN = thing({"type": const("input_image"), "image_url": DATA_URL}, detail=DETAIL)
_PARTS = items(one_of(_SAID, _REFUSED), 1)
_SEEN = items(one_of(_SAID, _REFUSED, _SHOWN), 1)
_MESSAGE = one_of(
    thing({"role": const("user"), "content": one_of(TEXT, _SEEN)}, type=const("message")),
    thing(
        {
            "role": words("assistant", "system", "developer"),
            "content": one_of(TEXT, _PARTS),
        },
        type=const("message"),
    ),
)
_REASONING = thing(
    {"type": const("reasoning")},
    content=maybe(items(thing({"type": words("reasoning_text", "text"), "text": TEXT}))),
)
_OUTPUT = {"call_id": TEXT, "output": one_of(TEXT, items(one_of(_SAID, _SHOWN)))}
_ITEMS = items(
    one_of(
        _MESSAGE,
        _REASONING,
        thing({"type": const("function_call"), "call_id": TEXT, "name": TEXT, "arguments": TEXT}),
        thing({"type": const("custom_tool_call"), "call_id": TEXT, "name": TEXT, "input": TEXT}),
        thing({"type": words("function_call_output", "custom_tool_call_output"), **_OUTPUT}),
    ),
    1,
)
_CALLABLE = (
    thing(
        {"type": const("function"), "name": LONG_NAME},
        description=maybe(TEXT),
        parameters=maybe(OBJECT),
        strict=maybe(BOOL),
    ),
    thing(
        {"type": const("custom"), "name": LONG_NAME},
        description=maybe(TEXT),
        format=maybe(thing({"type": const("text")})),
    ),
)
_NAMESPACE = thing(
    {"type": const("namespace"), "name": LONG_NAME, "tools": items(one_of(*_CALLABLE), 1)},
    description=maybe(TEXT),
)
_NO_SEARCH = thing({"type": const("web_search"), "external_web_access": {"const": False}})
_TOOLS = maybe(
    items(one_of(*_CALLABLE, _NAMESPACE, _NO_SEARCH)),
    description="Each has a name of its own.",
)
_NAMED = thing({"type": words("function", "custom"), "name": LONG_NAME})
_TOOL_CHOICE = maybe(
    words("none", "auto", "required"),
    _NAMED,
    thing(
        {
            "type": const("allowed_tools"),
            "mode": words("auto", "required"),
            "tools": items(_NAMED, 1),
        }
    ),
    description="What it names must be among `tools`.",
)
_INPUT = {
    **EXTENSIONS,
    "input": one_of(TEXT, _ITEMS),
    "tools": _TOOLS,
    "tool_choice": _TOOL_CHOICE,
    "truncation": maybe(const("disabled")),
    "previous_response_id": {**NULL, "description": "Responses are not stored."},
    "conversation": {**NULL, "description": "Conversations are not stored."},
}
_INCLUDE = words(
    "message.output_text.logprobs", "reasoning.encrypted_content",
    "message.input_image.image_url", "computer_call_output.output.image_url",
    "code_interpreter_call.outputs", "file_search_call.results", "web_search_call.results",
    "web_search_call.action.sources",
)  # fmt: skip
_METADATA = maybe(
    {
        "type": "object",
        "maxProperties": 16,
        "propertyNames": {"maxLength": 64},
        "additionalProperties": {"type": "string", "maxLength": 512},
    }
)

FIELDS: dict[Any, dict[str, Schema]] = {
    InputBody: _INPUT,
    ResponsesBody: {
        **_INPUT,
        "include": maybe(items(_INCLUDE)),
        "service_tier": maybe(words("auto", "default", "flex", "scale", "priority", "fast")),
        "metadata": _METADATA,
        "background": maybe({"const": False}),
        "prompt": maybe({"type": "object", "maxProperties": 0}),
        "context_management": maybe(NONE_OF_IT),
    },
    Reasoning: {
        "effort": maybe(words("none", "minimal", "low", "medium", "high", "xhigh", "max")),
        "summary": maybe(words("auto", "concise", "detailed")),
    },
    TextConfig: {
        "format": maybe(
            thing({"type": words("text", "json_object")}),
            thing(
                {"type": const("json_schema"), "name": LONG_NAME, "schema": OBJECT},
                description=maybe(TEXT),
                strict=maybe(BOOL),
            ),
        ),
        "verbosity": maybe(words("low", "medium", "high")),
    },
}
MORE: dict[Any, Schema] = {
    kind: {"required": ["model", "input"]} for kind in (InputBody, ResponsesBody)
}
