"""Loading by transformers: number formats, quantisation, progress, and every way to fail."""

from __future__ import annotations

import json
import logging
import sys
from pathlib import Path
from typing import Any

import engines_env
import numpy as np
import pytest

engines_env.require("transformers")

import torch
from driver import Run, make_sequence
from hf_tiny import open_hf_engine
from model.tiny import make_model, write_json
from safetensors.numpy import load_file, save_file

from smmf_core.config import Model, ModelConfig
from smmf_core.config.engine_options import TransformersOptions
from smmf_core.config.schema import Deployment, Optimization
from smmf_core.engines.transformers.engine import create
from smmf_core.engines.transformers.load import LoadedModel, check_tokenizer, load
from smmf_core.engines.transformers.place import choose_attention, choose_device, choose_dtype
from smmf_core.engines.transformers.quant import quantization

CPU = torch.device("cpu")
PROMPT = torch.tensor([[5, 60, 7, 200]])


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return make_model(tmp_path / "tiny")


def config(folder: Path, engine: dict[str, Any] | None = None, **changes: Any) -> ModelConfig:
    deployment = Deployment(device=changes.pop("device", "cpu"))
    named = Model(name="m", backend="transformers", path=str(folder))
    return ModelConfig(named, deployment, Optimization(**changes), engine=engine or {})


def load_it(folder: Path, engine: dict[str, Any] | None = None, **changes: Any) -> LoadedModel:
    options = TransformersOptions(**(engine or {}))
    return load(config(folder, engine, **changes), options, lambda done: None)


def change(folder: Path, **keys: Any) -> Path:
    """Write keys into config.json."""
    path = folder / "config.json"
    write_json(path, {**json.loads(path.read_text()), **keys})
    return folder


def shard(folder: Path) -> list[Path]:
    """Cut the weights into two files with an index."""
    whole = folder / "model.safetensors"
    tensors = load_file(whole)
    names = sorted(tensors)
    parts = {"a.safetensors": names[::2], "b.safetensors": names[1::2]}
    for file, keys in parts.items():
        save_file({key: tensors[key] for key in keys}, folder / file, {"format": "pt"})
    places = {key: file for file, keys in parts.items() for key in keys}
    write_json(folder / "model.safetensors.index.json", {"metadata": {}, "weight_map": places})
    whole.unlink()
    return [folder / file for file in parts]


def rewrite(folder: Path, **changes: np.ndarray | None) -> None:
    path = folder / "model.safetensors"
    tensors = load_file(path)
    for name, tensor in changes.items():
        if tensor is None:
            del tensors[name]
        else:
            tensors[name] = tensor
    save_file(tensors, path, {"format": "pt"})


# --- what is loaded ---


def test_loads(model: Path) -> None:
    done: list[float] = []
    loaded = load(config(model), TransformersOptions(), done.append)
    assert (loaded.device, loaded.dtype) == (CPU, torch.float32)
    assert (loaded.context_length, loaded.vocab_size) == (512, 320)
    assert loaded.attention == "sdpa"
    assert not loaded.model.training
    assert done == sorted(done)
    assert (len(done), done[-1]) == (30, 1.0)  # one step per tensor
    weight = load_file(model / "model.safetensors")["model.layers.1.mlp.up_proj.weight"]
    assert (loaded.model.model.layers[1].mlp.up_proj.weight.numpy() == weight).all()


def test_shards_are_one_model(model: Path) -> None:
    whole = load_it(model).model(PROMPT).logits
    shard(model)
    assert torch.equal(load_it(model).model(PROMPT).logits, whole)


def test_weights_of_torch(model: Path) -> None:
    whole = load_it(model).model(PROMPT).logits
    tensors = load_file(model / "model.safetensors")
    torch.save({k: torch.from_numpy(v) for k, v in tensors.items()}, model / "pytorch_model.bin")
    (model / "model.safetensors").unlink()
    assert torch.equal(load_it(model).model(PROMPT).logits, whole)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
def test_number_formats(model: Path, dtype: str) -> None:
    loaded = load_it(model, dtype=dtype)
    assert loaded.dtype == getattr(torch, dtype)
    assert {p.dtype for p in loaded.model.parameters()} == {loaded.dtype}


def test_automatic_number_formats() -> None:
    cases = {torch.float32: torch.float32, torch.bfloat16: torch.bfloat16, None: torch.float32}
    for stored, chosen in {**cases, torch.float16: torch.float32}.items():
        assert choose_dtype("auto", stored, CPU) == chosen
    assert choose_dtype("bfloat16", torch.float16, CPU) == torch.bfloat16


