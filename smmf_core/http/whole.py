"""Which paths ask for an answer that always comes whole: vectors, scores, tokens.

Owns their table; must not take requests.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from smmf_core.api import anthropic, openai, responses
from smmf_core.api.openai import Wanted


class Ask(NamedTuple):
    """What one path wants."""

    route: str  # as metrics and the log name it
    task: str  # of the models that can; "": of any
    parse: Callable[[bytes, str, int], Wanted]
    capability: str = ""  # what `auto` looks for; "": one named as the task
    other_task: str = ""  # of models that can, too


ASKS = {
    "/embeddings": Ask("embeddings", "embed", openai.parse_embeddings),
    "/rerank": Ask("rerank", "rerank", openai.parse_rerank),
    "/score": Ask("score", "rerank", openai.parse_score, other_task="embed"),
    "/beta/relevance": Ask("relevance", "rerank", openai.parse_relevance),
    "/tokenize": Ask("tokenize", "", openai.parse_tokenize),
    "/detokenize": Ask("detokenize", "", openai.parse_detokenize),
    "/messages/count_tokens": Ask("count_tokens", "generate", anthropic.parse_count, "chat"),
    "/responses/input_tokens": Ask("input_tokens", "generate", responses.parse_count, "chat"),
}
COHERE = {"/v2/rerank": Ask("rerank", "rerank", openai.parse_rerank_v2)}
