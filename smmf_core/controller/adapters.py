"""Which LoRA adapters the replicas of a model should have, and which all of them do.

Pure; owns no state: the wish and the result are the Model's.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from smmf_core.control_messages import Adapters, WorkerReport
from smmf_core.lifecycle import READY, Child
from smmf_core.registry import Model

Send = Callable[[Child, Adapters], None]


def want(model: Model, replicas: Iterable[Child], wanted: dict[str, str], send: Send) -> None:
    """Have every replica load and unload adapters (name -> path); their reports tell the end. One
    that still loads does it before it is ready."""
    model.wanted_adapters = wanted
    model.adapter_serial += 1
    for child in replicas:
        if child.connected:
            send(child, Adapters(wanted, model.adapter_serial))


def on_welcome(model: Model | None, child: Child, send: Send) -> None:
    """A new replica knows the file's adapters: tell it what has changed since, so that it is not
    ready without them."""
    if model is not None and model.wanted_adapters is not None:
        send(child, Adapters(model.wanted_adapters, model.adapter_serial))


def on_report(model: Model, report: WorkerReport, replicas: list[Child], send: Send) -> bool:
    """A ready replica tells what it has; whether what all have is another set now."""
    if report.adapter_serial > model.adapter_serial:
        _adopt(model, report, replicas, send)
    return _gather(model, replicas)


def _adopt(model: Model, report: WorkerReport, replicas: list[Child], send: Send) -> None:
    """It did what a former Controller wished: that is wanted still, unless there is a wish since;
    and a number that has been answered is not used again."""
    model.adapter_serial = report.adapter_serial
    if model.wanted_adapters is None:
        model.wanted_adapters = report.adapters
    else:
        want(model, replicas, model.wanted_adapters, send)


def _gather(model: Model, replicas: list[Child]) -> bool:
    """Keep those that every ready replica has; whether they have changed."""
    reports = [child.report for child in replicas if child.state == READY]
    loaded = [report.adapters for report in reports if isinstance(report, WorkerReport)]
    shared = [name for name in loaded[0] if all(name in names for names in loaded)]
    has_changed = shared != model.adapters
    model.adapters = shared
    return has_changed
