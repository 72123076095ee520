"""Who holds what of which GPU, as far as the driver tells."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from collections.abc import Iterator

from controller_rig import W0, Rig, model

from smmf_core.controller.gpus import Gpu
from smmf_core.controller.process import sessions
from smmf_core.controller.vitals import dump, gpu_shares
from smmf_core.lifecycle import Child
from smmf_core.metrics import Metrics

GIB = 1 << 30


def child(name: str, pid: int, device: str) -> Child:
    found = Child("worker", pid, name, 0)
    found.pid, found.device = pid, device
    return found


def gpu(number: int, processes: dict[int, int], free: int = 60 * GIB) -> Gpu:
    return Gpu(f"cuda:{number}", number, 80 * GIB, free, 0.25 * (number + 1), processes)


@contextlib.contextmanager
def leading_a_session() -> Iterator[tuple[int, int]]:
    """The process ids of one that leads a session, as Workers do, and of one that it started."""
    code = "import subprocess; p = subprocess.Popen(['cat']); print(p.pid, flush=True); p.wait()"
    with subprocess.Popen(
        [sys.executable, "-c", code],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        start_new_session=True,
    ) as leader:
        assert leader.stdout is not None
        yield leader.pid, int(leader.stdout.readline())
        leader.stdin.close()  # type: ignore[union-attr]


def test_by_the_processes_that_the_driver_tells() -> None:
    with leading_a_session() as (leader, started):
        a, b = child("a-0", leader, "cuda:0,cuda:1"), child("b-0", 999_999_999, "cuda:1")
        gpus = [gpu(0, {started: GIB, 5: GIB}), gpu(1, {b.pid: 3 * GIB, started: GIB})]
        assert gpu_shares([a, b], gpus) == {
            "a-0": {"cuda:0": (0.25, GIB), "cuda:1": (0.5, GIB)},
            "b-0": {"cuda:1": (0.5, 3 * GIB)},
        }


def test_a_container_does_not_know_the_drivers_numbers() -> None:
    """Alone on a device, an instance holds what is used of it; several share nobody knows how."""
    alone, first, second = (
        child(name, 999_999_990 + n, device)
        for n, (name, device) in enumerate([("a", "cuda:0"), ("b", "cuda:1"), ("c", "cuda:1")])
    )
    shares = gpu_shares([alone, first, second], [gpu(0, {1: 7}), gpu(1, {})])
    assert shares["a"] == {"cuda:0": (0.25, 20 * GIB)}
    assert shares["b"] == shares["c"] == {"cuda:1": (0.5, 0)}


def test_who_is_on_no_gpu_has_no_share() -> None:
    children = [child("a", 1, "cpu"), child("b", 0, "cuda:0"), child("c", 1, "")]
    assert gpu_shares(children, [gpu(0, {})]) == {}
    assert gpu_shares([child("d", 1, "cuda:0")], []) == {}


def test_sessions_hold_what_a_child_started() -> None:
    with leading_a_session() as (leader, started):
        found = sessions()
    assert found[leader] == {leader, started}
    assert os.getpid() in found[os.getsid(0)]


def test_restarts_are_told_of_each_instance() -> None:
    rig = Rig([model(replicas=2)])
    rig.all_ready()
    rig.exit(W0, now=100.0)
    total = Metrics()
    total.add(dump(rig.core))
    assert total.gauges.restarts == {"m-0": ("m", 1), "m-1": ("m", 0)}
