"""What does an API key cost a request: found, admitted, told what is left, settled and counted?"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, cast

import pytest

from smmf_core.control_messages import KeyEntry, Keys
from smmf_core.http.rate_lines import tell_left
from smmf_core.keys import digest
from smmf_core.messages import Usage
from smmf_core.native._limits import LimitTable
from smmf_core.router.call import Call, Connection, End
from smmf_core.router.keys import KeyRing
from smmf_core.router.usage import Ledger

REQUESTS = 1000  # per round
NOW = 1_800_000_000
PRESENTED = b"sk-smmf-abcdefgh-" + b"x" * 43
END = End(0.0, 200, "stop", Usage(10, 32))


def ring_of(folder: Path, keys: int) -> KeyRing:
    """With `keys` keys, each with all limits, which are not met."""
    fd = os.open(folder / "limits", os.O_RDWR | os.O_CREAT)
    table = LimitTable.create(fd)
    os.close(fd)
    texts = [PRESENTED, *(b"%d" % number for number in range(1, keys))]
    limits = 10**9, 4 * 10**9, 1000, 10**14
    entries = [
        KeyEntry(f"{slot}", slot, digest(text), ["inference"], [], 0.0, *limits)
        for slot, text in enumerate(texts)
    ]
    ring = KeyRing()
    ring.update(Keys(1, entries, required=True), table)
    return ring


@pytest.mark.parametrize("keys", [0, 1, 10_000])
def test_1000_requests(benchmark: Any, tmp_path: Path, keys: int) -> None:
    ring = ring_of(tmp_path, keys) if keys else KeyRing()
    ledger = Ledger()
    call = Call(cast(Connection, None), b"id", b"", 0.0)
    call.base_model = "m"

    def serve() -> None:
        for _ in range(REQUESTS):
            if ring.is_needed:
                key = call.key = ring.find(PRESENTED, NOW)
                key.check_method("POST")
                call.admission = key.take("m", 50, NOW)
                call.headers, call.has_rate_lines = b"", False
                tell_left(call, NOW)
            call.is_for_worker = True
            ledger.ended(call, END, NOW)

    benchmark(serve)
    (used,) = ledger.take()
    assert used.requests % REQUESTS == 0
