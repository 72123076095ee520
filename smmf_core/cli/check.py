"""`smmf check`: validates configuration files and estimates whether the models fit in memory.

Owns the report; must not start anything. A key that the contract names but this release lacks is
an error unless its value changes nothing: to ignore it would silently change behaviour.
"""

from __future__ import annotations

import argparse
import os
import sys
from typing import Any

from smmf_core import tls
from smmf_core.cli.http import add_json_flag, wants_json
from smmf_core.cli.table import print_json, size
from smmf_core.config import (
    ConfigProblems,
    Memory,
    ModelConfig,
    Problem,
    load_models,
    load_raw,
    load_raw_server,
    load_server,
)
from smmf_core.config.targets import is_server_file
from smmf_core.controller import gpus, need
from smmf_core.engines.host_memory import free_bytes
from smmf_core.environments.interpreter import is_installed, missing


def add_parser(subparsers: Any) -> None:
    parser = subparsers.add_parser(
        "check",
        help="validate configuration files",
        description="Names every problem with file, line, key and the nearest valid key, and "
        "estimates whether the models fit in memory. FILE may be a folder, too.",
    )
    parser.add_argument("file", metavar="FILE", nargs="*", help="none: the demo model")
    add_json_flag(parser)


class Findings:
    """What there is to say about the files that were named."""

    def __init__(self, files: list[str]) -> None:
        self.models: list[ModelConfig] = []
        self.problems: list[Problem] = []
        self.warnings: list[Problem] = []
        targets = [file for file in files if not is_server_file(file)]
        for file in files:
            if file not in targets:
                self._server(file)
        if targets or not files:
            self._models(targets)

    def _server(self, file: str) -> None:
        try:
            self.problems += tls.problems(load_server(file, {}))
            self.warnings += load_raw_server(file).warnings
        except ConfigProblems as error:
            self.problems += error.problems

    def _models(self, targets: list[str]) -> None:
        try:
            self.models = load_models(targets, is_installed=is_installed)
            for target in targets:
                for raw in load_raw(target, is_installed=is_installed):
                    self.warnings += raw.warnings
        except ConfigProblems as error:
            self.problems += error.problems


def run(args: argparse.Namespace) -> int:
    found = Findings(args.file)
    _report(args, found)
    return 1 if found.problems else 0


def _report(args: argparse.Namespace, found: Findings) -> None:
    machine = Machine()
    problems, models = found.problems, found.models
    if wants_json(args):
        print_json(
            {
                "problems": [_as_row(problem) for problem in problems],
                "warnings": [_as_row(warning) for warning in found.warnings],
                "models": [_model_row(config, machine) for config in models],
                "available_bytes": machine.free_bytes,
            }
        )
        return
    for warning in found.warnings:
        print(f"warning: {warning}", file=sys.stderr)
    for problem in problems:
        print(problem, file=sys.stderr)
    for config in models:
        lacking = lack(config)
        verdict = f"ok, but {lacking}" if lacking else f"ok, {_fit(config, machine)}"
        print(f"{config.source}: {config.model.name}: {verdict}")
    if not problems and not models:
        print("ok")


def _as_row(problem: Problem) -> dict[str, Any]:
    fields = ("file", "line", "key", "kind", "message")
    return {name: getattr(problem, name) for name in fields}


def _model_row(config: ModelConfig, machine: Machine) -> dict[str, Any]:
    """`missing`: why it would not start here."""
    return {
        "name": config.model.name,
        "backend": config.model.backend,
        "is_remote": config.is_remote,
        "memory_bytes": machine.need_bytes(config),
        "missing": lack(config),
    }


def lack(config: ModelConfig) -> str:
    """Why a valid model would not start here; "": nothing is known to be missing."""
    path = config.model.path
    nowhere = f"there is no {path}" if path and not os.path.exists(path) else ""
    return config.why_not_served or "; ".join(filter(None, (nowhere, missing(config))))


def _fit(config: ModelConfig, machine: Machine) -> str:
    needed = machine.need_bytes(config)
    if not needed:
        return "needs no memory worth naming"
    replicas, available = config.deployment.replicas, machine.available_bytes(config)
    verdict = "fits" if needed <= available else "does NOT fit"
    return f"{size(needed)} for {replicas} replica(s) {verdict} in the {size(available)} available"


class Machine:
    """The memory of this machine, seen as the Controller sees it when it reserves."""

    def __init__(self) -> None:
        self._gpus = gpus.Nvml(os.environ.get("CUDA_VISIBLE_DEVICES")).gpus()
        self._budgets = gpus.budgets(Memory(), self._gpus)
        self.free_bytes = free_bytes()

    def need_bytes(self, config: ModelConfig) -> int:
        """Of all replicas."""
        place = gpus.find_place(config, self._gpus, self._budgets)
        return need.estimate(config, place) * config.deployment.replicas

    def available_bytes(self, config: ModelConfig) -> int:
        """On the devices that it may go to."""
        if not gpus.find_place(config, self._gpus, self._budgets).is_gpu:
            return self.free_bytes
        return sum(gpu.free_bytes for gpu in self._gpus)
