"""A LoRA adapter of the demo model, and the demo model with that adapter's weights added."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
from safetensors.numpy import load_file, save_file

from smmf_core.config import bundled
from smmf_core.engines.reference.checkpoint import read_weights

RANK, ALPHA = 4, 8
SIZE = 0.15  # of an adapter's weights
TARGETS = ("q_proj", "v_proj")


def make_adapter(folder: Path, seed: int = 1, rank: int = RANK) -> Path:
    """Strong enough to change the text, weak enough to leave text."""
    random = np.random.default_rng(seed)
    tensors = {}
    for name, weight in sorted(read_weights(bundled("demo"), lambda done: None).items()):
        module = name.removesuffix(".weight")
        if module.endswith(TARGETS):
            rows, columns = weight.shape
            down, up = random.normal(size=(rank, columns)), random.normal(size=(rows, rank))
            tensors[f"base_model.model.{module}.lora_A.weight"] = down.astype(np.float32) * SIZE
            tensors[f"base_model.model.{module}.lora_B.weight"] = up.astype(np.float32) * SIZE
    folder.mkdir(parents=True)
    save_file(tensors, folder / "adapter_model.safetensors")
    config = {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "r": rank,
        "lora_alpha": ALPHA,
        "lora_dropout": 0.0,
        "bias": "none",
        "target_modules": list(TARGETS),
        "base_model_name_or_path": "demo",
    }
    (folder / "adapter_config.json").write_text(json.dumps(config))
    return folder


def make_merged(folder: Path, adapter: Path) -> Path:
    """The demo model's folder with W + alpha / r * B A, in float32."""
    shutil.copytree(bundled("demo"), folder, ignore=shutil.ignore_patterns("*.safetensors"))
    weights = read_weights(bundled("demo"), lambda done: None)
    added = load_file(adapter / "adapter_model.safetensors")
    for name, weight in weights.items():
        base = f"base_model.model.{name.removesuffix('.weight')}"
        if f"{base}.lora_A.weight" in added:
            down, up = added[f"{base}.lora_A.weight"], added[f"{base}.lora_B.weight"]
            weights[name] = weight + ALPHA / RANK * (up @ down)
    save_file(weights, folder / "model.safetensors")
    return folder
