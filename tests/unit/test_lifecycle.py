"""The table of states, back-off, and what replicas make of their model's state."""

from __future__ import annotations

import itertools
import math

import pytest

from smmf_core.config import Model as ModelSection
from smmf_core.config import ModelConfig
from smmf_core.control_messages import WorkerReport
from smmf_core.lifecycle import (
    BACKOFF,
    DRAINING,
    FAILED,
    LOADING,
    MAX_SHORT_LIVES,
    MODEL_STATES,
    READY,
    STARTING,
    STOPPED,
    TRANSITIONS,
    WAITING,
    Child,
    WrongTransition,
    backoff_s,
    model_state,
)
from smmf_core.registry import LiveRegistry, Model


def child(state: str = STOPPED, **fields: object) -> Child:
    made = Child("worker", 0, "m-0", 0)
    made.state = state
    for name, value in fields.items():
        setattr(made, name, value)
    return made


def report(tokens: int) -> WorkerReport:
    return WorkerReport("ready", 1.0, "", 8, [], 0, 0, 0, tokens)


@pytest.mark.parametrize(("former", "state"), list(itertools.product(TRANSITIONS, repeat=2)))
def test_only_the_tables_transitions_are_possible(former: str, state: str) -> None:
    made = child(former, act_at=5.0)
    if state in TRANSITIONS[former]:
        made.move(state)
        assert made.state == state
        assert made.act_at == float("inf"), "the former state's time-out is over"
    else:
        with pytest.raises(WrongTransition):
            made.move(state)
        assert made.state == former


def test_nothing_is_ready_without_having_started() -> None:
    assert {former for former, after in TRANSITIONS.items() if READY in after} == {
        STARTING,
        LOADING,
    }


def test_backoff_is_immediate_then_doubles_up_to_its_bound() -> None:
    delays = [backoff_s(n) for n in range(9)]
    assert delays == [0, 10, 20, 40, 80, 160, 300, 300, 300]
    assert backoff_s(10_000) == 300


def test_short_lives_in_a_row_are_fatal() -> None:
    made, now, waits = child(), 0.0, []
    while made.state != FAILED:
        made.begin(0.0)
        made.die(now, start_s=1.0)
        if made.state == BACKOFF:
            waits.append(made.act_at - now)
            now = made.act_at
    assert waits == [0, 10, 20, 40]
    assert made.incarnation == MAX_SHORT_LIVES


def test_a_long_life_forgives() -> None:
    made = child()
    for _ in range(20):
        made.begin(0.0)
        made.move(READY)
        made.ready_at = 100.0
        made.die(101.0, start_s=1.0)
        assert (made.state, made.act_at) == (BACKOFF, 101.0)


def test_ready_for_a_moment_is_a_short_life() -> None:
    made = child()
    made.begin(0.0)
    made.move(READY)
    made.ready_at = 100.0
    made.die(100.5, start_s=1.0)
    assert made.short_lives == 1


def test_tokens_become_a_rate_that_ages() -> None:
    made = child(READY)
    made.observe(report(100), 10.0)
    assert made.rate(10.0) == 0
    made.observe(report(300), 12.0)
    assert made.rate(12.5) == 100
    assert made.rate(16.0) == 0


def model(**fields: object) -> Model:
    registry = LiveRegistry()
    made = registry.add(ModelConfig(ModelSection("m", "echo")), 1)
    for name, value in fields.items():
        setattr(made, name, value)
    return made


def ready(**fields: object) -> Child:
    return child(READY, **fields)


@pytest.mark.parametrize(
    ("wishes", "replicas", "expected"),
    [
        ({}, [], "stopped"),
        ({}, [ready(), child(FAILED)], "ready"),
        ({}, [ready(unwell="slow"), ready()], "ready"),
        ({}, [ready(unwell="slow")], "unhealthy"),
        ({}, [ready(removed="slow"), ready(unwell="slow")], "unhealthy"),
        ({}, [ready(removed="slow"), child(LOADING)], "starting"),
        ({}, [ready(is_offline=True)], "offline"),
        ({}, [ready(is_offline=True), ready()], "ready"),
        ({}, [child(LOADING), child(FAILED)], "starting"),
        ({}, [child(STARTING)], "starting"),
        ({}, [child(WAITING)], "starting"),
        ({}, [child(WAITING, is_stuck=True)], "starting"),
        ({}, [child(BACKOFF, restarts=1)], "starting"),
        ({}, [child(BACKOFF, restarts=2)], "failed"),
        ({}, [child(FAILED), child(STOPPED, wanted=False)], "failed"),
        ({}, [child(FAILED), ready(is_offline=True)], "failed"),
        ({}, [child(DRAINING)], "starting"),
        ({}, [child(DRAINING, wanted=False)], "stopping"),
        ({}, [child(STOPPED, wanted=False)], "stopped"),
        ({"is_wanted": False}, [], "registered"),
        ({"is_wanted": False}, [child(DRAINING, wanted=False)], "registered"),
        ({"is_stopped": True}, [child(DRAINING, wanted=False)], "stopping"),
        ({"is_stopped": True}, [child(STOPPED, wanted=False)], "stopped"),
        ({"target": 0}, [], "stopped"),
        ({"is_removed": True}, [], "stopping"),
    ],
)
def test_a_model_is_what_its_replicas_and_its_operator_make_it(
    wishes: dict[str, object], replicas: list[Child], expected: str
) -> None:
    assert model_state(model(**wishes), replicas) == expected
    assert expected in MODEL_STATES


def test_what_no_further_try_would_bring_up_has_failed_at_once() -> None:
    made = child(STARTING)
    made.die(5.0, start_s=1.0, is_unfit=True)
    assert (made.state, made.total_restarts, made.act_at) == (FAILED, 0, math.inf)
