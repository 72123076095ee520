"""Memory budgets: what fits, who is evicted, who waits, whose turn it is."""

from __future__ import annotations

import random
from typing import Any

import pytest
from swap_storm import Storm

from smmf_core.controller.swap import (
    DRAINING,
    GIB,
    LOADING,
    READY,
    RESERVED,
    Device,
    Evict,
    Fits,
    Holding,
    Never,
    Plan,
    Wait,
    Want,
    clear,
    order,
    plan,
    turn_s,
)

CPU = [Device("cpu", 10 * GIB)]
NOW = 1000.0


def want(need: float, device: str = "cpu", **facts: Any) -> Want:
    return Want(instance="new-0", model=99, need_bytes=int(need * GIB), device=device, **facts)


def held(name: str, need: float, *devices: str, model: int = 0, **facts: Any) -> Holding:
    """A ready, idle one; each name a model of its own unless `model` says otherwise."""
    return Holding(
        instance=name,
        model=model or hash(name),
        devices=devices or ("cpu",),
        need_bytes=int(need * GIB),
        **{"last_used": 0.0, **facts},
    )


def ask(wanted: Want, devices: list[Device], *holdings: Holding, **more: Any) -> Plan:
    return plan(wanted, devices, holdings, NOW, **more)


# --- one device -------------------------------------------------------------------------------


def test_it_fits_up_to_the_last_byte_of_the_budget() -> None:
    assert ask(want(4), CPU, held("a", 6)) == Fits(("cpu",))
    crowded = ask(want(4), CPU, held("a", 6, is_busy=True), held("b", 1 / GIB, is_busy=True))
    assert isinstance(crowded, Wait)


def test_a_need_that_is_not_known_fits_everywhere() -> None:
    assert ask(want(0), CPU, held("a", 12, is_busy=True)) == Fits(("cpu",))


def test_what_was_measured_counts_where_it_is_more_than_what_was_reserved() -> None:
    assert ask(want(4), CPU, held("a", 6, measured_bytes=5 * GIB)) == Fits(("cpu",))
    grown = held("a", 6, measured_bytes=7 * GIB)
    assert isinstance(ask(want(4), CPU, grown), Evict)


def test_what_loads_or_is_promised_or_drains_is_taken() -> None:
    for state in (LOADING, RESERVED, DRAINING):
        assert isinstance(ask(want(5), CPU, held("a", 6, state=state)), Wait), state


def test_it_waits_for_what_drains_rather_than_evict_more() -> None:
    answer = ask(want(6), CPU, held("a", 5, state=DRAINING), held("b", 5))
    assert isinstance(answer, Evict)  # 5 would be free: not enough
    answer = ask(want(5), CPU, held("a", 5, state=DRAINING), held("b", 5))
    assert answer == Wait("a must end first", ("cpu",))


def test_its_own_promise_does_not_stand_in_its_way() -> None:
    own = Holding(instance="new-0", model=99, devices=("cpu",), need_bytes=8 * GIB, state=RESERVED)
    assert ask(want(8), CPU, own) == Fits(("cpu",))


def test_a_promise_keeps_others_out() -> None:
    """Two wants for one place: the second waits, and does not evict for what the first gets."""
    drains, promised = held("a", 8, state=DRAINING), held("b", 8, state=RESERVED)
    answer = ask(want(8), CPU, drains, promised)
    assert isinstance(answer, Wait)
    assert answer.devices == ()


# --- who is evicted ---------------------------------------------------------------------------


def test_the_one_unused_longest_goes_first() -> None:
    answer = ask(want(4), CPU, held("a", 5, last_used=9.0), held("b", 5, last_used=3.0))
    assert isinstance(answer, Evict)
    assert (answer.instances, answer.devices, answer.is_turn) == (("b",), ("cpu",), False)


def test_or_the_one_that_is_loaded_fastest() -> None:
    holdings = [held("a", 5, last_used=9.0, load_s=1.0), held("b", 5, last_used=3.0, load_s=60.0)]
    answer = ask(want(4), CPU, *holdings, policy="cheapest")
    assert isinstance(answer, Evict)
    assert answer.instances == ("a",)


def test_as_few_as_needed_go() -> None:
    small, large = held("small", 1, last_used=1.0), held("large", 8, last_used=2.0)
    answer = ask(want(7), CPU, small, large)
    assert isinstance(answer, Evict)
    assert answer.instances == ("large",)  # though the small one is older: it would not help
    answer = ask(want(10), CPU, small, large)
    assert isinstance(answer, Evict)
    assert answer.instances == ("small", "large")


