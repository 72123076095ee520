"""What the bodies of Ollama's routes leave open and their rules demand, field by field.

Owns the description of messages and options; the rules themselves are api.ollama's.
"""

from __future__ import annotations

from typing import Any

from smmf_core.api.describe.forms import (
    BASE64,
    BOOL,
    DATA_URL,
    EMPTY,
    EXTENSIONS,
    FULL,
    NAME,
    NONE_OF_IT,
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
from smmf_core.api.ollama.schema import (
    ChatBody,
    EmbedBody,
    GenerateBody,
    NameBody,
    OldEmbedBody,
    Options,
)
from smmf_core.api.openai.images import MAX_IMAGES
from smmf_core.api.openai.wanted import MAX_INPUTS

_IMAGES = maybe(
    items(one_of(BASE64, DATA_URL), most=MAX_IMAGES),
    description="For models with the capability `vision`; of the user's and of tools.",
)
_CALL = thing({"function": thing({"name": FULL}, arguments=maybe(OBJECT))}, id=maybe(TEXT))
_MESSAGE = thing(
    {"role": words("system", "user", "assistant", "tool")},
    content=maybe(TEXT),
    thinking=maybe(TEXT),
    images=_IMAGES,
    tool_calls=maybe(items(_CALL)),
    tool_call_id=maybe(TEXT),
    tool_name=maybe(TEXT),
)
_TOOL = thing(
    {"function": thing({"name": NAME}, description=maybe(TEXT), parameters=maybe(OBJECT))},
    type=const("function"),
)
_FORMAT = maybe(words("", "json"), OBJECT, description="`json`, or a JSON schema.")
_THINK = maybe(BOOL, words("low", "medium", "high", "max"))
_GENERATION = {**EXTENSIONS, "format": _FORMAT, "think": _THINK}
_NEUTRAL = {"mirostat": 0, "tfs_z": 1, "typical_p": 1}
_PREDICT = {"type": "integer", "minimum": -2, "maximum": 2**31 - 1, "not": {"const": 0}}

FIELDS: dict[Any, dict[str, Schema]] = {
    ChatBody: {
        **_GENERATION,
        "messages": maybe(items(_MESSAGE)),
        "tools": maybe(items(_TOOL)),
    },
    GenerateBody: {
        **_GENERATION,
        "suffix": maybe(EMPTY),
        "template": maybe(EMPTY),
        "context": maybe(NONE_OF_IT),
        "images": _IMAGES,
    },
    EmbedBody: {**EXTENSIONS, "input": maybe(TEXT, items(FULL, 0, MAX_INPUTS))},
    OldEmbedBody: EXTENSIONS,
    Options: {
        "num_predict": maybe(_PREDICT),
        **{name: maybe({"const": value}) for name, value in _NEUTRAL.items()},
    },
    NameBody: {"model": FULL},
}
MORE: dict[Any, Schema] = {
    NameBody: {"required": ["model"]},
    GenerateBody: {"description": "`raw` goes with none of `system`, `format` and `images`."},
    Options: {"description": "Options of a load, as `num_ctx`, are the server's to choose."},
}
