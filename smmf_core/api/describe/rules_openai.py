"""What the bodies of OpenAI's routes leave open and their rules demand, field by field.

Owns the description of free-form fields (messages, tools, formats) and of bounds that join fields;
the rules themselves are api.openai's. A test sends requests made of this to a server.
"""

from __future__ import annotations

from typing import Any

from smmf_core.api.describe.forms import (
    BOOL,
    DATA_URL,
    DETAIL,
    EMPTY,
    EXTENSIONS,
    FULL,
    NAME,
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
from smmf_core.api.openai.embeddings import EmbeddingsBody
from smmf_core.api.openai.rerank import RelevanceBody, RerankBody
from smmf_core.api.openai.schema import MAX_CHOICES, ChatBody, CompletionBody
from smmf_core.api.openai.score import ScoreBody
from smmf_core.api.openai.tokenize import DetokenizeBody, TokenizeBody
from smmf_core.api.openai.wanted import MAX_INPUTS

_TOKEN: Schema = {"type": "integer", "minimum": 0, "maximum": 2**31 - 1}
_TOKENS = items(_TOKEN, 1)
_SOURCES = ("prompt", "messages", "content")
_PART = thing({"type": const("text"), "text": TEXT})
_CONTENT = one_of(TEXT, items(_PART, 1))
_IMAGE = thing(
    {
        "type": const("image_url"),
        "image_url": one_of(DATA_URL, thing({"url": DATA_URL}, detail=DETAIL)),
    }
)
_SEEN = one_of(TEXT, items(one_of(_PART, _IMAGE), 1))
_CALL = thing({"function": thing({"name": TEXT, "arguments": TEXT})}, id=TEXT, type=TEXT)
_MESSAGE = one_of(
    thing({"role": const("user"), "content": _SEEN}),
    thing({"role": words("developer", "system"), "content": _CONTENT}),
    thing(
        {"role": const("assistant"), "content": _CONTENT},
        reasoning_content=maybe(TEXT),
        reasoning=maybe(TEXT),
        tool_calls=maybe(items(_CALL)),
    ),
    thing({"role": const("assistant"), "tool_calls": items(_CALL, 1)}, content=maybe(_CONTENT)),
    thing({"role": const("tool"), "content": _SEEN, "tool_call_id": TEXT}),
    thing({"role": const("function"), "content": _CONTENT, "name": TEXT}),
)
_MESSAGES = items(_MESSAGE, 1)
_FUNCTION = thing(
    {"name": NAME}, description=maybe(TEXT), parameters=maybe(OBJECT), strict=maybe(BOOL)
)
TOOLS = maybe(items(thing({"type": const("function"), "function": _FUNCTION})))
_NAMED = thing({"function": thing({"name": NAME})})
_MODE = words("auto", "required")
_TOOL_CHOICE = maybe(
    words("none", "auto", "required"),
    thing({"type": const("function"), "function": thing({"name": NAME})}),
    thing(
        {
            "type": const("allowed_tools"),
            "allowed_tools": thing({"mode": _MODE, "tools": items(_NAMED)}),
        }
    ),
    description="Needs `tools`; a function that it names must be among them.",
)
_RESPONSE_FORMAT = maybe(
    thing({"type": const("text")}),
    thing({"type": const("json_object")}, schema=maybe(OBJECT)),
    thing(
        {
            "type": const("json_schema"),
            "json_schema": thing({"name": NAME}, schema=maybe(OBJECT), strict=maybe(BOOL)),
        }
    ),
    description="A schema that cannot be followed is refused before anything is generated.",
)
_BIAS = maybe(
    {
        "type": "object",
        "propertyNames": {"pattern": "^[0-9]{1,9}$"},
        "additionalProperties": {"type": "number", "minimum": -100, "maximum": 100},
    },
    description="By token id.",
)
_LIMIT = maybe({"type": "integer", "minimum": 1, "maximum": 2**31 - 1})
_TEXTS = items(FULL, 1, MAX_INPUTS)
_GENERATION = {**EXTENSIONS, "logit_bias": _BIAS}

FIELDS: dict[Any, dict[str, Schema]] = {
    ChatBody: {
        **_GENERATION,
        "messages": _MESSAGES,
        "tools": TOOLS,
        "tool_choice": _TOOL_CHOICE,
        "response_format": _RESPONSE_FORMAT,
        "max_tokens": _LIMIT,
        "max_completion_tokens": _LIMIT,
        "modalities": maybe(items(const("text"))),
        "functions": maybe(NONE_OF_IT, deprecated=True),
        "function_call": {**NULL, "deprecated": True},
    },
    CompletionBody: {
        **_GENERATION,
        "prompt": one_of(TEXT, _TOKENS, items(TEXT, 1, MAX_CHOICES), items(_TOKENS, 1)),
        "suffix": maybe(EMPTY),
        "response_format": _RESPONSE_FORMAT,
    },
    EmbeddingsBody: {
        **EXTENSIONS,
        "input": one_of(FULL, _TOKENS, _TEXTS, items(_TOKENS, 1, MAX_INPUTS)),
    },
    RerankBody: {
        **EXTENSIONS,
        "documents": items(one_of(FULL, thing({"text": FULL})), 1, MAX_INPUTS),
    },
    RelevanceBody: {**EXTENSIONS, "documents": _TEXTS},
    ScoreBody: {**EXTENSIONS, "text_1": one_of(FULL, _TEXTS), "text_2": one_of(FULL, _TEXTS)},
    TokenizeBody: {
        **EXTENSIONS,
        "messages": maybe(_MESSAGES),
        "tools": TOOLS,
        "chat_template": maybe(EMPTY),
        "mm_processor_kwargs": maybe({"type": "object", "maxProperties": 0}),
        "with_pieces": maybe({"const": False}),
    },
    DetokenizeBody: EXTENSIONS,
}

MORE: dict[Any, Schema] = {
    CompletionBody: {
        "description": "`best_of` must equal `n`; `max_tokens` may be 0 with `echo` only; prompts "
        f"times `n` are {MAX_CHOICES} at most.",
    },
    ScoreBody: {"description": "One `text_1`, or as many as there are of `text_2`."},
    TokenizeBody: {
        "description": "The text is in one of `prompt`, `messages` and `content`.",
        "oneOf": [
            {
                "required": [source],
                "properties": {
                    name: {"not": NULL} if name == source else NULL for name in _SOURCES
                },
            }
            for source in _SOURCES
        ],
    },
}
