"""Streams from a real ring onto real sockets: the exact bytes, turn by turn."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from streams import (
    ADMIT,
    CHOICE_END,
    COMPLETION,
    FINISH,
    HEAD,
    KEY,
    LENGTH,
    REASONING,
    STOP,
    TOKENS,
    TOOL,
    Bench,
    chat,
    chat_end,
    chunk,
    completion,
    thought,
)


@pytest.fixture
def bench() -> Iterator[Bench]:
    made = Bench()
    yield made
    made.close()


def test_nothing_is_sent_before_admit(bench: Bench) -> None:
    bench.open(first=b"role\n\n")
    assert bench.wire() == b""
    assert bench.table.emitted(KEY) == (False, 0)
    bench.put(ADMIT, count=9)
    assert bench.drain() == [(KEY, ADMIT, 0, 9, b"")]
    assert bench.wire() == HEAD + chunk(b"role\n\n")
    assert bench.table.emitted(KEY) == (True, 0)


def test_a_chat_on_the_wire(bench: Bench) -> None:
    bench.open(first=b"role\n\n")
    bench.put(ADMIT)
    bench.text("He")
    assert bench.wire() == HEAD + chunk(b"role\n\n" + chat(0, "He"))
    bench.text("l")
    bench.text("lo")  # there together: one event
    assert bench.wire() == chunk(chat(0, "llo"))
    bench.text("!")
    bench.put(CHOICE_END, count=LENGTH)
    bench.put(FINISH, payload=b"usage")
    assert bench.drain() == [(KEY, FINISH, 0, 0, b"usage")]
    bench.table.append(KEY, b"data: [DONE]\n\n", True)
    body = chat(0, "!") + chat_end(0, "length") + b"data: [DONE]\n\n"
    assert bench.wire() == chunk(body) + b"0\r\n\r\n"
    assert bench.table.ended(KEY)
    assert bench.table.emitted(KEY) == (True, 8)


def test_a_completion_merges_its_finish_into_the_last_text(bench: Bench) -> None:
    bench.open(COMPLETION)
    bench.put(ADMIT)
    bench.text("a")
    assert bench.wire() == HEAD + chunk(completion(0, "a"))
    bench.text("b")
    bench.put(CHOICE_END, count=STOP)
    assert bench.wire() == chunk(completion(0, "b", "stop"))


def test_a_completion_whose_text_has_left_finishes_with_an_empty_one(bench: Bench) -> None:
    bench.open(COMPLETION)
    bench.put(ADMIT)
    bench.text("a", choice=1)
    assert bench.wire() == HEAD + chunk(completion(1, "a"))
    bench.put(CHOICE_END, choice=1, count=3)
    assert bench.wire() == chunk(completion(1, "", "content_filter"))


def test_two_choices_interleave_and_only_neighbours_merge(bench: Bench) -> None:
    bench.open(head=b"")
    for choice, text in ((0, "a"), (0, "b"), (1, "x"), (0, "c"), (12, "y"), (12, "z")):
        bench.text(text, choice)
    bench.put(CHOICE_END, 0)
    body = chat(0, "ab") + chat(1, "x") + chat(0, "c") + chat(12, "yz") + chat_end(0)
    assert bench.wire() == chunk(body)


def test_thoughts_have_events_of_their_own(bench: Bench) -> None:
    bench.open(head=b"")
    bench.text('Hm "so"', kind=REASONING)
    bench.text("\n", kind=REASONING)
    bench.text("Four")
    bench.text("?", kind=REASONING)
    body = thought(0, 'Hm "so"\n') + chat(0, "Four") + thought(0, "?")
    assert bench.wire() == chunk(body)
    bench.text("!", kind=REASONING)
    bench.put(CHOICE_END, 0)
    assert bench.wire() == chunk(thought(0, "!") + chat_end(0))
    assert bench.table.emitted(KEY) == (True, 10)


def test_from_a_call_on_python_frames_the_stream(bench: Bench) -> None:
    """Else what comes in the same turn as a call would overtake it."""
    bench.open(head=b"")
    bench.text("a")
    bench.put(TOOL, count=3, payload=b"call")
    bench.text("b")
    bench.text("c", kind=REASONING)
    bench.put(CHOICE_END, count=2)
    assert [(kind, count) for _, kind, _, count, _ in bench.drain()] == [
        (TOOL, 3), (TOKENS, 2), (REASONING, 2), (CHOICE_END, 2),
    ]  # fmt: skip
    bench.table.append(KEY, b"call\n\n", False)
    assert bench.wire() == chunk(chat(0, "a") + b"call\n\n")
    assert bench.table.emitted(KEY) == (True, 9)
    assert bench.table.stats(KEY)[-1] == 2


def test_tokens_without_text_make_no_event_but_count(bench: Bench) -> None:
    bench.open(head=b"")
    bench.put(TOKENS, count=3, payload=bytes(12))
    bench.put(TOKENS, count=2**32 - 1, payload=b"abc")  # a count that the payload cannot hold
    assert bench.wire() == b""
    assert bench.table.emitted(KEY) == (False, 2**32 + 2)


def test_without_chunks_there_is_no_framing(bench: Bench) -> None:
    bench.open(chunked=False)
    bench.put(ADMIT)
    bench.text("a")
    assert bench.wire() == HEAD + chat(0, "a")
    bench.table.append(KEY, b"", True)
    assert bench.wire() == b""
    assert bench.table.ended(KEY)


def test_an_end_alone_is_the_last_chunk(bench: Bench) -> None:
    bench.open(head=b"")
    bench.table.append(KEY, b"", True)
    assert not bench.table.ended(KEY)
    assert bench.wire() == b"0\r\n\r\n"
    assert bench.table.ended(KEY)


def test_bytes_without_a_socket_come_back(bench: Bench) -> None:
    bench.open(fd=-1)
    bench.put(ADMIT)
    bench.text("a")
    bench.drain()
    assert bench.table.flush() == [(KEY, HEAD + chunk(chat(0, "a")))]
    assert bench.table.flush() == []
    bench.table.append(KEY, b"z", True)
    assert bench.table.flush() == [(KEY, chunk(b"z") + b"0\r\n\r\n")]


texts = st.tuples(st.integers(0, 2), st.text(st.characters(exclude_categories=["Cs"]), max_size=40))


@settings(max_examples=60, deadline=None)
@given(st.lists(st.lists(texts, max_size=6), max_size=6))
def test_each_choice_reads_its_text_whatever_the_turns(turns: list[list[tuple[int, str]]]) -> None:
    bench = Bench()
    bench.open(COMPLETION, head=b"", chunked=False)
    wire = b""
    for turn in turns:
        for choice, text in turn:
            bench.text(text, choice)
        wire += bench.wire()
    read = {0: "", 1: "", 2: ""}
    for event in wire.split(b"\n\n")[:-1]:
        parsed = json.loads(event.removeprefix(b"data: "))
        read[parsed["index"]] += parsed["text"]
    for choice, got in read.items():
        assert got == "".join(text for turn in turns for number, text in turn if number == choice)
    bench.close()
