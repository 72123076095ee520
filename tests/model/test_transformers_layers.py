"""Layers that are computed otherwise than the library does it: they say the same."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import engines_env
import pytest

engines_env.require("transformers")

import hf_tiny
import torch
from driver import Run, make_sequence
from hf_tiny import greedy, make_hf_model, open_hf_engine, prompts, write_hf_model
from peft import LoraConfig, get_peft_model
from torch.nn.functional import linear
from transformers.models.llama.modeling_llama import LlamaAttention

from smmf_core.engines.transformers import joint as joint_module
from smmf_core.engines.transformers import lean
from smmf_core.engines.transformers.batch import Batch, Group, Row
from smmf_core.engines.transformers.cache import Budget, windows_of
from smmf_core.engines.transformers.joint import JointPart, join
from smmf_core.engines.transformers.norms import fuse_norms
from smmf_core.engines.transformers.onednn import PackedLinear, pack_layers

SHAPES = [(1, 64), (3, 64), (40, 64), (2, 5, 64), (2, 3, 4, 64), (64,), (0, 64), (3, 0, 64)]
TOLERANCE = {torch.float32: 1e-4, torch.bfloat16: 0.05}


def packed(layer: torch.nn.Module) -> Any:
    holder = torch.nn.ModuleList([layer])
    pack_layers(holder)
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


@pytest.mark.parametrize("rows", [90_000, 200_000])  # the last is not packed beside it
def test_what_others_use_too_stays_one_tensor(rows: int) -> None:
    tied = torch.nn.ModuleDict({"embed": torch.nn.Embedding(rows, 8)})
    tied["head"] = torch.nn.Linear(8, rows, bias=False)
    tied["head"].weight = tied["embed"].weight
    pack_layers(tied)
    assert isinstance(tied["head"], PackedLinear)
    assert tied["head"].weight.data_ptr() == tied["embed"].weight.data_ptr()
    assert (tied["head"]._packed is tied["head"]._plain) == (rows == 200_000)
    for count in (1, 6):
        asked = torch.randn(count, 8)
        with torch.inference_mode():
            torch.testing.assert_close(tied["head"](asked), linear(asked, tied["embed"].weight))


def test_other_layers_are_left_alone() -> None:
    class Own(torch.nn.Linear):
        """As a library's quantised layers are."""

    hooked = torch.nn.Linear(8, 8)
    hooked.forward = lambda rows: rows  # type: ignore[method-assign]  # as accelerate does
    for layer in (Own(8, 8), hooked, torch.nn.Linear(8, 8, dtype=torch.float64)):
        assert packed(layer) is layer
        assert not isinstance(layer, PackedLinear)


class Projections(torch.nn.ModuleDict):
    """Layers of a model of the library."""

    __module__ = "transformers.models.own"


def projections(bias: bool = False, **others: torch.nn.Module) -> Any:
    torch.manual_seed(4)
    sizes = {"q_proj": 24, "k_proj": 8, "v_proj": 10}
    layers = {name: torch.nn.Linear(16, size, bias=bias) for name, size in sizes.items()}
    return Projections({**layers, **others}).requires_grad_(False)


@pytest.mark.parametrize("bias", [False, True])
def test_layers_that_read_the_same_rows_are_one(bias: bool) -> None:
    """Each still says what it said, in any order and for rows of its own."""
    known, joined = projections(bias), projections(bias)
    join(joined)
    joint = joined["q_proj"].joint
    assert all(isinstance(layer, JointPart) for layer in joined.values())
    assert all(layer.joint is joint for layer in joined.values())
    with torch.inference_mode():
        for shape in SHAPES:
            rows, others = torch.randn(*shape[:-1], 16), torch.randn(*shape[:-1], 16)
            asked = [("v_proj", others), ("q_proj", rows), ("k_proj", rows), ("k_proj", others)]
            for name, given in [*asked, *[(name, rows) for name in ("v_proj", "k_proj", "q_proj")]]:
                torch.testing.assert_close(joined[name](given), known[name](given))
            assert joint._input is None  # no rows of a former pass are held
            for _ in range(2):  # as one who keeps a place for rows changes what is there
                torch.testing.assert_close(joined["k_proj"](rows), known["k_proj"](rows))
                rows.add_(1.0)
    for name, layer in joined.items():
        assert torch.equal(layer.weight, known[name].weight)
        assert layer.weight.shape == (layer.out_features, layer.in_features)
    names = [name for name, _ in joined.named_parameters()]
    assert names == [f"{name}.bias" for name in joined if bias]


def test_layers_that_differ_are_not_joined(monkeypatch: pytest.MonkeyPatch) -> None:
    shared = projections()
    shared["other"] = torch.nn.Linear(16, 8, bias=False)
    shared["other"].weight = shared["k_proj"].weight
    uneven = [
        projections(k_proj=torch.nn.Linear(16, 8, bias=True)),
        projections(k_proj=torch.nn.Linear(12, 8, bias=False)),
        projections(k_proj=torch.nn.Linear(16, 8, bias=False, dtype=torch.float64)),
        projections(k_proj=torch.nn.Identity()),
        shared,
    ]
    for model in uneven:
        join(model)
    uneven.append(torch.nn.ModuleDict(projections()))  # whose code the library does not have
    join(uneven[-1])
    monkeypatch.setattr(joint_module, "_MOST_BYTES", 42 * 16 * 4 - 1)
    heavy = projections()
    join(heavy)
    for model in [*uneven, heavy]:
        assert not any(isinstance(layer, JointPart) for layer in model.values())
    monkeypatch.setattr(joint_module, "_MOST_BYTES", 42 * 16 * 4)
    join(heavy)
    assert isinstance(heavy["q_proj"], JointPart)


