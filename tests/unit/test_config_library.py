"""The ready files of configs/: each loads, names are unique, every family and provider is there."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from smmf_core.config import ModelConfig, bundled, load_models

MODELS = sorted(bundled("models").glob("local-*.toml"))
PROVIDERS = sorted(bundled("providers").glob("proxy-*.toml"))

FAMILIES = {
    "Vicuna": r"^vicuna", "Llama 2": r"^llama-2-", "Llama 3": r"^llama-3-",
    "Llama 3.1": r"^llama-3\.1", "Baichuan 1": r"^baichuan-", "Baichuan 2": r"^baichuan2-",
    "ChatGLM 1": r"^chatglm-", "ChatGLM 2": r"^chatglm2-", "ChatGLM 3": r"^chatglm3-",
    "GLM-4": r"^glm-4-", "GLM-Z1": r"^glm-z1", "Falcon": r"^falcon", "InternLM 1": r"^internlm-",
    "InternLM 2": r"^internlm2-", "Qwen 1": r"^qwen-", "Qwen 1.5": r"^qwen1\.5",
    "Qwen 2.5": r"^qwen2\.5-\d", "Qwen 2.5 Coder": r"^qwen2\.5-coder", "Qwen 3": r"^qwen3-\d+b$",
    "Qwen 3 MoE": r"^qwen3-\d+b-a\d", "QwQ": r"^qwq", "WizardLM": r"^wizardlm",
    "Orca 2": r"^orca-2", "OpenChat": r"^openchat", "Zephyr": r"^zephyr", "Mistral": r"^mistral",
    "Mixtral": r"^mixtral", "Yi": r"^yi-\d+b", "Yi 1.5": r"^yi-1\.5", "Gemma 1": r"^gemma-\d+b",
    "Gemma 2": r"^gemma-2-", "Phi-3": r"^phi-3", "DeepSeek V2": r"^deepseek-v2",
    "DeepSeek V3": r"^deepseek-v3", "DeepSeek R1": r"^deepseek-r1", "DeepSeek Coder": r"-coder-",
    "BGE": r"^bge-[^r]", "BGE reranker": r"^bge-reranker", "GTE": r"^gte",
}  # fmt: skip
NAMED_PROVIDERS = (
    "openai", "azure", "deepseek", "tongyi", "ollama", "wenxin", "zhipu", "gemini", "baichuan",
    "spark", "yi", "tgi", "tensorrt_llm", "triton", "fastchat", "vllm", "llama_cpp_server",
    "lmstudio",
)  # fmt: skip


def load(path: Path) -> ModelConfig:
    (config,) = load_models([str(path)])
    return config


@pytest.fixture(autouse=True)
def variables(monkeypatch: pytest.MonkeyPatch) -> None:
    """What the files ask of the environment."""
    for file in (*MODELS, *PROVIDERS):
        for name in re.findall(r"\$\{env:(\w+)\}", file.read_text("utf-8")):
            monkeypatch.setenv(name, "https://example.org" if "ENDPOINT" in name else "a-key")


@pytest.mark.parametrize("path", MODELS, ids=lambda path: path.stem)
def test_a_model_file_loads_and_is_named_like_its_model(path: Path) -> None:
    config = load(path)
    assert path.stem == f"local-{config.model.name}"
    assert not config.deployment.autostart  # a whole folder of them can be served
    assert Path(config.model.path).parent == Path("/models")


@pytest.mark.parametrize("path", PROVIDERS, ids=lambda path: path.stem)
def test_a_provider_file_loads_as_a_remote_model(path: Path) -> None:
    config = load(path)
    assert config.is_remote
    assert config.proxy is not None
    assert config.proxy.provider in path.stem.replace("-", "_")


def test_the_whole_library_loads_at_once_with_unique_names() -> None:
    configs = load_models([str(bundled("models")), str(bundled("providers"))])
    assert len({config.model.name for config in configs}) == len(MODELS) + len(PROVIDERS)
    assert len(MODELS) >= 50


@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_has_a_file(family: str) -> None:
    names = [path.stem.removeprefix("local-") for path in MODELS]
    assert any(re.search(FAMILIES[family], name) for name in names)


def test_every_provider_has_a_file() -> None:
    found = {config.proxy.provider for config in map(load, PROVIDERS) if config.proxy}
    assert found >= set(NAMED_PROVIDERS)
