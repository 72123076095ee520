"""The demo model's files: size, type, shapes, tokenizer and chat template; no engine is needed."""

import json
import struct
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jinja2.sandbox import ImmutableSandboxedEnvironment
from tokenizers import Tokenizer

FOLDER = Path(__file__).parents[2] / "configs" / "demo"
MODEL_BYTES_MAX = 10_000_000
PARAMETERS_MAX = 5_000_000
CONTEXT_MIN = 1024
WEATHER = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "It's <fine>.",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}},
    },
}
WEATHER_LINE = (
    '{"name": "get_weather", "description": "It\'s <fine>.", '
    '"parameters": {"type": "object", "properties": {"city": {"type": "string"}}}}'
)
TOOL_BLOCK = (
    f"Tools:\n<tools>\n{WEATHER_LINE}\n</tools>\n"
    'To call a tool, answer <tool_call>{"name": ..., "arguments": {...}}</tool_call>'
)
CALL = {
    "id": "call_0",
    "type": "function",
    "function": {"name": "get_weather", "arguments": '{"city": "Paris"}'},
}
CALL_TEXT = '<tool_call>{"name": "get_weather", "arguments": {"city": "Paris"}}</tool_call>'


def read_json(name: str) -> dict[str, Any]:
    return json.loads((FOLDER / name).read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return Tokenizer.from_file(str(FOLDER / "tokenizer.json"))


@pytest.fixture(scope="module")
def tensors() -> dict[str, dict[str, Any]]:
    """The header of the weights: name -> dtype and shape."""
    with (FOLDER / "model.safetensors").open("rb") as file:
        (size,) = struct.unpack("<Q", file.read(8))
        header = json.loads(file.read(size))
    header.pop("__metadata__", None)
    return header


def render(messages: list[dict[str, Any]], prompt: bool = True, **variables: Any) -> str:
    environment = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True)
    environment.filters["tojson"] = lambda value: json.dumps(value, ensure_ascii=False)
    config = read_json("tokenizer_config.json")
    template = environment.from_string(config["chat_template"])
    names = {key: config[key] for key in ("bos_token", "eos_token")}
    return template.render(messages=messages, add_generation_prompt=prompt, **names, **variables)


def said(role: str, content: Any) -> dict[str, Any]:
    return {"role": role, "content": content}


def test_weights_are_small_and_float16(tensors: dict[str, dict[str, Any]]) -> None:
    assert (FOLDER / "model.safetensors").stat().st_size < MODEL_BYTES_MAX
    assert {tensor["dtype"] for tensor in tensors.values()} == {"F16"}


def test_weights_have_the_shapes_of_the_config(tensors: dict[str, dict[str, Any]]) -> None:
    config = read_json("config.json")
    hidden, inner = config["hidden_size"], config["intermediate_size"]
    keys = config["num_key_value_heads"] * config["head_dim"]
    layer = {
        "input_layernorm": [hidden],
        "post_attention_layernorm": [hidden],
        "self_attn.q_proj": [config["num_attention_heads"] * config["head_dim"], hidden],
        "self_attn.k_proj": [keys, hidden],
        "self_attn.v_proj": [keys, hidden],
        "self_attn.o_proj": [hidden, config["num_attention_heads"] * config["head_dim"]],
        "mlp.gate_proj": [inner, hidden],
        "mlp.up_proj": [inner, hidden],
        "mlp.down_proj": [hidden, inner],
    }
    expected = {
        f"model.layers.{i}.{name}.weight": shape
        for i in range(config["num_hidden_layers"])
        for name, shape in layer.items()
    }
    expected["model.embed_tokens.weight"] = [config["vocab_size"], hidden]
    expected["model.norm.weight"] = [hidden]
    assert {name: tensor["shape"] for name, tensor in tensors.items()} == expected
    assert sum(_size(tensor["shape"]) for tensor in tensors.values()) < PARAMETERS_MAX


def _size(shape: list[int]) -> int:
    size = 1
    for length in shape:
        size *= length
    return size


def test_config_is_a_tied_llama_with_a_long_enough_context() -> None:
    config = read_json("config.json")
    assert config["architectures"] == ["LlamaForCausalLM"]
    assert config["tie_word_embeddings"] is True
    assert config["max_position_embeddings"] >= CONTEXT_MIN


