"""The text pipeline: UTF-8 hold-back and stop strings, at every split of the bytes."""

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from smmf_core.worker.text import TextStream


def pieces(raw: bytes, cuts: list[int]) -> list[bytes]:
    at = sorted({0, len(raw), *(cut % (len(raw) + 1) for cut in cuts)})
    return [raw[a:b] for a, b in pairwise(at)]


def run(parts: list[bytes], stops: list[str], include_stop: bool = False) -> tuple[str, bool]:
    stream = TextStream(stops, include_stop)
    text = ""
    for part in parts:
        text += stream.push(part)
        if stream.stopped:
            return text, True
    return text + stream.finish(), stream.stopped


@given(st.text(), st.lists(st.integers(0, 1000)))
def test_any_split_gives_the_text(text: str, cuts: list[int]) -> None:
    assert run(pieces(text.encode(), cuts), []) == (text, False)


@given(st.binary(), st.lists(st.integers(0, 1000)))
def test_invalid_bytes_become_replacement_characters(raw: bytes, cuts: list[int]) -> None:
    assert run(pieces(raw, cuts), [])[0] == raw.decode("utf-8", "replace")


@given(
    st.text(alphabet="abé€"),
    st.lists(st.text(alphabet="abé€", min_size=1, max_size=3), min_size=1, max_size=4),
    st.lists(st.integers(0, 1000)),
)
def test_stop_strings_at_any_split(text: str, stops: list[str], cuts: list[int]) -> None:
    ends = [text.find(stop) + len(stop) for stop in stops if stop in text]
    expected = text
    if ends:
        end = min(ends)
        matched = max((s for s in stops if text[:end].endswith(s)), key=len)
        expected = text[: end - len(matched)]
    whole = text.encode()
    one_by_one = [bytes([b]) for b in whole]
    assert run(one_by_one, stops) == (expected, bool(ends))
    assert run(pieces(whole, cuts), stops) == (expected, bool(ends))


def test_nothing_that_may_become_a_stop_string_is_sent() -> None:
    stream = TextStream(["STOP"], include_stop=False)
    assert stream.push(b"go ST") == "go "
    assert stream.holds
    assert stream.push(b"AY") == "STAY"
    assert stream.push(b" STO") == " "
    assert stream.push(b"P now") == ""
    assert stream.stopped
    assert stream.stop == "STOP"


def test_include_stop_keeps_the_stop_string() -> None:
    assert run([b"one two three"], ["two"], include_stop=True) == ("one two", True)


def test_half_a_character_is_held_back() -> None:
    stream = TextStream([], include_stop=False)
    euro = "€".encode()
    assert stream.push(euro[:2]) == ""
    assert stream.holds
    assert stream.push(euro[2:]) == "€"
    assert not stream.holds
