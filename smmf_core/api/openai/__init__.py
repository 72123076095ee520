"""OpenAI's dialects: request bytes in, Submits out; answers in, response bytes out. Pure.

Owns what clients of `/v1/chat/completions`, `/v1/completions`, `/v1/embeddings`, `/v1/rerank` and
`/v1/models` see; must not know HTTP, queues or workers.
"""

from smmf_core.api.openai.embeddings import Wanted, parse_embeddings
from smmf_core.api.openai.extensions import Require, parse_require
from smmf_core.api.openai.models import render_model, render_models
from smmf_core.api.openai.parse import CHAT, COMPLETION, Parsed, finish, parse
from smmf_core.api.openai.render import Renderer
from smmf_core.api.openai.rerank import parse_rerank
from smmf_core.api.openai.schema import Request

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
    "parse_embeddings",
    "parse_require",
    "parse_rerank",
    "render_model",
    "render_models",
]
