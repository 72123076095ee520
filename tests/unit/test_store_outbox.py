"""Changes on their way to the database: what is merged, what order cannot harm, what is bounded."""

from __future__ import annotations

import sys
import threading
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from smmf_core.store.memory import Memory, overridden
from smmf_core.store.outbox import ALIAS, EVENTS_WAITING, INSTANCE, MODEL, Outbox
from smmf_core.store.records import (
    EventRecord,
    InstanceRecord,
    ModelChange,
    ModelRecord,
    Stored,
    columns_of,
    name_of,
    status_among,
)

CONFIG = {"model": {"name": "a", "backend": "echo", "type": "llama"}}


def written(*stored: ModelRecord, outbox: Outbox) -> Memory:
    memory = Memory(Stored(models=list(stored)))
    memory.apply(outbox.take_rows())
    return memory


def test_changes_of_one_model_are_merged() -> None:
    outbox = Outbox()
    outbox.put_model(ModelChange(model_name="a", config=CONFIG, status="starting"))
    outbox.put_model(ModelChange(model_name="a", status="ready"))
    outbox.put_model(ModelChange(model_name="a", replicas=2))
    memory = written(outbox=outbox)
    assert memory.models["a"] == ModelRecord(
        model_name="a",
        config=CONFIG,
        model_type="llama",
        provider="echo",
        status="ready",
        replicas=2,
    )
    assert list(memory.dirty) == [(MODEL, "a")]
    assert outbox.take_rows() == {}


def test_a_count_that_is_no_longer_wished_goes() -> None:
    outbox = Outbox()
    outbox.put_model(ModelChange(model_name="a", replicas=None))
    assert written(ModelRecord(model_name="a", replicas=3), outbox=outbox).models["a"] == (
        ModelRecord(model_name="a")
    )


def test_a_model_registered_anew_has_nothing_of_the_former() -> None:
    outbox = Outbox()
    outbox.put_model(ModelChange(model_name="a", is_pinned=True))
    outbox.forget_model("a")
    outbox.put_model(ModelChange(model_name="a", status="stopping"))  # of the former
    outbox.put_model(ModelChange(model_name="a", config=CONFIG))
    outbox.put_alias("best", "a")
    memory = written(ModelRecord(model_name="a", replicas=3, facts={"load_s": 1}), outbox=outbox)
    assert (memory.models["a"].is_pinned, memory.models["a"].replicas) == (False, None)
    assert (memory.models["a"].facts, memory.aliases) == ({}, {"best": "a"})


def test_nothing_comes_back_by_a_late_word() -> None:
    outbox = Outbox()
    outbox.put_instance("a-0", InstanceRecord("a-0", "a", "ready"))
    outbox.put_instance("b-0", InstanceRecord("b-0", "b", "ready"))
    outbox.forget_model("a")
    outbox.put_model(ModelChange(model_name="a", status="stopped"))
    memory = written(ModelRecord(model_name="a"), outbox=outbox)
    assert memory.models == {}
    assert list(memory.instances) == ["b-0"]


def test_nothing_of_a_former_run_is_said_to_run() -> None:
    memory = Memory(Stored(models=[ModelRecord(model_name="a", status="ready")]))
    assert memory.models["a"].status == "registered"
    assert list(memory.dirty) == [(MODEL, "a")]


def test_all_of_it_can_be_asked_for_again() -> None:
    outbox = Outbox()
    outbox.put_instance("a-0", InstanceRecord("a-0", "a", "ready"))
    outbox.put_alias("best", "a")
    memory = written(ModelRecord(model_name="a"), outbox=outbox)
    memory.dirty.clear()
    memory.all_dirty()
    assert set(memory.dirty) == {(MODEL, "a"), (INSTANCE, "a-0"), (ALIAS, "best")}


def test_what_this_run_has_said_goes_before_what_is_remembered() -> None:
    outbox = Outbox()
    outbox.put_model(ModelChange(model_name="a", is_stopped=False, status="ready", spec_hash="2"))
    outbox.forget_model("b")
    former = [
        ModelRecord(model_name="a", is_stopped=True, is_pinned=True, status="ready", spec_hash="1"),
        ModelRecord(model_name="b"),
    ]
    stored = overridden(Stored(models=former, aliases={"x": "a"}), outbox.pending())
    assert stored.models == [ModelRecord(model_name="a", is_pinned=True, spec_hash="1")]
    assert stored.aliases == {"x": "a"}
    assert outbox.pending()  # it was only looked at


