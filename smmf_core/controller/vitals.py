"""Metrics that only the Controller knows: of instances, their GPUs and alerts. Routers show them.

Owns nothing but who is told what; must not count requests.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from smmf_core.control_messages import PeerMetrics, RouterReport, WorkerReport
from smmf_core.controller.core import ControllerCore
from smmf_core.controller.gpus import Gpu
from smmf_core.controller.process import memory_bytes, sessions
from smmf_core.controller.room import devices_of
from smmf_core.lifecycle import Child
from smmf_core.metrics import Gauges, Metrics

GpuShares = dict[str, tuple[float, int]]
"""device -> (utilisation 0..1 of the device, bytes that the instance holds of it)"""
NO_SHARES: Mapping[str, GpuShares] = {}


def share(
    core: ControllerCore, gpus: Sequence[Gpu], send: Callable[[Child, PeerMetrics], None]
) -> None:
    """Tell every Router what the others and the Controller have: any one answers for all."""
    mine = dump(core, gpu_shares(list(core.workers()), gpus))
    dumps = {
        router.id: router.report.metrics
        for router in core.routers()
        if isinstance(router.report, RouterReport)
    }
    for router in core.routers():
        if router.id in dumps:
            others = [dumped for number, dumped in dumps.items() if number != router.id]
            send(router, PeerMetrics([mine, *others]))


def dump(core: ControllerCore, shares: Mapping[str, GpuShares] = NO_SHARES) -> bytes:
    """As a Router's own dump, to be added to it. `shares`: as gpu_shares tells."""
    metrics = Metrics()
    gauges = metrics.gauges
    names = {}
    for model in core.registry:
        names[model.index] = model.name
        gauges.status[model.name] = core.status_of(model).state
        if causes := list(core.upkeep.queue_alerts(model)):
            gauges.alerts[model.name] = (model.name, "", causes)
    for child in core.workers():
        name = names.get(child.model)
        if name is None:
            continue
        gauges.restarts[child.name] = (name, child.total_restarts)
        if child.wanted or child.is_alive:
            _add_instance(gauges, child, name)
        if causes := list(core.upkeep.alerts(child.name)):
            gauges.alerts[child.name] = (name, child.name, causes)
        if child.name in shares:
            gauges.gpus[child.name] = (name, shares[child.name])
    return metrics.dump()


def _add_instance(gauges: Gauges, child: Child, model: str) -> None:
    if not child.is_alive:  # Routers tell of the living
        gauges.instance_up[child.name] = (model, 0)
    if child.pid:
        gauges.instance_memory[child.name] = (model, memory_bytes(child.pid))
    if child.load_s:
        gauges.load_s[child.name] = (model, child.load_s)
    if isinstance(child.report, WorkerReport) and child.report.metrics:
        gauges.engine[child.name] = (model, child.report.metrics)


def gpu_shares(children: Sequence[Child], gpus: Sequence[Gpu]) -> dict[str, GpuShares]:
    """By instance, of those that were placed on GPUs.

    A driver knows processes by the machine's own numbers; in a container they are others. Then an
    instance that is alone on its device holds what is used there, and of several nobody knows.
    """
    placed = [c for c in children if c.pid and any(g.name in devices_of(c) for g in gpus)]
    if not placed:
        return {}
    family = sessions()
    found: dict[str, GpuShares] = {child.name: {} for child in placed}
    for gpu in gpus:
        guests = [child for child in placed if gpu.name in devices_of(child)]
        for child in guests:
            pids = family.get(child.pid, {child.pid})
            known = [size for pid, size in gpu.processes.items() if pid in pids]
            is_alone = len(guests) == 1 and not known
            size = gpu.used_bytes if is_alone else sum(known)
            found[child.name][gpu.name] = (gpu.utilization, size)
    return found