def test_neither_busy_nor_pinned_nor_loading_ones_go() -> None:
    for facts in ({"is_busy": True}, {"state": LOADING}, {"state": RESERVED}):
        assert isinstance(ask(want(8), CPU, held("a", 8, **facts)), Wait), facts
    assert needs_help(ask(want(8), CPU, held("a", 8, is_pinned=True)))


def needs_help(answer: Plan) -> bool:
    return isinstance(answer, Wait) and answer.is_final


def test_a_model_that_is_idle_as_a_whole_goes_before_a_replica_of_one_that_is_not() -> None:
    answer = ask(
        want(3),
        CPU,
        held("a-0", 3, model=1, is_busy=True, last_used=NOW),
        held("a-1", 3, model=1, last_used=1.0),
        held("b-0", 3, model=2, last_used=2.0),
    )
    assert isinstance(answer, Evict)
    assert answer.instances == ("b-0",)


def test_who_may_not_evict_takes_only_what_is_free() -> None:
    assert ask(want(4, may_evict=False), CPU, held("a", 6)) == Fits(("cpu",))
    answer = ask(want(5, may_evict=False), CPU, held("a", 6))
    assert answer == Wait("no memory on cpu: a would have to go")


def test_after_an_out_of_memory_everything_idle_goes() -> None:
    holdings = [
        held("a", 1),
        held("b", 1, is_busy=True),
        held("c", 1, is_pinned=True),
        held("d", 1, "cuda:0"),
        held("e", 1, state=LOADING),
    ]
    assert clear(["cpu"], holdings) == ("a",)
    assert clear(["cuda:0", "cuda:1"], holdings) == ("d",)


# --- never, and why ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("wanted", "devices", "words"),
    [
        (want(11), CPU, ["11.0 GiB on cpu", "10.0 GiB", "budget_gib", "memory_gib"]),
        (want(1, "cuda"), CPU, ["no GPU", 'device = "cuda"']),
        (want(1, "cuda:3"), [Device("cuda:0", GIB)], ["no cuda:3", "device", "cuda:0"]),
        (want(1, "cuda", gpus=2), [Device("cuda:0", GIB)], ["gpus = 2", "only cuda:0"]),
    ],
)
def test_what_cannot_be_names_the_knob(
    wanted: Want, devices: list[Device], words: list[str]
) -> None:
    answer = ask(wanted, devices)
    assert isinstance(answer, Never)
    assert [word for word in words if word not in answer.reason] == []


def test_pinned_ones_in_the_way_are_named() -> None:
    answer = ask(want(5), CPU, held("a", 6, is_pinned=True), held("b", 1, is_busy=True))
    assert needs_help(answer)
    assert "pinned models (a)" in answer.reason
    assert "unpin" in answer.reason


def test_a_device_that_will_be_free_is_better_than_one_that_needs_help() -> None:
    held_ones = held("a", 8, "cuda:0", is_pinned=True), held("b", 8, "cuda:1", is_busy=True)
    answer = ask(want(4, "cuda"), [gpu(0), gpu(1)], *held_ones)
    assert answer == Wait("no memory on cuda:1: b in use")


# --- memory that is really free ---------------------------------------------------------------


def gpu(number: int = 0, budget: float = 10, free: float = 10, **facts: Any) -> Device:
    return Device(f"cuda:{number}", int(budget * GIB), int(free * GIB), **facts)


def test_the_budget_is_not_enough_when_the_memory_is_not_there() -> None:
    answer = ask(want(6, "cuda"), [gpu(free=5)])
    assert answer == Wait("other programs take too much of the memory of cuda:0", is_final=True)


def test_what_others_were_promised_and_have_not_taken_is_not_free() -> None:
    loading = held("a", 4, "cuda:0", state=LOADING, measured_bytes=1 * GIB)
    assert ask(want(5, "cuda"), [gpu(free=8)], loading) == Fits(("cuda:0",))
    assert isinstance(ask(want(6, "cuda"), [gpu(free=8)], loading), Wait)


