"""The Worker process: one replica of one model.

Its one thread blocks only in the engine's step, in loading, and while it has nothing to do; what
waits, waits in the Batcher; the engine owns the model. Must not import another engine than its own.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import os
import signal
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, cast

from smmf_core.config import ModelConfig
from smmf_core.engines.base import EmbedEngine, EngineDead, StepEngine, StreamEngine
from smmf_core.environments.catalog import UNFIT
from smmf_core.errors import CannotStart
from smmf_core.plugins import load_backend, why_not_loaded
from smmf_core.worker.control import WorkerControl

if TYPE_CHECKING:
    from smmf_core.native._batcher import Batcher
    from smmf_core.worker.contract import Core
    from smmf_core.worker.links import Links

Engine = StepEngine | StreamEngine | EmbedEngine

_ONE_THREAD = ("echo", "reference")  # their results must not depend on the thread count
_MAX_DRAIN_S = 30.0  # after SIGTERM; the Controller kills earlier if it wants
_THREAD_VARIABLES = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")


def main() -> int:
    parser = argparse.ArgumentParser(prog="smmf-worker")
    parser.add_argument("--run-dir", type=Path, required=True)
    parser.add_argument("--id", type=int, required=True)
    parser.add_argument("--incarnation", type=int, required=True)
    args = parser.parse_args()
    control = WorkerControl(args.run_dir, args.id, args.incarnation)
    signal.signal(signal.SIGTERM, lambda *_: control.drain(time.monotonic() + _MAX_DRAIN_S))
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a terminal's Ctrl-C is the Controller's
    config = _await_config(control)
    if config is None:
        return 1
    try:
        engine = _load(config, control)
    except (ImportError, CannotStart) as error:
        reason = why_not_loaded(config.model.backend, error)
        print(f"cannot load {config.model.name}: {reason}", file=sys.stderr)
        control.set_state("failed", reason)
        return UNFIT
    except Exception as error:  # whatever a model's files or library may raise
        print(f"cannot load {config.model.name}: {error!r}", file=sys.stderr)
        control.set_state("failed", str(error) or type(error).__name__)
        return 1
    try:
        _serve(engine, config, control)
    except EngineDead as error:  # the Controller starts another one
        print(f"{config.model.name}: the engine died: {error}", file=sys.stderr)
        return 1
    return 0


def _await_config(control: WorkerControl) -> ModelConfig | None:
    """Wait for the Controller's Welcome; None when there is no Controller."""
    from smmf_core.native._ring import wait

    while control.config is None and control.drain_until is None:
        control.turn(time.monotonic())
        if control.config is None:
            wait([control.fd] if control.fd >= 0 else [], 0.2)
    return control.config


def _load(config: ModelConfig, control: WorkerControl) -> Engine:
    if config.model.backend in _ONE_THREAD:
        for name in _THREAD_VARIABLES:  # before numpy
            os.environ.setdefault(name, "1")
    if config.model.task != "generate":  # before torch; threads that spin between an encoder's
        os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # steps take the Router's cores
    print(f"loading {config.model.name} ({config.model.backend})", file=sys.stderr, flush=True)
    engine: Engine = load_backend(config.model.backend)(config)

    def progress(done: float) -> None:
        control.progress = done
        control.turn(time.monotonic())

    loading = engine.load(progress)
    if loading is not None:
        asyncio.run(loading)
    adapters = config.engine.get("adapters") or {}
    if adapters:
        set_adapters = getattr(engine, "set_adapters", None)
        if set_adapters is None:
            raise ValueError(f"The {config.model.backend} backend does not take adapters.")
        set_adapters(adapters)
        control.adapters = dict(adapters)
    return engine


def _serve(engine: Engine, config: ModelConfig, control: WorkerControl) -> None:
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
    links = _connect(core, control)
    step_loop.run(engine, core, links, control)
    engine.close()
    links.close()


async def _serve_streams(engine: StreamEngine, config: ModelConfig, control: WorkerControl) -> None:
    from smmf_core.worker.core import WorkerCore
    from smmf_core.worker.stream_loop import StreamLoop

    core = WorkerCore(engine.spec, _batcher(config, engine.spec.max_sequences))
    links = _connect(core, control)
    await StreamLoop(engine, core, links, control).run()
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
    links = _connect(core, control)
    embed_loop.run(engine, core, links, control)
    engine.close()
    links.close()


def _connect(core: Core, control: WorkerControl) -> Links:
    """Meet the Routers, now that the model can answer."""
    from smmf_core.worker.links import Links

    links = Links(core)
    gc.collect()
    gc.freeze()  # the model and the modules are for life
    control.loaded(core, links)
    return links


def _batcher(config: ModelConfig, max_sequences: int) -> Batcher:
    from smmf_core.native._batcher import Batcher

    options = config.optimization
    is_static = options.batching == "static"
    delay_s = options.max_batch_delay_ms / 1000 if is_static else 0.0
    if max_sequences and not is_static:  # the engine forms its own steps
        return Batcher(max_sequences, 0, delay_s, is_static)
    return Batcher(options.max_batch_size, options.max_batch_tokens, delay_s, is_static)


if __name__ == "__main__":
    sys.exit(main())
