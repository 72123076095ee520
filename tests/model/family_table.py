"""Every family of the mission: its tiny model, and README's table of how each runs.

`python tests/model/family_table.py` writes the table into README.md.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from family_models import TinyModel
from legacy_models import LEGACY

README = Path(__file__).parents[2] / "README.md"
_START, _END = "<!-- families:table -->", "<!-- families:end -->"

_S = ("<s>", "</s>")
_IM = ("<|im_start|>", "<|im_end|>")
_QWEN = ("<|endoftext|>", *_IM)
_LLAMA3 = (
    "<|begin_of_text|>", "<|end_of_text|>",
    "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>",
)  # fmt: skip
_DEEPSEEK = (
    "<\uff5cbegin\u2581of\u2581sentence\uff5c>", "<\uff5cend\u2581of\u2581sentence\uff5c>",
    "<\uff5cUser\uff5c>", "<\uff5cAssistant\uff5c>",
)  # fmt: skip
_GLM = (
    "[gMASK]", "<|endoftext|>", "<sop>", "<|system|>", "<|user|>", "<|assistant|>",
    "<|observation|>",
)  # fmt: skip
_GEMMA = ("<bos>", "<eos>", "<start_of_turn>", "<end_of_turn>")

NATIVE = (
    TinyModel("Vicuna", "vicuna-7b-v1.5", "llama", _S, "vicuna", "pieces"),
    TinyModel("Llama 2", "Llama-2-7b-chat-hf", "llama", _S, "llama-2", "pieces"),
    TinyModel("Llama 3", "Meta-Llama-3-8B-Instruct", "llama", _LLAMA3, "llama-3"),
    TinyModel(
        "Llama 3.1", "Llama-3.1-8B-Instruct", "llama", _LLAMA3, "llama-3.1",
        changes={
            "rope_scaling": {
                "rope_type": "llama3", "rope_theta": 500000.0, "factor": 8.0,
                "low_freq_factor": 1.0, "high_freq_factor": 4.0,
                "original_max_position_embeddings": 64,
            }
        },
    ),
    TinyModel("GLM-4", "glm-4-9b-chat-hf", "glm", _GLM, "glm-4"),
    TinyModel("GLM-4-0414", "GLM-4-9B-0414", "glm4", _GLM, "glm-4"),
    TinyModel("GLM-Z1", "GLM-Z1-9B-0414", "glm4", _GLM, "glm-z1"),
    TinyModel("Falcon", "falcon-40b-instruct", "falcon", ("<|endoftext|>",) * 2, "falcon"),
    TinyModel(
        "Falcon 7B", "falcon-7b-instruct", "falcon", ("<|endoftext|>",) * 2, "falcon",
        changes={"new_decoder_architecture": False, "multi_query": True, "parallel_attn": True},
    ),
    TinyModel("Qwen 1.5", "Qwen1.5-0.5B-Chat", "qwen2", _QWEN, "qwen2"),
    TinyModel("Qwen 2.5", "Qwen2.5-7B-Instruct", "qwen2", _QWEN, "qwen2.5"),
    TinyModel("Qwen 2.5 Coder", "Qwen2.5-Coder-7B-Instruct", "qwen2", _QWEN, "qwen2.5"),
    TinyModel("Qwen 3", "Qwen3-8B", "qwen3", _QWEN, "qwen3"),
    TinyModel("Qwen 3 MoE", "Qwen3-30B-A3B", "qwen3_moe", _QWEN, "qwen3"),
    TinyModel("QwQ", "QwQ-32B", "qwen2", _QWEN, "qwq"),
    TinyModel("WizardLM", "WizardLM-13B-V1.2", "llama", _S, "wizardlm", "pieces"),
    TinyModel("WizardCoder", "WizardCoder-Python-7B-V1.0", "llama", _S, "wizardcoder", "pieces"),
    TinyModel("Orca 2", "Orca-2-7b", "llama", (*_S, *_IM), "orca-2", "pieces"),
    TinyModel(
        "OpenChat", "openchat_3.5", "mistral", (*_S, "<|end_of_turn|>"), "openchat-3.5", "pieces"
    ),
    TinyModel("Zephyr", "zephyr-7b-beta", "mistral", _S, "zephyr", "pieces"),
    TinyModel("Mistral", "Mistral-7B-Instruct-v0.2", "mistral", _S, "mistral", "pieces"),
    TinyModel(
        "Mistral 0.3", "Mistral-7B-Instruct-v0.3", "mistral",
        (*_S, "[INST]", "[/INST]"), "mistral-v3", "pieces", {"sliding_window": None},
    ),
    TinyModel("Mixtral", "Mixtral-8x7B-Instruct-v0.1", "mixtral", _S, "mixtral", "pieces"),
    TinyModel("Yi", "Yi-6B-Chat", "llama", ("<|startoftext|>", "<|endoftext|>", *_IM), "yi"),
    TinyModel(
        "Yi 1.5", "Yi-1.5-6B-Chat", "llama", ("<|startoftext|>", "<|endoftext|>", *_IM), "yi-1.5"
    ),
    TinyModel("Gemma 1", "gemma-1.1-2b-it", "gemma", _GEMMA, "gemma", "pieces"),
    TinyModel("Gemma 2", "gemma-2-2b-it", "gemma2", _GEMMA, "gemma", "pieces"),
    TinyModel(
        "Phi-3", "Phi-3-mini-4k-instruct", "phi3",
        ("<s>", "<|endoftext|>", "<|system|>", "<|user|>", "<|assistant|>", "<|end|>"),
        "phi-3", "pieces",
    ),
    TinyModel("DeepSeek LLM", "deepseek-llm-7b-chat", "llama", _DEEPSEEK, "deepseek"),
    TinyModel(
        "DeepSeek Coder", "deepseek-coder-6.7b-instruct", "llama", (*_DEEPSEEK, "<|EOT|>"),
        "deepseek-coder",
    ),
    TinyModel("DeepSeek V2", "DeepSeek-V2-Lite-Chat", "deepseek_v2", _DEEPSEEK, "deepseek-v2"),
    TinyModel(
        "DeepSeek Coder V2", "DeepSeek-Coder-V2-Lite-Instruct", "deepseek_v2", _DEEPSEEK,
        "deepseek-v2", changes={"q_lora_rank": None, "topk_method": "greedy"},
    ),
    TinyModel("DeepSeek V3", "DeepSeek-V3", "deepseek_v3", _DEEPSEEK, "deepseek-v3"),
    TinyModel("DeepSeek R1", "DeepSeek-R1", "deepseek_v3", _DEEPSEEK, "deepseek-r1"),
    TinyModel(
        "DeepSeek R1 distilled", "DeepSeek-R1-Distill-Qwen-7B", "qwen2", _DEEPSEEK, "deepseek-r1"
    ),
)  # fmt: skip

OWN_CLASSES = (
    ("Baichuan 2 13B", "Baichuan2-13B-Chat", "baichuan2", "`llama` with attention by distance"),
    ("ChatGLM 1", "chatglm-6b", "chatglm", "own class, row by row"),
)


def table() -> str:
    """README's table, in Markdown."""
    lines = ["| family | checkpoint such as | chat format | runs as |", "|---|---|---|---|"]
    lines += [f"| {' | '.join(row)} |" for row in sorted(_rows(), key=lambda row: row[0].lower())]
    return "\n".join(lines)


def _rows() -> Iterator[tuple[str, str, str, str]]:
    for tiny in NATIVE:
        runs = f"`{tiny.architecture}` of transformers"
        yield tiny.family, tiny.checkpoint, f"`{tiny.adapter}`", runs
    for legacy in LEGACY:
        runs = f"`{legacy.native().model_type}` of transformers, from the files as published"
        yield legacy.family, legacy.checkpoint, f"`{legacy.adapter}`", runs
    for family, checkpoint, adapter, runs in OWN_CLASSES:
        yield family, checkpoint, f"`{adapter}`", f"{runs}, from the files as published"


def read() -> str:
    """The table that README.md has now."""
    return README.read_text(encoding="utf-8").partition(_START)[2].partition(_END)[0].strip()


def write() -> None:
    before, _, rest = README.read_text(encoding="utf-8").partition(_START)
    after = rest.partition(_END)[2]
    README.write_text(f"{before}{_START}\n{table()}\n{_END}{after}", encoding="utf-8")


if __name__ == "__main__":
    write()
