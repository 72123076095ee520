"""LoRA adapters: what a request to `base:adapter` gets is what peft computes with that adapter."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import engines_env
import pytest

engines_env.require("transformers")

import peft
import torch
from driver import Run, make_sequence
from hf_tiny import open_hf_engine
from model.tiny import make_model, write_json
from transformers import AutoModelForCausalLM

from smmf_core.engines.base import Sequence
from smmf_core.engines.transformers.engine import TransformersEngine
from smmf_core.engines.transformers.lora import AdapterSet

pytestmark = pytest.mark.filterwarnings(
    "ignore:`is_gradient_checkpointing` is deprecated:FutureWarning"  # peft asks transformers so
)
PROMPT = torch.tensor([[5, 60, 7, 200]])
KINDS: dict[str, dict[str, Any]] = {
    "attention": {"r": 4, "target_modules": ["q_proj", "v_proj"]},
    "wide.one": {"r": 8, "target_modules": ["o_proj", "up_proj", "down_proj"], "lora_alpha": 12},
    "dora": {"r": 2, "target_modules": "all-linear", "use_dora": True, "use_rslora": True},
}


def open_base(folder: Path) -> Any:
    return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()


def answer(model: Any) -> list[int]:
    whole = model.generate(input_ids=PROMPT, max_new_tokens=16, do_sample=False, pad_token_id=2)
    return [int(token) for token in whole[0, PROMPT.shape[1] :]]


def save_adapter(base: Path, folder: Path, seed: int, **settings: Any) -> list[int]:
    """Write an adapter with random weights; returns peft's own answer with it."""
    torch.manual_seed(seed)
    config = peft.LoraConfig(init_lora_weights=False, **settings)
    model = peft.get_peft_model(open_base(base), config)
    model.save_pretrained(folder)
    return answer(peft.PeftModel.from_pretrained(open_base(base), folder).eval())


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_model(tmp_path_factory.mktemp("lora") / "base")


@pytest.fixture(scope="module")
def saved(base: Path) -> dict[str, tuple[str, list[int]]]:
    """Per adapter its folder and what peft answers."""
    made = {}
    for seed, (name, settings) in enumerate(KINDS.items()):
        folder = base.parent / name
        made[name] = (str(folder), save_adapter(base, folder, seed, **settings))
    return made


@pytest.fixture
def model(base: Path) -> Any:
    return open_base(base)


def paths(saved: dict[str, tuple[str, list[int]]], *names: str) -> dict[str, str]:
    return {name: saved[name][0] for name in names}


def test_every_adapter_answers_as_with_peft(
    model: Any, saved: dict[str, tuple[str, list[int]]]
) -> None:
    plain = answer(model)
    assert len({tuple(plain), *(tuple(told) for _, told in saved.values())}) == 1 + len(saved)
    adapters = AdapterSet(model)
    adapters.set(paths(saved, *saved))
    assert answer(model) == plain  # none is chosen
    for name in [*saved, *reversed(saved)]:
        adapters.select(name)
        assert answer(model) == saved[name][1]
        adapters.select("")
        assert answer(model) == plain


def test_adapters_come_and_go(model: Any, saved: dict[str, tuple[str, list[int]]]) -> None:
    plain, layer = answer(model), model.model.layers[0].self_attn.q_proj
    adapters = AdapterSet(model)
    adapters.set(paths(saved, "attention"))
    adapters.select("attention")
    adapters.set(paths(saved, "attention", "wide.one"))
    assert answer(model) == saved["attention"][1]  # loading one does not choose it
    adapters.set(paths(saved, "wide.one"))
    assert "attention" not in adapters
    assert answer(model) == plain
    adapters.select("wide.one")
    assert answer(model) == saved["wide.one"][1]
    adapters.set({})
    assert answer(model) == plain
    assert model.model.layers[0].self_attn.q_proj is layer  # as if there had been none
    adapters.set(paths(saved, "dora"))
    adapters.select("dora")
    assert answer(model) == saved["dora"][1]


def test_an_adapter_in_use_stays(model: Any, saved: dict[str, tuple[str, list[int]]]) -> None:
    adapters = AdapterSet(model)
    adapters.set(paths(saved, "attention", "dora"))
    adapters.select("dora")
    adapters.set(paths(saved, "attention"), in_use=frozenset({"dora"}))
    assert answer(model) == saved["dora"][1]
    adapters.set(paths(saved, "attention"))
    assert "dora" not in adapters


def test_a_name_with_another_path_is_loaded_anew(
    model: Any, saved: dict[str, tuple[str, list[int]]]
) -> None:
    adapters = AdapterSet(model)
    adapters.set({"mine": saved["attention"][0]})
    adapters.set({"mine": saved["wide.one"][0]})
    adapters.select("mine")
    assert answer(model) == saved["wide.one"][1]


def broken(saved: dict[str, tuple[str, list[int]]], folder: Path, **keys: Any) -> Path:
    """A copy of an adapter with other words in its configuration."""
    shutil.copytree(saved["attention"][0], folder)
    path = folder / "adapter_config.json"
    write_json(path, {**json.loads(path.read_text()), **keys})
    return folder


