"""Anthropic's Messages API as a dialect: its requests become chats, answers take its form. Pure.

Owns what clients of `/v1/messages` and its `/count_tokens` see; must not know HTTP, queues or
workers.
"""

from smmf_core.api.anthropic import models
from smmf_core.api.anthropic.count import parse_count
from smmf_core.api.anthropic.errors import ERRORS
from smmf_core.api.anthropic.parse import parse
from smmf_core.api.anthropic.render import Renderer

__all__ = ["ERRORS", "Renderer", "models", "parse", "parse_count"]
