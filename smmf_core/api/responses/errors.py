"""Errors of the fields of a chat, as clients of Responses call these fields.

Owns the names, and what of our codes an answer that failed may have; must not know where an error
came from.
"""

from __future__ import annotations

from smmf_core.api.names import names, renamed
from smmf_core.api.openai.decode import clip
from smmf_core.errors import ApiError, envelope

NAMES = names(
    (r"messages", "input"),
    (r"max_tokens|max_completion_tokens", "max_output_tokens"),
    (r"response_format\.json_schema\.(.+)", r"text.format.\1"),
    (r"response_format", "text.format"),
    (r"(tools\[\d+\])\.function\.(.+)", r"\1.\2"),
)


class ResponsesErrors:
    """An ErrorForm: OpenAI's envelope."""

    def headers(self, request_id: bytes) -> bytes:
        return b""

    def status(self, error: ApiError) -> int:
        return error.status

    def body(self, error: ApiError, request_id: str) -> bytes:
        named = renamed(error, NAMES)
        return envelope(named.code, named.message, named.param)


def not_stored(path: str) -> ApiError | None:
    """On the paths of a stored answer, of which there is none; None: it is not such a path."""
    name = path.partition("/responses/")[2].partition("/")[0]
    if not name.startswith("resp_"):
        return None
    text = f"Response with id '{clip(name)}' not found: responses are not stored here."
    return ApiError("response_not_found", text, "response_id")


def failure_code(error: ApiError) -> str:
    """One of those that the specification has for an answer's `error`."""
    if error.status == 429:
        return "rate_limit_exceeded"
    return "server_error" if error.status >= 500 else "invalid_prompt"


ERRORS = ResponsesErrors()