def test_memory_may_come_back_late_and_nobody_is_evicted_for_that() -> None:
    idle = held("b", 2, "cuda:0", measured_bytes=2 * GIB)
    late = ask(want(6, "cuda"), [gpu(free=3, is_recovering=True)], idle)
    assert late == Wait("the memory of cuda:0 is not free again yet", ("cuda:0",))
    foreign = ask(want(5, "cuda"), [gpu(free=3)], idle)
    assert isinstance(foreign, Evict)


# --- several GPUs -----------------------------------------------------------------------------


def test_the_emptiest_gpu_that_fits_is_taken() -> None:
    devices = [gpu(0), gpu(1), gpu(2)]
    holdings = [held("a", 2, "cuda:0"), held("b", 1, "cuda:1"), held("c", 9, "cuda:2")]
    assert ask(want(3, "cuda"), devices, *holdings) == Fits(("cuda:1",))
    assert ask(want(1, "cuda:2"), devices, *holdings) == Fits(("cuda:2",))


def test_fewest_evictions_decide_then_emptiness() -> None:
    devices = [gpu(0), gpu(1), gpu(2)]
    holdings = [
        held("a", 4, "cuda:0", last_used=1.0),
        held("b", 4, "cuda:0", last_used=1.0),
        held("c", 9, "cuda:1", last_used=5.0),
        held("d", 8, "cuda:2", last_used=6.0),
    ]
    answer = ask(want(9, "cuda"), devices, *holdings)
    assert isinstance(answer, Evict)
    assert (answer.instances, answer.devices) == (("d",), ("cuda:2",))


def test_a_gpu_that_needs_no_eviction_wins_over_all_that_do() -> None:
    devices = [gpu(0), gpu(1)]
    holdings = [held("a", 9, "cuda:0"), held("b", 9, "cuda:1", state=DRAINING)]
    answer = ask(want(5, "cuda"), devices, *holdings)
    assert answer == Wait("b must end first", ("cuda:1",))


def test_a_model_over_several_gpus_takes_a_share_of_each() -> None:
    devices = [gpu(0), gpu(1), gpu(2)]
    holdings = [held("a", 5, "cuda:0"), held("b", 4, "cuda:2")]
    assert ask(want(12, "cuda", gpus=2), devices, *holdings) == Fits(("cuda:1", "cuda:2"))
    assert ask(want(10, "cuda:0", gpus=2), devices, *holdings) == Fits(("cuda:0", "cuda:1"))
    answer = ask(want(24, "cuda", gpus=3), devices, *holdings)
    assert isinstance(answer, Evict)
    assert set(answer.instances) == {"a", "b"}


def test_one_that_spans_two_gpus_frees_both() -> None:
    both = held("a", 16, "cuda:0", "cuda:1")
    answer = ask(want(16, "cuda", gpus=2), [gpu(0), gpu(1)], both)
    assert isinstance(answer, Evict)
    assert answer.instances == ("a",)


# --- turns ------------------------------------------------------------------------------------


def busy(since_s: float, **facts: Any) -> Holding:
    return held("a", 8, is_busy=True, ready_at=NOW - since_s, load_s=5.0, **facts)


def test_a_busy_model_gives_way_when_both_have_had_their_share_of_patience() -> None:
    for served_s, waited_s, gives_way in (
        (30.0, 30.0, True),
        (19.0, 30.0, False),
        (30.0, 19.0, False),
    ):
        wanted = want(8, waiting=1, waited_s=waited_s, load_s=5.0)
        answer = ask(wanted, CPU, busy(served_s))
        assert isinstance(answer, Evict) == gives_way, (served_s, waited_s)
        if isinstance(answer, Evict):
            assert answer.is_turn


def test_nobody_gives_way_to_a_model_that_nobody_waits_for_nor_when_pinned() -> None:
    patient = {"waited_s": 500.0, "load_s": 5.0}
    assert isinstance(ask(want(8, **patient), CPU, busy(500)), Wait)
    assert needs_help(ask(want(8, waiting=1, **patient), CPU, busy(500, is_pinned=True)))


def test_idle_ones_go_before_busy_ones() -> None:
    wanted = want(2, waiting=1, waited_s=500.0)
    answer = ask(wanted, CPU, busy(500), held("b", 2))
    assert isinstance(answer, Evict)
    assert (answer.instances, answer.is_turn) == (("b",), False)


