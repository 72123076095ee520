"""Pictures in chats: out of `data:` URLs and base64 text into bytes, which travel beside messages.

Owns media types, limits, and the form of a content with pictures; whether the bytes are a picture
is the Worker's to see. Every error names the part. Nothing is fetched for a client: a server that
did would reach what only it can reach.
"""

from __future__ import annotations

import binascii
from collections.abc import Iterable, Iterator
from typing import Any

from smmf_core.api.openai.decode import shown
from smmf_core.errors import ApiError
from smmf_core.messages import Image

MEDIA_TYPES = ("image/png", "image/jpeg", "image/webp", "image/gif")
MAX_IMAGES = 100  # of a request, as Anthropic has it
MAX_IMAGE_BYTES = 20 << 20  # OpenAI's
_MAX_CHARACTERS = (MAX_IMAGE_BYTES + 2) // 3 * 4
TEXT_BYTES = 2048  # what a picture counts as until its Worker tells: some 500 tokens
_SCHEME, _ENCODING = "data:", ";base64"
_PREFIX_CHARACTERS = 100  # of a data: URL, up to its comma

Object = dict[str, Any]
Content = str | list[Object]
"""A message's content: its text, or with pictures its parts, {"type": "text" | "image"}."""


def from_url(url: Any, param: str) -> Object:
    """The part of a `data:` URL. Raises ApiError (400) for any other."""
    if not isinstance(url, str):
        raise _invalid(param, "its URL must be a string")
    if url[: len(_SCHEME)].lower() != _SCHEME:
        text = "images are not fetched from URLs: send the image itself as a 'data:' URL"
        raise _unsupported(param, f"{text}, like 'data:image/png;base64,...'")
    head, comma, _ = url[:_PREFIX_CHARACTERS].partition(",")
    if not comma or not head.lower().endswith(_ENCODING):
        raise _invalid(param, "a 'data:' URL must begin like 'data:image/png;base64,'")
    media_type = head[len(_SCHEME) : -len(_ENCODING)]
    return from_base64(url[len(head) + 1 :], param, media_type.partition(";")[0].lower())


def from_base64(data: Any, param: str, media_type: Any = None) -> Object:
    """The part of an image's base64 text, of any media type where none is given."""
    if media_type is not None and media_type not in MEDIA_TYPES:
        known = ", ".join(f"'{name}'" for name in MEDIA_TYPES)
        text = f"images of type {shown(media_type)} are not supported. Supported values are"
        raise _unsupported(param, f"{text}: {known}")
    if not isinstance(data, str):
        raise _invalid(param, "an image must be a string of base64")
    if not data:
        raise _invalid(param, "the image is empty")
    if len(data) > _MAX_CHARACTERS:
        raise _invalid(param, f"an image may have {MAX_IMAGE_BYTES >> 20} MiB at most")
    try:
        found = binascii.a2b_base64(data, strict_mode=True)
    except ValueError:
        raise _invalid(param, "the image is not valid base64") from None
    return {"type": "image", "image": Image(found, param)}


def joined(parts: Iterable[Content | Object], between: str = "") -> Content:
    """Texts, pictures and other contents as one content, `between` texts that follow each other."""
    found: list[Object] = []
    texts: list[str] = []
    for part in _flat(parts):
        if isinstance(part, str):
            texts.append(part)
            continue
        if texts:
            found.append(_text(between.join(texts)))
            texts = []
        found.append(part)
    if not found:
        return between.join(texts)
    return [*found, _text(between.join(texts))] if texts else found


def _flat(parts: Iterable[Content | Object]) -> Iterator[str | Object]:
    """Texts that are not empty, and pictures."""
    for part in parts:
        for one in part if isinstance(part, list) else (part,):
            text = one["text"] if isinstance(one, dict) and one["type"] == "text" else one
            if text:
                yield text


def take_images(messages: list[Object]) -> tuple[int, list[Image]]:
    """The messages' size in bytes, about, and their pictures, which are left out of them: a part
    {"type": "image"} keeps the place of each. Raises ApiError (400) for too many."""
    size, images = 0, []
    for message in messages:
        content = message["content"]
        if isinstance(content, str):
            size += len(content)
            continue
        for part in content:
            if part["type"] == "image":
                images.append(part.pop("image"))
                size += TEXT_BYTES
            else:
                size += len(part["text"])
    if len(images) > MAX_IMAGES:
        text = f"a request may have {MAX_IMAGES} images, this one has {len(images)}"
        raise _invalid(images[MAX_IMAGES].param, text)
    return size, images


def shows_images(messages: list[Object]) -> bool:
    """Whether a valid chat has any."""
    return any(isinstance(message["content"], list) for message in messages)


def no_vision(image: Image) -> ApiError:
    """A picture for a model that takes text only."""
    return _unsupported(image.param, "this model takes no images, only text")


def _text(text: str) -> Object:
    return {"type": "text", "text": text}


def _invalid(param: str, why: str) -> ApiError:
    return ApiError("invalid_value", f"Invalid '{param}': {why}.", param)


def _unsupported(param: str, why: str) -> ApiError:
    return ApiError("unsupported_value", f"Invalid '{param}': {why}.", param)
