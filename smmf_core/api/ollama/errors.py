"""How errors look to clients of Ollama's API: `{"error": "..."}`, with the status that it has.

Must not know where an error came from.
"""

from __future__ import annotations

import msgspec

from smmf_core.api.names import names, renamed
from smmf_core.errors import ApiError

_NOT_FOUND = "model not found: "  # some clients look for the words
_NAMES = names(
    (r"response_format.*", "format"),
    (r"max_tokens|max_completion_tokens", "options.num_predict"),
)


class OllamaErrors:
    """An ErrorForm."""

    def headers(self, request_id: bytes) -> bytes:
        return b""

    def status(self, error: ApiError) -> int:
        return error.status

    def body(self, error: ApiError, request_id: str) -> bytes:
        is_unknown = error.code == "model_not_found"
        told = _NOT_FOUND + error.message if is_unknown else renamed(error, _NAMES).told
        return msgspec.json.encode({"error": told})


ERRORS = OllamaErrors()
