"""Everything about prompts and ends of answers of one Hugging Face folder, for all its engines.

Owns which tokenizer, which chat template and which stop tokens a model gets; must not load weights.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from smmf_core.adapters import BaseModelAdapter, find_adapter
from smmf_core.config import ModelConfig
from smmf_core.engines.prompt.slow_tokenizer import FolderTokenizer, load_slow_tokenizer
from smmf_core.engines.prompt.template import ChatTemplate, load_chat_template
from smmf_core.engines.prompt.text import load_tokenizer, read_json, special_tokens
from smmf_core.engines.prompt.told_tools import FORM
from smmf_core.worker.parse import FORMATS, MARKS

NO_FORMAT = "none"  # as `[engine]` says it
_TOOL_MARKS = (
    ("<arg_key>", "glm45"),
    ("<parameter=", "qwen3_coder"),
    ("[func_name1(", "llama4_pythonic"),
    ("<tool_call>\\n{", "hermes"),
    ('<tool_call>{"name"', "hermes"),
    ("[TOOL_CALLS]", "mistral"),
    ("<|python_tag|>", "llama3_json"),
    ("<\uff5ctool\u2581calls\u2581begin\uff5c>", "deepseek_v3"),
    ("<|action_start|>", "internlm"),
    ("<|tool_call|>", "phi"),
)
_THOUGHT_MARKS = (("</think>", "qwen3"),)


class Formats(NamedTuple):
    """How a model writes calls of tools, and its thoughts; "": it does not (worker.parse)."""

    tools: str
    thoughts: str


@dataclass(slots=True)
class PromptSide:
    """`stop_ids` are those of the adapter; the tokenizer's `eos_ids` hold them, too."""

    tokenizer: FolderTokenizer
    chat_template: ChatTemplate | None
    stop_ids: frozenset[int]
    stop_strings: list[str]
    capabilities: list[str]
    adapter: BaseModelAdapter
    formats: Formats
    wrap_up_after: int = 0  # grammar.wrap_up


def load_prompt_side(folder: Path, config: ModelConfig) -> PromptSide:
    """Raises FileNotFoundError for a folder without a tokenizer or a missing template file,
    ValueError for files that cannot be used, each in one sentence."""
    model = read_json(folder / "config.json")
    model_type = str(model.get("model_type") or "")
    adapter = adapter_of(config, model_type, model.get("architectures"))
    sizes = {**(model.get("text_config") or {}), **model}  # of a vision model's text part
    vocab_size = sizes.get("padded_vocab_size") or sizes.get("vocab_size") or 0
    if (folder / "tokenizer.json").is_file():
        tokenizer: FolderTokenizer = load_tokenizer(folder, vocab_size)
        tokens: dict[str, str] = {}
    else:
        trusts = bool(config.engine.get("trust_remote_code"))
        tokenizer, tokens = load_slow_tokenizer(folder, vocab_size, trusts, model_type)
    own = load_chat_template(folder, tokens)
    template = choose_template(config, own, adapter, {**tokens, **special_tokens(folder)})
    formats = formats_of(config, template, adapter)
    stop_ids = stop_ids_of(tokenizer, adapter)
    tokenizer.eos_ids |= stop_ids
    return PromptSide(
        tokenizer,
        template,
        stop_ids,
        stop_strings_of(config, own, adapter),
        capabilities_of(template, adapter, formats),
        adapter,
        formats,
        int(read_json(folder / "generation_config.json").get("wrap_up_after") or 0),
    )


def adapter_of(config: ModelConfig, model_type: str, architectures: Any) -> BaseModelAdapter:
    """The adapter of a configured model, by its files' words for its architecture."""
    model = config.model
    return find_adapter(model.name, model.path, model_type, architectures or [], model.type)


def choose_template(
    config: ModelConfig,
    own: ChatTemplate | None,
    adapter: BaseModelAdapter,
    tokens: dict[str, str],
) -> ChatTemplate | None:
    """1. The file of `[engine] chat_template`. 2. The checkpoint's own. 3. The adapter's."""
    if file := config.engine.get("chat_template"):
        try:
            source = Path(file).expanduser().read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise ValueError(f"[engine] chat_template cannot be read: {error}") from None
        return ChatTemplate({"default": source}, tokens)
    if own is not None:
        return own
    text = adapter.chat_template()
    return None if text is None else ChatTemplate({"default": text}, tokens)


def stop_strings_of(
    config: ModelConfig, own: ChatTemplate | None, adapter: BaseModelAdapter
) -> list[str]:
    """The adapter's, with the adapter's template: they belong to its form."""
    is_adapters = own is None and not config.engine.get("chat_template")
    return list(adapter.stop_strings()) if is_adapters else []


def stop_ids_of(tokenizer: FolderTokenizer, adapter: BaseModelAdapter) -> frozenset[int]:
    """The ids of the adapter's stop tokens that this tokenizer has."""
    ids = map(tokenizer.token_id, adapter.stop_tokens())
    return frozenset(id_ for id_ in ids if id_ is not None)


def formats_of(
    config: ModelConfig, template: ChatTemplate | None, adapter: BaseModelAdapter
) -> Formats:
    """1. What `[engine]` says. 2. Of a template without tools, how they are told instead. 3. What
    the adapter says. 4. What the template's marks tell. Raises ValueError for an unknown one."""
    source = template.source if template is not None else ""
    is_told = template is not None and not template.shows_tools
    tools = config.engine.get("tool_format") or (FORM if is_told else adapter.tool_format())
    thoughts = config.engine.get("reasoning_format") or adapter.reasoning_format()
    tools = tools or next((name for mark, name in _TOOL_MARKS if mark in source), "")
    thoughts = thoughts or next((name for mark, name in _THOUGHT_MARKS if mark in source), "")
    for key, name, known in (
        ("tool_format", tools, FORMATS),
        ("reasoning_format", thoughts, MARKS),
    ):
        if name and name != NO_FORMAT and name not in known:
            raise ValueError(f"{key} {name!r} is not known: there are {', '.join(known)}.")
    return Formats(*("" if name == NO_FORMAT else name for name in (tools, thoughts)))


def capabilities_of(
    template: ChatTemplate | None, adapter: BaseModelAdapter, formats: Formats
) -> list[str]:
    found = ["completion"]
    if template is not None:
        found.append("chat")
        found += ["tools"] if formats.tools and template.shows_tools else []
        found += ["reasoning"] if formats.thoughts else []
    return [*found, *adapter.capabilities()]
