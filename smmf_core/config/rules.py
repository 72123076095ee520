"""What types cannot say: keys that go together, times, a database's URL.

Owns those rules; must not judge what a type can.
"""

from __future__ import annotations

import re

from smmf_core.config.durations import span_s
from smmf_core.config.schema import Deployment, ModelConfig, Registry, Server, Timeouts
from smmf_core.config.source import Source
from smmf_core.keys import wrong_keys

MIN_HANG_S = 3.0
_URL = re.compile(r"[a-z][a-z0-9_]*(\+[a-z0-9_]+)?://")


def check_model(source: Source, config: ModelConfig) -> None:
    """Names what does not fit together, and sets what follows from another key."""
    check_deployment(source, config.deployment)
    if config.optimization.load_in_8bit and config.optimization.load_in_4bit:
        path = ("optimization", "load_in_4bit")
        source.problem(path, "value", "not together with load_in_8bit")
    if quantization := config.engine.get("quantization"):
        config.optimization.quantization = str(quantization)


def check_keys(source: Source, server: Server) -> None:
    if message := wrong_keys(server.api_keys):
        source.problem(("server", "api_keys"), "value", message)


def check_registry(source: Source, registry: Registry) -> None:
    """Only that it looks like one: which databases there are is known to who opens it."""
    if registry.url and not _URL.match(registry.url):
        message = "no database's URL, as sqlite:////folder/file or postgresql://user@host/name"
        source.problem(("registry", "url"), "value", message)


def check_timeouts(source: Source, timeouts: Timeouts) -> None:
    if 0 < timeouts.hang_s < MIN_HANG_S:
        message = f"must be 0 or at least {MIN_HANG_S:g}: a worker tells of itself once a second"
        source.problem(("timeouts", "hang_s"), "value", message)


def check_deployment(source: Source, deployment: Deployment) -> None:
    _check_replicas(source, deployment)
    _check_gpus(source, deployment)
    if deployment.keep_alive != "":
        try:
            span_s(deployment.keep_alive)
        except ValueError as error:
            source.problem(("deployment", "keep_alive"), "value", str(error))


def _check_replicas(source: Source, deployment: Deployment) -> None:
    """1. min_replicas and max_replicas: both or none  2. not more at least than at most
    3. `replicas` is with how many it starts, between them; by default as few as it can serve with
    """
    low, high = deployment.min_replicas, deployment.max_replicas
    if low is None and high is None:
        return
    if low is None or high is None:
        given, other = ("max", "min") if low is None else ("min", "max")
        message = f"needs {other}_replicas too: the model is scaled between them"
        source.problem(("deployment", f"{given}_replicas"), "value", message)  # 1.
    elif low > high:
        message = f"more than max_replicas, which is {high}"
        source.problem(("deployment", "min_replicas"), "value", message)  # 2.
    elif "replicas" not in source.section("deployment"):
        deployment.replicas = max(1, low)  # 3.
    elif not low <= deployment.replicas <= high:
        message = f"not between min_replicas and max_replicas, {low} and {high}"
        source.problem(("deployment", "replicas"), "value", message)  # 3.


def _check_gpus(source: Source, deployment: Deployment) -> None:
    gpus, device = deployment.gpus, deployment.device
    if gpus and device in ("cpu", "mps"):
        source.problem(("deployment", "gpus"), "value", f'must be 0 with device = "{device}"')
    elif gpus > 1 and ":" in device:
        message = f'device = "{device}" is one; leave its number out for {gpus}'
        source.problem(("deployment", "gpus"), "value", message)