def test_token_ids_agree_between_the_files(tokenizer: Tokenizer) -> None:
    config, words = read_json("config.json"), read_json("tokenizer_config.json")
    assert tokenizer.get_vocab_size() == config["vocab_size"]
    assert tokenizer.token_to_id(words["bos_token"]) == config["bos_token_id"]
    assert tokenizer.token_to_id(words["eos_token"]) == config["eos_token_id"]
    assert tokenizer.token_to_id(words["pad_token"]) == config["pad_token_id"]
    assert read_json("generation_config.json")["eos_token_id"] == [config["eos_token_id"]]


@given(st.text())
@settings(deadline=None)
def test_any_text_survives_the_tokenizer(text: str) -> None:
    tokenizer = Tokenizer.from_file(str(FOLDER / "tokenizer.json"))
    ids = tokenizer.encode(text, add_special_tokens=False).ids
    assert tokenizer.decode(ids, skip_special_tokens=False) == text


def test_each_digit_is_a_token(tokenizer: Tokenizer) -> None:
    assert tokenizer.encode("x 4821", add_special_tokens=False).tokens[-4:] == list("4821")


def test_bos_is_added_to_plain_text_only_on_demand(tokenizer: Tokenizer) -> None:
    with_bos = tokenizer.encode("Hello").ids
    assert with_bos == [0, *tokenizer.encode("Hello", add_special_tokens=False).ids]


def test_role_marks_are_single_tokens(tokenizer: Tokenizer) -> None:
    text = render([said("user", "Hi")])
    tokens = tokenizer.encode(text, add_special_tokens=False).tokens
    assert tokens == ["<|bos|>", "<|user|>", "H", "i", "<|end|>", "<|assistant|>"] or tokens == [
        "<|bos|>", "<|user|>", "Hi", "<|end|>", "<|assistant|>"
    ]  # fmt: skip


def test_template_plain_conversation() -> None:
    messages = [said("user", "Hi"), said("assistant", "Hello!"), said("user", "Bye")]
    turns = "<|user|>Hi<|end|><|assistant|>Hello!<|end|><|user|>Bye<|end|>"
    assert render(messages) == f"<|bos|>{turns}<|assistant|>"
    assert render(messages, prompt=False) == f"<|bos|>{turns}"


def test_template_system_messages() -> None:
    messages = [said("system", "Be brief."), said("system", "Be kind."), said("user", "Hi")]
    expected = (
        "<|bos|><|system|>Be brief.<|end|><|system|>Be kind.<|end|><|user|>Hi<|end|><|assistant|>"
    )
    assert render(messages) == expected


def test_template_joins_text_parts() -> None:
    parts = [{"type": "text", "text": "Hel"}, {"type": "text", "text": "lo"}]
    assert render([said("user", parts)]) == "<|bos|><|user|>Hello<|end|><|assistant|>"


@pytest.mark.parametrize("tool", [WEATHER, WEATHER["function"]])
def test_template_tools_without_system(tool: dict[str, Any]) -> None:
    expected = f"<|bos|><|system|>{TOOL_BLOCK}<|end|><|user|>Hi<|end|><|assistant|>"
    assert render([said("user", "Hi")], tools=[tool]) == expected


def test_template_tools_follow_the_first_system_message() -> None:
    messages = [said("system", "Be brief."), said("system", "Be kind."), said("user", "Hi")]
    expected = (
        f"<|bos|><|system|>Be brief.\n\n{TOOL_BLOCK}<|end|><|system|>Be kind.<|end|>"
        "<|user|>Hi<|end|><|assistant|>"
    )
    assert render(messages, tools=[WEATHER]) == expected


def test_template_calls_and_results() -> None:
    other = {"id": "call_1", "type": "function", "function": {"name": "f", "arguments": {"a": 1}}}
    messages = [
        said("user", "Hi"),
        {"role": "assistant", "content": None, "tool_calls": [CALL, other]},
        {"role": "tool", "tool_call_id": "call_0", "content": "21 degrees"},
        {"role": "tool", "tool_call_id": "call_1", "content": "ok"},
    ]
    expected = (
        f"<|bos|><|user|>Hi<|end|><|assistant|>{CALL_TEXT}\n"
        '<tool_call>{"name": "f", "arguments": {"a": 1}}</tool_call><|end|>'
        "<|tool|><tool_response>21 degrees</tool_response><|end|>"
        "<|tool|><tool_response>ok</tool_response><|end|><|assistant|>"
    )
    assert render(messages) == expected


def test_template_text_before_a_call() -> None:
    message = {"role": "assistant", "content": "One moment.", "tool_calls": [CALL]}
    assert render([message], prompt=False) == f"<|bos|><|assistant|>One moment.\n{CALL_TEXT}<|end|>"
