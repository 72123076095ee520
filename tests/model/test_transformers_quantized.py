"""GPTQ and AWQ checkpoints: what they compute is what their unpacked weights compute.

gptqmodel draws in dozens of packages and pins numpy, so it lies in a folder of its own, which
SMMF_TEST_GPTQ names and only these tests look into: `make test` makes it, by
`pip install --no-deps --target FOLDER -r tests/gptq-requirements.txt`.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from engines_env import gptq_folder
from model.tiny import make_model, write_json
from safetensors.numpy import load_file, save_file

BITS, GROUP = 4, 32
PACKED = 32 // BITS  # numbers in one int32
AWQ_ORDER = (0, 2, 4, 6, 1, 3, 5, 7)  # of the columns in one int32
SIZES = {"hidden_size": 64, "intermediate_size": 128, "num_attention_heads": 4}
SCRIPT = """
import json, sys
import torch
from model.test_transformers_load import load_it
answers = {}
for folder in sys.argv[1:]:
    loaded = load_it(folder, dtype="float32")
    prompt = torch.tensor([[5, 60, 7, 200]])
    with torch.inference_mode():
        tokens = loaded.model.generate(prompt, max_new_tokens=12, do_sample=False, pad_token_id=2)
        logits = loaded.model(prompt).logits[0, -1]
    layer = type(loaded.model.model.layers[0].mlp.up_proj).__module__
    answers[folder] = [tokens[0].tolist(), logits.tolist(), layer]
print("ANSWERS", json.dumps(answers))
"""


def pack(values: np.ndarray, axis: int, order: tuple[int, ...]) -> np.ndarray:
    """Eight 4-bit numbers of an axis, the first in the lowest bits, as one int32."""
    parts = np.moveaxis(values.astype(np.uint32), axis, -1)
    parts = parts.reshape(*parts.shape[:-1], -1, PACKED)
    packed = np.zeros(parts.shape[:-1], np.uint32)
    for place, source in enumerate(order):
        packed |= parts[..., source] << np.uint32(BITS * place)
    return np.ascontiguousarray(np.moveaxis(packed, -1, axis)).view(np.int32)


def quantise(weight: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """[out, in] -> numbers [in, out], zeros and scales [groups, out], and the weight they mean."""
    wide = weight.T.reshape(-1, GROUP, len(weight))
    low, high = wide.min(1), wide.max(1)
    scales = ((high - low) / (2**BITS - 1)).astype(np.float16)
    zeros = np.clip(np.round(-low / scales), 1, 2**BITS - 1)
    steps, offsets = (np.repeat(part.astype(np.float32), GROUP, 0) for part in (scales, zeros))
    numbers = np.clip(np.round(weight.T / steps + offsets), 0, 2**BITS - 1)
    return numbers, zeros, scales, np.ascontiguousarray(((numbers - offsets) * steps).T)


def stored(method: str, numbers: np.ndarray, zeros: np.ndarray) -> dict[str, np.ndarray]:
    if method == "awq":
        return {"qweight": pack(numbers, 1, AWQ_ORDER), "qzeros": pack(zeros, 1, AWQ_ORDER)}
    plain = tuple(range(PACKED))
    groups = (np.arange(len(numbers)) // GROUP).astype(np.int32)
    return {  # zeros are stored less one
        "qweight": pack(numbers, 0, plain), "qzeros": pack(zeros - 1, 1, plain), "g_idx": groups,
    }  # fmt: skip


SETTINGS: dict[str, dict[str, Any]] = {
    "gptq": {"desc_act": False, "sym": False, "checkpoint_format": "gptq"},
    "awq": {"version": "gemm", "zero_point": True},
}


def write_pair(method: str, folder: Path) -> tuple[Path, Path]:
    """A quantised checkpoint, and a plain one of the weights that it means."""
    plain, packed = make_model(folder / "plain", **SIZES), folder / method
    tensors: dict[str, np.ndarray] = {}
    meant = load_file(plain / "model.safetensors")
    for name, tensor in meant.items():
        if not name.endswith("_proj.weight"):
            tensors[name] = tensor
            continue
        numbers, zeros, scales, meant[name] = quantise(tensor)
        parts = {**stored(method, numbers, zeros), "scales": np.ascontiguousarray(scales)}
        tensors |= {f"{name.removesuffix('weight')}{key}": part for key, part in parts.items()}
    shutil.copytree(plain, packed)
    save_file(meant, plain / "model.safetensors", {"format": "pt"})
    save_file(tensors, packed / "model.safetensors", {"format": "pt"})
    settings = {"quant_method": method, "bits": BITS, "group_size": GROUP, **SETTINGS[method]}
    config = json.loads((packed / "config.json").read_text())
    write_json(packed / "config.json", {**config, "quantization_config": settings})
    return packed, plain


@pytest.mark.slow
@pytest.mark.timeout(400)
@pytest.mark.parametrize("method", ["gptq", "awq"])
def test_computes_what_the_weights_mean(method: str, tmp_path: Path) -> None:
    packed, plain = write_pair(method, tmp_path)
    root = Path(__file__).parents[1]
    paths = f"{root.parent}:{root}:{root / 'model'}:{gptq_folder()}"
    environment = {**os.environ, "PYTHONPATH": paths, "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", SCRIPT, str(packed), str(plain)]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=380)
    lines = [line for line in done.stdout.splitlines() if line.startswith("ANSWERS ")]
    assert lines, done.stderr[-3000:]
    answers = json.loads(lines[0].removeprefix("ANSWERS "))
    (tokens, logits, layer), (expected, exact, _) = answers[str(packed)], answers[str(plain)]
    assert "gptqmodel" in layer
    assert tokens == expected
    assert logits == pytest.approx(exact, abs=0.02)  # its scales are float16
