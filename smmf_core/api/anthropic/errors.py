"""How errors look to Messages' clients: types, statuses and the envelope of Anthropic's API.

Owns the translation of our codes; must not know where an error came from.
"""

from __future__ import annotations

import msgspec

from smmf_core.api.names import names, renamed
from smmf_core.errors import ApiError

_OVERLOADED = 529
_TYPES = {
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    413: "request_too_large",
    429: "rate_limit_error",
    504: "timeout_error",
    _OVERLOADED: "overloaded_error",
}
_NAMES = names(
    (r"response_format\.json_schema\.(.+)", r"output_config.format.\1"),
    (r"response_format", "output_config.format"),
    (r"(tools\[\d+\])\.function\.parameters", r"\1.input_schema"),
)


class AnthropicErrors:
    """An ErrorForm. What another time may bring is overload: a full queue, no model to answer."""

    def headers(self, request_id: bytes) -> bytes:
        return b"request-id: %b\r\n" % request_id

    def status(self, error: ApiError) -> int:
        is_overload = error.code == "queue_full" or error.status == 503
        return _OVERLOADED if is_overload else error.status

    def body(self, error: ApiError, request_id: str) -> bytes:
        status = self.status(error)
        kind = _TYPES.get(status) or ("invalid_request_error" if status < 500 else "api_error")
        said = {"type": kind, "message": renamed(error, _NAMES).told}
        return msgspec.json.encode({"type": "error", "error": said, "request_id": request_id})


ERRORS = AnthropicErrors()
