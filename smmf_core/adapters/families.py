"""The model families that are built in, as data: how each is recognised, prompted and stopped.

Owns the table; the templates are files of `configs/templates`. Formats are those of the families'
model cards and of the code that was published with them.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from smmf_core.adapters.base import BaseModelAdapter
from smmf_core.config import bundled

_LLAMA, _MISTRAL = ("llama",), ("mistral",)
_QWEN2 = ("qwen2", "qwen2_moe", "qwen2moe")  # the last as GGUF has it, as others below
_QWEN3 = ("qwen3", "qwen3_moe", "qwen3moe")
_DEEPSEEK = ("deepseek", "deepseek_v2", "deepseek_v3", "deepseek2")
_GLM = ("chatglm", "glm", "glm4")
_IM_END = ("<|im_end|>",)
_DEEPSEEK_END = ("<\uff5cend\u2581of\u2581sentence\uff5c>",)
_GLM_END = ("<|user|>", "<|observation|>", "<|endoftext|>")
_QWEN3_NEXT = (*_QWEN3, "qwen3_next")


@dataclass(frozen=True)
class Family(BaseModelAdapter):
    """A built-in family.

    It is for a model whose name or file name matches `names`, if its model type is among `types`
    or unknown. Without `names`, the type alone decides.
    """

    name: str = ""
    template: str = ""  # in configs/templates, without ".jinja"; "": all checkpoints bring one
    names: str = ""  # regular expression over the names in lower case, "-" for "_" and spaces
    types: tuple[str, ...] = ()  # none: any
    end: tuple[str, ...] = ()
    end_text: tuple[str, ...] = ()
    tools: str = ""
    thoughts: str = ""

    def matches(self, name: str, path: str, model_type: str, architectures: Sequence[str]) -> bool:
        if path.endswith(".gguf") and model_type == "llama":
            model_type = ""  # such files say so of Mistral and Mixtral, too
        if not self.names:
            return model_type in self.types
        if self.types and model_type and model_type not in self.types:
            return False
        file_name = path.rstrip("/").rpartition("/")[2]
        return any(re.search(self.names, _plain(given)) for given in (name, file_name))

    def chat_template(self) -> str | None:
        if not self.template:
            return None
        return bundled(f"templates/{self.template}.jinja").read_text(encoding="utf-8")

    def stop_tokens(self) -> Sequence[str]:
        return self.end

    def stop_strings(self) -> Sequence[str]:
        return self.end_text

    def tool_format(self) -> str:
        return self.tools

    def reasoning_format(self) -> str:
        return self.thoughts


def _plain(name: str) -> str:
    return re.sub(r"[_\s]", "-", name.lower())


# In the order in which they are tried: what is named after two families stands with the first.
FAMILIES = (
    # --- fine-tunes that carry another family's name ---
    Family(
        "deepseek-r1", "deepseek-r1", "deepseek-?r1",
        (*_DEEPSEEK, "llama", "qwen2", "qwen3"), _DEEPSEEK_END,
        tools="deepseek_v3", thoughts="deepseek_r1",
    ),
    Family(
        "deepseek-v3", "deepseek-v3", r"deepseek-?v(3|2\.5)", _DEEPSEEK, _DEEPSEEK_END,
        tools="deepseek_v3",
    ),
    Family(
        "deepseek-v2", "deepseek", r"deepseek-(coder-)?v2.*(chat|instruct)", _DEEPSEEK,
        _DEEPSEEK_END,
    ),
    Family(
        "deepseek-coder", "deepseek-coder", r"deepseek-coder.*instruct", _LLAMA,
        ("<|EOT|>", *_DEEPSEEK_END),
    ),
    Family("deepseek", "deepseek", r"deepseek.*chat", ("llama", *_DEEPSEEK), _DEEPSEEK_END),
    Family(
        "wizardcoder", "alpaca", r"wizard-?(coder|math)", end=("</s>", "<|endoftext|>"),
        end_text=("\n\n### Instruction:",),
    ),
    Family("wizardlm", "vicuna", r"wizard-?lm", ("llama", "mistral", "mixtral"), ("</s>",)),
    Family("vicuna", "vicuna", "vicuna", _LLAMA, ("</s>",)),
    Family("orca-2", "orca-2", "orca-?2", _LLAMA, _IM_END),
    Family(
        "openchat-3.5", "openchat-3.5", r"openchat.?3[.-]5|starling-lm", _MISTRAL,
        ("<|end_of_turn|>",),
    ),
    Family("zephyr", "zephyr", "zephyr", ("mistral", "stablelm"), ("</s>", "<|endoftext|>")),
    # --- Qwen ---
    Family("qwq", "qwq", r"\bqwq", _QWEN2, _IM_END, tools="hermes", thoughts="deepseek_r1"),
    Family(
        "qwen3-coder", "", "qwen-?3-coder", _QWEN3_NEXT, _IM_END, tools="qwen3_coder",
    ),
    Family(
        "qwen3", "qwen3", "", _QWEN3, _IM_END, tools="hermes", thoughts="qwen3"
    ),
    Family("qwen2.5", "qwen2.5", r"qwen-?2\.5", _QWEN2, _IM_END, tools="hermes"),
    Family("qwen2", "qwen", r"qwen", _QWEN2, _IM_END),
    Family("qwen", "qwen", "", ("qwen",), (*_IM_END, "<|endoftext|>")),
    # --- Yi, InternLM, Baichuan ---
    Family("yi-1.5", "yi-1.5", r"\byi-1\.5.*chat", _LLAMA, _IM_END),
    Family("yi", "chatml", r"\byi-.*chat", _LLAMA, _IM_END),
    Family(
        "internlm2", "internlm2", "", ("internlm2", "internlm3"), _IM_END, tools="internlm"
    ),
    Family("internlm", "internlm", "", ("internlm",), ("<eoa>",)),
    Family("baichuan2", "baichuan2", "baichuan-?2.*chat", ("baichuan",), ("</s>",)),
    Family("baichuan", "baichuan", "baichuan-.*chat", ("baichuan",), ("</s>",)),
    # --- GLM ---
    Family(
        "glm-z1", "glm-z1", "glm-(4-)?z1", _GLM, _GLM_END, tools="glm4", thoughts="deepseek_r1"
    ),
    Family(
        "glm-4.5", "", "", ("glm4_moe", "glm4moe"), _GLM_END, tools="glm45", thoughts="qwen3"
    ),
    Family("glm-4", "glm-4", "glm-?4.*(chat|0414)|codegeex4", _GLM, _GLM_END, tools="glm4"),
    Family("chatglm3", "chatglm3", "chatglm-?3", _GLM, ("<|user|>", "<|observation|>", "</s>")),
    Family("chatglm2", "chatglm2", "chatglm-?2", _GLM, ("</s>",)),
    Family("chatglm", "chatglm", "chatglm-6b", _GLM, ("<eop>",)),
    # --- the rest ---
    Family(
        "falcon-chat", "falcon-chat", "falcon.*chat", ("falcon", "RefinedWeb"),
        ("<|endoftext|>",), ("\nUser:",),
    ),
    Family(
        "falcon", "falcon", "falcon.*instruct", ("falcon", "RefinedWeb", "RefinedWebModel"),
        ("<|endoftext|>",), ("\nUser:",),
    ),
    Family("gemma", "gemma", r"gemma.*-it\b", ("gemma", "gemma2"), ("<end_of_turn>",)),
    Family("phi-3", "phi-3", "phi-?3", ("phi3", "phimoe"), ("<|end|>",)),
    Family(
        "mistral-v3", "mistral-v3", r"mistral-7b-instruct-v0\.3|mixtral-8x22b-instruct",
        ("mistral", "mixtral"), ("</s>",), tools="mistral",
    ),
    Family("mixtral", "mistral", "mixtral.*instruct", ("mixtral",), ("</s>",)),
    Family("mistral", "mistral", "mistral.*instruct", _MISTRAL, ("</s>",)),
    Family(
        "llama-4", "", "", ("llama4",), ("<|eot|>", "<|eom|>"), tools="llama4_pythonic"
    ),
    Family(
        "llama-3.1", "llama-3.1", r"llama-?3\.[123].*instruct", _LLAMA,
        ("<|eot_id|>", "<|eom_id|>"), tools="llama3_json",
    ),
    Family("llama-3", "llama-3", "llama-?3.*instruct", _LLAMA, ("<|eot_id|>",)),
    Family(
        "llama-2", "llama-2", "llama-?2.*chat|codellama.*instruct", _LLAMA, ("</s>",)
    ),
)  # fmt: skip
