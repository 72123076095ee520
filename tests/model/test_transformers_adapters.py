"""LoRA adapters in the transformers engine: chosen per request, exchanged while others run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import engines_env
import pytest

engines_env.require("transformers")

import torch
from driver import Run, make_sequence
from hf_tiny import greedy, open_hf_engine, prompts
from lora import make_adapter, make_merged
from transformers import AutoModelForCausalLM

from smmf_core.config import bundled
from smmf_core.engines.transformers.engine import TransformersEngine
from smmf_core.errors import ApiError

TOKENS = 16


pytestmark = pytest.mark.usefixtures("one_torch_thread")


@pytest.fixture(scope="module")
def adapters(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    folder = tmp_path_factory.mktemp("adapters")
    return {name: str(make_adapter(folder / name, seed)) for seed, name in enumerate("ab", 1)}


@pytest.fixture(scope="module")
def texts(
    adapters: dict[str, str], tmp_path_factory: pytest.TempPathFactory
) -> dict[str, list[int]]:
    """What the library makes of the prompt: with no adapter (""), and with each one merged."""
    folders = {"": bundled("demo")}
    for name, path in adapters.items():
        folders[name] = make_merged(tmp_path_factory.mktemp("merged") / name, Path(path))
    made = {}
    for name, folder in folders.items():
        model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
        made[name] = greedy(model, prompt(), TOKENS)
    assert len({tuple(text) for text in made.values()}) == 3
    return made


def prompt() -> list[int]:
    return prompts(40)[0]


def ask(number: int, adapter: str, tokens: int = TOKENS) -> Any:
    sequence = make_sequence(number, prompt(), tokens, temperature=0)
    sequence.submit.adapter = adapter
    return sequence


def opened(adapters: dict[str, str]) -> TransformersEngine:
    return open_hf_engine(bundled("demo"), adapters=adapters)


def test_each_request_has_its_own_adapter(
    adapters: dict[str, str], texts: dict[str, list[int]]
) -> None:
    """Also where a prompt was computed before, with another one."""
    engine = opened(adapters)
    for _ in range(2):
        run = Run(engine)
        for number, name in enumerate(["a", "", "b", "a", "b", ""]):
            run.join(ask(number, name))
            run.step()
        run.finish()
        for number, name in enumerate(["a", "", "b", "a", "b", ""]):
            assert run.tokens(number) == texts[name]


def test_one_in_use_stays_until_its_requests_have_ended(
    adapters: dict[str, str], texts: dict[str, list[int]]
) -> None:
    engine = opened({"x": adapters["a"]})
    run = Run(engine)
    run.join(ask(1, "x"))
    run.step()
    engine.set_adapters({"x": adapters["b"]})
    run.finish()
    assert run.tokens(1) == texts["a"]
    run.join(ask(2, "x"))
    run.finish()
    assert run.tokens(2) == texts["b"]
    engine.set_adapters({})
    run.join(ask(3, "x"), ask(4, ""))
    run.finish()
    assert isinstance(run.outputs[3][0].error, ApiError)
    assert run.tokens(4) == texts[""]


def test_a_request_for_an_unknown_adapter_is_refused(adapters: dict[str, str]) -> None:
    engine = opened(adapters)
    with pytest.raises(ApiError, match=r"no adapter 'c'; it has: a, b\."):
        engine.spec.check(ask(1, "c").submit)