LEAN = (
    "llama",
    "llama yarn",
    "mistral",
    "mixtral",
    "qwen2",
    "qwen2 moe",
    "qwen3",
    "qwen3 moe",
)


@pytest.mark.parametrize("case", [c for c in hf_tiny.CASES if c != hf_tiny.STATE_IN_LAYERS])
def test_which_architectures_take_the_short_step(case: str, tmp_path: Path) -> None:
    attention = "eager" if case == "llama eager" else ""
    engine = open_hf_engine(write_hf_model(tmp_path, make_hf_model(case)), attention)
    assert (engine._loop._model.step is not None) == (case in LEAN)
    engine.close()


@pytest.mark.parametrize("case", LEAN)
def test_the_short_step_says_what_the_library_says(
    case: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Logits and cells of the cache: of one row, of rows of unequal length, of some of them, and of
    texts that become longer than the rotations that were worked out first."""
    monkeypatch.setattr(lean, "_FIRST_TABLE", 8)
    engine = open_hf_engine(write_hf_model(tmp_path, make_hf_model(case)))
    model, windows = engine._loop._model, windows_of(engine._loop._model.config)
    assert windows is not None
    short = model.step
    with torch.inference_mode():
        for lengths in ((9,), (30, 4, 17), (6, 6)):
            rows = [Row([], prompt, Group()) for prompt in prompts(*lengths)]
            batch = Batch(model, windows, Budget(0), rows)
            batch.forward(0, len(rows), batch.width, 1)
            batch.advance(batch.width)
            for column in range(20):
                for row in rows:
                    row.tokens.append(5 + column)
                spans = [(0, len(rows))] if column % 3 else [(n, n + 1) for n in range(len(rows))]
                said: list[list[torch.Tensor]] = []
                for step in (None, short):
                    model.step = step
                    batch.store.fit(len(rows), 0, 1)
                    logits = [batch.forward(top, bottom, 1, 1) for top, bottom in spans]
                    cells = [t.clone() for x in batch.store.layers for t in (x.keys, x.values)]
                    said.append([torch.cat(logits), *cells])
                for known, found in zip(*said, strict=True):
                    torch.testing.assert_close(found, known, atol=1e-3, rtol=1e-4)
                batch.advance(1)
            batch.release()
    assert len(short._rotations._cos) > 30  # type: ignore[union-attr]
    engine.close()


@pytest.mark.filterwarnings(
    "ignore:`is_gradient_checkpointing` is deprecated:FutureWarning"  # peft asks transformers so
)
@pytest.mark.parametrize(
    ("case", "most_bytes"), [("llama", None), ("llama", 24_000), ("qwen2 moe", None)]
)
def test_an_adapter_beside_it_changes_nothing(
    case: str, most_bytes: int | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its layers are within modules that the short step calls: experts, or products too large."""
    if most_bytes:
        monkeypatch.setattr(joint_module, "_MOST_BYTES", most_bytes)  # gate and up stay apart
    model = make_hf_model(case)
    (prompt,) = prompts(9)
    known = greedy(model, prompt, 12)
    folder = write_hf_model(tmp_path / "base", model)
    settings = LoraConfig(
        r=4, target_modules=["gate_proj", "up_proj", "down_proj"], init_lora_weights=False
    )
    get_peft_model(model, settings).save_pretrained(tmp_path / "adapter")
    engine = open_hf_engine(folder, adapters={"a": str(tmp_path / "adapter")})
    assert engine._loop._model.step is not None
    run = Run(engine)  # type: ignore[arg-type]
    for number in range(4):
        sequence = make_sequence(number, prompt, 12, temperature=0)
        sequence.submit.adapter = "a" if number % 2 else ""
        run.join(sequence)
        run.step()
    run.finish()
    assert run.tokens(0) == run.tokens(2) == known
    assert run.tokens(1) == run.tokens(3) != known
    engine.close()


def test_a_layer_that_computes_something_else_is_left_to_the_library(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As a later version of the library may."""
    own = LlamaAttention.forward

    def scaled(self: Any, *args: Any, **kwargs: Any) -> Any:
        found, weights = own(self, *args, **kwargs)
        return found * 1.1, weights

    folder = write_hf_model(tmp_path, make_hf_model("llama"))
    monkeypatch.setattr(LlamaAttention, "forward", scaled)
    engine = open_hf_engine(folder)
    assert engine._loop._model.step is None
    engine.close()


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
    own: Any = engine._loop._model.source
    layers = [layer for layer in own.modules() if isinstance(layer, torch.nn.Linear)]
    assert {type(layer) for layer in layers} == {JointPart, PackedLinear}
    ids = torch.tensor([[5, 60, 7, 90], [8, 3, 100, 2]])
    with torch.inference_mode():
        known = model(input_ids=ids).logits
        torch.testing.assert_close(own(input_ids=ids).logits, known, atol=1e-4, rtol=1e-3)
    engine.close()
