"""The doorbell handshake (csrc/smmf/doorbell.hpp): every interleaving, with store buffers.

Two processors with a store buffer each (TSO, as x86; ARM is covered by the same fences): a store is
seen by the other side when it leaves the buffer, at any later moment; a fence or an atomic exchange
empties the buffer first. The search shows that no reachable end leaves a sleeper that has something
to see and no bell rung, and that it would find one if a fence were missing.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import pytest

RECORDS = 3

# One instruction each; a jump names the index of another.
WRITER = ("publish", "fence", "load_flag", "exchange", "ring", "again")
READER = ("drain", "set_flag", "fence", "look", "sleep", "read_bell")
WRITER_AT = {name: at for at, name in enumerate(WRITER)}
READER_AT = {name: at for at, name in enumerate(READER)}
DONE = -1


@dataclass(frozen=True)
class State:
    tail: int = 0  # records visible to the reader
    flag: int = 0
    bell: int = 0
    writer_at: int = 0
    reader_at: int = 0
    written: int = 0
    seen: int = 0  # the reader's position
    writer_buffer: tuple[tuple[str, int], ...] = ()
    reader_buffer: tuple[tuple[str, int], ...] = ()


def stored(state: State, side: str) -> State:
    """The oldest store of one side becomes visible."""
    buffer = getattr(state, f"{side}_buffer")
    (name, value), rest = buffer[0], buffer[1:]
    return replace(state, **{name: value, f"{side}_buffer": rest})


def own_view(state: State, side: str, name: str) -> int:
    """A processor sees its own latest store before memory."""
    own = [value for stored_name, value in getattr(state, f"{side}_buffer") if stored_name == name]
    value: int = own[-1] if own else getattr(state, name)
    return value


def writer_step(state: State, fenced: bool) -> State | None:
    """The writer's next instruction; None: it has to wait for its buffer, or is done."""
    if state.writer_at == DONE:
        return None
    name = WRITER[state.writer_at]
    after = replace(state, writer_at=state.writer_at + 1)
    if name == "publish":
        store = ("tail", state.written + 1)
        return replace(
            after, written=state.written + 1, writer_buffer=(*state.writer_buffer, store)
        )
    if name == "fence":
        return None if fenced and state.writer_buffer else after
    if name == "load_flag":
        is_asleep = own_view(state, "writer", "flag") == 1
        return after if is_asleep else replace(state, writer_at=WRITER_AT["again"])
    if name == "exchange":
        if state.writer_buffer:
            return None
        return replace(
            after if state.flag else replace(state, writer_at=WRITER_AT["again"]), flag=0
        )
    if name == "ring":
        return replace(after, bell=1)
    return replace(state, writer_at=0 if state.written < RECORDS else DONE)


def reader_step(state: State, fenced: bool) -> State | None:
    """The reader's next instruction; None: it waits for its buffer, or sleeps without a bell."""
    name = READER[state.reader_at]
    after = replace(state, reader_at=state.reader_at + 1)
    if name == "drain":
        return replace(after, seen=state.tail)
    if name == "set_flag":
        return replace(after, reader_buffer=(*state.reader_buffer, ("flag", 1)))
    if name == "fence":
        return None if fenced and state.reader_buffer else after
    if name == "look":
        if state.tail == state.seen:
            return after
        disarm = (*state.reader_buffer, ("flag", 0))
        return replace(state, reader_at=READER_AT["drain"], reader_buffer=disarm)
    if name == "sleep":  # poll: returns when the bell has been rung
        return after if state.bell else None
    return replace(state, bell=0, reader_at=READER_AT["drain"])


def successors(state: State, writer_fenced: bool, reader_fenced: bool) -> Iterator[State]:
    for side in ("writer", "reader"):
        if getattr(state, f"{side}_buffer"):
            yield stored(state, side)
    for step in (writer_step(state, writer_fenced), reader_step(state, reader_fenced)):
        if step is not None:
            yield step


def explore(writer_fenced: bool, reader_fenced: bool) -> tuple[int, list[State]]:
    """(number of states, ends in which the reader sleeps although it has not seen every record)"""
    start = State()
    known, open_states, lost = {start}, [start], []
    while open_states:
        state = open_states.pop()
        nexts = list(successors(state, writer_fenced, reader_fenced))
        if not nexts and state.seen < RECORDS:
            lost.append(state)
        for following in nexts:
            if following not in known:
                known.add(following)
                open_states.append(following)
    return len(known), lost


def test_no_wake_up_is_ever_lost() -> None:
    states, lost = explore(writer_fenced=True, reader_fenced=True)
    assert lost == []
    assert states > 300  # the search did go somewhere


@pytest.mark.parametrize(("writer_fenced", "reader_fenced"), [(False, True), (True, False)])
def test_each_fence_is_needed(writer_fenced: bool, reader_fenced: bool) -> None:
    _, lost = explore(writer_fenced, reader_fenced)
    assert lost
    for state in lost:
        assert READER[state.reader_at] == "sleep"
        assert state.tail > state.seen
        assert not state.bell
