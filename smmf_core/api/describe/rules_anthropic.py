"""What the bodies of Anthropic's routes leave open and their rules demand, field by field.

Owns the description of turns, blocks and tools; the rules themselves are api.anthropic's.
"""

from __future__ import annotations

from typing import Any

from smmf_core.api.anthropic.schema import CountBody, MessagesBody
from smmf_core.api.describe.forms import (
    BASE64,
    BOOL,
    DATA_URL,
    EXTENSIONS,
    FULL,
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
from smmf_core.api.openai.images import MEDIA_TYPES

_BLOCK = thing({"type": const("text"), "text": TEXT})
_SOURCE = one_of(
    thing({"type": const("base64"), "media_type": words(*MEDIA_TYPES), "data": BASE64}),
    thing({"type": const("url"), "url": DATA_URL}),
)
_IMAGE = thing({"type": const("image"), "source": _SOURCE})
_RESULT = thing(
    {"type": const("tool_result"), "tool_use_id": TEXT},
    content=maybe(TEXT, items(one_of(_BLOCK, _IMAGE))),
    is_error=BOOL,
)
_USE = thing({"type": const("tool_use"), "id": TEXT, "name": TEXT, "input": OBJECT})
_THOUGHT = thing({"type": const("thinking"), "thinking": TEXT})
_TURN = one_of(
    thing(
        {
            "role": const("user"),
            "content": one_of(FULL, items(one_of(_BLOCK, _IMAGE, _RESULT), 1)),
        }
    ),
    thing(
        {
            "role": const("assistant"),
            "content": one_of(TEXT, items(one_of(_BLOCK, _USE, _THOUGHT))),
        }
    ),
    thing({"role": const("system"), "content": one_of(TEXT, items(_BLOCK))}),
)
_TURNS = {
    **items(_TURN, 1),
    "contains": thing({"role": words("user", "assistant")}),
    "description": "A call of a tool is followed by its result.",
}
_TOOL = thing(
    {
        "name": LONG_NAME,
        "input_schema": thing({}, type=const("object")),
    },
    type=maybe(const("custom")),
    description=maybe(TEXT),
    strict=maybe(BOOL),
)
_COUNTED = {
    **EXTENSIONS,
    "messages": _TURNS,
    "system": maybe(TEXT, items(_BLOCK)),
    "tools": maybe(items(_TOOL)),
    "container": NULL,
    "mcp_servers": maybe(NONE_OF_IT),
}


FIELDS: dict[Any, dict[str, Schema]] = {MessagesBody: _COUNTED, CountBody: _COUNTED}
