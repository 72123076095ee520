"""The reference engine against transformers, on the same random weights, in float32."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from driver import Run, make_sequence, open_engine
from tiny import make_model
from transformers import AutoModelForCausalLM

from smmf_core.engines.reference.model import Cache, Chunk

TOKENS = 64
LLAMA3 = {
    "rope_type": "llama3",
    "factor": 4.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 128,
}
QWEN2 = {"architectures": ["Qwen2ForCausalLM"], "model_type": "qwen2", "use_sliding_window": False}
VARIANTS: dict[str, dict[str, Any]] = {
    "llama": {},
    "tied head": {"tie_word_embeddings": True},
    "one key head": {"num_key_value_heads": 1},
    "no groups": {"num_key_value_heads": 6},
    "linear rope": {"rope_scaling": {"rope_type": "linear", "factor": 3.0}},
    "llama3 rope": {"rope_scaling": LLAMA3},
    "rope_parameters": {"rope_parameters": {"rope_type": "default", "rope_theta": 500.0}},
    "qwen2": {**QWEN2, "bias": True},
}


def prompts() -> list[list[int]]:
    random = np.random.default_rng(42)
    return [[0, *random.integers(3, 300, 5 + 23 * n).tolist()] for n in range(8)]


def greedy(model: Any, prompt: list[int], tokens: int) -> list[int]:
    """transformers' own greedy text, its end-of-text token not heeded."""
    with torch.inference_mode():
        output = model.generate(
            torch.tensor([prompt]),
            attention_mask=torch.ones(1, len(prompt), dtype=torch.long),
            do_sample=False,
            max_new_tokens=tokens,
            min_new_tokens=tokens,
            pad_token_id=2,
        )
    return list(output[0, len(prompt) :].tolist())


def load(folder: Path) -> Any:
    return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()


def test_greedy_text_is_transformers_text(tmp_path: Path) -> None:
    """8 prompts x 64 tokens, in one batch that others join and leave on the way."""
    engine, model = open_engine(make_model(tmp_path)), load(tmp_path)
    run = Run(engine)
    for number, prompt in enumerate(prompts()):
        run.join(make_sequence(number, prompt, TOKENS, temperature=0, min_tokens=TOKENS))
        run.join(make_sequence(100 + number, prompt[::-1], 5 + number, seed=number))
        run.step()
        run.step()
    run.finish()
    texts = [greedy(model, prompt, TOKENS) for prompt in prompts()]
    assert [run.tokens(number) for number in range(8)] == texts
    assert len({tuple(text) for text in texts}) == 8
    assert all(len(set(text)) > 8 for text in texts)


@pytest.mark.parametrize("variant", VARIANTS)
def test_logits_and_text_of_all_variants(tmp_path: Path, variant: str) -> None:
    engine = open_engine(make_model(tmp_path, seed=3, **VARIANTS[variant]))
    model = load(tmp_path)
    prompt = prompts()[7]
    (ours,) = engine._model.forward([Chunk(Cache(engine._model.config), prompt, len(prompt))])
    with torch.inference_mode():
        theirs = model(torch.tensor([prompt])).logits[0].numpy()
    np.testing.assert_allclose(ours, theirs, rtol=1e-3, atol=1e-3)
    run = Run(engine)
    run.join(make_sequence(1, prompt, 32, temperature=0, min_tokens=32))
    run.finish()
    assert run.tokens(1) == greedy(model, prompt, 32)