@pytest.mark.parametrize(
    ("keys", "text"),
    [
        (
            {"r": 3},
            r"does not fit the model: size mismatch for .*q_proj\.lora_A\.weight: .*\[4, 48",
        ),
        ({"target_modules": ["nothing"]}, "does not fit the model: Target modules .*'nothing'"),
        ({"target_modules": ["q_proj"]}, r"has no place for .*v_proj\.lora_A\.weight"),
        ({"target_modules": ["q_proj", "v_proj", "k_proj"]}, r"lacks .*k_proj\.lora_A\.weight"),
        ({"peft_type": "PREFIX_TUNING"}, "is of type PREFIX_TUNING: only LoRA"),
        ({"modules_to_save": ["lm_head"]}, "replaces whole modules"),
        ({"bias": "lora_only"}, "changes biases, too"),
        ({"r": "many"}, "adapter_config.json cannot be used|does not fit the model"),
    ],
)
def test_an_adapter_that_does_not_fit_changes_nothing(
    model: Any,
    saved: dict[str, tuple[str, list[int]]],
    tmp_path: Path,
    keys: dict[str, Any],
    text: str,
) -> None:
    bad = str(broken(saved, tmp_path / "bad", **keys))
    adapters = AdapterSet(model)
    adapters.set(paths(saved, "attention"))
    adapters.select("attention")
    with pytest.raises(ValueError, match=text) as caught:
        adapters.set({**paths(saved, "attention"), "bad": bad, **paths(saved, "dora")})
    assert "\n" not in str(caught.value)
    assert "bad" not in adapters
    assert answer(model) == saved["attention"][1]
    adapters.select("dora")  # the others are loaded
    assert answer(model) == saved["dora"][1]
    adapters.set({})
    assert answer(model) == answer(open_base(Path(model.name_or_path)))


def test_another_models_adapter(tmp_path: Path, saved: dict[str, tuple[str, list[int]]]) -> None:
    sizes = {"hidden_size": 64, "num_attention_heads": 4}
    other = open_base(make_model(tmp_path / "other", **sizes))
    with pytest.raises(ValueError, match="attention does not fit the model: size mismatch"):
        AdapterSet(other).set(paths(saved, "attention"))


def test_missing_and_damaged_files(
    model: Any, tmp_path: Path, saved: dict[str, tuple[str, list[int]]]
) -> None:
    adapters = AdapterSet(model)
    with pytest.raises(FileNotFoundError, match=r"_config\.json is missing: a is no adapter"):
        adapters.set({"a": str(tmp_path)})
    folder = broken(saved, tmp_path / "bad")
    weights = folder / "adapter_model.safetensors"
    whole = weights.read_bytes()
    weights.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ValueError, match=r"adapter_model\.safetensors is damaged"):
        adapters.set({"a": str(folder)})
    weights.unlink()
    with pytest.raises(FileNotFoundError, match="the adapter has no weights"):
        adapters.set({"a": str(folder)})


def test_without_peft(
    model: Any, monkeypatch: pytest.MonkeyPatch, saved: dict[str, tuple[str, list[int]]]
) -> None:
    monkeypatch.setattr("smmf_core.engines.transformers.lora.find_spec", lambda name: None)
    with pytest.raises(ValueError, match="need the package peft"):
        AdapterSet(model).set(paths(saved, "attention"))


# --- in the engine ---


def sequence(number: int, adapter: str) -> Sequence:
    made = make_sequence(number, PROMPT[0].tolist(), tokens=16, temperature=0)
    made.submit.adapter = adapter
    return made


@pytest.fixture
def engine(base: Path, saved: dict[str, tuple[str, list[int]]]) -> Iterator[TransformersEngine]:
    opened = open_hf_engine(base, adapters=paths(saved, "attention", "dora"))
    yield opened
    opened.close()


def test_requests_choose_their_adapters_in_one_batch(
    engine: TransformersEngine, model: Any, saved: dict[str, tuple[str, list[int]]]
) -> None:
    expected = {"": answer(model), **{name: told for name, (_, told) in saved.items()}}
    run = Run(engine)
    asked = ["", "attention", "dora", "attention", "", "dora"]
    for number, name in enumerate(asked):
        run.join(sequence(number, name))
        run.step()  # the others are under way
    run.finish()
    assert [run.tokens(number) for number in range(6)] == [expected[name] for name in asked]


def test_adapters_change_while_it_runs(
    engine: TransformersEngine, saved: dict[str, tuple[str, list[int]]]
) -> None:
    run = Run(engine)
    run.join(sequence(1, "dora"))
    run.step()
    engine.set_adapters(paths(saved, "attention", "wide.one"))
    run.join(sequence(2, "wide.one"))
    run.finish()
    assert run.tokens(1) == saved["dora"][1]  # it stayed until its request had ended
    assert run.tokens(2) == saved["wide.one"][1]
    run.join(sequence(3, "dora"))
    run.step()
    (refused,) = run.outputs[3]
    assert "no adapter 'dora'" in str(refused.error)


def test_an_adapter_that_cannot_be_loaded_leaves_the_rest(
    engine: TransformersEngine, tmp_path: Path, saved: dict[str, tuple[str, list[int]]]
) -> None:
    with pytest.raises(FileNotFoundError):
        engine.set_adapters({**paths(saved, "attention"), "new": str(tmp_path)})
    run = Run(engine)
    run.join(sequence(1, "attention"))
    run.finish()
    assert run.tokens(1) == saved["attention"][1]
