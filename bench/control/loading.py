"""How long a load takes when the weights must come from the disk, and when they are in the page
cache: because they were loaded before, or because the Controller brought them back.

The model is made for it: random weights of a Llama, some 0.23 GiB, with the demo model's tokenizer,
on the reference engine. What is timed is the admin API's start, from the order to ready.
"""

from __future__ import annotations

import http.client
import json
import os
import shutil
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save_file

from bench.serve.contestants import Smmf
from smmf_core.controller.page_cache import cached_bytes

ROUNDS = 5
WIDTH, INNER, LAYERS, HEADS, KV_HEADS, HEAD = 1024, 2816, 10, 16, 8, 64  # 0.23 GiB in float16
DEMO = Path(__file__).parents[2] / "configs" / "demo"
_BACK_S = 60.0  # the Controller looks every 30 s
_LAYER: dict[str, tuple[int, ...]] = {
    "input_layernorm": (WIDTH,),
    "post_attention_layernorm": (WIDTH,),
    "mlp.gate_proj": (INNER, WIDTH),
    "mlp.up_proj": (INNER, WIDTH),
    "mlp.down_proj": (WIDTH, INNER),
    "self_attn.q_proj": (HEADS * HEAD, WIDTH),
    "self_attn.k_proj": (KV_HEADS * HEAD, WIDTH),
    "self_attn.v_proj": (KV_HEADS * HEAD, WIDTH),
    "self_attn.o_proj": (WIDTH, HEADS * HEAD),
}
_ECHO = '[model]\nname = "echo"\nbackend = "echo"\n'
_BIG = (
    '[model]\nname = "big"\nbackend = "reference"\npath = "{path}"\n'
    "[deployment]\nautostart = false\n"
)


def loading() -> dict[str, Any]:
    with tempfile.TemporaryDirectory(prefix="smmf-weights-") as folder:
        weights = make_model(Path(folder))
        server = Smmf({"echo": _ECHO, "big": _BIG.format(path=folder)})
        try:
            return {"weight_bytes": weights.stat().st_size, **_measure(server, weights)}
        finally:
            server.stop()
            drop(weights)


def _measure(server: Smmf, weights: Path) -> dict[str, Any]:
    cold, second = [], []
    for _ in range(ROUNDS):
        _stop(server)
        drop(weights)
        cold.append(_load_s(server))
        _stop(server)
        second.append(_load_s(server))
    _ask(server)  # somebody wants it: it is worth its place in the cache
    _stop(server)
    drop(weights)
    dropped = cached_bytes(weights)
    began = time.monotonic()
    while cached_bytes(weights) < weights.stat().st_size and time.monotonic() - began < _BACK_S:
        time.sleep(0.1)
    back_s = time.monotonic() - began
    brought_back = _load_s(server)
    return {
        "cold_s": statistics.median(cold),
        "second_s": statistics.median(second),
        "ratio": statistics.median(cold) / statistics.median(second),
        "brought_back_s": brought_back,
        "back_in_cache_after_s": back_s,
        "errors": {} if dropped == 0 else {"the system kept the file in its cache": 1},
    }


def make_model(folder: Path) -> Path:
    """Its one weight file."""
    for name in ("tokenizer.json", "tokenizer_config.json", "generation_config.json"):
        shutil.copy(DEMO / name, folder)
    settings = json.loads((DEMO / "config.json").read_text())
    settings |= {
        "hidden_size": WIDTH,
        "intermediate_size": INNER,
        "num_hidden_layers": LAYERS,
        "num_attention_heads": HEADS,
        "num_key_value_heads": KV_HEADS,
        "head_dim": HEAD,
    }
    (folder / "config.json").write_text(json.dumps(settings))
    draw = np.random.default_rng(1)
    shapes = {"model.embed_tokens.weight": (settings["vocab_size"], WIDTH)}
    shapes["model.norm.weight"] = (WIDTH,)
    for layer in range(LAYERS):
        shapes |= {f"model.layers.{layer}.{name}.weight": shape for name, shape in _LAYER.items()}
    tensors = {
        name: (0.02 * draw.standard_normal(shape, np.float32)).astype(np.float16)
        for name, shape in shapes.items()
    }
    file = folder / "model.safetensors"
    save_file(tensors, file)
    return file


def drop(file: Path) -> None:
    """From the page cache, once it is on the disk."""
    with file.open("rb") as opened:
        os.fsync(opened.fileno())
        os.posix_fadvise(opened.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def _load_s(server: Smmf) -> float:
    """From the order to start until it is ready."""
    began = time.monotonic()
    _post(server, "/admin/v1/models/big:start")
    return time.monotonic() - began


def _stop(server: Smmf) -> None:
    _post(server, "/admin/v1/models/big:stop")


def _ask(server: Smmf) -> None:
    body = {"model": "big", "prompt": "Once", "max_tokens": 1}
    _send(server.port, "/v1/completions", body)


def _post(server: Smmf, path: str) -> None:
    _send(server.admin_port, path, None)


def _send(port: int, path: str, body: dict[str, Any] | None) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=120)
    try:
        headers = {"Content-Type": "application/json"}
        connection.request("POST", path, json.dumps(body or {}), headers)
        response = connection.getresponse()
        answer = response.read()
    finally:
        connection.close()
    if response.status >= 300:
        raise RuntimeError(f"{path}: {response.status} {answer!r}")
