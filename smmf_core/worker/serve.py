"""From an engine with its model to a Worker that serves: its core, the warm-up, the loop.

Owns the order of these; must not load a model.
"""

from __future__ import annotations

import asyncio
import faulthandler
import gc
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, cast

from smmf_core.config import ModelConfig
from smmf_core.engines.base import EmbedEngine, StepEngine, StreamEngine
from smmf_core.native._ring import wait
from smmf_core.worker import probe
from smmf_core.worker.control import WorkerControl
from smmf_core.worker.links import Links
from smmf_core.worker.load import Engine
from smmf_core.worker.probe import Prober

if TYPE_CHECKING:
    from smmf_core.native._batcher import Batcher
    from smmf_core.worker.contract import Core

_LOOK_S = 0.2  # at the Controller, while an engine that warms up has nothing to do


def serve(engine: Engine, config: ModelConfig, control: WorkerControl) -> None:
    """Until the Worker is to end. Raises WarmUpFailed, EngineDead."""
    control.metrics = getattr(engine, "metrics", dict)
    if hasattr(engine, "encode"):
        _serve_embed(cast(EmbedEngine, engine), config, control)
    elif hasattr(engine, "step"):
        _serve_steps(cast(StepEngine, engine), config, control)
    else:
        asyncio.run(_serve_streams(engine, config, control))


def _serve_steps(engine: StepEngine, config: ModelConfig, control: WorkerControl) -> None:
    from smmf_core.worker import step_loop
    from smmf_core.worker.core import WorkerCore

    core = WorkerCore(engine.spec, _batcher(config, engine.spec.max_sequences))
    prober = Prober(core, config.model.task)
    if engine.spec.warms_up:
        warm_up(prober, control, lambda now: step_loop.turn(engine, core, control, now))
    if control.drain_until is None:
        links = _connect(engine, core, control, prober)
        step_loop.run(engine, core, links, control)
        links.close()
    engine.close()


async def _serve_streams(engine: StreamEngine, config: ModelConfig, control: WorkerControl) -> None:
    from smmf_core.worker.core import WorkerCore
    from smmf_core.worker.stream_loop import StreamLoop

    core = WorkerCore(engine.spec, _batcher(config, engine.spec.max_sequences))
    prober = Prober(core, config.model.task)
    links = Links(core)
    loop = StreamLoop(engine, core, links, control)
    if engine.spec.warms_up:
        await loop.warm_up(prober)
    if control.drain_until is None:
        _connect(engine, core, control, prober, links)
        await loop.run()
    await engine.close()
    links.close()


def _serve_embed(engine: EmbedEngine, config: ModelConfig, control: WorkerControl) -> None:
    from smmf_core.worker import embed_loop
    from smmf_core.worker.embed_batcher import EmbedBatcher
    from smmf_core.worker.embed_core import EmbedCore

    options = config.optimization
    delay_s = options.max_batch_delay_ms / 1000 if options.batching == "static" else None
    sizes = options.max_batch_size, options.max_batch_tokens
    batcher = EmbedBatcher(*sizes, delay_s, engine.spec.bucket_tokens)
    core = EmbedCore(engine.spec, engine.tokenize, batcher)
    prober = Prober(core, config.model.task)
    if engine.spec.warms_up:
        warm_up(prober, control, lambda now: embed_loop.turn(engine, core, control, now))
    if control.drain_until is None:
        links = _connect(engine, core, control, prober)
        embed_loop.run(engine, core, links, control)
        links.close()
    engine.close()


def warm_up(prober: Prober, control: WorkerControl, turn: Callable[[float], float]) -> None:
    """A request of the Worker's own through an engine that is driven by `turn`, which says when it
    is due again. Returns early when the Worker is to end. Raises WarmUpFailed, EngineDead."""
    control.set_phase(probe.WARMING_UP)
    now = time.monotonic()
    prober.begin(probe.WARM_UP, now)
    while control.drain_until is None:
        control.turn(now)
        due = turn(now)
        now = time.monotonic()
        if prober.check_warm_up(now):
            return
        if due > now:
            wait([control.fd] if control.fd >= 0 else [], min(due - now, _LOOK_S))
            now = time.monotonic()


def _connect(
    engine: Engine, core: Core, control: WorkerControl, prober: Prober, links: Links | None = None
) -> Links:
    """Meet the Routers, now that the model can answer."""
    links = links or Links(core)
    control.turn(time.monotonic())
    control.apply_adapters(engine)  # what was wished while it loaded
    gc.collect()
    gc.freeze()  # the model and the modules are for life
    faulthandler.enable()  # from here on a crash is told by its stacks, not by the last line
    control.loaded(core, links, prober)
    return links


def _batcher(config: ModelConfig, max_sequences: int) -> Batcher:
    from smmf_core.native._batcher import Batcher

    options = config.optimization
    is_static = options.batching == "static"
    delay_s = options.max_batch_delay_ms / 1000 if is_static else 0.0
    if max_sequences and not is_static:  # the engine forms its own steps
        return Batcher(max_sequences, 0, delay_s, is_static)
    return Batcher(options.max_batch_size, options.max_batch_tokens, delay_s, is_static)
