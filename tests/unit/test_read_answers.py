"""Answers with thoughts and calls of tools, through the Worker's core: their records, streamed and
whole, say the same."""

from __future__ import annotations

import json
import re
from typing import Any, NamedTuple

import msgspec
import pytest
from answers import ANSWERS, Answer
from answers import TOOLS as SCHEMAS
from test_worker_core import ROUTER, Rig, failure, kinds

from smmf_core import messages as m
from smmf_core.engines.base import EngineSpec, Sequence
from smmf_core.engines.echo.engine import EchoTokenizer
from smmf_core.worker.parse import FORMATS
from smmf_core.worker.read_choice import ReadChoice
from smmf_core.worker.reading import Reading

PARAMETERS = {
    "type": "object",
    "properties": {"city": {"type": "string", "default": "K\u00f6ln"}, "n": {"type": "integer"}},
    "required": ["city", "n"],
}
TOOLS = [
    {"type": "function", "function": {"name": "get_weather", "parameters": PARAMETERS}},
    {"type": "function", "function": {"name": "add", "parameters": {"type": "object"}}},
]
TYPED = [
    {"type": "function", "function": {"name": name, "parameters": schema}}
    for name, schema in SCHEMAS.items()
]
WEATHER = '{"city": "K\\u00f6ln", "n": 0}'
ADD: Any = {"type": "function", "function": {"name": "add"}}
_deltas = msgspec.msgpack.Decoder(list[m.ToolDelta]).decode
_tokens = msgspec.msgpack.Decoder(m.TokenBatch).decode


class Seen(NamedTuple):
    content: str
    reasoning: str
    calls: list[tuple[str, str, str]]
    reason: int
    usage: tuple[int, ...]
    logprobs: bytes


def asked(rig: Rig, said: str, stream: bool, key: int = 1, **fields: Any) -> list[m.Record]:
    """The records of an answer that says this."""
    before = m.Submit(
        key, 0, "r", "echo", stream, fields.pop("n", 1), [{"role": "user", "content": said}], None,
        m.Sampling(**fields.pop("sampling", {})), tools=fields.pop("tools", TOOLS),
        echo=fields.pop("echo", {"text": "echo"}), **fields,
    )  # fmt: skip
    rig.core.on_submit(ROUTER, before, 0.0)
    return rig.run()


def seen(records: list[m.Record], choice: int = 0) -> Seen:
    """What a client is told of one choice."""
    usage = tuple(int.from_bytes(records[-1][5][at : at + 4], "little") for at in range(0, 16, 4))
    assert records[-1][0] == m.FINISH
    if records[0][0] == m.RESULT:
        found = msgspec.msgpack.decode(records[0][5], type=m.Result).choices[choice]
        calls = [(call.id, call.name, call.arguments) for call in found.tool_calls]
        listed = b"".join(described.token for described in found.logprobs or [])
        return Seen(found.text, found.reasoning, calls, found.reason, usage, listed)
    content = reasoning = listed = b""
    deltas: list[m.ToolDelta] = []
    reason = -1
    for kind, _, of, number, count, payload in records:
        assert of == 0
        if number != choice:
            continue
        if kind == m.TOKENS:
            content += payload[4 * count :]
        elif kind == m.REASONING:
            reasoning += payload[4 * count :]
        elif kind == m.DATA:
            batch = _tokens(payload)
            content += batch.text.encode()
            listed += b"".join(described.token for described in batch.logprobs)
        elif kind == m.TOOL:
            deltas += _deltas(payload)
        elif kind == m.CHOICE_END:
            reason = count
    ids = [delta for delta in deltas if delta.id]
    parts = [[d.arguments for d in deltas if d.index == index] for index in range(len(ids))]
    calls = [(d.id, d.name, "".join(p)) for d, p in zip(ids, parts, strict=True)]
    return Seen(content.decode(), reasoning.decode(), calls, reason, usage, listed)


def both(said: str, engine: dict[str, Any], **fields: Any) -> Seen:
    """Streamed and whole, which must be equal."""
    whole = seen(asked(Rig(**engine), said, False, **fields))
    assert seen(asked(Rig(**engine), said, True, **fields)) == whole
    return whole


@pytest.mark.parametrize("answer", ANSWERS)
def test_streams_and_whole_answers_agree(answer: Answer) -> None:
    got = both(answer.text, {"tool_format": answer.form}, tools=TYPED)
    assert (got.content, got.reason) == (answer.content, m.TOOL_CALLS)
    assert [call[1:] for call in got.calls] == answer.calls


