"""What a client is told of a Worker's failure.

Owns what must not leave the machine: paths, addresses in memory, all but a text's first line. The
Worker's log has the whole; must not judge whose fault it was.
"""

from __future__ import annotations

import re

from smmf_core.errors import KINDS, ApiError
from smmf_core.messages import Failure

_SERVERS_FAULT = 500  # statuses from here on: others are in our own words
_PATH = re.compile(r"(?<![\w/:.])/(?:[\w.@+~-]+/)+(?=[\w.@+~-]*)")
_ADDRESS = re.compile(r"\b0x[0-9a-fA-F]{6,}\b")


def told(failure: Failure) -> ApiError:
    message = failure.message
    if KINDS[failure.code].status >= _SERVERS_FAULT:
        message = _ADDRESS.sub("0x...", _PATH.sub("", message.strip().partition("\n")[0]))
    return ApiError(failure.code, message, failure.param)
