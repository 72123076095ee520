"""Thoughts before an answer: wherever the marks are split, closed or not."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from smmf_core.worker.parse.thoughts import Thoughts


def split(parts: list[str], is_open: bool = False) -> tuple[str, str]:
    """(thought, answer)"""
    thoughts = Thoughts("deepseek_r1", is_open)
    found = [thoughts.push(part) for part in parts] + [thoughts.finish()]
    return "".join(thought for thought, _ in found), "".join(answer for _, answer in found)


CASES = [
    ("<think>\nHm.\n\nSo.\n</think>\n\nFour.\n", False, "Hm.\n\nSo.", "Four.\n"),
    ("Hm. So </think>Four.", True, "Hm. So", "Four."),
    (
        "<think>a < b </thin </think> x </think> <think>",
        False,
        "a < b </thin",
        "x </think> <think>",
    ),
    ("  <think>never closed </thi", False, "never closed </thi", ""),
    ("cut ", True, "cut ", ""),
    ("<think>\n\n</think>\n\nAt once.", False, "", "At once."),
    ("\n No thought.", False, "", "\n No thought."),
    ("<thin air", False, "", "<thin air"),
    ("<thi", False, "", "<thi"),
    ("So: <think>later</think>", False, "", "So: <think>later</think>"),
    ("", True, "", ""),
]


@pytest.mark.parametrize(("text", "is_open", "thought", "answer"), CASES)
def test_thoughts_however_they_are_split(
    text: str, is_open: bool, thought: str, answer: str
) -> None:
    assert split([text], is_open) == (thought, answer)
    assert split(list(text), is_open) == (thought, answer)
    for at in range(len(text)):
        assert split([text[:at], text[at:]], is_open) == (thought, answer)


@given(
    st.lists(st.sampled_from(["<think>", "</think>", "<", "/", " ", "\n", "a", "think>"])),
    st.booleans(),
)
def test_any_text(parts: list[str], is_open: bool) -> None:
    text = "".join(parts)
    thought, answer = split(parts, is_open)
    assert split(list(text), is_open) == (thought, answer)
    kept = "".join((thought + answer).split())
    lost = len("".join(text.split())) - len(kept)
    assert lost in (0, len("<think>"), len("</think>"), len("<think></think>"))
