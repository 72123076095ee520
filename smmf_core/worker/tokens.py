"""Text <-> tokens for those who ask: answered at once, beside the batch and the engine.

Pure. Owns the answers to Tokenize and Detokenize; must not know a certain tokenizer.
"""

from __future__ import annotations

from typing import Any

import msgspec

from smmf_core.engines.base import Encoder, EngineSpec
from smmf_core.errors import ApiError
from smmf_core.messages import (
    FINISH,
    RESULT,
    Detokenize,
    Detokenized,
    Record,
    Sampling,
    Submit,
    Tokenize,
    Tokenized,
    encode,
)
from smmf_core.worker.contract import RouterKey, Spec, Tally
from smmf_core.worker.prepare import vision_of

_NOTHING_USED = bytes(16)
_to_json = msgspec.json.encode


def answer(
    asked: Tokenize | Detokenize, spec: Spec, tally: Tally, router: RouterKey
) -> list[Record]:
    """The records of the whole answer."""
    try:
        result = _tokenize(asked, spec) if type(asked) is Tokenize else _detokenize(asked, spec)
    except Exception as error:  # a tokenizer may raise anything: that costs one request
        return [tally.fail(router, asked, error)]
    tally.finish(router)
    return [
        (RESULT, asked.key, asked.attempt, 0, 0, encode(result)),
        (FINISH, asked.key, asked.attempt, 0, 0, _NOTHING_USED),
    ]


def _tokenize(asked: Any, spec: Spec) -> Tokenized:
    if not asked.text and asked.messages is None:  # nothing: asked only whether the model is there
        return Tokenized(0, spec.context_length, b"[]", b"[]" if asked.with_strings else b"")
    tokenizer = _tokenizer(spec)
    text = asked.text if asked.messages is None else _render(asked, spec)
    ids = tokenizer.encode(text, asked.add_special)
    if asked.images and isinstance(spec, EngineSpec):
        vision = vision_of(spec, asked.images)
        assert vision is not None
        ids, _ = vision.place(ids, asked.images)
    strings = _to_json([_piece(tokenizer, id_) for id_ in ids]) if asked.with_strings else b""
    return Tokenized(len(ids), spec.context_length, _to_json(ids), strings)


def _detokenize(asked: Any, spec: Spec) -> Detokenized:
    tokenizer = _tokenizer(spec)
    for number, token in enumerate(asked.tokens):
        if token >= tokenizer.vocab_size:
            where = f"tokens[{number}]"
            known = f"Expected a value <= {tokenizer.vocab_size - 1}"
            text = f"Invalid '{where}': integer above maximum value. {known}, but got {token}."
            raise ApiError("integer_above_max_value", text, where)
    decode = getattr(tokenizer, "decode", None)
    if decode is not None:
        return Detokenized(decode(asked.tokens))
    data = b"".join([_bytes(tokenizer, token) for token in asked.tokens])
    return Detokenized(data.decode("utf-8", "replace"))


def _tokenizer(spec: Spec) -> Encoder:
    if spec.tokenizer is None:
        raise ApiError("unsupported_value", "This model does not show its tokens.", "model")
    return spec.tokenizer


def _render(asked: Tokenize, spec: Spec) -> str:
    template = spec.chat_template if isinstance(spec, EngineSpec) else None
    if template is None:
        raise ApiError("unsupported_value", "This model has no chat template.", "messages")
    chat = Submit(
        key=asked.key,
        attempt=asked.attempt,
        request_id=asked.request_id,
        model=asked.model,
        stream=False,
        n=1,
        messages=asked.messages,
        prompts=None,
        sampling=Sampling(),
        add_generation_prompt=asked.add_generation_prompt,
        continue_final_message=asked.continue_final_message,
        template_args=asked.template_args,
        tools=asked.tools,
    )
    return template.render(chat)


def _piece(tokenizer: Any, token: int) -> str:
    piece = getattr(tokenizer, "piece", None)
    if piece is not None:
        return str(piece(token))
    return _bytes(tokenizer, token).decode("utf-8", "replace")


def _bytes(tokenizer: Any, token: int) -> bytes:
    """A special token has no text but its name, if that is told."""
    piece = getattr(tokenizer, "piece", None)
    if piece is not None and tokenizer.is_special(token):
        return str(piece(token)).encode()
    found: bytes = tokenizer.token_bytes(token)
    return found
