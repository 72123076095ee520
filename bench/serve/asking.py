"""What scenarios ask a server, and what that cost: requests, closed loops, its processes' CPU.

Owns the measuring of one run; must not start a server.
"""

from __future__ import annotations

import time
from typing import Any

from bench.serve.contestants import Contestant
from smmf_core.loadgen.exchange import Outcome, request_bytes
from smmf_core.loadgen.load import Load, Plan

CHAT = "/v1/chat/completions"
MESSAGES: list[Any] = [
    {"role": "user", "content": "Please answer with some words, one after another."}
]


def echo(name: str = "echo", slots: int = 4096, **engine: Any) -> str:
    keys = "\n".join(f"{key} = {value!r}" for key, value in engine.items())
    return (
        f'[model]\nname = "{name}"\nbackend = "echo"\n'
        f"[deployment]\nmax_concurrency = {slots}\n"
        f"[optimization]\nmax_batch_size = {slots}\nmax_batch_tokens = 10000000\n"
        f"[engine]\n{keys}\n"
    )


def chat(contestant: Contestant, tokens: int, stream: bool, **fields: Any) -> bytes:
    body: dict[str, Any] = {"model": "echo", "messages": MESSAGES, "stream": stream, **fields}
    if stream:
        body["stream_options"] = {"include_usage": True}
    return request_bytes(f"127.0.0.1:{contestant.port}", CHAT, body)


def closed(contestant: Contestant, request: bytes, stream: bool, clients: int, total: int) -> Plan:
    return Plan(
        contestant.url + CHAT, request, stream, clients=clients, total=total, trust=contestant.trust
    )


def measure(contestant: Contestant, plan: Plan) -> tuple[float, list[Outcome], float]:
    """(CPU seconds of all its processes, outcomes, wall seconds) of one run."""
    before, began = contestant.cpu_s(), time.monotonic()
    outcomes = Load(plan).run()
    return contestant.cpu_s() - before, outcomes, time.monotonic() - began


def errors(outcomes: list[Outcome]) -> dict[str, int]:
    found: dict[str, int] = {}
    for outcome in outcomes:
        if outcome.error:
            found[outcome.error] = found.get(outcome.error, 0) + 1
    return found
