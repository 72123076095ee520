"""Images in prompts: what a template is given, by what it does with texts and with parts."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from byte_tokens import Bytes

from smmf_core.engines.base import EngineSpec
from smmf_core.engines.prompt.template import ChatTemplate, load_chat_template
from smmf_core.errors import ApiError
from smmf_core.messages import Image, Sampling, Submit, Tokenize
from smmf_core.worker.contract import Tally
from smmf_core.worker.prepare import make_sequences, read_prompts
from smmf_core.worker.reading import Reading
from smmf_core.worker.tokens import answer

PARTS = (
    "{% for m in messages %}<{{ m.role }}>{% for part in m.content %}"
    "{% if part.type == 'image' %}[IMG]{% elif part.type == 'text' %}{{ part.text }}{% endif %}"
    "{% endfor %}{% endfor %}"
)
BOTH = (
    "{% for m in messages %}<{{ m.role }}>{% if m.content is string %}{{ m.content | trim }}"
    "{% else %}{% for part in m.content %}{% if part['type'] == 'image' or 'image' in part %}"
    "[IMG]{% else %}{{ part['text'] }}{% endif %}{% endfor %}{% endif %}{% endfor %}"
)
TEXTS = "{% for m in messages %}<{{ m.role }}>{{ m.content }}{% endfor %}"
STRICT = (
    "{% for m in messages %}{% if m.content is not string %}"
    "{{ raise_exception('texts only') }}{% endif %}<{{ m.role }}>{{ m.content }}{% endfor %}"
)
SHOWN = {
    "role": "user",
    "content": [{"type": "text", "text": "see"}, {"type": "image"}, {"type": "image"}],
}
SAID = {"role": "assistant", "content": " I do "}


def render(source: str, *messages: dict[str, Any], mark: Any = None, **fields: Any) -> str:
    template = ChatTemplate({"default": source}, {})
    template.image_mark = mark
    return template.render(submit(*messages, **fields))


def submit(*messages: dict[str, Any], **fields: Any) -> Submit:
    return Submit(1, 0, "r", "m", True, 1, list(messages), None, Sampling(), **fields)


def test_a_template_of_parts_gets_all_contents_as_parts() -> None:
    assert render(PARTS, SHOWN, SAID) == "<user>see[IMG][IMG]<assistant> I do "
    assert render(PARTS, SAID) == "<assistant> I do "
    assert render(PARTS, {"role": "assistant", "content": ""}) == "<assistant>"


def test_a_template_of_both_keeps_texts_as_they_are() -> None:
    assert render(BOTH, SHOWN, SAID) == "<user>see[IMG][IMG]<assistant>I do"


@pytest.mark.parametrize("source", [TEXTS, STRICT])
def test_a_template_of_texts_gets_marks(source: str) -> None:
    assert render(source, SAID) == "<assistant> I do "
    prompt = render(source, SHOWN, SAID, SHOWN, mark=lambda number: f"<|image_{number}|>")
    first, second = "see\n<|image_1|>\n<|image_2|>", "see\n<|image_3|>\n<|image_4|>"
    assert prompt == f"<user>{first}<assistant> I do <user>{second}"


@pytest.mark.parametrize("mark", [None, lambda number: None])
def test_or_a_refusal_where_there_are_none(mark: Any) -> None:
    with pytest.raises(ApiError, match="no place for images"):
        render(TEXTS, SHOWN, mark=mark)


def test_an_answer_is_continued() -> None:
    assert render(PARTS, SHOWN, SAID, continue_final_message=True).endswith("<assistant> I do ")


def test_tools_are_told_beside_images() -> None:
    tools = [{"type": "function", "function": {"name": "look"}}]
    call = {"function": {"name": "look", "arguments": "{}"}}
    found = [{"type": "text", "text": "here"}, {"type": "image"}]
    prompt = render(
        PARTS,
        SHOWN,
        {"role": "assistant", "content": "", "tool_calls": [call]},
        {"role": "tool", "content": found},
        {"role": "tool", "content": "and"},
        tools=tools,
    )
    assert prompt.startswith("<user>You can call these functions")
    assert "see[IMG][IMG]<assistant><tool_call>" in prompt
    results = (
        "<user><tool_response>\nhere[IMG]\n</tool_response>\n<tool_response>\nand\n</tool_response>"
    )
    assert prompt.endswith(results)


@pytest.mark.parametrize("name", ["chat_template.json", "processor_config.json"])
def test_the_template_of_a_model_that_sees_is_its_processors(tmp_path: Path, name: str) -> None:
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"chat_template": TEXTS}))
    (tmp_path / name).write_text(json.dumps({"chat_template": PARTS}))
    template = load_chat_template(tmp_path)
    assert template is not None
    assert template.render(submit(SHOWN)) == "<user>see[IMG][IMG]"
    (tmp_path / "chat_template.jinja").write_text(BOTH + "!")
    template = load_chat_template(tmp_path)
    assert template is not None
    assert template.render(submit(SHOWN)) == "<user>see[IMG][IMG]!"


# --- in a Worker ---


class Doubles:
    """Each image is two tokens, 7 and the length of its data."""

    def place(self, ids: list[int], images: list[Image]) -> tuple[list[int], Any]:
        for image in images:
            if not image.data:
                raise ApiError("invalid_value", "empty", image.param)
        return [t for image in images for t in (7, len(image.data))] + ids, "media"


def spec_of(vision: Any, context: int = 100) -> EngineSpec:
    template = ChatTemplate({"default": PARTS}, {})
    return EngineSpec(context, Bytes(), template, vision=vision)


def asked(*data: bytes, **fields: Any) -> Submit:
    content = [*({"type": "image"} for _ in data), {"type": "text", "text": "x"}]
    pictures = [Image(each, f"messages[0].content[{k}]") for k, each in enumerate(data)]
    return submit({"role": "user", "content": content}, images=pictures, **fields)


def test_a_prompt_is_what_the_engine_sees() -> None:
    spec = spec_of(Doubles())
    plain = read_prompts(submit({"role": "user", "content": "x"}), spec, Reading(spec))
    (prompt,) = prompts = read_prompts(asked(b"abc"), spec, Reading(spec))
    assert prompt.ids[:2] == [7, 3]
    sequences = make_sequences(asked(b"abc"), prompts, spec, 0)
    assert [s.media for s in sequences] == ["media"]
    assert sequences[0].prompt_len == len(prompt.ids) == 2 + len(plain[0].ids) + len("[IMG]")
    assert make_sequences(asked(), plain, spec, 0)[0].media is None


@pytest.mark.parametrize(
    ("vision", "context", "code", "param"),
    [
        (None, 100, "unsupported_value", "messages[0].content[0]"),
        (Doubles(), 100, "invalid_value", "messages[0].content[1]"),
        (Doubles(), 10, "context_length_exceeded", "messages"),
    ],
)
def test_what_cannot_be_seen(vision: Any, context: int, code: str, param: str) -> None:
    spec = spec_of(vision, context)
    with pytest.raises(ApiError) as caught:
        read_prompts(asked(b"a", b""), spec, Reading(spec))
    assert (caught.value.code, caught.value.param) == (code, param)


def test_tokens_are_counted_with_images() -> None:
    wanted = asked(b"abc")
    spec = spec_of(Doubles())
    tokenize = Tokenize(
        1, 0, "r", "m", "", wanted.messages, False, False, images=wanted.images,
        add_generation_prompt=True,
    )  # fmt: skip
    result = answer(tokenize, spec, Tally(), (0, 1))[0]
    assert len(result[5]) > 0
    (prompt,) = read_prompts(wanted, spec, Reading(spec))
    assert str(prompt.ids).replace(" ", "").encode() in result[5]
