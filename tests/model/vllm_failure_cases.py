"""How the vLLM engine fails: at its load in one sentence, in a step so that the Worker ends. Run by
test_vllm.py under the interpreter that has vLLM."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from engines import demo_path, make_config, open_engine
from safetensors.numpy import load_file, save_file
from tiny import make_model
from worker_rig import Worker

from smmf_core.engines import host_memory
from smmf_core.engines.base import EngineDead
from smmf_core.plugins import load_backend

SMALL: dict[str, Any] = {"max_model_len": 256, "kv_cache_memory_bytes": 1 << 26}


def load_error(folder: Path, **options: Any) -> str:
    with pytest.raises((ValueError, OSError, MemoryError)) as caught:
        open_engine("vllm", folder, **options)
    text = str(caught.value)
    assert "\n" not in text
    return text


def test_a_missing_folder(tmp_path: Path) -> None:
    assert "config.json is missing" in load_error(tmp_path / "nothing")


def test_an_unknown_argument_gets_the_nearest_name() -> None:
    text = load_error(demo_path("vllm"), gpu_memory_utilisation=0.5)
    assert "did you mean 'gpu_memory_utilization'?" in text


def test_a_value_that_vllm_refuses() -> None:
    assert "max_model_len" in load_error(demo_path("vllm"), max_model_len=1_000_000)


def test_an_architecture_that_vllm_does_not_know(tmp_path: Path) -> None:
    folder = shutil.copytree(demo_path("vllm"), tmp_path / "model")
    config = json.loads((folder / "config.json").read_text())
    config["architectures"] = ["NobodysForCausalLM"]
    (folder / "config.json").write_text(json.dumps(config))
    assert "NobodysForCausalLM" in load_error(folder, **SMALL)


def test_damaged_weights(tmp_path: Path) -> None:
    folder = shutil.copytree(demo_path("vllm"), tmp_path / "model")
    whole = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(whole[:100_000])
    assert "cannot load the model" in load_error(folder, **SMALL)
    (folder / "model.safetensors").write_bytes(b"\x08" + bytes(200))
    text = load_error(folder, **SMALL)
    assert "one of its files is damaged" in text or "invalid JSON" in text


def test_a_kv_cache_that_is_too_small_or_too_large() -> None:
    small = load_error(demo_path("vllm"), max_model_len=2048, kv_cache_memory_bytes=1 << 20)
    assert "KV cache" in small
    large = load_error(demo_path("vllm"), kv_cache_memory_bytes=1 << 50)
    assert "kv" in large.lower()


def test_weights_that_do_not_fit_are_not_loaded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(host_memory, "free_bytes", lambda: 1 << 20)
    text = load_error(demo_path("vllm"), **SMALL)
    assert text.startswith("The weights need 0.0")
    assert "cpu has 0.00 GiB free" in text


def test_chunked_prefill_is_refused_on_the_cpu() -> None:
    assert "cannot chunk" in load_error(demo_path("vllm"), enable_chunked_prefill=True)


def test_another_device() -> None:
    config = make_config("vllm", demo_path("vllm"))
    config.deployment.device = "cuda:1"
    engine = load_backend("vllm")(config)
    with pytest.raises(ValueError, match="This vLLM runs on cpu, not on cuda:1"):
        engine.load(lambda done: None)


def test_logits_that_are_not_numbers_cost_their_request_only(tmp_path: Path) -> None:
    """One token's embedding is not a number: prompts that hold it have no answer. Nor do they spoil
    what others compute, beside them or later in the same place, nor the prefix cache."""
    folder = make_model(tmp_path / "model", head_dim=32)
    weights = load_file(folder / "model.safetensors")
    weights["model.embed_tokens.weight"][7] = np.nan
    save_file(weights, folder / "model.safetensors")
    engine = open_engine("vllm", folder, **SMALL)
    worker = Worker(engine)
    fields = {"ignore_eos": True, "logit_bias": {7: -100.0}}
    good, bad = [5, 6, 9, 11] * 40, [5, 6, 7, 11] * 40
    expected = worker.ask(good, 12, **fields).ids
    failed = []
    for tokens in (12, 1, 12):
        keys = [worker.submit(prompt, tokens, **fields) for prompt in (good, bad, good)]
        worker.finish()
        assert worker.answers[keys[0]].ids == worker.answers[keys[2]].ids == expected[:tokens]
        failed.append(worker.answers[keys[1]].error)
    after = [worker.submit([n, *good], 12, **fields) for n in range(8, 24)]
    worker.finish()
    engine.close()
    assert all(error is not None and "not numbers" in error.message for error in failed)
    assert all(worker.answers[key].error is None for key in after)


def short_of_memory(engine: Any, monkeypatch: pytest.MonkeyPatch, rows: int, tokens: int) -> None:
    """From here on the device has memory for steps of so many rows and tokens."""
    executor = engine._core.model_executor  # vLLM's, not ours
    usual = executor.execute_model

    def execute(planned: Any, **fields: Any) -> Any:
        counts = planned.num_scheduled_tokens.values()
        if len(counts) > rows or max(counts, default=0) > tokens:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20 GiB")
        return usual(planned, **fields)

    monkeypatch.setattr(executor, "execute_model", execute)


def test_memory_that_runs_out_in_a_step_is_shared_by_fewer(monkeypatch: pytest.MonkeyPatch) -> None:
    engine = open_engine("vllm", demo_path("vllm"), **SMALL)
    worker = Worker(engine)
    fields = {"ignore_eos": True, "logprobs": 1}
    prompts = [[5 + n, 6, 7, 8] * 9 for n in range(9)]
    expected = [worker.ask(prompt, 24, **fields) for prompt in prompts]
    keys = [worker.submit(prompt, 24, **fields) for prompt in prompts]
    for _ in range(6):
        worker.step()
    short_of_memory(engine, monkeypatch, rows=2, tokens=256)
    worker.finish()
    answers = [worker.answers[key] for key in keys]
    assert [answer.ids for answer in answers] == [answer.ids for answer in expected]
    assert [answer.usage for answer in answers] == [answer.usage for answer in expected]
    assert all(len(answer.choices[0].logprobs) == 24 for answer in answers)
    figures = engine.metrics()
    assert figures["memory_retries_total"] >= 2
    assert figures["running"] == figures["waiting"] == 0
    engine.close()


def test_a_prompt_that_no_memory_is_enough_for_fails_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    engine = open_engine("vllm", demo_path("vllm"), **SMALL)
    worker = Worker(engine)
    expected = worker.ask([5, 6, 7], 60, ignore_eos=True).ids
    running = worker.submit([5, 6, 7], 60, ignore_eos=True)
    for _ in range(5):
        worker.step()
    short_of_memory(engine, monkeypatch, rows=64, tokens=100)
    large = worker.submit([9, 10, 11] * 60, 8)
    after = worker.submit([5, 6, 7], 60, ignore_eos=True)
    worker.finish()
    error = worker.answers[large].error
    assert error is not None
    assert "out of memory" in error.message
    assert worker.answers[running].ids == worker.answers[after].ids == expected
    engine.close()


def test_latencies_are_told() -> None:
    engine = open_engine("vllm", demo_path("vllm"), **SMALL)
    worker = Worker(engine)
    for tokens in (1, 12):
        worker.ask([5, 6, 7], tokens, ignore_eos=True)
    figures = engine.metrics()
    assert figures["scheduled_total"] == figures["first_tokens_total"] == 2
    assert figures["decode_tokens_total"] == 11
    assert 0 < figures["prefill_seconds_total"] <= figures["first_token_seconds_total"]
    assert figures["decode_seconds_total"] > 0
    assert 0 <= figures["queue_seconds_total"] < figures["first_token_seconds_total"]
    engine.close()


def test_a_core_that_fails_leaves_what_only_waited_to_others(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    engine = open_engine("vllm", demo_path("vllm"), max_num_seqs=2, **SMALL)
    worker = Worker(engine, batch=8)
    keys = [worker.submit([5, 6, 7 + n], 8, ignore_eos=True) for n in range(4)]
    worker.step()
    monkeypatch.delattr(engine._core.model_executor, "driver_worker")
    with pytest.raises(EngineDead) as dead:
        worker.finish()
    assert [sequence.submit.key for sequence in dead.value.untouched] == keys[2:]


def test_a_core_that_fails_ends_the_worker(monkeypatch: pytest.MonkeyPatch) -> None:
    engine = open_engine("vllm", demo_path("vllm"), **SMALL)
    worker = Worker(engine)
    worker.submit([5, 6, 7], 8, ignore_eos=True)
    worker.step()
    monkeypatch.delattr(engine._core.model_executor, "driver_worker")  # vLLM's, not ours
    with pytest.raises(EngineDead, match="engine core failed"):
        worker.finish()
