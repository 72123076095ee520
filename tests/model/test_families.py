"""Every model family of the mission, end to end: a tiny model of its architecture behind the
transformers engine, prompted by its adapter, batched with others; exactly as model.generate."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import engines_env
import pytest

engines_env.require("transformers")

import torch
from chatglm1 import generated as chatglm1_generated
from chatglm1 import write_chatglm1
from family_models import TinyModel, write_model
from family_table import NATIVE, read, table
from legacy_models import LEGACY, Legacy, write_legacy, write_remote
from tiny import write_json
from transformers import AutoModelForCausalLM, dynamic_module_utils
from worker_rig import Worker

from smmf_core.adapters import find_adapter
from smmf_core.config import Model, ModelConfig, bundled
from smmf_core.config.schema import Deployment, Optimization
from smmf_core.engines.prompt.text import read_json
from smmf_core.engines.transformers.chatglm import ChatGlmForCausalLM
from smmf_core.engines.transformers.legacy import Baichuan2AlibiForCausalLM, legacy_model
from smmf_core.messages import STOP, Sampling, Submit
from smmf_core.plugins import load_backend

TOKENS = 12
SYSTEM = {"role": "system", "content": "Be brief."}
CHATS = (
    [{"role": "user", "content": "Hi"}],
    [SYSTEM, {"role": "user", "content": "the quick brown \u4f60\u597d " * 6}],
    [
        {"role": "user", "content": "What is 1 + 2?"},
        {"role": "assistant", "content": "3"},
        {"role": "user", "content": "And 3 + 4?"},
    ],
)
LATE = [SYSTEM, {"role": "user", "content": "Who are you?"}]


pytestmark = pytest.mark.usefixtures("one_torch_thread")


def open_worker(folder: Path, **engine: object) -> Worker:
    config = ModelConfig(
        model=Model(name="tiny", backend="transformers", path=str(folder)),
        deployment=Deployment(device="cpu"),
        optimization=Optimization(dtype="float32"),
        engine=engine,
    )
    opened = load_backend("transformers")(config)
    opened.load(lambda done: None)
    return Worker(opened)


def prompt_ids(worker: Worker, messages: list[dict[str, str]]) -> list[int]:
    spec = worker.core.spec
    assert spec.chat_template is not None
    text = spec.chat_template.render(Submit(1, 0, "r", "m", True, 1, messages, None, Sampling()))
    return spec.tokenizer.encode(text, add_special=False)


def generated(model: Any, prompt: list[int]) -> list[int]:
    """What transformers' own loop makes of one prompt alone."""
    ids = torch.tensor([prompt])
    made = model.generate(
        ids,
        attention_mask=torch.ones_like(ids),
        max_new_tokens=TOKENS,
        do_sample=False,
        eos_token_id=None,
        pad_token_id=0,
    )
    return made[0, len(prompt) :].tolist()


def check_family(folder: Path, model: Any, **options: object) -> Worker:
    """Three chats at once, one that joins later: each as alone in model.generate."""
    worker = open_worker(folder, **options)
    prompts = [prompt_ids(worker, chat) for chat in (*CHATS, LATE)]
    keys = [worker.submit(prompt, TOKENS, ignore_eos=True) for prompt in prompts[:-1]]
    for _ in range(3):
        worker.step()
    keys.append(worker.submit(prompts[-1], TOKENS, ignore_eos=True))
    worker.finish()
    answers = [worker.answers[key].ids for key in keys]
    assert answers == [generated(model, prompt) for prompt in prompts]
    assert len({token for answer in answers for token in answer}) > TOKENS  # says something
    return worker


@pytest.mark.parametrize("tiny", NATIVE, ids=lambda tiny: tiny.family)
def test_family(tiny: TinyModel, tmp_path: Path) -> None:
    folder = write_model(tiny, tmp_path)
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    worker = check_family(folder, model)
    check_stop_tokens(worker, tiny.adapter)
    worker.engine.close()


@pytest.mark.parametrize("legacy", LEGACY, ids=lambda legacy: legacy.family)
def test_family_that_transformers_no_longer_carries(legacy: Legacy, tmp_path: Path) -> None:
    folder, model = write_legacy(legacy, tmp_path)
    worker = check_family(folder, model)
    check_stop_tokens(worker, legacy.adapter)
    worker.engine.close()


