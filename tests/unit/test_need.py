"""What a model will need in memory, by its files alone."""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from gguf import GGUFWriter
from safetensors.numpy import save_file

from smmf_core.config import Deployment, Model, ModelConfig, Optimization
from smmf_core.controller.need import GIB, MIB, Place, estimate, preallocates
from smmf_core.controller.weights import Format, weight_bytes, weight_files

LLAMA = {  # 2 * 4 layers * 2 heads * 8 numbers = 128 numbers of keys and values a token
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "hidden_size": 32,
    "max_position_embeddings": 1000,
    "torch_dtype": "bfloat16",
}
TOKEN = 2 * 4 * 2 * 8
GPU = Place(True, 1, 80 * GIB, 72 * GIB)


def config(path: Path | str, backend: str, **parts: Any) -> ModelConfig:
    optimization = {k: v for k, v in parts.items() if k in Optimization.__struct_fields__}
    deployment = {k: v for k, v in parts.items() if k in Deployment.__struct_fields__}
    return ModelConfig(
        model=Model(name="m", backend=backend, path=str(path), task=parts.get("task", "generate")),
        optimization=Optimization(**optimization),
        deployment=Deployment(**deployment),
        engine=parts.get("engine", {}),
    )


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A matrix of 1,000 numbers and an embedding of 500 in two files, float16, in all 3,000 bytes;
    and 64 bytes that are no floats."""
    matrix, table = np.zeros((100, 10), np.float16), np.zeros((50, 10), np.float16)
    save_file({"layer.w": matrix}, tmp_path / "model-00001-of-00002.safetensors")
    second = {"embed_tokens.weight": table, "packed": np.zeros(16, np.int32)}
    save_file(second, tmp_path / "model-00002-of-00002.safetensors")
    tell(tmp_path, LLAMA)
    return tmp_path


def tell(folder: Path, settings: dict[str, Any]) -> None:
    (folder / "config.json").write_text(json.dumps(settings))


# --- weights ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("wanted", "size"),
    [
        (Format(4), 6000 + 64),
        (Format(2), 3000 + 64),
        (Format(half_bytes=4), 6000 + 64),
        (Format(matrix_bits=4), 500 + 1000 + 64),
        (Format(2, matrix_bits=8), 1000 + 1000 + 64),
    ],
)
def test_weights_take_the_format_that_they_are_loaded_in(
    folder: Path, wanted: Format, size: int
) -> None:
    assert weight_bytes(weight_files(folder), wanted) == size


def test_as_stored_they_take_what_the_files_do(folder: Path) -> None:
    files = weight_files(folder)
    assert len(files) == 2
    assert weight_bytes(files, Format()) == sum(file.stat().st_size for file in files)


def test_damaged_files_count_as_they_lie_on_the_disk(tmp_path: Path) -> None:
    for number, content in enumerate(
        [
            b"",
            b"1234",
            struct.pack("<Q", 1 << 60),
            struct.pack("<Q", 4) + b"nope",
            b"\x02" + b"\0" * 7 + b"[]",
        ]
    ):
        file = tmp_path / f"{number}.safetensors"
        file.write_bytes(content)
        assert weight_bytes([file], Format(4)) == len(content)
    assert weight_bytes([tmp_path / "missing.safetensors"], Format(4)) == 0


def test_a_split_gguf_is_all_its_parts(tmp_path: Path) -> None:
    for number in (1, 2):
        (tmp_path / f"m-{number:05d}-of-00002.gguf").write_bytes(b"x" * 10)
    (tmp_path / "other.gguf").write_bytes(b"x" * 10)
    assert len(weight_files(tmp_path / "m-00001-of-00002.gguf")) == 2
    assert weight_files(tmp_path / "other.gguf") == [tmp_path / "other.gguf"]
    assert weight_files(tmp_path / "missing.gguf") == []


# --- by backend -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("backend", "parts", "weights", "item"),
    [
        ("reference", {}, 6064, 4),
        ("transformers", {}, 3064, 2),
        ("transformers", {"dtype": "float32"}, 6064, 4),
        ("transformers", {"load_in_4bit": True}, 500 + 1000 + 64, 2),
        ("mlx", {"dtype": "float32"}, 6064, 4),
    ],
)
def test_weights_and_the_cache_of_a_step_where_it_grows(
    folder: Path, backend: str, parts: dict[str, Any], weights: int, item: int
) -> None:
    asked = config(folder, backend, max_batch_tokens=8192, **parts)
    assert estimate(asked) == weights + 8192 * TOKEN * item


def test_transformers_computes_float16_as_float32_on_a_cpu_only(folder: Path) -> None:
    tell(folder, {**LLAMA, "torch_dtype": "float16"})
    asked = config(folder, "transformers", task="embed")
    assert estimate(asked) == 6064
    assert estimate(asked, GPU) == 3064


def test_vllm_keeps_no_float32(folder: Path) -> None:
    save_file({"layer.w": np.zeros((100, 10), np.float32)}, folder / "model.safetensors")
    asked = config(folder, "vllm", engine={"kv_cache_memory_bytes": 1000})
    assert estimate(asked) == 3064 + 2000 + 1000


def test_a_cache_that_grows_has_room_for_one_request_but_not_for_more_than_all(
    folder: Path,
) -> None:
    short = config(folder, "reference", max_batch_size=2)
    assert estimate(short) == 6064 + 2 * 1000 * TOKEN * 4
    long = config(folder, "reference", engine={"max_model_len": 50_000})
    assert estimate(long) == 6064 + 50_000 * TOKEN * 4
    told = config(folder, "transformers", engine={"kv_cache_tokens": 77})
    assert estimate(told) == 3064 + 77 * TOKEN * 2
    in_bytes = config(folder, "mlx", dtype="float32", engine={"kv_cache_mb": 3})
    assert estimate(in_bytes) == 6064 + 3 * MIB


def test_other_families_names_of_sizes_are_known(folder: Path) -> None:
    chatglm = {
        "num_layers": 4, "num_attention_heads": 4, "multi_query_group_num": 2, "kv_channels": 8,
        "hidden_size": 999, "seq_length": 10,
    }  # fmt: skip
    tell(folder, {"text_config": chatglm, "hidden_size": 1})
    asked = config(folder, "reference", max_batch_size=1)
    assert estimate(asked) == 6064 + 10 * TOKEN * 4


def test_embedding_models_have_no_cache(folder: Path) -> None:
    assert estimate(config(folder, "transformers", task="embed")) == 3064


def test_llama_cpp_has_a_cache_per_sequence_from_the_start(tmp_path: Path) -> None:
    file = tmp_path / "m.gguf"
    write_gguf(file)
    stored = file.stat().st_size
    one = config(file, "llama_cpp", max_batch_size=1, engine={"n_ctx": 100})
    assert estimate(one) == stored + 100 * TOKEN * 2
    many = config(tmp_path, "llama_cpp", max_batch_size=8, engine={"n_ctx": 100})
    assert estimate(many) == stored + 8 * 100 * TOKEN * 2
    shared = config(file, "llama_cpp", max_batch_size=8, engine={"n_ctx": 100, "kv_unified": True})
    assert estimate(shared) == estimate(one)
    small = config(file, "llama_cpp", max_batch_size=1, engine={"n_ctx": 100, "type_k": "q8_0"})
    assert estimate(small) == stored + 50 * TOKEN * 2 + int(50 * TOKEN * 34 / 32)
    trained = config(file, "llama_cpp", max_batch_size=1)
    assert estimate(trained) == stored + 1000 * TOKEN * 2


def write_gguf(file: Path) -> None:
    writer = GGUFWriter(file, "llama")
    writer.add_block_count(4)
    writer.add_head_count(4)
    writer.add_head_count_kv(2)
    writer.add_embedding_length(32)
    writer.add_context_length(1000)
    writer.add_token_list(["a", "b"])
    writer.add_tensor("w", np.zeros((32, 32), np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def test_vllm_takes_a_share_of_the_device_whatever_the_model() -> None:
    assert estimate(config("hub/id", "vllm"), GPU) == 72 * GIB
    half = config("hub/id", "vllm", engine={"gpu_memory_utilization": 0.5})
    assert estimate(half, GPU) == 40 * GIB
    most = config("hub/id", "vllm", engine={"gpu_memory_utilization": 0.95})
    assert estimate(most, GPU) == 72 * GIB  # alone there, it is not refused
    two = Place(True, 2, 80 * GIB, 72 * GIB)
    assert estimate(half, two) == 80 * GIB
    assert preallocates(half, GPU)
    assert not preallocates(half, Place())
    assert not preallocates(config("hub/id", "transformers"), GPU)


def test_vllm_on_a_cpu_takes_at_most_a_quarter_for_its_cache(folder: Path) -> None:
    asked = config(folder, "vllm")
    assert estimate(asked) == 3064 + 4 * GIB
    assert estimate(asked, Place(budget_bytes=8 * GIB)) == 3064 + 2 * GIB


# --- who wins, and what is not known ----------------------------------------------------------


def test_the_operators_word_wins(folder: Path) -> None:
    assert estimate(config(folder, "reference", memory_gib=1.5)) == int(1.5 * GIB)
    assert estimate(config("hub/id", "vllm", memory_gib=2), GPU) == 2 * GIB
    assert estimate(config("", "echo", memory_gib=2)) == 2 * GIB


def test_what_cannot_be_known_is_nothing(tmp_path: Path) -> None:
    for path, backend in (("", "echo"), ("hub/id", "transformers"), (tmp_path, "reference")):
        assert estimate(config(path, backend)) == 0


@pytest.mark.parametrize(
    "text", ["", "[]", "{", '{"num_hidden_layers": "x"}', '{"num_attention_heads": -1}', "\xff"]
)
def test_odd_settings_leave_the_weights(folder: Path, text: str) -> None:
    (folder / "config.json").write_text(text, encoding="latin-1")
    for backend in ("reference", "transformers", "mlx", "llama_cpp", "plug-in"):
        assert 3064 <= estimate(config(folder, backend)) < 8000
    assert estimate(config(folder, "vllm", engine={"gpu_memory_utilization": "x"}), GPU) > 0


def test_a_damaged_gguf_counts_as_it_lies_on_the_disk(tmp_path: Path) -> None:
    file = tmp_path / "m.gguf"
    for content in (b"", b"GGUF" + b"\xff" * 60, b"x" * 100):
        file.write_bytes(content)
        assert estimate(config(file, "llama_cpp")) == len(content)
