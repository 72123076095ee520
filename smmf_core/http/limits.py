"""The bounds of the HTTP side, each with its reason. Owns numbers only; must not enforce them."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(slots=True, frozen=True)
class Limits:
    header_bytes: int = 32_768  # of a request's head; nginx's and Node's order: big tokens fit
    headers: int = 100  # lines, as Apache and most proxies
    body_bytes: int = 32 << 20  # also after decompression; a long chat with documents fits
    header_timeout_s: float = 10.0  # from a request's first byte to its last header (slowloris)
    body_timeout_s: float = 30.0  # between two reads of a body
    idle_timeout_s: float = 130.0  # above the 60 to 120 s that pools and load balancers keep
    pipeline_depth: int = 16  # requests read ahead of the one being answered