def test_events_are_bounded_and_the_oldest_go() -> None:
    outbox = Outbox()
    for number in range(EVENTS_WAITING + 3):
        outbox.put_event(EventRecord(time=number, role="worker", id="a-0"))
    assert outbox.dropped_events == 3
    assert [event.time for event in outbox.take_events(2)] == [3, 4]
    assert len(outbox.take_events(EVENTS_WAITING)) == EVENTS_WAITING - 2
    assert outbox.take_events(5) == []


def test_one_puts_while_another_takes() -> None:
    """The sum of what is taken is what was put, however the two threads are interleaved."""
    outbox, memory, events = Outbox(), Memory(Stored()), []
    ended = threading.Event()

    def take() -> None:
        while True:
            is_last = ended.is_set()
            memory.apply(outbox.take_rows())
            events.extend(outbox.take_events(7))
            if is_last and not outbox.pending():
                return

    former = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    taker = threading.Thread(target=take)
    taker.start()
    try:
        for number in range(3000):
            name = f"m-{number % 5}"
            outbox.put_model(ModelChange(model_name=name, config=CONFIG, source=str(number)))
            outbox.put_model(ModelChange(model_name=name, replicas=number))
            outbox.put_instance(name, InstanceRecord(name, name, "ready", pid=number))
            outbox.put_event(EventRecord(time=number, role="worker", id=name))
    finally:
        ended.set()
        taker.join()
        sys.setswitchinterval(former)
    events += outbox.take_events(EVENTS_WAITING)
    assert [event.time for event in events] == list(range(3000))
    for number in range(2995, 3000):
        name = f"m-{number % 5}"
        assert (memory.models[name].source, memory.models[name].replicas) == (str(number), number)
        assert memory.instances[name].pid == number


Step = tuple[str, str, int]
STEPS = st.lists(st.tuples(st.sampled_from("cwfsap"), st.sampled_from("ab"), st.integers(0, 9)))


@given(STEPS, st.lists(st.integers(0, 30)))
def test_when_things_are_written_makes_no_difference(steps: list[Step], cuts: list[int]) -> None:
    """Merged in the outbox or written one by one: the same rows in the end. (Nobody speaks of a
    model between its end and its next registration but to end it.)"""
    outbox, memory = Outbox(), Memory(Stored())
    singly, each = Outbox(), Memory(Stored())
    for number, (what, name, value) in enumerate(steps):
        if what in "ws" and name not in each.models:
            continue
        for one in (outbox, singly):
            put(one, what, name, value)
        each.apply(singly.take_rows())
        if number in cuts:
            memory.apply(outbox.take_rows())
    memory.apply(outbox.take_rows())
    assert memory.models == each.models
    assert memory.aliases == each.aliases


def put(outbox: Outbox, what: str, name: str, value: int) -> None:
    if what == "c":
        outbox.put_model(ModelChange(model_name=name, config=CONFIG, source=str(value)))
    elif what == "w":
        outbox.put_model(ModelChange(model_name=name, replicas=value))
    elif what == "s":
        outbox.put_model(ModelChange(model_name=name, status=str(value)))
    elif what == "f":
        outbox.forget_model(name)
    elif what == "a":
        outbox.put_alias("best", name)
    else:
        outbox.put_instance(f"{name}-{value}", InstanceRecord(f"{name}-{value}", name, "ready"))


@pytest.mark.parametrize(
    ("own", "instances", "expected"),
    [
        ("registered", [], ("registered", False)),
        ("starting", ["ready"], ("ready", False)),
        ("ready", ["ready", "failed"], ("ready", True)),
        ("ready", ["ready", "draining", "stopped"], ("ready", False)),
        ("unhealthy", ["ready", "ready"], ("unhealthy", False)),
        ("registered", ["waiting"], ("starting", False)),
        ("failed", ["failed", "stopped"], ("failed", False)),
        ("offline", ["offline"], ("offline", False)),
    ],
)
def test_a_status_among_instances(
    own: str, instances: list[str], expected: tuple[str, bool]
) -> None:
    assert status_among(own, instances) == expected


@pytest.mark.parametrize(
    ("config", "name", "columns"),
    [
        (CONFIG, "a", ("llama", "local", "echo")),
        ({"model": {"model_name": "b", "model_type": "qwen2"}}, "b", ("qwen2", "local", "")),
        ({"proxy": {"provider": "zhipu", "model": "glm-4"}}, "glm-4", ("", "proxy", "zhipu")),
        (
            {"model": {"name": "c", "type": "gpt"}, "proxy": {"provider": "openai", "model": "m"}},
            "c",
            ("gpt", "proxy", "openai"),
        ),
        ({}, "", ("", "local", "")),
    ],
)
def test_columns_follow_from_a_config(
    config: dict[str, Any], name: str, columns: tuple[str, str, str]
) -> None:
    assert name_of(config) == name
    assert tuple(columns_of(config).values()) == columns
