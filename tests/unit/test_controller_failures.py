"""Starts that fail: tried again after a while, or not at all, with the reason."""

from __future__ import annotations

from controller_rig import W0, Rig, model

from smmf_core.controller.core import UPDATED
from smmf_core.errors import CannotStart
from smmf_core.lifecycle import BACKOFF, FAILED
from smmf_core.messages import PROTOCOL


def test_five_failed_loads_are_fatal_and_the_reason_is_kept() -> None:
    rig = Rig()
    rig.core.start(0.0)
    now = 0.0
    for start in range(1, 6):
        assert rig.take("spawn")[-1] == ("spawn", "m-0", start)
        rig.hello(W0, now)
        rig.report(W0, "failed", now, reason="no such file: w.safetensors")
        rig.exit(W0, now + 1, reason="exited with status 1")
        now = max(now + 1, min(rig[W0].act_at, 1e6))
        rig.core.on_timer(now)
    assert rig[W0].state == FAILED
    [entry] = rig.core.registry_message(0.0).models
    assert (entry.state, entry.reason) == ("failed", "no such file: w.safetensors")
    assert rig.take("spawn") == []
    assert rig.core.next_deadline > now


def test_one_that_starts_again_later_says_when() -> None:
    rig = Rig([model(), model("late", autostart=False)])
    rig.core.start(0.0)
    rig.exit(W0, 0.0, "killed by SIGKILL")
    rig.core.on_timer(0.0)
    [entry, _] = rig.core.registry_message(0.0).models
    assert (entry.state, entry.retry_in_s) == ("starting", 0.0)
    rig.exit(W0, 0.0, "killed by SIGKILL")
    rig.take()
    for now, left in ((0.0, 10.0), (2.5, 7.5)):
        rig.core.on_tick(now)
        assert rig.take("publish"), "it is told again each second"
        [entry, late] = rig.core.registry_message(now).models
        assert (entry.state, entry.retry_in_s) == ("failed", left)
        assert (late.retry_in_s, late.state) == (0.0, "registered")
    assert entry.reason == "killed by SIGKILL; starts again in 8 s"


def test_smmf_updated_under_the_server_fails_what_it_starts() -> None:
    rig = Rig()
    rig.core.start(0.0)
    rig.take()
    rig.hello(W0, 0.1, protocol=PROTOCOL + 1)
    assert rig.take() == [("KILL", "m-0")]
    rig.exit(W0, 0.2, "killed by SIGKILL")
    assert (rig[W0].state, rig[W0].reason) == (FAILED, UPDATED)
    assert rig.take("spawn") == []
    rig.core.start_model(rig.core.registry.find("m"), None, 1.0)
    assert rig.take("spawn") == [("spawn", "m-0", 2)], "an operator may try again"
    rig.hello(W0, 1.1)
    rig.report(W0, "ready", 1.2)
    rig.exit(W0, 9.0, "killed by SIGKILL")
    assert rig[W0].state == BACKOFF, "that was the former process's fault"


def test_the_reason_is_the_last_starts() -> None:
    rig = Rig()
    rig.core.start(0.0)
    rig.exit(W0, 0.0, "first")
    rig.core.on_timer(0.0)
    rig.exit(W0, 0.0, "second")
    assert rig[W0].reason == "second"


def test_a_process_that_cannot_be_spawned_counts_as_a_short_life() -> None:
    rig = Rig()
    rig.refusal = FileNotFoundError("no python there")
    rig.core.start(0.0)
    assert (rig[W0].state, rig[W0].short_lives) == (BACKOFF, 1)
    assert "no python there" in rig[W0].reason


def test_what_another_try_would_not_start_has_failed_at_once() -> None:
    rig = Rig()
    rig.refusal = CannotStart("backend 'x' is not installed")
    rig.core.start(0.0)
    assert (rig[W0].state, rig[W0].reason) == (FAILED, "backend 'x' is not installed")
    rig.refusal = None
    rig.core.on_timer(10_000.0)
    assert rig[W0].state == FAILED
