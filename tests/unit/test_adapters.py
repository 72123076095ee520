"""Model adapters: which one a model gets, built in or plugged in."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import smmf_core
from smmf_core.adapters import FAMILIES, BaseModelAdapter, find_adapter
from smmf_core.adapters.find import plugged_adapters
from smmf_core.errors import CannotStart
from smmf_core.plugins import plugged

PLUGIN = """\
from smmf_core import BaseModelAdapter


class Parrot(BaseModelAdapter):
    name = "parrot"

    def matches(self, name, path, model_type, architectures):
        return "parrot" in name or "ParrotForCausalLM" in architectures

    def chat_template(self):
        return "{{ messages[-1].content }}"

    def stop_tokens(self):
        return ["<|squawk|>"]

    def tool_format(self):
        return "hermes"

    def capabilities(self):
        return ["vision"]


a_parrot = Parrot()
no_adapter = object()
"""


@pytest.mark.parametrize(
    ("name", "model_type", "adapter"),
    [
        ("vicuna-13b-v1.5-16k", "llama", "vicuna"),
        ("Vicuna_7B", "", "vicuna"),
        ("Llama-2-70b-chat-hf", "llama", "llama-2"),
        ("CodeLlama-7b-Instruct-hf", "llama", "llama-2"),
        ("Meta-Llama-3-70B-Instruct", "llama", "llama-3"),
        ("Llama-3.2-1B-Instruct", "llama", "llama-3.1"),
        ("deepseek-r1-distill-llama-8b", "llama", "deepseek-r1"),
        ("DeepSeek-R1-0528-Qwen3-8B", "qwen3", "deepseek-r1"),
        ("DeepSeek-V3-0324", "deepseek_v3", "deepseek-v3"),
        ("Qwen3-Coder-30B-A3B-Instruct", "qwen3_moe", "qwen3-coder"),
        ("Qwen3-30B-A3B", "qwen3_moe", "qwen3"),
        ("GLM-4.5-Air", "glm4_moe", "glm-4.5"),
        ("Llama-4-Scout-17B-16E-Instruct", "llama4", "llama-4"),
        ("DeepSeek-V2.5", "deepseek_v2", "deepseek-v3"),
        ("DeepSeek-Coder-V2-Instruct", "deepseek_v2", "deepseek-v2"),
        ("deepseek-coder-33b-instruct", "llama", "deepseek-coder"),
        ("WizardMath-7B-V1.1", "mistral", "wizardcoder"),
        ("WizardLM-2-8x22B", "mixtral", "wizardlm"),
        ("Starling-LM-7B-alpha", "mistral", "openchat-3.5"),
        ("my-own-finetune", "qwen3_moe", "qwen3"),
        ("Qwen-14B-Chat", "qwen", "qwen"),
        ("Qwen2-7B-Instruct", "qwen2", "qwen2"),
        ("Yi-34B-Chat", "llama", "yi"),
        ("codegeex4-all-9b", "chatglm", "glm-4"),
        ("chatglm-6b", "chatglm", "chatglm"),
        ("Mixtral-8x22B-Instruct-v0.1", "mixtral", "mistral-v3"),
        ("falcon-180B-chat", "falcon", "falcon-chat"),
        ("Phi-3.5-mini-instruct", "phi3", "phi-3"),
        ("gemma-7b-it", "gemma", "gemma"),
        # base models, and other architectures of a family's name
        ("Llama-2-7b-hf", "llama", ""),
        ("gemma-2-9b", "gemma2", ""),
        ("Yi-6B", "llama", ""),
        ("vicuna-like", "gpt_neox", ""),
        ("anyi-chat", "llama", ""),
        ("gpt2", "gpt2", ""),
    ],
)
def test_families_by_name_and_type(name: str, model_type: str, adapter: str) -> None:
    assert find_adapter(name, "/models/x", model_type).name == adapter
    assert find_adapter("served-as-this", f"/models/{name}/", model_type).name == adapter


def test_architectures_as_gguf_files_name_them() -> None:
    assert find_adapter("x", "/m/Mistral-7B-Instruct-v0.2.Q4_K_M.gguf", "llama").name == "mistral"
    assert find_adapter("x", "/m/mixtral-8x7b-instruct.gguf", "llama").name == "mixtral"
    assert find_adapter("x", "/m/tiny.gguf", "qwen3moe").name == "qwen3"
    assert find_adapter("DeepSeek-V3", "/m/a.gguf", "deepseek2").name == "deepseek-v3"
    assert find_adapter("x", "/m/some-base.gguf", "llama").name == ""


def test_the_configured_type_chooses() -> None:
    assert find_adapter("vicuna-7b", "", "llama", wanted="Zephyr").name == "zephyr"
    assert find_adapter("x", "x.gguf", "", wanted="qwen3_moe").name == "qwen3"  # an architecture
    assert find_adapter("x", "x.gguf", "llama", wanted="qwen3_moe").name == ""


def test_names_are_unique() -> None:
    names = [family.name for family in FAMILIES]
    assert len(set(names)) == len(names)


def test_families_whose_checkpoints_bring_their_templates() -> None:
    found = {n: find_adapter(n, "", t) for n, t in (
        ("Qwen3-Coder-480B-A35B-Instruct", "qwen3_moe"), ("GLM-4.6", "glm4_moe"), ("x", "llama4"),
    )}  # fmt: skip
    assert [adapter.tool_format() for adapter in found.values()] == [
        "qwen3_coder", "glm45", "llama4_pythonic",
    ]  # fmt: skip
    assert all(adapter.chat_template() is None for adapter in found.values())


def test_defaults_say_nothing() -> None:
    adapter = find_adapter("x", "y")
    assert type(adapter) is BaseModelAdapter is smmf_core.BaseModelAdapter
    assert adapter.chat_template() is None
    assert [*adapter.stop_tokens(), *adapter.stop_strings(), *adapter.capabilities()] == []
    assert adapter.tool_format() == adapter.reasoning_format() == ""
    with pytest.raises(AttributeError, match="no attribute 'Nothing'"):
        _ = smmf_core.Nothing


# --- plug-ins ---


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder of installed packages; what tests put there is found."""
    monkeypatch.syspath_prepend(tmp_path)
    yield tmp_path
    sys.modules.pop("parrot_plugin", None)
    _forget()


