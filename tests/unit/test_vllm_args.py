"""What vLLM is started with, checked without vLLM."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from smmf_core.config import Model, ModelConfig, bundled
from smmf_core.config.schema import Deployment, Optimization
from smmf_core.engines.vllm.args import (
    check_device,
    check_names,
    check_version,
    computes_here,
    engine_arguments,
    reason,
    runs_in_process,
    set_environment,
)

GIB = 1 << 30


def config(**engine: Any) -> ModelConfig:
    return ModelConfig(Model("demo", "vllm", path=str(bundled("demo"))), engine=engine)


def arguments(model: ModelConfig, is_cpu: bool = False) -> dict[str, Any]:
    return engine_arguments(model, is_cpu, 64 * GIB)


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, True),
        ({"tensor_parallel_size": 1}, True),
        ({"tensor_parallel_size": 2}, False),
        ({"pipeline_parallel_size": 4}, False),
        ({"data_parallel_size": 2}, False),
        ({"tensor_parallel_size": 2, "in_process": True}, True),
        ({"in_process": False}, False),
    ],
)
def test_parallel_cores_live_elsewhere(options: dict[str, Any], expected: bool) -> None:
    assert runs_in_process(options) is expected


def test_in_process_is_a_switch() -> None:
    with pytest.raises(ValueError, match="in_process is true or false"):
        runs_in_process({"in_process": "no"})
    with pytest.raises(ValueError, match="data_parallel_size"):
        runs_in_process({"in_process": True, "data_parallel_size": 2})


def test_grammars_are_of_one_library() -> None:
    given = config(structured_outputs_config={"enable_in_reasoning": True})
    assert arguments(given)["structured_outputs_config"] == {
        "backend": "guidance", "enable_in_reasoning": True,
    }  # fmt: skip
    with pytest.raises(ValueError, match="backend 'guidance' only"):
        arguments(config(structured_outputs_config={"backend": "xgrammar"}))


def test_the_environment_keeps_what_is_set() -> None:
    environment = {"VLLM_HOST_IP": "10.0.0.1", "VLLM_ENABLE_V1_MULTIPROCESSING": "1"}
    set_environment(config(), environment)
    assert environment["VLLM_HOST_IP"] == "10.0.0.1"
    assert environment["VLLM_ENABLE_V1_MULTIPROCESSING"] == "0"
    assert environment["VLLM_NO_USAGE_STATS"] == "1"
    assert "CUDA_VISIBLE_DEVICES" not in environment


def test_a_numbered_gpu_is_the_only_one_that_vllm_sees() -> None:
    model = config()
    model.deployment = Deployment(device="cuda:3")
    environment: dict[str, str] = {}
    set_environment(model, environment)
    assert environment["CUDA_VISIBLE_DEVICES"] == "3"


@pytest.mark.parametrize(
    ("options", "is_here"),
    [
        ({}, True),
        ({"tensor_parallel_size": 1, "distributed_executor_backend": "uni"}, True),
        ({"distributed_executor_backend": "mp"}, False),
        ({"in_process": True, "pipeline_parallel_size": 2}, False),
        ({"kernel_config": {"ir_op_priority": {"rms_norm": ["native"]}}}, False),
    ],
)
def test_own_kernels_are_for_what_computes_here(options: dict[str, Any], is_here: bool) -> None:
    assert computes_here(arguments(config(**options))) == is_here


def test_arguments_come_from_both_sections() -> None:
    model = config(gpu_memory_utilization=0.5, in_process=True, chat_template="x.jinja")
    model.optimization = Optimization(
        dtype="bfloat16", quantization="awq", attention="flash_attn", max_batch_size=7
    )
    assert arguments(model) == {
        "model": str(bundled("demo")),
        "dtype": "bfloat16",
        "max_num_seqs": 7,
        "enable_prefix_caching": True,
        "structured_outputs_config": {"backend": "guidance"},
        "quantization": "awq",
        "attention_backend": "FLASH_ATTN",
        "gpu_memory_utilization": 0.5,
    }


def test_vllms_own_names_win() -> None:
    model = config(dtype="half", max_num_seqs=200, enable_prefix_caching=False)
    model.optimization = Optimization(dtype="float32", load_in_4bit=True)
    found = arguments(model)
    assert (found["dtype"], found["max_num_seqs"]) == ("half", 200)
    assert found["enable_prefix_caching"] is False
    assert found["quantization"] == "bitsandbytes"


def test_what_vllm_cannot_be_told() -> None:
    with pytest.raises(ValueError, match=r"\[model\] path"):
        arguments(config(model="/elsewhere"))
    eight = config()
    eight.optimization = Optimization(load_in_8bit=True)
    with pytest.raises(ValueError, match="8 bit"):
        arguments(eight)
    nowhere = config()
    nowhere.model = Model("m", "vllm", path="/nowhere")
    with pytest.raises(FileNotFoundError, match="is missing"):
        arguments(nowhere)


def test_the_cpu_gets_a_small_cache_and_whole_prompts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("VLLM_CPU_KVCACHE_SPACE", raising=False)
    found = arguments(config(), is_cpu=True)
    assert found["kv_cache_memory_bytes"] == 4 * GIB
    assert found["enable_chunked_prefill"] is False
    small = engine_arguments(config(), True, 8 * GIB)
    assert small["kv_cache_memory_bytes"] == 2 * GIB
    own = arguments(config(gpu_memory_utilization=0.3), is_cpu=True)
    assert "kv_cache_memory_bytes" not in own
    monkeypatch.setenv("VLLM_CPU_KVCACHE_SPACE", "2")
    assert "kv_cache_memory_bytes" not in arguments(config(), is_cpu=True)
    with pytest.raises(ValueError, match="cannot chunk prefill"):
        arguments(config(enable_chunked_prefill=True), is_cpu=True)


def test_adapters_make_room_for_themselves(tmp_path: Path) -> None:
    for name, rank in (("one", 4), ("two", 20)):
        folder = tmp_path / name
        folder.mkdir()
        (folder / "adapter_config.json").write_text(json.dumps({"r": rank}))
    adapters = {name: str(tmp_path / name) for name in ("one", "two")}
    found = arguments(config(adapters=adapters))
    assert found["enable_lora"] is True
    assert (found["max_loras"], found["max_lora_rank"]) == (2, 32)
    assert arguments(config(adapters=adapters, max_loras=1))["max_loras"] == 1
    with pytest.raises(FileNotFoundError, match="no LoRA adapter"):
        arguments(config(adapters={"none": str(tmp_path)}))


def test_unknown_names_get_the_nearest() -> None:
    known = ["gpu_memory_utilization", "max_model_len", "_private"]
    check_names({"max_model_len": 1}, known)
    for wrong, near in (
        ("gpu_memory_utilisation", "gpu_memory_utilization"),
        ("max-model-len", "max_model_len"),
    ):
        with pytest.raises(ValueError, match=f"did you mean '{near}'"):
            check_names({wrong: 1}, known)
    for unlike in ("zzz", "_private"):
        with pytest.raises(ValueError, match="no engine argument"):
            check_names({unlike: 1}, known)


def test_devices_and_versions() -> None:
    check_device("auto", "cuda")
    check_device("cuda:1", "cuda")
    with pytest.raises(ValueError, match="runs on cpu, not on cuda"):
        check_device("cuda", "cpu")
    with pytest.raises(ValueError, match="no device"):
        check_device("auto", "")
    for version in ("0.19.1", "0.32.0", "1.0.0", "dev"):
        check_version(version)
    with pytest.raises(ValueError, match=r"needs 0\.19 or later"):
        check_version("0.8.5.post1")


def test_errors_are_one_line() -> None:
    framed = (
        "1 validation error for ModelConfig\n  Value error, The arch is not\n supported. "
        "[type=value_error, input_value=ArgsKwargs(...)]\n    For further information visit"
    )
    assert reason(ValueError(framed)) == "The arch is not supported."
    assert reason(RuntimeError("a\n  b")) == "a b"
    assert reason(RuntimeError()) == "RuntimeError"
    assert len(reason(ValueError("x " * 2000))) < 500
    with pytest.raises(ValueError) as caught:
        json.loads("nothing")
    assert reason(caught.value).startswith("one of its files is damaged")
