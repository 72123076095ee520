"""Ollama's API as a dialect: its requests become chats, completions and Embeds; answers its form.

Pure. Owns what clients of `/api/...` see; must not know HTTP, queues or workers.
"""

from smmf_core.api.ollama.embed import parse_embed, parse_embeddings
from smmf_core.api.ollama.errors import ERRORS
from smmf_core.api.ollama.models import (
    API_VERSION,
    find_name,
    render_ps,
    render_show,
    render_tags,
)
from smmf_core.api.ollama.parse import parse_chat, parse_generate
from smmf_core.api.ollama.render import ChatRenderer, GenerateRenderer

__all__ = [
    "API_VERSION",
    "ERRORS",
    "ChatRenderer",
    "GenerateRenderer",
    "find_name",
    "parse_chat",
    "parse_embed",
    "parse_embeddings",
    "parse_generate",
    "render_ps",
    "render_show",
    "render_tags",
]
