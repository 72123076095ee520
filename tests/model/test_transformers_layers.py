"""Layers that are computed otherwise than the library does it: they say the same."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import engines_env
import pytest

engines_env.require("transformers")

import torch
from hf_tiny import make_hf_model, open_hf_engine, write_hf_model
from torch.nn.functional import linear

from smmf_core.engines.transformers.norms import fuse_norms
from smmf_core.engines.transformers.onednn import PackedLinear, pack

SHAPES = [(1, 64), (3, 64), (40, 64), (2, 5, 64), (2, 3, 4, 64), (64,), (0, 64), (3, 0, 64)]
TOLERANCE = {torch.float32: 1e-4, torch.bfloat16: 0.05}


def packed(layer: torch.nn.Module) -> Any:
    holder = torch.nn.ModuleList([layer])
    pack(holder)
    return holder[0]


@pytest.mark.parametrize("dtype", list(TOLERANCE))
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("outputs", [8, 37, 20_000])  # the last is held in one place only
def test_the_same_products(dtype: torch.dtype, bias: bool, outputs: int) -> None:
    torch.manual_seed(3)
    plain = torch.nn.Linear(64, outputs, bias=bias, dtype=dtype).requires_grad_(False)
    weight = plain.weight.clone()
    layer = packed(plain)
    is_known = dtype == torch.float32 or torch.ops.mkldnn._is_mkldnn_bf16_supported()
    assert isinstance(layer, PackedLinear) == is_known  # this CPU may not have the format
    with torch.inference_mode():
        for shape in SHAPES:
            rows = torch.randn(shape, dtype=dtype)
            known = linear(rows, weight, layer.bias)
            said = layer(rows)
            assert said.dtype == dtype
            torch.testing.assert_close(said, known, atol=TOLERANCE[dtype], rtol=0.02)
        strided = torch.randn(64, 9, dtype=dtype).t()
        torch.testing.assert_close(
            layer(strided), linear(strided, weight, layer.bias), atol=TOLERANCE[dtype], rtol=0.02
        )


def test_weights_are_read_as_before_and_large_ones_are_held_once() -> None:
    for outputs, copies in ((8, 1), (20_000, 0)):
        plain = torch.nn.Linear(64, outputs).requires_grad_(False)
        weight = plain.weight.clone()
        layer = packed(plain)
        assert torch.equal(layer.weight, weight)
        assert layer.weight.dtype == torch.float32
        assert sum(name == "weight" for name, _ in layer.named_parameters()) == copies


def test_what_others_use_too_stays_one_tensor(tmp_path: Path) -> None:
    tied = torch.nn.ModuleDict({"embed": torch.nn.Embedding(90_000, 8)})
    tied["head"] = torch.nn.Linear(8, 90_000, bias=False)
    tied["head"].weight = tied["embed"].weight
    pack(tied)
    assert isinstance(tied["head"], PackedLinear)
    assert tied["head"].weight.data_ptr() == tied["embed"].weight.data_ptr()
    rows = torch.randn(6, 8)
    with torch.inference_mode():
        torch.testing.assert_close(tied["head"](rows), linear(rows, tied["embed"].weight))


def test_other_layers_are_left_alone() -> None:
    class Own(torch.nn.Linear):
        """As a library's quantised layers are."""

    hooked = torch.nn.Linear(8, 8)
    hooked.forward = lambda rows: rows  # type: ignore[method-assign]  # as accelerate does
    for layer in (Own(8, 8), hooked, torch.nn.Linear(8, 8, dtype=torch.float64)):
        assert packed(layer) is layer
        assert not isinstance(layer, PackedLinear)


@pytest.mark.parametrize("case", ["llama", "deepseek v3", "gemma2", "qwen3 moe"])
def test_fused_norms_are_bit_for_bit_the_librarys(case: str) -> None:
    model, known = make_hf_model(case), make_hf_model(case)
    fuse_norms(model)
    norms = [name for name, part in model.named_modules() if type(part).__name__[-4:] == "Norm"]
    fused = [name for name in norms if "forward" in vars(model.get_submodule(name))]
    assert fused == ([] if case == "gemma2" else norms)  # Gemma's add one to the weight
    ids = torch.tensor([[5, 60, 7, 90], [8, 3, 100, 2]])
    with torch.inference_mode():
        assert torch.equal(model(input_ids=ids).logits, known(input_ids=ids).logits)


@pytest.mark.parametrize("case", ["llama", "deepseek v3", "gemma2"])
def test_an_engine_packs_what_it_loads(tmp_path: Path, case: str) -> None:
    model = make_hf_model(case)
    engine = open_hf_engine(write_hf_model(tmp_path, model))
    own: Any = engine._loop._model._model
    assert any(isinstance(module, PackedLinear) for module in own.modules())
    assert not any(type(module) is torch.nn.Linear for module in own.modules())
    ids = torch.tensor([[5, 60, 7, 90], [8, 3, 100, 2]])
    with torch.inference_mode():
        known = model(input_ids=ids).logits
        torch.testing.assert_close(own(input_ids=ids).logits, known, atol=1e-4, rtol=1e-3)
    engine.close()
