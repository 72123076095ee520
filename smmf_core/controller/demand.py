"""Use of models: what Routers report of requests, and who was not used for too long.

Pure. Owns when a model was last used; must not start or end anything.
"""

from __future__ import annotations

from collections.abc import Iterable

from smmf_core.control_messages import RouterReport
from smmf_core.lifecycle import Child
from smmf_core.registry import LiveRegistry, Model


def on_router_report(
    registry: LiveRegistry, router: int, report: RouterReport, now: float
) -> list[Model]:
    """Take over what a Router has of each model. Returns those that became idle or busy."""
    turned = []
    for load in report.models:
        model = registry.by_index(load.index)
        if model is None:
            continue
        former, was_busy = model.loads.get(router), model.is_busy
        model.loads[router] = load
        has_news = former is None or load.accepted != former.accepted
        if was_busy or load.waiting or load.running or has_news:
            model.last_used = max(model.last_used, now)
        given = load.keep_alive_s
        if given is not None and (former is None or load.words != former.words):
            model.keep_alive_s = given
        if model.is_busy != was_busy:
            turned.append(model)
    return turned


def forget_router(registry: LiveRegistry, router: int) -> None:
    """It ended, and its requests with it."""
    for model in registry:
        model.loads.pop(router, None)


def is_idle_for_long(model: Model, replicas: Iterable[Child], now: float) -> bool:
    """Whether it is to be unloaded: served, and was not used for its keep_alive."""
    if not model.is_wanted or model.is_stopped or model.is_pinned or model.is_busy:
        return False
    return now - model.last_used >= model.idle_s and any(c.is_online for c in replicas)
