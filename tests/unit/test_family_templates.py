"""The built-in families' chat templates: known prompts, wrong orders of roles, thoughts, tools."""

from __future__ import annotations

from typing import Any

import pytest
from family_prompts import CHAT, QUESTION, RENDERED

from smmf_core.adapters import FAMILIES
from smmf_core.config import bundled
from smmf_core.engines.prompt.template import ChatTemplate
from smmf_core.errors import ApiError
from smmf_core.messages import Sampling, Submit

NAMES = sorted(RENDERED)
ONE_AFTER_THE_OTHER = [name for name in NAMES if "take turns" in bundled(
    f"templates/{name}.jinja").read_text()]  # fmt: skip
TOOLS = [{"type": "function", "function": {"name": "add", "parameters": {"type": "object"}}}]
CALL = {
    "role": "assistant",
    "content": None,
    "tool_calls": [{"type": "function", "function": {"name": "add", "arguments": '{"a": 1}'}}],
}


def template(name: str, **tokens: str) -> ChatTemplate:
    source = bundled(f"templates/{name}.jinja").read_text(encoding="utf-8")
    return ChatTemplate({"default": source}, tokens)


def render(name: str, messages: list[dict[str, Any]], **fields: Any) -> str:
    request = Submit(1, 0, "r", "m", True, 1, messages, None, Sampling(), **fields)
    return template(name).render(request)


def test_every_template_is_some_familys_and_has_its_known_prompts() -> None:
    files = {path.stem for path in bundled("templates").glob("*.jinja")}
    assert files == {f.template for f in FAMILIES if f.template} == set(RENDERED)


@pytest.mark.parametrize("name", NAMES)
def test_known_prompts(name: str) -> None:
    assert (render(name, CHAT), render(name, QUESTION)) == RENDERED[name]


@pytest.mark.parametrize("name", NAMES)
def test_an_answer_is_there_without_the_generation_prompt(name: str) -> None:
    answered = [*QUESTION, {"role": "assistant", "content": "Hello!"}]
    text = render(name, answered, add_generation_prompt=False)
    assert "Hello!" in text
    assert len(text) - text.index("Hello!") < 30  # no further turn is opened


@pytest.mark.parametrize("name", NAMES)
def test_a_final_message_can_be_continued(name: str) -> None:
    started = [*QUESTION, {"role": "assistant", "content": "Hello, dear"}]
    assert render(name, started, continue_final_message=True).endswith("Hello, dear")


@pytest.mark.parametrize("name", NAMES)
def test_an_unknown_role_is_refused(name: str) -> None:
    with pytest.raises(ApiError, match=r"take turns|Unknown role"):
        render(name, [*QUESTION, {"role": "critic", "content": "No."}])


@pytest.mark.parametrize("name", ONE_AFTER_THE_OTHER)
@pytest.mark.parametrize("order", ["assistant", "user user", "user system", "user assistant tool"])
def test_turns_in_a_wrong_order_are_refused(name: str, order: str) -> None:
    with pytest.raises(ApiError, match="must take turns"):
        render(name, [{"role": role, "content": "x"} for role in order.split()])


def test_special_tokens_of_the_checkpoint_are_taken() -> None:
    request = Submit(1, 0, "r", "m", True, 1, CHAT[1:], None, Sampling())
    text = template("vicuna", bos_token="[B]", eos_token="[E]").render(request)
    assert text.startswith("[B]A chat")
    assert text.endswith("Hello![E]USER: Bye ASSISTANT:")


@pytest.mark.parametrize("name", ["deepseek-r1", "glm-z1", "qwq", "qwen3"])
def test_earlier_thoughts_are_not_seen(name: str) -> None:
    thought = {"role": "assistant", "content": "<think>\nhm\n</think>\n\nYes."}
    text = render(name, [*QUESTION, thought, {"role": "user", "content": "Bye"}])
    assert "hm" not in text
    assert "Yes." in text


def test_qwen3_sees_thoughts_since_the_question_and_can_do_without() -> None:
    call = {**CALL, "reasoning_content": "hm"}
    text = render("qwen3", [*QUESTION, call, {"role": "tool", "content": "1"}], tools=TOOLS)
    assert "<think>\nhm\n</think>\n\n<tool_call>" in text
    plain = render("qwen3", QUESTION, template_args={"enable_thinking": False})
    assert plain.endswith("<|im_start|>assistant\n<think>\n\n</think>\n\n")


@pytest.mark.parametrize("name", ["qwen2.5", "qwen3", "qwq"])
def test_tools_of_qwen(name: str) -> None:
    results = [{"role": "tool", "content": "1"}, {"role": "tool", "content": "2"}]
    text = render(name, [*CHAT[:2], CALL, *results], tools=TOOLS)
    assert text.startswith("<|im_start|>system\nBe brief.\n\n# Tools\n\n")
    assert '<tools>\n{"type": "function", "function": {"name": "add", ' in text
    call = '<tool_call>\n{"name": "add", "arguments": {"a": 1}}\n</tool_call><|im_end|>\n'
    answers = (
        "<|im_start|>user\n<tool_response>\n1\n</tool_response>\n"
        "<tool_response>\n2\n</tool_response><|im_end|>\n"
    )
    assert call + answers in text


def test_tools_of_llama() -> None:
    text = render("llama-3.1", [*CHAT[:2], CALL, {"role": "tool", "content": "1"}], tools=TOOLS)
    assert "Environment: ipython\nCutting Knowledge Date: December 2023\n" in text
    assert "user<|end_header_id|>\n\nGiven the following functions" in text
    called = 'assistant<|end_header_id|>\n\n{"name": "add", "parameters": {"a": 1}}<|eot_id|>'
    assert f"{called}<|start_header_id|>ipython<|end_header_id|>\n\n1<|eot_id|>" in text
    with pytest.raises(ApiError, match="one tool at a time"):
        render("llama-3.1", [*QUESTION, {**CALL, "tool_calls": CALL["tool_calls"] * 2}])