@pytest.mark.parametrize("answer", ANSWERS)
def test_thoughts_come_first(answer: Answer) -> None:
    engine = {"tool_format": answer.form, "reasoning_format": "deepseek_r1"}
    got = both(f"<think>\n<tool_call> \u6f22\n</think>\n\n{answer.text}", engine, tools=TYPED)
    assert (got.content, got.reasoning) == (answer.content, "<tool_call> \u6f22")
    assert [call[1:] for call in got.calls] == answer.calls
    assert 0 < got.usage[3] < got.usage[1]


@pytest.mark.parametrize("form", sorted(FORMATS))
@pytest.mark.parametrize("limit", [1, 5, 9, 14, 20, 30])
def test_an_answer_that_its_limit_cuts(form: str, limit: int) -> None:
    got = both("", {"tool_format": form, "calls": 2}, echo=None, sampling={"max_tokens": limit})
    is_whole = len(got.calls) == 2 and got.calls[1][2] == "{}"
    assert got.reason == (m.TOOL_CALLS if is_whole and got.usage[1] < limit else m.LENGTH)
    assert got.usage[1] <= limit


@pytest.mark.parametrize("form", sorted(FORMATS))
def test_the_echo_engine_calls_in_every_format(form: str) -> None:
    got = both("x", {"tool_format": form, "calls": 2}, echo=None)
    assert got.content == ""
    assert [(call[1], json.loads(call[2])) for call in got.calls] == [
        ("get_weather", json.loads(WEATHER)), ("add", {}),
    ]  # fmt: skip
    assert all(re.fullmatch("call_[0-9A-Za-z]{24}", call[0]) for call in got.calls)


def test_one_call_where_only_one_is_wanted() -> None:
    got = both("x", {"calls": 3}, echo=None, parallel_tool_calls=False)
    assert [call[1:] for call in got.calls] == [("get_weather", WEATHER)]
    assert got.reason == m.TOOL_CALLS
    more = both("x", {"calls": 3}, echo=None)
    assert got.usage[1] < more.usage[1]  # it stopped there


def test_a_named_function_ends_with_stop_as_openai_has_it() -> None:
    got = both("x", {"calls": 3}, echo=None, tool_choice=ADD)
    assert [call[1:] for call in got.calls] == [("add", "{}")]
    assert got.reason == m.STOP
    required = both("x", {"calls": 1}, echo=None, tool_choice="required")
    assert required.reason == m.TOOL_CALLS


def test_a_model_that_cannot_be_forced_refuses() -> None:
    for choice in ("required", ADD):
        rig = Rig()
        rig.core.spec.capabilities.remove("structured_output")
        refused = failure(asked(rig, "x", True, tool_choice=choice))
        assert (refused.code, refused.param) == ("unsupported_value", "tool_choice")
    rig = Rig()
    rig.core.spec.capabilities.remove("structured_output")
    assert seen(asked(rig, "x", True, echo=None)).reason == m.TOOL_CALLS


def test_without_tools_or_a_format_nothing_is_read() -> None:
    text = "<think>a</think> <tool_call>{}</tool_call>"
    for fields in ({"tools": None}, {"tools": TOOLS, "tool_choice": "none"}):
        records = asked(Rig(), text, True, **fields)
        assert m.TOOL not in kinds(records)
        assert seen(records).content == text
    assert seen(asked(Rig(tool_format="none"), text, True)).content == text


def test_ids_are_the_same_for_the_same_request_and_differ_by_choice() -> None:
    answers = [asked(Rig(), "x", True, echo=None, n=2) for _ in range(2)]
    first, second = ([seen(records, n).calls[0][0] for n in (0, 1)] for records in answers)
    assert first == second
    assert len(set(first)) == 2


def test_a_request_that_goes_on_elsewhere_goes_on_in_its_call() -> None:
    text = "<think>Hm.</think>ok <tool_call>" + '{"name": "add", "arguments": {"a": 1}}'
    engine = {"reasoning_format": "qwen3"}
    whole = seen(asked(Rig(**engine), text, True))
    ids = EchoTokenizer().encode(text, False)
    for at in range(1, len(ids)):
        rest = seen(asked(Rig(**engine), text, True, emitted_ids=[ids[:at]]))
        assert whole.content.endswith(rest.content)
        assert whole.reasoning.endswith(rest.reasoning)
        assert rest.usage[1:] == whole.usage[1:]
        assert rest.reason == whole.reason


