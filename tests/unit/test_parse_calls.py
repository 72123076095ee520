"""Calls of tools as families write them: found wherever the text is split, and nothing is lost."""

from __future__ import annotations

import json

import pytest
from answers import ANSWERS, BROKEN, PLAIN, Answer, parsed
from hypothesis import given, settings
from hypothesis import strategies as st

from smmf_core.worker.parse import FORMATS
from smmf_core.worker.parse.json_scan import JsonScanner

ALL = [*ANSWERS, *PLAIN, *BROKEN]


def name_of(answer: Answer) -> str:
    return f"{answer.form}-{answer.text[:24]!r}"


@pytest.mark.parametrize("answer", ALL, ids=name_of)
def test_an_answer_however_it_is_split(answer: Answer) -> None:
    form, text, content, calls = answer
    wanted = content, [(f"call_{k}", *call) for k, call in enumerate(calls)]
    assert parsed(form, [text]) == wanted
    assert parsed(form, list(text)) == wanted
    for at in range(1, len(text)):
        assert parsed(form, [text[:at], text[at:]]) == wanted


@pytest.mark.parametrize("answer", ANSWERS, ids=name_of)
def test_an_answer_that_is_cut_anywhere(answer: Answer) -> None:
    """Whole or in pieces it is the same; what was given stays a beginning of it."""
    form, text, _, calls = answer
    for at in range(len(text)):
        cut = parsed(form, [text[:at]], is_cut=True)
        assert cut == parsed(form, list(text[:at]), is_cut=True)
        for (_, name, arguments), (wanted, whole) in zip(cut.calls, calls, strict=False):
            assert (name, whole.startswith(arguments)) == (wanted, True) or '"type"' in text
        if cut.calls or form not in ("llama3_json", "glm4"):
            assert "name" not in cut.content


@pytest.mark.parametrize("answer", ANSWERS, ids=name_of)
def test_arguments_are_json(answer: Answer) -> None:
    for _, _, arguments in parsed(answer.form, list(answer.text)).calls:
        assert isinstance(json.loads(arguments), dict)


@pytest.mark.parametrize("answer", [a for a in ANSWERS if len(a.calls) > 1])
def test_one_call_at_most(answer: Answer) -> None:
    for parts in ([answer.text], list(answer.text)):
        assert len(parsed(answer.form, parts, most=1).calls) == 1


def test_what_follows_a_broken_call_is_content() -> None:
    text = '<tool_call>{"name": "add", "arguments": {"a": oops}}</tool_call>'
    seen = parsed("hermes", list(text))
    assert seen == parsed("hermes", [text])
    assert seen == ("oops}}</tool_call>", [("call_0", "add", '{"a": ')])


MARKUP = [
    "<tool_call>", "</tool_call>", "[TOOL_CALLS]", "[", "]", "{", "}", '"', "\\", ",", ":", ";",
    '{"name": "add", "arguments": ', '{"name": "add", "parameters": {"a": 1}}', "add\n", "\n", " ",
    "<|python_tag|>", "<|action_start|>", "<|plugin|>", "<|action_end|>", "functools[", "[ARGS]",
    "<|tool_call|>", "<|/tool_call|>", "word", "add", "1", "true", "<\uff5ctool\u2581sep\uff5c>",
    "<arg_key>", "</arg_key>", "<arg_value>", "</arg_value>", "<function=add>", "</function>",
    "<parameter=a>", "</parameter>", "[add(", "a=", ")", "'", "<|python_start|>", "<|python_end|>",
    "<\uff5ctool\u2581calls\u2581begin\uff5c>", "<\uff5ctool\u2581call\u2581begin\uff5c>", "\u6f22",
]  # fmt: skip
texts = st.lists(st.one_of(st.sampled_from(MARKUP), st.text(max_size=3)), max_size=14).map("".join)


@settings(max_examples=400)
@given(st.sampled_from(sorted(FORMATS)), texts, st.data())
def test_any_text(form: str, text: str, data: st.DataObject) -> None:
    """The pieces say the same however it is split, and without a call nothing is missing."""
    whole = parsed(form, [text])
    assert parsed(form, list(text)) == whole
    at = data.draw(st.integers(0, len(text)))
    assert parsed(form, [text[:at], text[at:]]) == whole
    if not whole.calls:
        assert whole.content == text
    rest = iter(text)  # content is the text with calls taken out
    assert all(character in rest for character in whole.content)


@settings(max_examples=200)
@given(
    st.lists(
        st.tuples(
            st.text("ab <{\u6f22.", min_size=1).map(lambda text: f"x{text}x"),
            st.dictionaries(st.text(max_size=5), st.text(max_size=5) | st.none() | st.integers()),
        ),
        max_size=4,
    )
)
def test_what_is_written_is_read(said: list[tuple[str, dict[str, object]]]) -> None:
    text = "".join(
        f'{words}<tool_call>{{"name": "add", "arguments": {json.dumps(arguments)}}}</tool_call>'
        for words, arguments in said
    )
    seen = parsed("hermes", [text])
    assert seen.content == "".join(words for words, _ in said)
    assert [json.loads(call[2]) for call in seen.calls] == [arguments for _, arguments in said]


@given(st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=6),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner),
    max_leaves=8,
))  # fmt: skip
def test_the_scanner_takes_json_whole(value: object) -> None:
    text = json.dumps([value])
    scanner = JsonScanner()
    assert scanner.take(text + "]", 0) == (text, len(text))
    assert scanner.is_done
    assert not scanner.is_bad


@pytest.mark.parametrize(
    "text", ["[1,]", "[,]", "{,}", '{"a" 1}', "[01]", "[1 2]", "[tru]", "{1: 2}", "[}", "]", "+1 "]
)
def test_the_scanner_refuses(text: str) -> None:
    scanner = JsonScanner()
    scanner.take(text, 0)
    assert scanner.is_bad
    assert not scanner.is_done


def test_deep_json_is_refused() -> None:
    scanner = JsonScanner()
    scanner.take("[" * 100_000, 0)
    assert scanner.is_bad
