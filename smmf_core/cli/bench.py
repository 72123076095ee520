"""`smmf bench`: load on any OpenAI-compatible endpoint, or what the framework itself costs.

Prints throughput, latencies and errors; a stream without its finish chunk is an error. Must not
need anything but the installed package.
"""

from __future__ import annotations

import argparse
import random
import time
from typing import Any

from smmf_core.cli.http import add_json_flag, wants_json
from smmf_core.cli.table import pairs, print_json
from smmf_core.errors import ControlError

_QUANTILES = (0.5, 0.95, 0.99)
_OVERHEAD_TOKENS = 128
_OVERHEAD_CLIENTS = 64
_OVERHEAD_REQUESTS = 1280


def add_parser(subparsers: Any) -> None:
    parser = subparsers.add_parser(
        "bench",
        help="measure an endpoint",
        description="`load` drives any endpoint; `overhead` starts the echo engine and measures "
        "what the framework costs per token and per request.",
    )
    kinds = parser.add_subparsers(dest="kind", required=True, metavar="KIND")
    load = kinds.add_parser("load", help="load on an endpoint")
    load.add_argument("--base-url", default="http://127.0.0.1:8000/v1")
    load.add_argument("--model", default="demo")
    load.add_argument("--prompt", default="Tell me a short story about a fox.")
    load.add_argument("--max-tokens", type=int, default=64)
    load.add_argument("--requests", type=int, default=100, help="how many in total")
    load.add_argument("--clients", type=int, default=8, help="closed loop: so many at a time")
    load.add_argument("--rate", type=float, help="open loop: so many a second, Poisson arrivals")
    load.add_argument("--no-stream", action="store_true")
    load.add_argument("--api-key", default="")
    load.add_argument("--seed", type=int, default=0, help="of the arrival times")
    add_json_flag(load)
    overhead = kinds.add_parser("overhead", help="what the framework costs, with the echo engine")
    add_json_flag(overhead)


def run(args: argparse.Namespace) -> int:
    figures = _load(args) if args.kind == "load" else _overhead()
    if wants_json(args):
        print_json(figures)
    else:
        print(pairs(figures))
    return 1 if figures["errors"] else 0


def _load(args: argparse.Namespace) -> dict[str, Any]:
    from smmf_core.loadgen.exchange import request_bytes
    from smmf_core.loadgen.load import Plan

    url = f"{args.base_url.rstrip('/')}/chat/completions"
    scheme, _, place = url.partition("://")
    if scheme not in ("http", "https"):
        raise ControlError("--base-url must begin with http:// or https://")
    host, _, path = place.partition("/")
    body: dict[str, Any] = {
        "model": args.model,
        "messages": [{"role": "user", "content": args.prompt}],
        "max_tokens": args.max_tokens,
    }
    if not args.no_stream:
        body |= {"stream": True, "stream_options": {"include_usage": True}}
    plan = Plan(
        url=url,
        request=request_bytes(host, f"/{path}", body, args.api_key),
        is_stream=not args.no_stream,
        clients=args.clients,
        total=args.requests,
        arrivals_s=_arrivals(args.rate, args.requests, args.seed) if args.rate else [],
    )
    return _measure(plan)


def _arrivals(rate: float, count: int, seed: int) -> list[float]:
    """A Poisson process: independent clients, as real ones are."""
    draw = random.Random(seed)
    times, now = [], 0.0
    for _ in range(count):
        times.append(now)
        now += draw.expovariate(rate)
    return times


def _measure(plan: Any) -> dict[str, Any]:
    from smmf_core.loadgen.load import Load

    began = time.monotonic()
    outcomes = Load(plan).run()
    wall_s = time.monotonic() - began
    good = [outcome for outcome in outcomes if not outcome.error]
    errors: dict[str, int] = {}
    for outcome in outcomes:
        if outcome.error:
            errors[outcome.error] = errors.get(outcome.error, 0) + 1
    tokens = sum(outcome.tokens for outcome in good)
    figures: dict[str, Any] = {
        "requests": len(outcomes),
        "errors": errors,
        "seconds": round(wall_s, 3),
        "requests_per_second": round(len(good) / wall_s, 1),
        "tokens_per_second": round(tokens / wall_s, 1),
        "first_token_ms": _quantiles([o.first_s - o.due_s for o in good]),
        "request_ms": _quantiles([o.end_s - o.due_s for o in good]),
        "per_token_ms": _quantiles(
            [(o.end_s - o.first_s) / (o.tokens - 1) for o in good if o.tokens > 1]
        ),
    }
    return figures


def _quantiles(values: list[float]) -> dict[str, float]:
    ranked = sorted(values)
    last = len(ranked) - 1
    return {
        f"p{int(100 * q)}": round(1000 * ranked[min(last, int(q * len(ranked)))], 3)
        for q in _QUANTILES
        if ranked
    }


def _overhead() -> dict[str, Any]:
    """A server of its own on the echo engine; CPU of all its processes, per token and request."""
    from smmf_core.loadgen.local import LocalServer

    with LocalServer(tokens=_OVERHEAD_TOKENS) as server:
        streams = server.plan(True, _OVERHEAD_CLIENTS, _OVERHEAD_REQUESTS)
        whole = server.plan(False, 16, _OVERHEAD_REQUESTS)
        _measure(server.plan(True, _OVERHEAD_CLIENTS, _OVERHEAD_CLIENTS))
        before = server.cpu_s()
        streamed = _measure(streams)
        between = server.cpu_s()
        answered = _measure(whole)
        after = server.cpu_s()
    tokens = _OVERHEAD_REQUESTS * _OVERHEAD_TOKENS
    return {
        "errors": streamed["errors"] | answered["errors"],
        "cpu_us_per_streamed_token": round(1e6 * (between - before) / tokens, 2),
        "cpu_us_per_request": round(1e6 * (after - between) / _OVERHEAD_REQUESTS, 1),
        "first_token_ms": streamed["first_token_ms"],
        "tokens_per_second": streamed["tokens_per_second"],
        "requests_per_second": answered["requests_per_second"],
    }
