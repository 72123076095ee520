"""The bytes of images as pictures that a vision model's processor takes.

Owns which files are pictures and how large they may be; must not know a model. Pictures come out
in RGB, upright, over white where they were transparent. Of an animation, the first frame.
"""

from __future__ import annotations

from contextlib import suppress
from io import BytesIO
from typing import Any

import PIL.Image
import PIL.ImageOps

from smmf_core.errors import ApiError
from smmf_core.messages import Image

FORMATS = ("PNG", "JPEG", "WEBP", "GIF")
MAX_PIXELS = 1 << 26  # of a request: a file of some kilobytes may unpack to gigabytes
_WHITE = (255, 255, 255)
_REASON_CHARACTERS = 100


def open_pictures(images: list[Image]) -> list[Any]:
    """PIL's. Raises ApiError (400) that names the part."""
    left = MAX_PIXELS
    pictures = []
    for image in images:
        picture = _open(image)
        left -= picture.width * picture.height
        if left < 0:
            text = f"the images of a request may have {MAX_PIXELS} pixels at most"
            raise _invalid(image, text)
        pictures.append(_decode(picture, image))
    return pictures


def _open(image: Image) -> Any:
    """Only its head is read: it may be huge."""
    try:
        return PIL.Image.open(BytesIO(image.data), formats=FORMATS)
    except PIL.UnidentifiedImageError:
        known = ", ".join(FORMATS)
        raise _invalid(image, f"it is no image in one of the formats {known}") from None
    except Exception as error:  # what its decoders raise of a damaged head
        raise _damaged(image, error) from None


def _decode(picture: Any, image: Image) -> Any:
    try:
        picture.load()
        with suppress(Exception):  # a photograph whose notes are damaged is one as it lies
            picture = PIL.ImageOps.exif_transpose(picture)
        if "A" not in picture.getbands() and "transparency" not in picture.info:
            return picture.convert("RGB")
        shown = picture.convert("RGBA")
    except MemoryError:
        raise
    except Exception as error:  # what its decoders raise of damaged files is of many types
        raise _damaged(image, error) from None
    ground = PIL.Image.new("RGB", shown.size, _WHITE)
    ground.paste(shown, mask=shown.getchannel("A"))
    return ground


def _damaged(image: Image, error: Exception) -> ApiError:
    reason = str(error) or type(error).__name__
    return _invalid(image, f"the image cannot be decoded ({reason[:_REASON_CHARACTERS]})")


def _invalid(image: Image, why: str) -> ApiError:
    return ApiError("invalid_value", f"Invalid '{image.param}': {why}.", image.param)
