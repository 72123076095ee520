"""OpenAI's Responses API as a dialect: its requests become chats, answers take its form. Pure.

Owns what clients of `/v1/responses` and its `/input_tokens` see. Nothing is stored: what refers to
earlier answers is refused. Must not know HTTP, queues or workers.
"""

from smmf_core.api.responses.count import parse_count
from smmf_core.api.responses.errors import ERRORS, not_stored
from smmf_core.api.responses.parse import parse
from smmf_core.api.responses.render import Renderer

__all__ = ["ERRORS", "Renderer", "not_stored", "parse", "parse_count"]
