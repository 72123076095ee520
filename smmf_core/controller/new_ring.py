"""The descriptors of a new token ring, to be given to its two ends.

Owns its size; what is in it is native's. Keeps nothing: the caller closes them.
"""

from __future__ import annotations

import os

from smmf_core.native import _ring

RING_BYTES = 1 << 20  # seconds of text at 10,000 tokens/s: a Router never stalls so long


def new_ring(slots: int) -> list[int]:
    """[memory, data, space]: one memfd and two eventfds."""
    flags = os.EFD_NONBLOCK | os.EFD_CLOEXEC
    return [_ring.create(ring_bytes(slots), slots), os.eventfd(0, flags), os.eventfd(0, flags)]


def ring_bytes(slots: int) -> int:
    """A power of two in which the reserved room of `slots` terminal records is a small part."""
    size = RING_BYTES
    while size < 4 * slots * _ring.TERMINAL_BYTES:
        size *= 2
    return size
