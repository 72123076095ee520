"""`POST /v1/responses/input_tokens`: how many tokens a request's prompt has.

Owns what is counted: the very prompt that Responses would make of it. Must not tokenise.
"""

from __future__ import annotations

import msgspec

from smmf_core.api.openai import Wanted
from smmf_core.api.openai.count import wanted_count
from smmf_core.api.openai.decode import decode
from smmf_core.api.responses.parse import read_prompt
from smmf_core.api.responses.schema import InputBody

_ANSWER = b'{"object":"response.input_tokens","input_tokens":%d}'
_decoder = msgspec.json.Decoder(InputBody)


def parse_count(body: bytes, unique_id: str, created: int = 0) -> Wanted:
    """Decode and validate. Raises ApiError (400)."""
    return wanted_count(read_prompt(decode(_decoder, body)), _ANSWER)
