"""Whether a model fits into memory, before it is loaded and while it is."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import engines_env
import pytest

engines_env.require("transformers")

import torch
from model.test_transformers_load import CPU, refused
from model.tiny import make_model
from safetensors.numpy import load_file

from smmf_core.engines.host_memory import GIB
from smmf_core.engines.transformers import memory as hf_memory
from smmf_core.engines.transformers.files import Stored, stored_tensors, weight_files
from smmf_core.engines.transformers.memory import check_fits, needed_bytes


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return make_model(tmp_path / "tiny")


def test_needed_bytes(model: Path) -> None:
    tensors = stored_tensors(weight_files(model))
    numbers = sum(tensor.size for tensor in load_file(model / "model.safetensors").values())
    assert needed_bytes(tensors, torch.float32) == 4 * numbers
    assert needed_bytes(tensors, torch.bfloat16) == 2 * numbers
    matrices = sum(t.numbers for t in tensors if "proj" in t.name)
    assert needed_bytes(tensors, torch.bfloat16, 4) == 2 * (numbers - matrices) + matrices // 2
    packed = Stored("model.layers.0.mlp.up_proj.qweight", (8, 8), 256, False)
    assert needed_bytes([packed], torch.float32) == 256


def test_not_enough_memory_before_loading(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hf_memory, "free_bytes", lambda device: GIB // 2**14)
    assert refused(model) == "The weights need 0.00 GiB, and cpu has 0.00 GiB free."
    gpus = [torch.device("cuda", 0), CPU]
    monkeypatch.setattr(hf_memory, "free_bytes", lambda device: 1.25 * GIB)
    with pytest.raises(MemoryError, match=r"need 3\.50 GiB, and cuda:0 and cpu has 2\.50 GiB"):
        check_fits(int(3.5 * GIB), gpus)
    check_fits(int(2.4 * GIB), gpus)


OUT_OF_MEMORY = """
import resource, sys
from pathlib import Path
from model.test_transformers_load import load_it
import transformers.models.llama.modeling_llama
used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (used + 120 * 2**20,) * 2)
try:
    load_it(Path(sys.argv[1]), dtype="float32")
except MemoryError as error:
    print(error)
"""


def test_memory_runs_out_while_loading(tmp_path: Path) -> None:
    sizes = {"hidden_size": 2048, "intermediate_size": 4096, "num_hidden_layers": 1}
    sizes |= {"num_attention_heads": 8, "num_key_value_heads": 8}
    folder = make_model(tmp_path / "large", dtype="float16", head_dim=64, **sizes)
    root = Path(__file__).parents[1]
    paths = f"{root.parent}:{root}:{root / 'model'}"
    environment = {"PYTHONPATH": paths, "OMP_NUM_THREADS": "1"}
    environment["HF_DEACTIVATE_ASYNC_LOAD"] = "1"  # a thread that cannot start ends the process
    command = [sys.executable, "-c", OUT_OF_MEMORY, str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=100)
    assert done.stdout.startswith("Memory ran out while the weights were loaded"), done.stderr
