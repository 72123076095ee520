"""The Worker's answers to Tokenize and Detokenize, by the tokenizers that it has."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from smmf_core import messages as m
from smmf_core.engines.base import EmbedSpec, EngineSpec
from smmf_core.engines.echo.engine import EchoTemplate, EchoTokenizer
from smmf_core.worker.contract import Tally
from smmf_core.worker.tokens import answer

ROUTER = (0, 1)
EMBED = EmbedSpec(64, 4 << 24, tokenizer=EchoTokenizer())
CHAT = [{"role": "user", "content": "hi"}]


class Marked(EchoTokenizer):
    """With a special token, which has a name and no text."""

    vocab_size = 4 << 24

    def encode(self, text: str, add_special: bool) -> list[int]:
        return [7] * add_special + super().encode(text, add_special)

    def token_bytes(self, token: int) -> bytes:
        return b"" if token == 7 else super().token_bytes(token)

    def is_special(self, token: int) -> bool:
        return token == 7

    def piece(self, token: int) -> str:
        return "<s>" if token == 7 else self.token_bytes(token).decode()


GENERATE = EngineSpec(64, Marked(), EchoTemplate())


def tokenize(text: str = "", spec: Any = GENERATE, **fields: Any) -> list[m.Record]:
    given = {"messages": None, "add_special": True, "with_strings": False, **fields}
    asked = m.Tokenize(key=3, attempt=1, request_id="r", model="m", text=text, **given)
    return answer(asked, spec, Tally(), ROUTER)


def detokenize(tokens: list[int], spec: Any = GENERATE) -> list[m.Record]:
    return answer(m.Detokenize(3, 1, "r", "m", tokens), spec, Tally(), ROUTER)


def tokenized(records: list[m.Record]) -> m.Tokenized:
    assert [record[0] for record in records] == [m.RESULT, m.FINISH]
    assert all(record[1:3] == (3, 1) for record in records)
    found: m.Tokenized = msgspec.msgpack.decode(records[0][5], type=m.Tokenized)
    return found


def text_of(records: list[m.Record]) -> str:
    assert [record[0] for record in records] == [m.RESULT, m.FINISH]
    return msgspec.msgpack.decode(records[0][5], type=m.Detokenized).text


def failure(records: list[m.Record]) -> m.Failure:
    assert [record[0] for record in records] == [m.FAIL]
    return msgspec.msgpack.decode(records[0][5], type=m.Failure)


def test_tokens_and_what_they_stand_for() -> None:
    found = tokenized(tokenize("abcd", with_strings=True))
    assert (found.count, found.context_length) == (3, 64)
    assert msgspec.json.decode(found.ids) == [7, *EchoTokenizer().encode("abcd", False)]
    assert msgspec.json.decode(found.strings) == ["<s>", "abc", "d"]
    assert tokenized(tokenize("abcd", add_special=False)).count == 2
    assert tokenized(tokenize("abcd")).strings == b""


def test_a_text_longer_than_the_context_is_counted() -> None:
    assert tokenized(tokenize("abc" * 1000)).count == 1001


def test_a_chat_goes_through_the_template() -> None:
    found = tokenized(tokenize(messages=CHAT, add_special=False))
    ids = msgspec.json.decode(found.ids)
    assert text_of(detokenize(ids)) == "user: hi"


@pytest.mark.parametrize("text", ["", "abc", "\u00e4\u00f6 \u4e16\u754c \U0001f600"])
@pytest.mark.parametrize("spec", [GENERATE, EMBED], ids=["generate", "embed"])
def test_texts_come_back(text: str, spec: Any) -> None:
    found = tokenized(tokenize(text, spec, add_special=False))
    assert text_of(detokenize(msgspec.json.decode(found.ids), spec)) == text


def test_special_tokens_come_back_by_their_names() -> None:
    assert text_of(detokenize([7, *EchoTokenizer().encode("a", False)])) == "<s>a"


def test_a_token_outside_the_vocabulary() -> None:
    error = failure(detokenize([1, 4 << 24]))
    assert (error.code, error.param) == ("integer_above_max_value", "tokens[1]")
    assert f"<= {(4 << 24) - 1}" in error.message


def test_what_a_model_does_not_have() -> None:
    assert failure(tokenize(spec=EMBED, messages=CHAT)).param == "messages"
    assert failure(tokenize("a", EmbedSpec(64, 9))).param == "model"
    assert failure(detokenize([1], EmbedSpec(64, 9))).code == "unsupported_value"


def test_the_tally_counts_them() -> None:
    tally = Tally()
    answer(m.Detokenize(1, 0, "r", "m", [1]), GENERATE, tally, ROUTER)
    answer(m.Detokenize(2, 0, "r", "m", [4 << 24]), GENERATE, tally, ROUTER)
    assert (tally.finished, tally.faults, tally.begun) == (2, 0, [])