def _forget() -> None:
    plugged.cache_clear()
    plugged_adapters.cache_clear()


def install(folder: Path, *entries: str) -> None:
    (folder / "parrot_plugin.py").write_text(PLUGIN)
    info = folder / "parrot_plugin-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: parrot-plugin\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("\n".join(["[smmf.adapters]", *entries]) + "\n")
    _forget()


@pytest.mark.parametrize("entry", ["Parrot", "a_parrot"])
def test_a_plugged_in_adapter_goes_before_the_built_in_ones(installed: Path, entry: str) -> None:
    install(installed, f"bird = parrot_plugin:{entry}")
    adapter = find_adapter("parrot-vicuna", "", "llama")
    assert adapter.name == "parrot"
    assert adapter.chat_template() == "{{ messages[-1].content }}"
    assert list(adapter.capabilities()) == ["vision"]
    assert find_adapter("x", "", "llama", ["ParrotForCausalLM"]).name == "parrot"
    assert find_adapter("x", "", "llama", wanted="parrot").name == "parrot"
    assert find_adapter("vicuna-7b", "", "llama").name == "vicuna"


def test_a_plug_in_that_is_no_adapter(installed: Path) -> None:
    install(installed, "broken = parrot_plugin:no_adapter")
    with pytest.raises(CannotStart, match=r"broken.*no_adapter.*BaseModelAdapter"):
        find_adapter("vicuna-7b", "")