def test_a_turn_is_a_few_loads_but_not_longer_than_others_may_wait() -> None:
    assert turn_s(5.0, rivals=1, wait_limit_s=60.0) == 20.0
    assert turn_s(5.0, rivals=3, wait_limit_s=60.0) == 10.0
    assert turn_s(5.0, rivals=1, wait_limit_s=0.0) == 20.0
    assert turn_s(100.0, rivals=1, wait_limit_s=60.0) == 100.0
    assert turn_s(0.0, rivals=1, wait_limit_s=60.0) == 2.0


def test_many_waiters_come_first_but_a_lone_one_does_not_starve() -> None:
    lone = Want(instance="lone", model=1, need_bytes=1, waiting=1, waited_s=3.0)
    many = Want(instance="many", model=2, need_bytes=1, waiting=9, waited_s=1.0)
    assert [w.instance for w in order([lone, many])] == ["many", "lone"]
    lone = Want(instance="lone", model=1, need_bytes=1, waiting=1, waited_s=30.0)
    assert [w.instance for w in order([lone, many])] == ["lone", "many"]


# --- the whole in simulated time --------------------------------------------------------------


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize(("load_s", "answer_s"), [(0.5, 0.1), (3.0, 1.0), (1.0, 8.0)])
def test_a_storm_of_random_requests_neither_thrashes_nor_starves(
    seed: int, load_s: float, answer_s: float
) -> None:
    storm = Storm(models=3, clients=10, load_s=load_s, answer_s=answer_s, seed=seed)
    storm.run(200.0)
    assert storm.loading_share < 0.5
    assert storm.longest_wait_s < 60.0
    assert storm.loads <= 3 * storm.fewest_loads


def test_a_model_that_is_never_idle_lets_others_have_their_turn() -> None:
    storm = Storm(models=2, clients=12, load_s=1.0, answer_s=0.5, seed=1)
    storm.faithful = 10  # clients that only ever ask for the first model
    storm.run(300.0)
    assert storm.served[1] > 50
    assert storm.served[0] > 5 * storm.served[1]
    assert storm.longest_wait_s < 30.0
    assert storm.loading_share < 0.35


# --- anything ---------------------------------------------------------------------------------


def test_no_answer_ever_breaks_a_budget_or_touches_what_is_in_use() -> None:
    draw = random.Random(7)
    for _ in range(3000):
        devices = [gpu(n, draw.randint(4, 12), draw.randint(0, 12)) for n in range(3)]
        holdings = [_random_holding(draw, n) for n in range(draw.randint(0, 8))]
        wanted = want(
            draw.randint(0, 14),
            draw.choice(["cuda", "cuda:1"]),
            gpus=draw.randint(1, 2),
            waiting=draw.randint(0, 1),
            waited_s=draw.choice([0.0, 100.0]),
        )
        answer = ask(wanted, devices, *holdings)
        _check(answer, wanted, devices, holdings)


def _random_holding(draw: random.Random, number: int) -> Holding:
    names = draw.sample(["cuda:0", "cuda:1", "cuda:2"], draw.randint(1, 2))
    return held(
        f"h{number}",
        draw.randint(0, 6),
        *names,
        model=draw.randint(1, 4),
        state=draw.choice([READY, READY, LOADING, DRAINING, RESERVED]),
        is_busy=draw.random() < 0.3,
        is_pinned=draw.random() < 0.2,
        last_used=draw.random(),
        measured_bytes=draw.choice([0, GIB]),
        ready_at=draw.choice([0.0, NOW]),
    )


def _check(answer: Plan, wanted: Want, devices: list[Device], holdings: list[Holding]) -> None:
    by_name = {h.instance: h for h in holdings}
    gone = answer.instances if isinstance(answer, Evict) else ()
    for victim in map(by_name.__getitem__, gone):
        assert victim.state == READY
        assert not victim.is_pinned
        assert not victim.is_busy or (isinstance(answer, Evict) and answer.is_turn)
    if not isinstance(answer, Fits | Evict) or not wanted.need_bytes:
        return
    assert len(answer.devices) == wanted.gpus
    assert wanted.device in ("cuda", *answer.devices)
    leaving = {h.instance for h in holdings if h.state == DRAINING} if gone else set()
    for device in devices:
        if device.name not in answer.devices:
            continue
        staying = [
            max(h.need_bytes, h.measured_bytes) / len(h.devices)
            for h in holdings
            if device.name in h.devices and h.instance not in {*gone, *leaving}
        ]
        assert sum(staying) + wanted.need_bytes / wanted.gpus <= device.budget_bytes + 8
