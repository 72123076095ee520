"""`python -m bench.report`: the README's table of figures from bench/results/serve.json."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent
RESULTS = ROOT / "bench" / "results" / "serve.json"
BEGIN, END = "<!-- bench:table -->", "<!-- bench:end -->"

Row = tuple[str, str, Callable[[dict[str, Any]], str]]


def _per_token(figures: dict[str, Any]) -> str:
    ours, floor = figures["cpu_us_per_token"], figures["floor_us_per_token"]
    return f"{figures['ratio']:.2f} x ({ours:.1f} us against {floor:.1f} us)"


def _unary(figures: dict[str, Any]) -> str:
    ours, floor = figures["cpu_us_per_request"], figures["floor_us_per_request"]
    others = [
        f"{figures[f'{name}_ratio']:.2f} x ({figures[f'{name}_us_per_request']:.0f} us) {what}"
        for name, what in (
            ("standard", "on uvloop and httptools"),
            ("bare", "on those and without types"),
        )
    ]
    return f"{ours:.0f} us, {figures['ratio']:.2f} x ({floor:.0f} us); {', '.join(others)}"


# (scenario, what and the most it may be, how its figures read)
ROWS: list[Row] = [
    ("stream_flat", "flat out, 64 streams: CPU per token, at most 1.5 x the C send loop",
     _per_token),
    ("stream_paced_64", "one step per ms, 64 clients: CPU per token, at most 2 x", _per_token),
    ("stream_paced_8", "one step per ms, 8 clients: CPU per token, at most 3.5 x", _per_token),
    ("unary", "not streaming: CPU per request, at most 100 us and 0.4 x FastAPI", _unary),
    ("first_token", "first token, 1 client, p50: at most 1 ms",
     lambda f: f"{f['first_token_p50_ms']:.2f} ms (p99 {f['first_token_p99_ms']:.2f} ms)"),
    ("streams_2000", "2,000 streams at once: no errors",
     lambda f: f"{sum(f['errors'].values())} errors"),
    ("idle_10000", "10,000 idle connections: no errors",
     lambda f: f"{sum(f['errors'].values())} errors, {f['bytes_per_connection'] / 1e3:.1f} kB"),
    ("start", "`smmf serve` typed to the demo model's first token: at most 2.5 s",
     lambda f: f"{f['start_to_first_token_s']:.2f} s"),
    ("memory", "Controller and Router, resident: at most 150 MB",
     lambda f: f"{f['rss_sum_mb']:.0f} MB (PSS {f['pss_sum_mb']:.0f} MB)"),
    ("growth_models", "1,000 models against 1: CPU per request, at most 1.3 x",
     lambda f: f"{f['ratio']:.2f} x"),
    ("growth_waiting", "100,000 requests waiting against 1: CPU per request, at most 1.3 x",
     lambda f: f"{f['ratio']:.2f} x"),
]  # fmt: skip


def table(results: dict[str, Any]) -> str:
    machine = results["machine"]
    lines = ["| what | measured |", "|---|---|"]
    for scenario, what, read in ROWS:
        if scenario in results:
            lines.append(f"| {what} | {read(results[scenario])} |")
    lines.append("")
    lines.append(
        f"{machine['cores']} cores of {machine['cpu']}, Linux {machine['kernel']}, "
        f"Python {machine['python']}; CPU of all server processes together."
    )
    return "\n".join(lines)


def main() -> int:
    text = table(json.loads(RESULTS.read_text()))
    readme = ROOT / "README.md"
    before, _, rest = readme.read_text().partition(BEGIN)
    after = rest.partition(END)[2]
    readme.write_text(f"{before}{BEGIN}\n{text}\n{END}{after}")
    print(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