@pytest.mark.parametrize("stop", ["see", "add", "</tool"])
def test_stop_strings_end_it_as_they_do_elsewhere(stop: str) -> None:
    text = 'Let me see. <tool_call>\n{"name": "add", "arguments": {"a": 1}}\n</tool_call>'
    got = both(text, {}, sampling={"stop": [stop]})
    assert got.content.startswith("Let me ")
    assert len(got.calls) == (stop == "</tool")
    assert got.reason == (m.TOOL_CALLS if stop == "</tool" else m.STOP)


def test_logprobs_are_those_of_the_content() -> None:
    text = "<think>\nHm, so\n</think>\n\nabcdef <tool_call>" + '{"name": "add", "arguments": {}}'
    got = both(text, {"reasoning_format": "qwen3"}, sampling={"logprobs": 0})
    assert got.content == "abcdef"
    assert got.logprobs in got.content.encode()
    assert len(got.logprobs) >= 3  # tokens of three bytes, some lie half in the marks


def test_reasoning_tokens_are_counted_to_the_closing_mark() -> None:
    got = both("<think>abc</think>def", {"reasoning_format": "qwen3"}, tools=None)
    assert (got.reasoning, got.content) == ("abc", "def")
    assert got.usage[1:] == (7, 0, 6)  # 18 bytes of thought, by three
    plain = both("def", {"reasoning_format": "qwen3"}, tools=None)
    assert plain.usage[3] == 0


def reading(name: str) -> Reading:
    return Reading(EngineSpec(64, EchoTokenizer(), None, reasoning_format=name))


def submit(*messages: dict[str, Any], **fields: Any) -> m.Submit:
    return m.Submit(1, 0, "r", "m", True, 1, list(messages), None, m.Sampling(), **fields)


def test_a_prompt_that_opens_a_thought() -> None:
    read, user = reading("deepseek_r1"), {"role": "user", "content": "<think>"}
    assert read.ends_in_thought("...<think>\n", submit(user))
    assert not read.ends_in_thought("...<think>\n\n</think>\n\n", submit(user))
    half = {"role": "assistant", "content": "<think>\nI was"}
    done = {"role": "assistant", "content": "<think>so</think>And"}
    assert read.ends_in_thought("x", submit(user, half, continue_final_message=True))
    assert not read.ends_in_thought("x", submit(user, done, continue_final_message=True))
    chain = read.chain(submit(user), 0, True)
    assert [piece.text for piece in chain.push("so</think>And")] == ["so", "And"]


class Special(EchoTokenizer):
    """A tokenizer with the marks of a family as special tokens, which have no text."""

    def encode(self, text: str, add_special: bool) -> list[int]:
        return [7] if text == "[TOOL_CALLS]" else super().encode(text, add_special)

    def is_special(self, token: int) -> bool:
        return token == 7

    def token_bytes(self, token: int) -> bytes:
        return b"" if token == 7 else super().token_bytes(token)


def test_marks_that_are_special_tokens_are_read() -> None:
    tokenizer = Special()
    spec = EngineSpec(64, tokenizer, None, tool_format="mistral")
    reading, request = Reading(spec), submit(tools=TOOLS)
    assert reading.marks == {7: b"[TOOL_CALLS]"}
    sequence = Sequence(1, [], 0, request.sampling, 99, request)
    chain = reading.chain(request, 0, False)
    choice = ReadChoice(sequence, 0, tokenizer, chain, reading.marks)
    out: list[m.Record] = []
    for token in [7, *tokenizer.encode('[{"name": "add", "arguments": {}}]', False)]:
        choice.push(token, None, False, out)
    choice.end(m.STOP, out)
    assert [d.name or d.arguments for r in out if r[0] == m.TOOL for d in _deltas(r[5])] == [
        "add", "{}",
    ]  # fmt: skip
    assert out[-1][4] == m.TOOL_CALLS


def test_every_token_counts_in_one_record() -> None:
    for answer in ANSWERS:
        rig = Rig(tool_format=answer.form, reasoning_format="qwen3")
        records = asked(rig, f"<think>a</think>{answer.text}", True)
        kinds_of_tokens = (m.TOKENS, m.REASONING, m.TOOL)
        assert sum(r[4] for r in records if r[0] in kinds_of_tokens) == seen(records).usage[1]
