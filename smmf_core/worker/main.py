"""The Worker process: one replica of one model.

Its one thread blocks only in the engine's step, in loading, and while it has nothing to do; what
waits, waits in the Batcher; the engine owns the model. Must not import another engine than its own.
"""

from __future__ import annotations

import argparse
import faulthandler
import logging
import signal
import sys
import time
from pathlib import Path

from smmf_core import logs
from smmf_core.config import ModelConfig
from smmf_core.engines.base import EngineDead
from smmf_core.environments.catalog import UNFIT
from smmf_core.errors import CannotStart
from smmf_core.worker.control import WorkerControl
from smmf_core.worker.load import Engine, load_engine, why_not
from smmf_core.worker.probe import WARMING_UP, WarmUpFailed
from smmf_core.worker.serve import serve

_log = logging.getLogger("smmf.worker")
_MAX_DRAIN_S = 30.0  # after SIGTERM; the Controller kills earlier if it wants


def main() -> int:
    parser = argparse.ArgumentParser(prog="smmf-worker")
    parser.add_argument("--run-dir", type=Path, required=True)
    parser.add_argument("--id", type=int, required=True)
    parser.add_argument("--incarnation", type=int, required=True)
    args = parser.parse_args()
    logs.set_up()
    faulthandler.register(signal.SIGUSR1)  # stacks into the log, also from within a step
    control = WorkerControl(args.run_dir, args.id, args.incarnation)
    signal.signal(signal.SIGTERM, lambda *_: control.drain(time.monotonic() + _MAX_DRAIN_S))
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a terminal's Ctrl-C is the Controller's
    try:
        config = _await_config(control)
        return 1 if config is None else _run(config, control)
    finally:
        control.close()


def _await_config(control: WorkerControl) -> ModelConfig | None:
    """Wait for the Controller's Welcome; None when there is no Controller."""
    from smmf_core.native._ring import wait

    while control.config is None and control.drain_until is None:
        control.turn(time.monotonic())
        if control.config is None:
            wait([control.fd] if control.fd >= 0 else [], 0.2)
    return control.config


def _run(config: ModelConfig, control: WorkerControl) -> int:
    """Load and serve; the exit status."""
    engine = _load(config, control)
    if isinstance(engine, int):
        return engine
    try:
        serve(engine, config, control)
    except WarmUpFailed as error:
        return _failed(config, control, error)
    except EngineDead as error:  # the Controller starts another one
        if control.phase == WARMING_UP:
            return _failed(config, control, error)
        _log.error("%s: the engine died: %s", config.model.name, error)
        return 1
    return 0


def _load(config: ModelConfig, control: WorkerControl) -> Engine | int:
    """The engine, or an exit status."""
    try:
        return load_engine(config, control)
    except Exception as error:  # whatever a model's files or library may raise
        return _failed(config, control, error)


def _failed(config: ModelConfig, control: WorkerControl, error: Exception) -> int:
    reason = why_not(config, error)
    _log.error("cannot load %s: %s", config.model.name, reason, exc_info=error)
    control.set_state("failed", reason)
    return UNFIT if isinstance(error, (ImportError, CannotStart)) else 1


if __name__ == "__main__":
    sys.exit(main())
