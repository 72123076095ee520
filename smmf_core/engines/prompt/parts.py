"""Contents with images, as a chat template wants them: as parts, or as text with marks.

Owns that choice, by asking the template itself; must not know a certain one. Templates differ:
some loop over parts and lose a plain text, some print a text and know no parts.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from smmf_core.errors import ApiError

Message = dict[str, Any]
Mark = Callable[[int], str | None]
"""How prompts write image number n, from 1 on."""

_WORD = "\ue000smmf-part\ue000"  # is in no template
_TEXT: list[Message] = [{"type": "text", "text": _WORD}]
_IMAGE: Message = {"type": "image"}
_RAW = ("'type'", '"type"', "&#39;type")  # parts that were printed as they are


class Taken(NamedTuple):
    """What reaches the prompt."""

    text: bool  # of a content that is a text
    parts: bool  # of a content that is a list of parts


def ask(render: Callable[[list[Message]], str]) -> Taken:
    """What a template does, by `render`; one that raises takes texts."""
    text = _render(render, _WORD)
    parts, with_image = _render(render, _TEXT), _render(render, [_IMAGE, *_TEXT])
    is_raw = any(mark in with_image for mark in _RAW)
    takes_parts = _WORD in with_image and with_image != parts and not is_raw
    return Taken(_WORD in text or not takes_parts, takes_parts)


def shaped(messages: list[Message], taken: Taken, mark: Mark | None) -> list[Message]:
    """1. A template that loses texts gets parts only. 2. One that takes parts gets them where there
    are images. 3. Else images are marks between the texts, one a line.

    Raises ApiError (param `messages`) where there is no mark."""
    if not taken.text:  # 1; a first part is there for those that look at it
        empty = [{"type": "text", "text": ""}]
        return [{**m, "content": as_parts(m["content"]) or empty} for m in messages]
    if taken.parts:  # 2
        return messages
    number = 0
    found = []
    for message in messages:  # 3
        content = message["content"]
        if isinstance(content, list):
            lines = []
            for part in content:
                number += part["type"] == "image"
                lines.append(part["text"] if part["type"] == "text" else _marked(mark, number))
            message = {**message, "content": "\n".join(lines)}
        found.append(message)
    return found


def as_parts(content: str | list[Message] | None) -> list[Message]:
    if isinstance(content, list):
        return content
    return [{"type": "text", "text": content}] if content else []


def prefixed(text: str, content: str | list[Message]) -> str | list[Message]:
    """A text before a content."""
    return text + content if isinstance(content, str) else [*as_parts(text), *content]


def _marked(mark: Mark | None, number: int) -> str:
    found = mark(number) if mark is not None else None
    if found is None:
        text = "The model's chat template has no place for images."
        raise ApiError("unsupported_value", text, "messages")
    return found


def _render(render: Callable[[list[Message]], str], content: str | list[Message]) -> str:
    try:
        return render([{"role": "user", "content": content}])
    except Exception:  # the template is the model's program: it may raise anything
        return ""
