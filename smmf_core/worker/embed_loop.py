"""The loop of an embedding engine: take requests in, one step, write records out.

One thread does everything; it drains its sockets without blocking between steps and sleeps only
when no text is due. Must not hold state of its own beyond the step counter.
"""

from __future__ import annotations

import math
import time

from smmf_core.engines.base import EmbedEngine, EngineDead
from smmf_core.worker.control import WorkerControl
from smmf_core.worker.embed_batcher import Place
from smmf_core.worker.embed_core import EmbedCore
from smmf_core.worker.links import Links

_CONTROL_EVERY_S = 0.1  # a busy engine looks at its control socket this often


def run(engine: EmbedEngine, core: EmbedCore, links: Links, control: WorkerControl) -> None:
    """Serve until the Controller (or its absence) says to end and all requests have ended.

    Raises EngineDead, after all that it was about has been told: what only waited is left to the
    Router, which places it again once this Worker is gone.
    """
    control_at = 0.0
    while True:
        now = time.monotonic()
        if now >= control_at:
            control.turn(now)
            control.apply_adapters(engine)
            links.remove_dead()
            control_at = now + _CONTROL_EVERY_S
        links.receive(now)  # after control: a new link's socket may have used up its signal
        has_drained = not len(core) and links.is_idle
        if control.drain_until is not None and (has_drained or now > control.drain_until):
            return
        try:
            due = turn(engine, core, control, now)
        except EngineDead:
            links.flush(control.steps)
            control.after_step(now)
            raise
        links.flush(control.steps)
        now = time.monotonic()
        control.after_step(now)
        due = min(due, control.next_report)
        if due > now:
            links.sleep(control.fd, None if due == math.inf else due - now)
            control_at = 0.0


def turn(engine: EmbedEngine, core: EmbedCore, control: WorkerControl, now: float) -> float:
    """One step, if texts are due; when the next is. Raises EngineDead."""
    places = core.next(now)
    if places:
        control.steps += 1
        try:
            encode_step(engine, core, places)
        except EngineDead as error:
            core.fail_begun(places, error)
            raise
    return core.next_deadline()


def encode_step(engine: EmbedEngine, core: EmbedCore, places: list[Place]) -> None:
    """One step. What fails as a whole is tried again in halves: memory may do for less, and a text
    that no batch survives costs its own request only."""
    try:
        rows = engine.encode(core.texts(places))
        if len(rows) != len(places):
            raise ValueError(f"the engine gave {len(rows)} rows for {len(places)} texts")
    except EngineDead:
        raise
    except Exception as error:
        if len(places) == 1:
            core.on_error(places, error)
            return
        middle = len(places) // 2
        for half in (places[:middle], places[middle:]):
            if left := core.still_open(half):
                encode_step(engine, core, left)
        return
    core.on_rows(places, rows)
