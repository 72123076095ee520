"""Chat templates: as transformers renders them, in a sandbox, with errors that name the request."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from model.tiny import BOS, EOS, PAD, make_tokenizer, write_json
from transformers import PreTrainedTokenizerFast

from smmf_core.engines.prompt.template import ChatTemplate, load_chat_template
from smmf_core.errors import ApiError
from smmf_core.messages import Sampling, Submit

CHATML = """\
{%- if tools %}
    {{- '<|im_start|>system\\n' }}
    {%- for tool in tools %}
        {{- tool | tojson }}
    {%- endfor %}
{%- endif %}
{%- for message in messages %}
    {%- if message.role not in ['system', 'user', 'assistant', 'tool'] %}
        {{- raise_exception('Unexpected role: ' + message.role) }}
    {%- endif %}
    {{- '<|im_start|>' + message.role + '\\n' }}
    {%- if message.reasoning_content is defined %}
        {{- '<think>' + message.reasoning_content + '</think>' }}
    {%- endif %}
    {%- if message.content %}
        {{- message.content }}
    {%- endif %}
    {%- for call in message.tool_calls or [] %}
        {{- call.function.name + ' ' }}{{ call.function.arguments | tojson(indent=1) }}
    {%- endfor %}
    {{- '<|im_end|>\\n' }}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|im_start|>assistant\\n' }}
    {%- if enable_thinking is defined and not enable_thinking %}{{ '<think></think>' }}{% endif %}
{%- endif %}
"""
TRIMMING = """\
{{ bos_token }}
{% for message in messages %}
{% if loop.index > 5 %}{% break %}{% endif %}
[{{ message['role'] }}] {{ message['content'] | trim }}{{ eos_token }}
{% generation %}
{% endgeneration %}
{% endfor %}
{% if add_generation_prompt %}[assistant]{% endif %}
"""
TEMPLATES = {"chatml": CHATML, "trimming": TRIMMING}
USER = {"role": "user", "content": "Is <1> & '2' \"more\" than \u4f60\u597d? \U0001f600 "}
SYSTEM = {"role": "system", "content": "Be brief. "}
ANSWER = {"role": "assistant", "content": "No,\n it is\tless  "}
CALL = {
    "role": "assistant",
    "content": None,
    "tool_calls": [
        {
            "id": "call_1",
            "type": "function",
            "function": {"name": "add", "arguments": {"a": 1, "b": "<\u00e9>"}},
        }
    ],
}
TOOL = {"role": "tool", "tool_call_id": "call_1", "content": "3"}
THOUGHT = {"role": "assistant", "content": "Yes.", "reasoning": "hm"}
TOOLS = [{"type": "function", "function": {"name": "add", "parameters": {"type": "object"}}}]
CONVERSATIONS: dict[str, list[dict[str, Any]]] = {
    "one": [USER],
    "system": [SYSTEM, USER],
    "answered": [SYSTEM, USER, ANSWER],
    "many": [SYSTEM, USER, ANSWER, USER, ANSWER, USER, ANSWER],
    "thought": [USER, THOUGHT, USER],
}


def request(messages: list[dict[str, Any]], **fields: Any) -> Submit:
    return Submit(1, 0, "r", "m", True, 1, messages, None, Sampling(), **fields)


def template(source: str, **tokens: str) -> ChatTemplate:
    return ChatTemplate({"default": source}, tokens)


def theirs(source: str) -> PreTrainedTokenizerFast:
    return PreTrainedTokenizerFast(
        tokenizer_object=make_tokenizer(),
        bos_token=BOS,
        eos_token=EOS,
        pad_token=PAD,
        chat_template=source,
    )


# --- equal to transformers ---


@pytest.mark.parametrize("name", TEMPLATES)
@pytest.mark.parametrize("conversation", CONVERSATIONS)
@pytest.mark.parametrize("prompted", [True, False])
def test_renders_as_transformers_does(name: str, conversation: str, prompted: bool) -> None:
    source, messages = TEMPLATES[name], CONVERSATIONS[conversation]
    ours = template(source, bos_token=BOS, eos_token=EOS, pad_token=PAD)
    assert ours.render(request(messages, add_generation_prompt=prompted)) == theirs(
        source
    ).apply_chat_template(messages, tokenize=False, add_generation_prompt=prompted)


@pytest.mark.parametrize("name", TEMPLATES)
@pytest.mark.parametrize("conversation", CONVERSATIONS)
def test_continues_the_final_message_as_transformers_does(name: str, conversation: str) -> None:
    source, messages = TEMPLATES[name], CONVERSATIONS[conversation][:5]
    ours = template(source, bos_token=BOS, eos_token=EOS)
    text = ours.render(request(messages, continue_final_message=True))
    assert text == theirs(source).apply_chat_template(
        messages, tokenize=False, continue_final_message=True
    )


def test_tools_and_arguments_as_transformers_does() -> None:
    messages = [USER, CALL, TOOL]
    expected = theirs(CHATML).apply_chat_template(
        messages, tools=TOOLS, tokenize=False, add_generation_prompt=True, enable_thinking=False
    )
    arguments = {"template_args": {"enable_thinking": False}}
    ours = template(CHATML, bos_token=BOS)
    assert ours.render(request(messages, tools=TOOLS, **arguments)) == expected
    function = {"name": "add", "arguments": json.dumps({"a": 1, "b": "<\u00e9>"})}
    as_text = {**CALL, "tool_calls": [{**CALL["tool_calls"][0], "function": function}]}
    assert ours.render(request([USER, as_text, TOOL], tools=TOOLS, **arguments)) == expected


def test_a_folder_saved_by_transformers(tmp_path: Path) -> None:
    theirs(CHATML).save_pretrained(tmp_path)
    ours = load_chat_template(tmp_path)
    assert ours is not None
    assert ours.render(request([USER])) == theirs(CHATML).apply_chat_template(
        [USER], tokenize=False, add_generation_prompt=True
    )


# --- what messages look like to a template ---


def test_parts_are_joined_without_anything_between() -> None:
    parts = [{"type": "text", "text": "Wh"}, {"type": "text", "text": "ill"}]
    seen = template("{{ messages[0].content }}").render(
        request([{"role": "user", "content": parts}])
    )
    assert seen == "Whill"


def test_developer_is_system_unless_the_template_knows_it() -> None:
    messages = [{"role": "developer", "content": "x"}]
    assert template("{{ messages[0].role }}").render(request(messages)) == "system"
    knows = "{# developer #}{{ messages[0].role }}"
    assert template(knows).render(request(messages)) == "developer"


def test_no_content() -> None:
    plain = template("[{{ messages[0].content }}]")
    assert plain.render(request([{"role": "assistant", "content": None}])) == "[]"
    assert plain.render(request([{"role": "assistant"}])) == "[]"
    tests_none = template("{{ messages[0].content is none }}")
    assert tests_none.render(request([CALL])) == "True"


def test_arguments_that_are_no_object_stay_text() -> None:
    source = "{{ messages[0].tool_calls[0].function.arguments is string }}"
    for arguments in ("{", "[1]", "text"):
        call = {"function": {"name": "f", "arguments": arguments}}
        message = {"role": "assistant", "tool_calls": [call]}
        assert template(source).render(request([message])) == "True"


def test_messages_stay_as_they_are() -> None:
    messages = [{"role": "developer", "content": None, "reasoning": "r"}]
    before = json.dumps(messages)
    template("{{ messages[0].content }}").render(request(messages))
    assert json.dumps(messages) == before


def test_template_arguments_do_not_replace_the_request() -> None:
    arguments = {"messages": [], "tools": 1, "x": "seen"}
    text = template("{{ messages | length }}{{ tools }}{{ x }}").render(
        request([USER], template_args=arguments)
    )
    assert text == "1Noneseen"


def test_strftime_now() -> None:
    assert template("{{ strftime_now('%Y')|length }}").render(request([USER])) == "4"


# --- refusals ---


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ("{{ raise_exception('Roles must alternate.') }}", "Roles must alternate."),
        ("{{ nothing.here }}", "nothing"),
        ("{{ 1 + 'a' }}", "unsupported operand"),
        ("{{ messages.append(1) }}", "unsafe"),
        ("{{ ''.__class__.__mro__ }}", "unsafe"),
        ("{% for i in range(1000000000) %}{% endfor %}", "Range too big"),
        ("{{ raise_exception('x' * 5000) }}", "xxx"),
    ],
)
def test_a_template_that_refuses(source: str, words: str) -> None:
    with pytest.raises(ApiError) as caught:
        template(source).render(request([USER]))
    assert (caught.value.code, caught.value.param) == ("invalid_value", "messages")
    assert words in caught.value.message
    assert len(caught.value.message) <= 300


@pytest.mark.parametrize("final", [{"role": "assistant", "content": ""}, CALL])
def test_nothing_to_continue(final: dict[str, Any]) -> None:
    with pytest.raises(ApiError, match="needs a final message") as caught:
        template(CHATML).render(request([USER, final], continue_final_message=True))
    assert caught.value.param == "messages"


def test_a_template_that_drops_what_shall_be_continued() -> None:
    with pytest.raises(ApiError, match="leaves the final message out"):
        template("{{ messages[0].content }}").render(
            request([USER, ANSWER], continue_final_message=True)
        )


# --- where templates come from ---


def test_no_template(tmp_path: Path) -> None:
    assert load_chat_template(tmp_path) is None
    write_json(tmp_path / "tokenizer_config.json", {"bos_token": BOS})
    assert load_chat_template(tmp_path) is None


def test_named_templates_and_special_tokens(tmp_path: Path) -> None:
    named = [
        {"name": "default", "template": "plain {{ bos_token }}"},
        {"name": "tool_use", "template": "tools {{ eos_token }}"},
    ]
    tokens = {"bos_token": BOS, "eos_token": {"content": EOS}}
    write_json(tmp_path / "tokenizer_config.json", {"chat_template": named, **tokens})
    ours = load_chat_template(tmp_path)
    assert ours is not None
    assert ours.render(request([USER])) == f"plain {BOS}"
    assert ours.render(request([USER], tools=TOOLS)) == f"tools {EOS}"


def test_the_file_goes_before_the_config(tmp_path: Path) -> None:
    write_json(tmp_path / "tokenizer_config.json", {"chat_template": "config"})
    (tmp_path / "chat_template.jinja").write_text("file")
    ours = load_chat_template(tmp_path)
    assert ours is not None
    assert ours.render(request([USER])) == "file"


def test_a_template_that_does_not_compile() -> None:
    with pytest.raises(ValueError, match="does not compile"):
        template("{% if %}")
