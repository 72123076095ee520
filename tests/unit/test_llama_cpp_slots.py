"""Which slot of llama.cpp's KV cache a request takes: each rule of Slots.seat."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from smmf_core.engines.llama_cpp.slots import LEAST_COPY, SHORT_TAIL, Slot, Slots, common_prefix

LONG = list(range(100, 300))


def sit(slots: Slots, tokens: list[int], held: int | None = None, owner: object = "r") -> Slot:
    """A request that found a place, with so many of its tokens computed."""
    seat = slots.seat(tokens, None)
    assert seat is not None
    slot = seat.slot
    slot.tokens, slot.owner = list(tokens), owner
    slot.held = len(tokens) if held is None else held
    return slot


def leave(slots: Slots, tokens: list[int]) -> Slot:
    slot = sit(slots, tokens)
    slots.leave(slot)
    return slot


@pytest.fixture
def slots() -> Slots:
    return Slots(4, 512, True)


def test_waits_without_a_free_slot(slots: Slots) -> None:
    for number in range(4):
        sit(slots, [number])
    assert slots.seat([9, 9], None) is None
    slots.leave(slots.slots[2])
    seat = slots.seat([9, 9], None)
    assert seat is not None
    assert (seat.slot.id, seat.found, seat.source) == (2, 0, None)


def test_waits_for_a_prompt_that_is_being_computed(slots: Slots) -> None:
    running = sit(slots, LONG, held=10)
    assert slots.seat([*LONG, 1], None) is None
    assert slots.seat([*LONG[:LEAST_COPY], 1], None) is not None  # too little to wait for
    running.held = len(LONG)
    seat = slots.seat([*LONG, 1], None)
    assert seat is not None
    assert (seat.source, seat.found) == (running, len(LONG))
    assert seat.slot is not running


def test_goes_on_where_it_was(slots: Slots) -> None:
    leave(slots, [1, 2, 3])
    slot = leave(slots, LONG)
    seat = slots.seat([*LONG, 7], None)
    assert seat is not None
    assert (seat.slot, seat.found, seat.source) == (slot, len(LONG), None)


def test_the_last_token_is_always_computed(slots: Slots) -> None:
    leave(slots, LONG)
    seat = slots.seat(LONG, None)
    assert seat is not None
    assert seat.found == len(LONG) - 1


def test_a_long_tail_is_spared(slots: Slots) -> None:
    slot = leave(slots, LONG)
    shared = len(LONG) - SHORT_TAIL - 1
    seat = slots.seat([*LONG[:shared], 7, 8], None)
    assert seat is not None
    assert (seat.source, seat.found) == (slot, shared)
    near = slots.seat([*LONG[: shared + 1], 7, 8], None)
    assert near is not None
    assert (near.slot, near.source) == (slot, None)


def test_the_only_slot_is_not_spared() -> None:
    slots = Slots(1, 512, True)
    slot = leave(slots, LONG)
    seat = slots.seat([*LONG[:50], 7], None)
    assert seat is not None
    assert (seat.slot, seat.found, seat.source) == (slot, 50, None)


def test_what_another_adapter_computed_is_of_no_use(slots: Slots) -> None:
    slot = leave(slots, LONG)
    slot.adapter = "red"
    seat = slots.seat([*LONG, 7], None)
    assert seat is not None
    assert seat.found == 0
    assert slots.seat([*LONG, 7], "red").found == len(LONG)


def test_without_reuse_nothing_is_found(slots: Slots) -> None:
    leave(slots, LONG)
    seat = slots.seat([*LONG, 7], None, reuse=False)
    assert seat is not None
    assert seat.found == 0


def test_a_copy_pays_only_from_a_share_of_the_context_on() -> None:
    for size, has_streams, copies in (
        (512, True, True),
        (16_384, True, False),
        (16_384, False, True),
    ):
        slots = Slots(4, size, has_streams)
        sit(slots, LONG)
        seat = slots.seat([*LONG, 7], None)
        assert seat is not None
        assert (seat.source is not None) == copies


def test_takes_the_neighbour_of_running_ones_then_the_empty_then_the_oldest(slots: Slots) -> None:
    for number in range(4):
        sit(slots, [number])
    for number in (3, 1):
        slots.leave(slots.slots[number])
    assert sit(slots, [9, 9]).id == 1  # between two
    idle = Slots(3, 512, True)
    assert [leave(idle, [number, number]).id for number in range(5)] == [0, 1, 2, 0, 1]


def test_cached_prefixes_go_by_age(slots: Slots) -> None:
    for number in range(3):
        leave(slots, [number, number])
    assert [slot.id for slot in slots.cached()] == [0, 1, 2]
    slots.slots[0].forget()
    assert [slot.id for slot in slots.cached()] == [1, 2]


def test_fillers_have_room(slots: Slots) -> None:
    sit(slots, [1])
    leave(slots, LONG)
    assert [slot.id for slot in slots.fillers()] == [1, 2, 3]
    slots.slots[1].filled = 512 - len(LONG) - 1
    assert [slot.id for slot in slots.fillers()] == [2, 3]
    assert slots.overfilled() == [slots.slots[1]]
    assert Slots(4, 512, False).fillers() == []


@given(st.lists(st.integers(0, 2)), st.lists(st.integers(0, 2)))
def test_common_prefix(one: list[int], other: list[int]) -> None:
    expected = 0
    while expected < min(len(one), len(other)) and one[expected] == other[expected]:
        expected += 1
    assert common_prefix(one, other) == expected
