"""The loop of a batcher-driven engine: take requests in, one step, write records out.

One thread does everything; it drains its sockets without blocking between steps and sleeps only
when the engine has nothing to do. Must not hold state of its own beyond the step counter.
"""

from __future__ import annotations

import math
import time

from smmf_core.engines.base import EngineDead, StepEngine
from smmf_core.worker.control import WorkerControl
from smmf_core.worker.core import WorkerCore
from smmf_core.worker.links import Links

_CONTROL_EVERY_S = 0.1  # a busy engine looks at its control socket this often
_RECEIVE_EVERY_S = 50e-6  # and for requests; any real step takes longer


def run(engine: StepEngine, core: WorkerCore, links: Links, control: WorkerControl) -> None:
    """Serve until the Controller (or its absence) says to end and all requests have ended.

    Raises EngineDead, after all that the engine had has been told: what only waited is left to the
    Router, which places it again once this Worker is gone.
    """
    control_at = receive_at = 0.0
    now = time.monotonic()
    while True:
        if now >= control_at:
            control.turn(now)
            control.apply_adapters(engine)
            links.remove_dead()
            core.announce(now)
            control_at, receive_at = now + _CONTROL_EVERY_S, 0.0
        if now >= receive_at:
            links.receive(now)  # after control: a new link's socket may have used up its signal
            receive_at = now + _RECEIVE_EVERY_S
        if control.drain_until is not None:
            has_drained = not len(core) and links.is_idle
            if has_drained or now > control.drain_until:
                return
        try:
            due = turn(engine, core, control, now)
        except EngineDead as error:
            core.fail_joined(error, error.untouched)
            links.flush(control.steps)
            control.after_step(now)
            raise
        links.flush(control.steps)
        now = time.monotonic()
        control.after_step(now)
        if due <= now:
            continue
        due = min(due, control.next_report)
        if due > now:
            links.sleep(control.fd, None if due == math.inf else due - now)
            control_at, now = 0.0, time.monotonic()


def turn(engine: StepEngine, core: WorkerCore, control: WorkerControl, now: float) -> float:
    """One step, if there is one to be made; when the next is due. Raises EngineDead."""
    if core.left:
        _remove(engine, core)
    _step(engine, core, control, now)
    if core.left:
        _remove(engine, core)
    due = engine.ready_at(now)
    if due <= now:  # the hot path: nothing else can be due before
        return due
    core.announce(now)
    return min(due, core.batcher.next_deadline(), core.announce_at)


def _step(engine: StepEngine, core: WorkerCore, control: WorkerControl, now: float) -> None:
    joined = core.admit(now)
    try:
        if joined:
            engine.add(joined)
    except EngineDead:
        raise
    except Exception as error:  # those requests are lost, the others go on
        core.fail_sequences(joined, error)
    try:
        if engine.ready_at(now) > now:
            return
        outputs = engine.step()
    except EngineDead:
        raise
    except Exception as error:  # the batch is lost, the Worker and its model are not
        core.fail_joined(error)
        return
    control.steps += 1
    core.on_outputs(outputs)


def _remove(engine: StepEngine, core: WorkerCore) -> None:
    engine.remove(core.left)
    core.left = []
