"""How errors look to clients of Ollama's API: `{"error": "..."}`, with the status that it has.

Must not know where an error came from.
"""

from __future__ import annotations

import msgspec

from smmf_core.errors import ApiError

_NOT_FOUND = "model not found: "  # some clients look for the words


class OllamaErrors:
    """An ErrorForm."""

    def headers(self, request_id: bytes) -> bytes:
        return b""

    def status(self, error: ApiError) -> int:
        return error.status

    def body(self, error: ApiError, request_id: str) -> bytes:
        is_unknown = error.code == "model_not_found"
        told = _NOT_FOUND + error.message if is_unknown else error.told
        return msgspec.json.encode({"error": told})


ERRORS = OllamaErrors()
