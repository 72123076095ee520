"""Metrics that only the Controller knows: memory of instances, restarts. Routers show them.

Owns nothing; must not count requests.
"""

from __future__ import annotations

from collections import Counter

from smmf_core.controller.core import ControllerCore
from smmf_core.controller.process import memory_bytes
from smmf_core.messages import WorkerReport
from smmf_core.metrics import Metrics


def dump(core: ControllerCore) -> bytes:
    """As a Router's own dump, to be added to it."""
    metrics = Metrics()
    names = {model.index: model.name for model in core.registry}
    restarts: Counter[str] = Counter()  # a model without any shows as 0
    for child in core.workers():
        name = names.get(child.model)
        if name is None:
            continue
        restarts[name] += child.total_restarts
        if child.pid:
            metrics.gauges.instance_memory[child.name] = (name, memory_bytes(child.pid))
        if isinstance(child.report, WorkerReport) and child.report.metrics:
            metrics.gauges.engine[child.name] = (name, child.report.metrics)
    metrics.gauges.restarts = dict(restarts)
    return metrics.dump()