def test_attention(model: Path, caplog: pytest.LogCaptureFixture) -> None:
    assert load_it(model, attention="eager").attention == "eager"
    assert choose_attention("") is None
    with caplog.at_level(logging.WARNING):
        assert choose_attention("flash_attention_2") == "sdpa"
    assert "pip install smmf[flash-attn]" in caplog.text
    with pytest.raises(ValueError, match="'flash': this engine has eager, sdpa, flash_attention_2"):
        choose_attention("flash")


def test_context_length_is_the_operators_first(model: Path) -> None:
    assert load_it(model, {"max_model_len": 100}).context_length == 100


def test_threads(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []
    monkeypatch.setattr(torch, "set_num_threads", asked.append)
    monkeypatch.setattr("os.cpu_count", lambda: 8)
    load_it(model)
    load_it(model, {"threads": 3})
    several = config(model)
    several.deployment.replicas = 3
    load(several, TransformersOptions(), lambda done: None)
    assert asked == [3, 2]  # alone: torch's own choice


# --- what cannot be loaded ---


def refused(folder: Path, engine: dict[str, Any] | None = None, **changes: Any) -> str:
    """The sentence that an operator reads."""
    with pytest.raises((OSError, ValueError, MemoryError)) as caught:
        load_it(folder, engine, **changes)
    text = str(caught.value)
    assert "\n" not in text
    return text


def test_missing_files(model: Path, tmp_path: Path) -> None:
    assert "config.json is missing" in refused(tmp_path / "nowhere")
    shards = shard(model)
    shards[1].unlink()
    assert refused(model) == f"{shards[1]} is missing: model.safetensors.index.json names it."
    (model / "model.safetensors.index.json").unlink()
    assert "model.safetensors is missing" in refused(model)


def test_damaged_weights(model: Path) -> None:
    path = model / "model.safetensors"
    whole = path.read_bytes()
    for kept in (0, 5, 100, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:kept])
        assert refused(model).startswith(f"{path} is damaged: it ")
    path.write_bytes(whole[:20] + b"\xff" + whole[21:])
    assert "its header is not JSON" in refused(model)
    path.write_bytes((2).to_bytes(8, "little") + b"[]")
    assert "its header describes no tensors" in refused(model)


def test_weights_of_torch_that_are_damaged(model: Path) -> None:
    (model / "model.safetensors").unlink()
    (model / "pytorch_model.bin").write_bytes(b"PK\x03\x04 no archive")
    assert "transformers cannot load it" in refused(model)


def test_missing_and_wrong_tensors(model: Path) -> None:
    name = "model.layers.2.mlp.up_proj.weight"
    rewrite(model, **{name: np.zeros((96, 40), np.float32)})
    assert refused(model) == f"Tensor {name} has shape [96, 40], config.json asks for [96, 48]."
    rewrite(model, **{name: None})
    assert refused(model) == f"The weights have no tensor {name}."
    rewrite(model, **{"lm_head.weight": None})
    assert refused(model) == "The weights have no tensor lm_head.weight and 1 more."


def test_a_tied_head_may_be_missing(model: Path) -> None:
    change(model, tie_word_embeddings=True)
    rewrite(model, **{"lm_head.weight": None})
    assert load_it(model).vocab_size == 320


@pytest.mark.parametrize(
    ("keys", "text"),
    [
        ({"model_type": "llamma"}, "does not know the model type 'llamma'"),
        (
            {"model_type": "t5", "architectures": ["T5ForConditionalGeneration"]},
            "T5ForConditionalGeneration is no language model that generates text (no causal LM).",
        ),
        (
            {"architectures": ["LlamaForSequenceClassification"]},
            "The weights are those of LlamaForSequenceClassification: LlamaForCausalLM is needed",
        ),
        (
            {"model_type": "own", "auto_map": {"AutoModelForCausalLM": "own.OwnForCausalLM"}},
            "to run it, set `trust_remote_code = true` in [engine] if you trust it.",
        ),
        ({"num_hidden_layers": "many"}, "config.json cannot be used"),
    ],
)
def test_wrong_architectures(model: Path, keys: dict[str, Any], text: str) -> None:
    assert text in refused(change(model, **keys))


OWN_CODE = """
from transformers import LlamaConfig, LlamaForCausalLM

class OwnConfig(LlamaConfig):
    model_type = "own"

class OwnForCausalLM(LlamaForCausalLM):
    config_class = OwnConfig
"""


