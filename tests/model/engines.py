"""Every StepEngine on the demo model in float32: made as a Worker makes it, from its config."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from functools import cache
from pathlib import Path
from typing import Any

from smmf_core.config import Model, ModelConfig, bundled
from smmf_core.config.schema import Deployment, Optimization
from smmf_core.engines.base import StepEngine
from smmf_core.plugins import load_backend

NAMES = ("reference", "transformers", "llama_cpp", "mlx")
PROMPTS = (
    "Who are you?",
    "Tell me a story about a fox named Momo.",
    "What is a river?",
    "Once upon a time there was",
    "Repeat: zorp-4821",
    "The",
    "My name is Ada. What is my name? " * 12,
    "caf\u00e9 \u4f60\u597d \U0001f600 1 + 2 =",
    "The cook was in the kitchen and",
)
"""One token and a hundred and more, text and bytes."""


def make_config(name: str, path: Path, engine: dict[str, Any] | None = None) -> ModelConfig:
    """On the CPU in float32, whatever the checkpoint's format."""
    return ModelConfig(
        model=Model(name="demo", backend=name, path=str(path)),
        deployment=Deployment(device="cpu"),
        optimization=Optimization(dtype="float32"),
        engine=engine or {},
    )


def open_engine(name: str, path: Path, **engine: Any) -> StepEngine:
    config = make_config(name, path, engine)
    opened: StepEngine = load_backend(name)(config)
    opened.load(lambda done: None)
    return opened


@cache
def demo_path(name: str) -> Path:
    """The demo model in the format of an engine; a GGUF file is written once per test run."""
    folder = bundled("demo")
    if name != "llama_cpp":
        return folder
    file = Path(tempfile.mkdtemp(prefix="smmf-gguf-")) / "demo-f32.gguf"
    script = folder / "export" / "to_gguf.py"
    command = [sys.executable, str(script), str(folder), str(file), "--type", "f32"]
    subprocess.run(command, check=True, capture_output=True, timeout=60)
    return file
