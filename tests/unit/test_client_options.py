"""What the client library's calls may say is what the server's bodies have."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from smmf_core.api.openai.embeddings import EmbeddingsBody
from smmf_core.api.openai.rerank import RerankBody
from smmf_core.api.openai.schema import ChatBody, CompletionBody
from smmf_core.api.openai.score import ScoreBody
from smmf_core.api.openai.tokenize import TokenizeBody
from smmf_core.client import options

PAIRS = [
    (options.ChatOptions, ChatBody),
    (options.CompletionOptions, CompletionBody),
    (options.EmbedOptions, EmbeddingsBody),
    (options.RerankOptions, RerankBody),
    (options.ScoreOptions, ScoreBody),
    (options.TokenizeOptions, TokenizeBody),
]


@pytest.mark.parametrize(("given", "body"), PAIRS)
def test_the_server_knows_every_option(given: Any, body: Any) -> None:
    fields = {field.encode_name for field in msgspec.structs.fields(body)}
    assert set(given.__annotations__) - fields == set()