def test_own_code_runs_where_it_is_trusted(
    model: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("transformers.dynamic_module_utils.HF_MODULES_CACHE", str(tmp_path / "hub"))
    expected = load_it(model).model(PROMPT).logits
    (model / "own.py").write_text(OWN_CODE)
    classes = {"AutoConfig": "own.OwnConfig", "AutoModelForCausalLM": "own.OwnForCausalLM"}
    change(model, model_type="own", architectures=["OwnForCausalLM"], auto_map=classes)
    assert "trust_remote_code" in refused(model)
    loaded = load_it(model, {"trust_remote_code": True})
    assert type(loaded.model).__name__ == "OwnForCausalLM"
    assert torch.equal(loaded.model(PROMPT).logits, expected)


def test_unknown_options_name_the_nearest(model: Path) -> None:
    with pytest.raises(ValueError, match="compil"):
        create(config(model, {"compil": True}))


def test_devices_that_are_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    with pytest.raises(ValueError, match="no device cuda:2: this torch sees 2 CUDA devices"):
        choose_device("cuda:2")
    assert choose_device("cuda:1") == torch.device("cuda:1")
    assert choose_device("cpu") == CPU


def test_a_tokenizer_with_too_many_tokens(model: Path) -> None:
    loaded = load_it(model)
    check_tokenizer(320, loaded)
    with pytest.raises(ValueError, match="The tokenizer has 321 tokens, the model 320"):
        check_tokenizer(321, loaded)


# --- quantisation ---


def test_what_is_asked_for_and_what_the_checkpoint_is(
    model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("smmf_core.engines.transformers.quant.find_spec", lambda name: object())

    def method(stored: dict[str, Any] | None, engine: dict[str, Any], **changes: Any) -> str:
        return quantization(config(model, engine, **changes), stored).method

    assert method(None, {}) == ""
    assert method(None, {}, load_in_8bit=True) == "bitsandbytes_8bit"
    assert method(None, {}, load_in_4bit=True) == "bitsandbytes_4bit"
    assert method(None, {"quantization": "bitsandbytes_4bit"}, load_in_8bit=True) == (
        "bitsandbytes_4bit"
    )
    assert method(None, {}, quantization="bitsandbytes") == "bitsandbytes_8bit"
    assert method({"quant_method": "fp8"}, {}) == "fp8"
    assert method({"quant_method": "bitsandbytes"}, {}, load_in_4bit=True) == "bitsandbytes"
    with pytest.raises(ValueError, match="'gptq', but the checkpoint is not quantised that way"):
        method(None, {"quantization": "gptq"})
    with pytest.raises(ValueError, match="'awq', but the checkpoint is of type fp8"):
        method({"quant_method": "fp8"}, {}, quantization="awq")
    with pytest.raises(ValueError, match="exclude each other"):
        method(None, {}, load_in_8bit=True, load_in_4bit=True)


TORCH = torch.__version__.partition("+")[0]


def test_a_missing_package_is_named(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("smmf_core.engines.transformers.quant.find_spec", lambda name: None)
    text = refused(model, load_in_4bit=True)
    assert text == (
        "The quantisation bitsandbytes_4bit needs the package bitsandbytes: "
        f"run `{sys.executable} -m pip install bitsandbytes accelerate torch=={TORCH}`."
    )
    assert "package gptqmodel" in refused(
        change(model, quantization_config={"quant_method": "gptq"})
    )


@pytest.mark.parametrize("bits", [8, 4])
def test_quantised_while_loading(tmp_path: Path, bits: int) -> None:
    sizes = {"hidden_size": 64, "intermediate_size": 128, "num_attention_heads": 4}
    folder = make_model(tmp_path / "tiny", **sizes)
    exact = load_it(folder)
    near = load_it(folder, **{f"load_in_{bits}bit": True})
    assert "bitsandbytes" in type(near.model.model.layers[0].mlp.up_proj).__module__
    with torch.inference_mode():
        logits, expected = near.model(PROMPT).logits, exact.model(PROMPT).logits
    errors = (logits - expected).abs().max() / expected.abs().max()
    assert 0 < errors < (0.05 if bits == 8 else 0.5)


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.filterwarnings("ignore:.torch.jit.script:DeprecationWarning")
def test_compiled(tmp_path: Path) -> None:
    """Through the engine: rows and columns of the cache change from step to step."""
    folder = make_model(tmp_path / "tiny", num_hidden_layers=1)
    plain, compiled = Run(open_hf_engine(folder)), Run(open_hf_engine(folder, compile=True))
    for run in (plain, compiled):
        run.join(make_sequence(1, [5, 60, 7, 200], tokens=10, temperature=0))
        run.step()
        run.join(make_sequence(2, [9, 90], tokens=8, temperature=0))
        run.finish()
    assert compiled.tokens(1) == plain.tokens(1)
    assert compiled.tokens(2) == plain.tokens(2)
