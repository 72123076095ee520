"""The prompt side of a model folder: which tokenizer, template and stop tokens it gets."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from model.tiny import BOS, EOS, PAD, make_tokenizer, write_json

from smmf_core.config import Model, ModelConfig, load_raw, resolve
from smmf_core.engines.base import EngineSpec
from smmf_core.engines.prompt.side import PromptSide, load_prompt_side
from smmf_core.errors import ApiError
from smmf_core.messages import Sampling, Submit
from smmf_core.worker.prepare import make_sequences, read_prompts
from smmf_core.worker.reading import Reading

USER = [{"role": "user", "content": "the fox"}]


def make_folder(parent: Path, name: str, *added: str, **config: Any) -> Path:
    folder = parent / name
    folder.mkdir()
    tokenizer = make_tokenizer()
    tokenizer.add_special_tokens(list(added))
    tokenizer.save(str(folder / "tokenizer.json"))
    write_json(folder / "config.json", {"model_type": "llama", "vocab_size": 400, **config})
    write_json(folder / "tokenizer_config.json", {"bos_token": BOS, "eos_token": EOS})
    return folder


def side_of(folder: Path, type_: str = "", **engine: Any) -> PromptSide:
    model = Model(name="m", backend="reference", path=str(folder), type=type_)
    return load_prompt_side(folder, ModelConfig(model, engine=engine))


def prompt(side: PromptSide) -> str:
    assert side.chat_template is not None
    return side.chat_template.render(chat())


def chat(**sampling: Any) -> Submit:
    return Submit(1, 0, "r", "m", True, 2, USER, None, Sampling(**sampling))


def test_the_adapters_template_and_the_folders_tokens(tmp_path: Path) -> None:
    side = side_of(make_folder(tmp_path, "vicuna-7b"))
    assert side.adapter.name == "vicuna"
    assert prompt(side).startswith(f"{BOS}A chat between")
    assert side.capabilities == ["completion", "chat"]
    assert side.tokenizer.vocab_size == 400


def test_the_checkpoints_own_template_goes_before_the_adapters(tmp_path: Path) -> None:
    folder = make_folder(tmp_path, "falcon-7b-instruct", model_type="falcon")
    assert side_of(folder).stop_strings == ["\nUser:"]
    (folder / "chat_template.jinja").write_text("own {{ eos_token }}")
    side = side_of(folder)
    assert prompt(side) == f"own {EOS}"
    assert side.stop_strings == []  # they belong to the adapter's form


def test_the_configured_template_goes_before_all(tmp_path: Path) -> None:
    folder = make_folder(tmp_path, "vicuna-7b")
    (folder / "chat_template.jinja").write_text("own")
    file = tmp_path / "mine.jinja"
    file.write_text("mine {{ bos_token }}")
    assert prompt(side_of(folder, chat_template=str(file))) == f"mine {BOS}"
    with pytest.raises(ValueError, match=r"chat_template cannot be read.*nothing\.jinja"):
        side_of(folder, chat_template=str(tmp_path / "nothing.jinja"))
    file.write_text("{% if %}")
    with pytest.raises(ValueError, match="does not compile"):
        side_of(folder, chat_template=str(file))


def test_a_template_beside_the_models_file(tmp_path: Path) -> None:
    """A relative path is taken beside the TOML; the family's stop strings are not the file's."""
    folder = make_folder(tmp_path, "falcon-7b-instruct", model_type="falcon")
    (tmp_path / "mine.jinja").write_text("mine")
    file = tmp_path / "local-falcon.toml"
    file.write_text(
        '[model]\nname = "f"\nbackend = "reference"\npath = "falcon-7b-instruct"\n'
        '[engine]\nchat_template = "mine.jinja"\n'
    )
    config = resolve(load_raw(str(file))[0])
    side = load_prompt_side(folder, config)
    assert prompt(side) == "mine"
    assert side.stop_strings == []


def test_the_configured_type_chooses_the_adapter(tmp_path: Path) -> None:
    side = side_of(make_folder(tmp_path, "vicuna-7b"), "zephyr")
    assert prompt(side) == f"<|user|>\nthe fox{EOS}\n<|assistant|>\n"


def test_without_any_template_completions_work_and_chat_is_refused(tmp_path: Path) -> None:
    side = side_of(make_folder(tmp_path, "a-base-model"))
    assert side.chat_template is None
    assert side.capabilities == ["completion"]
    spec = EngineSpec(64, side.tokenizer, side.chat_template)
    with pytest.raises(ApiError, match="no chat template") as caught:
        read_prompts(chat(), spec, Reading(spec))
    assert (caught.value.code, caught.value.param) == ("unsupported_value", "messages")
    completion = Submit(1, 0, "r", "m", True, 1, None, ["the fox"], Sampling())
    assert read_prompts(completion, spec, Reading(spec))[0].ids


def test_stop_tokens_of_the_family_that_the_tokenizer_has(tmp_path: Path) -> None:
    folder = make_folder(tmp_path, "Llama-3.1-8B-Instruct", "<|eot_id|>", eos_token_id=2)
    side = side_of(folder)
    tokenizer = side.tokenizer
    stop = tokenizer.token_id("<|eot_id|>")
    assert side.stop_ids == {stop}  # there is no <|eom_id|>
    assert tokenizer.eos_ids == {tokenizer.token_id(EOS), tokenizer.token_id(PAD), stop}


def test_special_tokens_map_fills_what_the_config_leaves_out(tmp_path: Path) -> None:
    folder = make_folder(tmp_path, "vicuna-7b")
    write_json(folder / "tokenizer_config.json", {"eos_token": {"content": EOS}})
    write_json(folder / "special_tokens_map.json", {"bos_token": PAD, "eos_token": PAD})
    side = side_of(folder)
    assert prompt(side).startswith(PAD)
    assert side.tokenizer.eos_ids == {side.tokenizer.token_id(EOS)}


def test_stop_strings_end_chats_only(tmp_path: Path) -> None:
    side = side_of(make_folder(tmp_path, "falcon-7b-instruct", model_type="falcon"))
    spec = EngineSpec(64, side.tokenizer, side.chat_template, stop_strings=side.stop_strings)
    request = chat(stop=["x"])
    sequences = make_sequences(request, read_prompts(request, spec, Reading(spec)), spec, 0)
    assert [sequence.params.stop for sequence in sequences] == [["x", "\nUser:"]] * 2
    completion = Submit(1, 0, "r", "m", True, 1, None, ["the fox"], Sampling(stop=["x"]))
    (sequence,) = make_sequences(completion, read_prompts(completion, spec, Reading(spec)), spec, 0)
    assert sequence.params.stop == ["x"]


TOOLS = [{"type": "function", "function": {"name": "add", "parameters": {"type": "object"}}}]


def formats_with(tmp_path: Path, template: str, name: str = "m", **engine: Any) -> Any:
    tmp_path.mkdir(exist_ok=True)
    folder = make_folder(tmp_path, name)
    (folder / "chat_template.jinja").write_text(template)
    model = Model(name="m", backend="reference", path=str(folder))
    return load_prompt_side(folder, ModelConfig(model=model, engine=engine))


def test_formats_of_calls_and_thoughts(tmp_path: Path) -> None:
    side = side_of(make_folder(tmp_path, "Qwen3-4B", model_type="qwen3"))
    assert side.formats == ("hermes", "qwen3")
    assert side.capabilities == ["completion", "chat", "tools", "reasoning"]
    marked = "{{ tools }}<tool_call>\n{...}</tool_call>"
    escaped = marked.replace("\n", "\\n")
    for number, template in enumerate((escaped, "{{ tools }}[TOOL_CALLS]</think>")):
        found = formats_with(tmp_path / str(number), template)
        assert found.formats == (("hermes", ""), ("mistral", "qwen3"))[number]
        assert "tools" in found.capabilities
    for number, (mark, form) in enumerate((
        ("<tool_call>{name}\n<arg_key>", "glm45"), ("<parameter=example>", "qwen3_coder"),
        ("[func_name1(params_name1", "llama4_pythonic"),
    )):  # fmt: skip
        marks = formats_with(tmp_path / f"mark-{number}", f"{{{{ tools }}}}{mark}")
        assert marks.formats.tools == form
    given = {"tool_format": "phi", "reasoning_format": "none"}
    assert formats_with(tmp_path / "own", "{{ tools }}</think>", **given).formats == ("phi", "")


def test_an_unknown_format_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"^tool_format 'xml' is not known: there are hermes"):
        formats_with(tmp_path, "{{ tools }}", tool_format="xml")


def test_marks_that_are_special_tokens_are_known(tmp_path: Path) -> None:
    tokenizer = side_of(make_folder(tmp_path, "m", "[TOOL_CALLS]")).tokenizer
    spec = EngineSpec(64, tokenizer, None, tool_format="mistral")
    assert Reading(spec).marks == {tokenizer.token_id("[TOOL_CALLS]"): b"[TOOL_CALLS]"}


def test_a_template_without_tools_is_told_of_them_in_words(tmp_path: Path) -> None:
    source = "{% for m in messages %}[{{ m.role }}] {{ m.content }}\n{% endfor %}"
    side = formats_with(tmp_path, source)
    assert side.formats == ("hermes", "")
    assert side.capabilities == ["completion", "chat"]
    assert side.chat_template is not None
    call = {"id": "a", "type": "function", "function": {"name": "add", "arguments": '{"a": 1}'}}
    request = chat()
    request.tools = TOOLS
    request.messages = [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "1 + 1?"},
        {"role": "assistant", "content": "", "tool_calls": [call, call]},
        {"role": "tool", "tool_call_id": "a", "content": "2"},
        {"role": "tool", "tool_call_id": "a", "content": "2"},
    ]
    text = side.chat_template.render(request)
    assert text.startswith("[system] Be brief.\n[user] You can call these functions:\n")
    assert json.dumps(TOOLS[0]["function"]) in text
    said = '<tool_call>\n{"name": "add", "arguments": {"a": 1}}\n</tool_call>'
    heard = "<tool_response>\n2\n</tool_response>"
    assert text.endswith(f"\n\n1 + 1?\n[assistant] {said}\n{said}\n[user] {heard}\n{heard}\n")
    assert request.messages[1]["content"] == "1 + 1?"


def test_no_tokenizer_at_all(tmp_path: Path) -> None:
    folder = make_folder(tmp_path, "m")
    (folder / "tokenizer.json").unlink()
    with pytest.raises(FileNotFoundError, match="the model has no tokenizer"):
        side_of(folder)
