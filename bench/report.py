"""`python -m bench.report`: the README's tables of figures from bench/results/*.json."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent
RESULTS = ROOT / "bench" / "results"

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


def _storm(figures: dict[str, Any]) -> str:
    failed, requests = sum(figures["errors"].values()), figures["requests"]
    loads, bound, batches = figures["loads"], figures["bound"], figures["batches"]
    return (
        f"{failed} of {requests} failed; {loads} loads (no order can do with less than {bound}; "
        f"one that knows all wishes, in batches by model: {batches})"
    )


def control_table(results: dict[str, Any]) -> str:
    """The control plane's figures; what was not measured is left out."""
    rows: list[Row] = [
        ("crash", "an idle worker is killed: out of rotation, p99, at most 50 ms",
         lambda f: f"{f['out_of_rotation_p99_ms']:.0f} ms"),
        ("crash", "... replaced and ready (echo): at most 1 s",
         lambda f: f"{f['replaced_p50_ms'] / 1e3:.2f} s (p99 {f['replaced_p99_ms'] / 1e3:.2f} s)"),
        ("start_instance", "start of an echo instance: at most 0.5 s",
         lambda f: f"{f['p50_ms'] / 1e3:.2f} s (p99 {f['p99_ms'] / 1e3:.2f} s)"),
        ("many_models", "`smmf list` of 1,000 models: at most 0.5 s",
         lambda f: f"{f['list_s']:.2f} s"),
        ("many_models", "... their snapshot made, sent to a router and taken over: at most 5 ms",
         lambda f: f"{f['snapshot_made_ms'] + f['snapshot_taken_ms']:.1f} ms"),
        ("swap_storm", "three models, memory for one, 10 clients at random for 60 s: no failure",
         _storm),
    ]  # fmt: skip
    lines = ["| what | measured |", "|---|---|"]
    lines += [f"| {what} | {read(results[name])} |" for name, what, read in rows if name in results]
    return "\n".join(lines)


# (engine, against what, at least, key of the ratio at 1, 8 and 32 requests)
ENGINE_ROWS = [
    ("transformers", "a bare step loop", "0.95", "to_bare_loop"),
    ("transformers", "`generate` on a batch of that size", "1.2 / 1.2 / 1.5", "to_generate"),
    ("transformers", "`transformers serve`, both over HTTP", "2", "served_to_transformers_serve"),
    ("llama_cpp", "a bare `llama_decode` loop", "0.95", "engine_to_bare"),
    ("llama_cpp", "`llama_cpp.server`, both over HTTP", "2 at 8", "served_to_llama_cpp_server"),
    ("llama_cpp", "`llama-server` (C++), both over HTTP", "1", "served_to_llama_server"),
    ("vllm", "`LLM.generate` in one process", "0.95", "engine_ratio"),
    ("vllm", "vLLM's own API server, both over HTTP", "1.5", "served_to_api_server"),
    ("mlx", "mlx-lm's `batch_generate`", "0.95", "engine_ratio"),
]


def engine_table(results: dict[str, Any]) -> str:
    """Tokens per second as ratios; what was not measured is left out."""
    lines = ["| engine | against | at least | 1 / 8 / 32 requests |", "|---|---|---|---|"]
    for engine, against, least, key in ENGINE_ROWS:
        found = results.get(engine, {})
        counts = found.get("requests", found)
        ratios = [counts.get(count, {}).get(key) for count in ("1", "8", "32")]
        if None not in ratios:
            shown = " / ".join(f"{ratio:.2f}" for ratio in ratios)
            lines.append(f"| {engine} | {against} | {least} | {shown} x |")
    if "mixed" in results.get("transformers", {}):
        ratio = results["transformers"]["mixed"]["to_static"]
        what = "static batches; prompts and answers of 16 to 512 tokens, random arrivals"
        lines.append(f"| transformers | {what} | 2 | {ratio:.2f} x |")
    if "embed" in results:
        found = results["embed"]
        singles, many = found["single_texts_ratio"], found["requests_of_64_ratio"]
        what = "`SentenceTransformer.encode`, batch 64; one text or 64 a request"
        lines.append(f"| embeddings, 64 clients | {what} | 0.9 | {singles:.2f} / {many:.2f} x |")
    ready = [
        f"{engine} {results[engine]['ready_s']:.1f} s"
        for engine in results
        if isinstance(results[engine], dict) and "ready_s" in results[engine]
    ]
    return "\n".join([*lines, "", f"From the command to ready: {', '.join(ready)}."])


def put(name: str, text: str) -> None:
    """Between the README's marks of that name."""
    begin, end = f"<!-- {name}:table -->", f"<!-- {name}:end -->"
    readme = ROOT / "README.md"
    before, _, rest = readme.read_text().partition(begin)
    after = rest.partition(end)[2]
    readme.write_text(f"{before}{begin}\n{text}\n{end}{after}")
    print(text)


def main() -> int:
    for name, file, make in (
        ("bench", "serve", table),
        ("control-bench", "control", control_table),
        ("engine-bench", "engines", engine_table),
    ):
        path = RESULTS / f"{file}.json"
        if path.exists():
            put(name, make(json.loads(path.read_text())))
    return 0


if __name__ == "__main__":
    sys.exit(main())
