"""OpenAI's dialects: request bytes in, Submits out; answers in, response bytes out. Pure.

Owns what clients of `/v1/chat/completions`, `/v1/completions`, `/v1/embeddings`, `/v1/rerank`,
`/v1/score`, `/tokenize` and `/v1/models` see; must not know HTTP, queues or workers.
"""

from smmf_core.api.openai.embeddings import parse_embeddings
from smmf_core.api.openai.extensions import Require, parse_require
from smmf_core.api.openai.models import render_model, render_models
from smmf_core.api.openai.parse import CHAT, COMPLETION, Parsed, finish, parse
from smmf_core.api.openai.render import Renderer
from smmf_core.api.openai.rerank import parse_relevance, parse_rerank, parse_rerank_v2
from smmf_core.api.openai.schema import Request
from smmf_core.api.openai.score import parse_score
from smmf_core.api.openai.tokenize import parse_detokenize, parse_tokenize
from smmf_core.api.openai.wanted import Wanted

__all__ = [
    "CHAT",
    "COMPLETION",
    "Parsed",
    "Renderer",
    "Request",
    "Require",
    "Wanted",
    "finish",
    "parse",
    "parse_detokenize",
    "parse_embeddings",
    "parse_relevance",
    "parse_require",
    "parse_rerank",
    "parse_rerank_v2",
    "parse_score",
    "parse_tokenize",
    "render_model",
    "render_models",
]