@pytest.fixture
def published(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A checkpoint of Baichuan 2 13B, whose model and tokenizer are Python files."""
    monkeypatch.setattr(dynamic_module_utils, "HF_MODULES_CACHE", str(tmp_path / "modules"))
    return write_remote(tmp_path)


def test_code_of_a_checkpoint_runs_when_it_is_trusted(published: Path) -> None:
    config = read_json(published / "config.json")
    write_json(published / "config.json", {**config, "model_type": "a_new_family"})
    with pytest.raises(ValueError, match="trust_remote_code = true"):
        open_worker(published)
    model = AutoModelForCausalLM.from_pretrained(published, trust_remote_code=True).eval()
    assert type(model).__module__.startswith("transformers_modules")
    template = str(bundled("templates/baichuan2.jinja"))
    worker = check_family(published, model, trust_remote_code=True, chat_template=template)
    check_stop_tokens(worker, "baichuan2")
    worker.engine.close()


def test_attention_by_distance_is_that_of_the_published_code(published: Path) -> None:
    """Only the tokenizer's code runs in the engine; model.generate runs the model's, too."""
    model = AutoModelForCausalLM.from_pretrained(published, trust_remote_code=True).eval()
    worker = check_family(published, model, trust_remote_code=True)
    worker.engine.close()
    legacy = legacy_model(read_json(published / "config.json"))
    assert legacy is not None
    assert legacy.model is Baichuan2AlibiForCausalLM


@pytest.mark.parametrize(
    ("changes", "wanted"),
    [
        ({"vocab_size": 64000, "max_position_embeddings": 4096}, "BaichuanForCausalLM"),
        ({"vocab_size": 125696, "max_position_embeddings": 4096}, "Baichuan2ForCausalLM"),
        ({"vocab_size": 64000, "model_max_length": 4096}, "BaichuanAlibiForCausalLM"),
        ({"vocab_size": 125696, "model_max_length": 4096}, "Baichuan2AlibiForCausalLM"),
    ],
)
def test_which_baichuan(changes: dict[str, int], wanted: str) -> None:
    """Only the second ones use their head's rows at length 1."""
    legacy = legacy_model({"model_type": "baichuan", "torch_dtype": "bfloat16", **changes})
    assert legacy is not None
    assert legacy.model.__name__ == wanted
    assert legacy.config.max_position_embeddings == 4096
    assert legacy.config.dtype == torch.bfloat16


def test_chatglm_1(tmp_path: Path) -> None:
    """No library has it: it is compared with a plain pass over everything for each token."""
    folder = write_chatglm1(tmp_path)
    worker = open_worker(folder)
    prompts = [prompt_ids(worker, chat) for chat in CHATS]
    prompts.append(worker.core.spec.tokenizer.encode("the quick\n\tbrown   fox", True))
    keys = [worker.submit(prompts[0], TOKENS, ignore_eos=True)]
    worker.step()
    keys += [worker.submit(prompt, TOKENS, ignore_eos=True) for prompt in prompts[1:]]
    worker.finish()
    answers = [worker.answers[key].ids for key in keys]
    assert answers == [chatglm1_generated(folder, prompt, TOKENS) for prompt in prompts]
    assert len({token for answer in answers for token in answer}) > TOKENS // 2
    model = ChatGlmForCausalLM.from_pretrained(
        folder, config=legacy_model(read_json(folder / "config.json")).config
    )
    assert answers == [generated(model.eval(), prompt) for prompt in prompts]
    check_stop_tokens(worker, "chatglm")
    worker.engine.close()


def test_the_table_in_the_readme_is_of_today() -> None:
    """`python tests/model/family_table.py` writes it."""
    assert read() == table()


def check_stop_tokens(worker: Worker, adapter: str) -> None:
    """Each of the family's stop tokens that the tokenizer has ends an answer by itself."""
    tokenizer = worker.core.spec.tokenizer
    pieces = find_adapter("", "", wanted=adapter).stop_tokens()
    found = [id_ for id_ in map(tokenizer.token_id, pieces) if id_ is not None]
    assert found
    for stop in found:
        answer = worker.ask("the fox", TOKENS, logit_bias={stop: 100.0})
        assert answer.choices[0].reason == STOP
        assert answer.choices[0].text == b""
