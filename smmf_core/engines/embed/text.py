"""Texts and pairs as token ids, through a transformers tokenizer.

Owns what is cut and where; must not know batches.
"""

from __future__ import annotations

from typing import Any

from smmf_core.engines.base import Text
from smmf_core.errors import ApiError


class TextReader:
    """Also a `base.Encoder`. Fast tokenizers are called below transformers' own wrapping, which
    costs more than they."""

    def __init__(self, tokenizer: Any, context_length: int, is_lower_case: bool) -> None:
        self._tokenizer = tokenizer
        self._backend = getattr(tokenizer, "backend_tokenizer", None)
        self._context_length = context_length
        self._is_lower_case = is_lower_case
        self.vocab_size = len(tokenizer)
        if self._backend is not None:
            self._backend.no_padding()
            self._backend.no_truncation()

    def read(self, texts: list[str | list[int]], query: str | None, max_tokens: int) -> list[Text]:
        """See EmbedEngine.tokenize."""
        limit = self._limit(query, max_tokens)
        strings = [self._case(text) for text in texts if isinstance(text, str)]
        found = iter(self._encode(strings, None if query is None else self._case(query), limit))
        return [
            next(found) if isinstance(text, str) else Text(text[:limit] if limit else text)
            for text in texts
        ]

    def encode(self, text: str, add_special: bool) -> list[int]:
        text = self._case(text)
        if self._backend is None:
            return list(self._tokenizer.encode(text, add_special_tokens=add_special))
        return list(self._backend.encode(text, add_special_tokens=add_special).ids)

    def decode(self, ids: list[int]) -> str:
        if self._backend is None:
            return str(self._tokenizer.decode(ids))
        return str(self._backend.decode(ids, skip_special_tokens=False))

    def piece(self, token: int) -> str:
        return self._tokenizer.convert_ids_to_tokens(token) or ""

    def _case(self, text: str) -> str:
        return text.lower() if self._is_lower_case else text

    def _limit(self, query: str | None, max_tokens: int) -> int:
        """Of a whole text or pair; 0: none."""
        if not max_tokens or query is None:
            return min(max_tokens, self._context_length)
        before: int = len(self._tokenizer.encode(self._case(query), add_special_tokens=False))
        before += self._tokenizer.num_special_tokens_to_add(pair=True)
        if before >= self._context_length:
            text = f"This model's maximum context length is {self._context_length} tokens, which "
            raise ApiError(
                "context_length_exceeded", f"{text}the query leaves no room in.", "query"
            )
        return min(before + max_tokens, self._context_length)

    def _encode(self, texts: list[str], query: str | None, limit: int) -> list[Text]:
        if self._backend is None:
            return self._encode_slowly(texts, query, limit)
        if limit:
            self._backend.enable_truncation(
                limit, strategy="longest_first" if query is None else "only_second"
            )
        try:
            given = texts if query is None else [(query, text) for text in texts]
            encodings = self._backend.encode_batch_fast(given)
        finally:
            self._backend.no_truncation()
        if query is None:
            return [Text(encoding.ids) for encoding in encodings]
        return [_pair(encoding.ids, encoding.type_ids) for encoding in encodings]

    def _encode_slowly(self, texts: list[str], query: str | None, limit: int) -> list[Text]:
        """For tokenizers that are Python only."""
        cut: dict[str, Any] = {"truncation": False}
        if limit:
            cut = {"truncation": True if query is None else "only_second", "max_length": limit}
        if query is None:
            found = self._tokenizer(texts, **cut)
            return [Text(ids) for ids in found["input_ids"]]
        found = self._tokenizer([query] * len(texts), texts, return_token_type_ids=True, **cut)
        pairs = zip(found["input_ids"], found["token_type_ids"], strict=True)
        return [_pair(ids, types) for ids, types in pairs]


def _pair(ids: list[int], types: list[int]) -> Text:
    """Models without token types give none: the pair is told by its separators only."""
    return Text(ids, types.index(1) if 1 in types else 0)
