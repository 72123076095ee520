"""From a Submit to sequences of token ids: chat template, tokenizer, context and lengths.

Pure. Raises ApiError for what cannot run; must not touch the batch.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from msgspec.structs import replace

from smmf_core.engines.base import EngineSpec, Sequence, Vision
from smmf_core.errors import ApiError
from smmf_core.messages import Image, Submit
from smmf_core.worker.reading import Reading

_SEED_MASK = (1 << 64) - 1


@dataclass(slots=True)
class Prompt:
    ids: list[int]
    text: str  # for completions' `echo`; empty when it is not asked for
    in_thought: bool = False  # it opens a thought in which the answer begins
    media: Any = None  # of its images: the engine's


def read_prompts(submit: Submit, spec: EngineSpec, reading: Reading) -> list[Prompt]:
    """Tokenise all prompts. Raises ApiError: `context_length_exceeded`, or a template's refusal."""
    vision = vision_of(spec, submit.images)
    spec.check(submit)
    if submit.tool_choice is not None:
        reading.check(submit)
    _check_token_ids(submit, spec.tokenizer.vocab_size)
    if submit.messages is not None:
        if spec.chat_template is None:
            raise ApiError("unsupported_value", "This model has no chat template.", "messages")
        text = spec.chat_template.render(submit)
        ids = spec.tokenizer.encode(text, add_special=False)
        prompts = [Prompt(ids, "")]
        if spec.reasoning_format:
            prompts[0].in_thought = reading.ends_in_thought(text, submit)
        if vision is not None:
            _check_length(len(ids), submit, spec, "messages")  # before pictures cost something
            prompts[0].ids, prompts[0].media = vision.place(ids, submit.images)
    else:
        prompts = [_read_prompt(prompt, submit, spec) for prompt in submit.prompts or []]
    where = "messages" if submit.messages is not None else "prompt"
    for prompt in prompts:
        _check_length(len(prompt.ids), submit, spec, where)
    return prompts


def make_sequences(
    submit: Submit, prompts: list[Prompt], spec: EngineSpec, first_id: int
) -> list[Sequence]:
    """n sequences per prompt; choice j of prompt i is sequence i * n + j with a seed of its own."""
    sequences: list[Sequence] = []
    sampling = submit.sampling
    if spec.stop_strings and submit.messages is not None:
        sampling = replace(sampling, stop=[*sampling.stop, *spec.stop_strings])
    for number, prompt in enumerate(prompts):
        limit = spec.context_length - len(prompt.ids)
        if submit.sampling.max_tokens is not None:
            limit = min(limit, submit.sampling.max_tokens)
        for _ in range(submit.n):
            index = len(sequences)
            emitted = _emitted(submit, index)
            seed = (submit.sampling.seed + index) & _SEED_MASK
            echo_logprobs = submit.sampling.logprobs if submit.echo_prompt else None
            sequences.append(
                Sequence(
                    id=first_id + index + 1,
                    prompt=prompt.ids + emitted,
                    prompt_len=len(prompt.ids),
                    params=replace(sampling, seed=seed) if index else sampling,
                    max_new_tokens=limit,
                    submit=submit,
                    prompt_index=number,
                    prompt_logprobs=echo_logprobs,
                    media=prompt.media,
                )
            )
    return sequences


def vision_of(spec: EngineSpec, images: list[Image]) -> Vision | None:
    """What places these images; None where there are none. Raises ApiError."""
    if images and spec.vision is None:
        param = images[0].param
        text = f"Invalid '{param}': this model takes no images, only text."
        raise ApiError("unsupported_value", text, param)
    return spec.vision if images else None


def _read_prompt(prompt: str | list[int], submit: Submit, spec: EngineSpec) -> Prompt:
    tokenizer = spec.tokenizer
    if isinstance(prompt, str):
        ids = tokenizer.encode(prompt, add_special=True)
        return Prompt(ids, prompt if submit.echo_prompt else "")
    bad = [token for token in prompt if not 0 <= token < tokenizer.vocab_size]
    if bad:
        text = f"Token {bad[0]} is outside the vocabulary of {tokenizer.vocab_size}."
        raise ApiError("invalid_value", text, "prompt")
    text = ""
    if submit.echo_prompt:
        text = b"".join(map(tokenizer.token_bytes, prompt)).decode("utf-8", "replace")
    return Prompt(prompt, text)


def _check_token_ids(submit: Submit, vocab_size: int) -> None:
    bad = [token for token in submit.sampling.logit_bias or {} if not 0 <= token < vocab_size]
    if bad:
        text = f"logit_bias names tokens outside the vocabulary of {vocab_size}: {bad[:8]}."
        raise ApiError("invalid_value", text, "logit_bias")


def _check_length(prompt_tokens: int, submit: Submit, spec: EngineSpec, where: str) -> None:
    context = spec.context_length
    wanted = None if submit.may_be_cut else submit.sampling.max_tokens
    if prompt_tokens == 0:
        raise ApiError("invalid_value", f"'{where}' holds no tokens.", where)
    room = context - prompt_tokens
    if room >= (1 if wanted is None else wanted):
        return
    asked = f"{prompt_tokens} in the {where}"
    if wanted is not None:
        asked = f"{prompt_tokens + wanted} tokens ({asked}, {wanted} in the completion)"
    else:
        asked = f"{asked}, which leaves no room for the completion"
    raise ApiError(
        "context_length_exceeded",
        f"This model's maximum context length is {context} tokens. However, you requested {asked}.",
        where,
    )


def _emitted(submit: Submit, index: int) -> list[int]:
    emitted = submit.emitted_ids
    return emitted[index] if emitted and index < len(emitted) else []
