"""Images in the prompts of a vLLM engine: vLLM's own processor makes of them what its core takes.

Owns the way through that processor, in the Worker, before a request is admitted; must not know how
the engine is driven. An image's hash keeps its KV cache from answering for another image.

vLLM's front end and core have caches of images that mirror each other, as long as every request
goes to the core at once and in order. Here it does not: what is made of an image is whole, and is
found again in a cache of the front end's own (older ones have none such).
"""

from __future__ import annotations

from inspect import signature
from typing import Any

from vllm.model_executor.model_loader.utils import get_model_cls
from vllm.renderers import BaseRenderer

from smmf_core.engines.base import Sequence
from smmf_core.engines.pictures import open_pictures
from smmf_core.engines.vllm.args import reason
from smmf_core.errors import ApiError
from smmf_core.messages import Image

_IMAGE = "image"  # vLLM's modality
_HAS_OWN_CACHE = "skip_mm_cache" in signature(BaseRenderer.render_cmpl).parameters


def cache_arguments() -> dict[str, Any]:
    """Engine arguments without which images would be left out that the core is taken to have."""
    return {} if _HAS_OWN_CACHE else {"mm_processor_cache_gb": 0}


class VllmVision:
    """A base.Vision, by vLLM's InputProcessor."""

    def __init__(self, inputs: Any, most: int) -> None:
        self._inputs = inputs
        self._most = most

    def mark(self, number: int) -> str | None:
        """How the model's prompts write image `number`, from 1 on; None: vLLM does not say."""
        model = get_model_cls(self._inputs.model_config)
        found: str | None = model.get_placeholder_str(_IMAGE, number)
        return found

    def place(self, ids: list[int], images: list[Image]) -> tuple[list[int], Any]:
        if len(images) > self._most:
            param = images[self._most].param
            text = f"Invalid '{param}': this model takes {self._most} images at most."
            raise ApiError("invalid_value", text, param)
        data = {_IMAGE: open_pictures(images)}
        prompt = {"prompt_token_ids": ids, "multi_modal_data": data}
        options = {"skip_mm_cache": True} if _HAS_OWN_CACHE else {}
        try:
            (made,) = self._inputs.renderer.render_cmpl([prompt], **options)
        except MemoryError:
            raise
        except Exception as error:  # a processor's, of the many that there are
            raise _refused(images, reason(error)) from error
        places = made["mm_placeholders"].get(_IMAGE, [])
        if len(places) != len(images):
            raise _refused(images, "the model's chat template has no place for them")
        for place, image in zip(places, images, strict=True):
            tokens = place.get_num_embeds()
            if tokens > self._inputs.mm_encoder_cache_size:
                raise _refused([image], f"it takes {tokens} tokens, which is too many")
        return made["prompt_token_ids"], made


def open_vision(inputs: Any) -> VllmVision | None:
    """None for a model that takes no images."""
    if not inputs.supports_mm_inputs:
        return None
    for name in ("_join_mm_warmup", "warmup_mm"):  # of newer ones: not beside the first request
        getattr(inputs.renderer, name, lambda: None)()
    most = inputs.renderer.get_mm_processor().info.allowed_mm_limits.get(_IMAGE, 0)
    return VllmVision(inputs, most) if most else None


def engine_prompt(sequence: Sequence) -> dict[str, Any]:
    """A sequence's prompt in vLLM's form: with its images, and what goes on behind them."""
    if sequence.media is None:
        return {"type": "token", "prompt_token_ids": sequence.prompt}
    return {**sequence.media, "prompt_token_ids": sequence.prompt}


def _refused(images: list[Image], why: str) -> ApiError:
    param = images[0].param
    text = f"Invalid '{param}': the model cannot take this image: {why}"
    return ApiError("invalid_value", text.removesuffix(".") + ".", param)
