"""`smmf check`: validates configuration files and estimates whether the models fit in memory.

Owns the estimate; must not start anything. A key that the contract names but this release lacks is
an error unless its value changes nothing: to ignore it would silently change behaviour.
"""

from __future__ import annotations

import argparse
import math
import sys
from pathlib import Path
from typing import Any

from smmf_core.cli.http import add_json_flag, wants_json
from smmf_core.cli.table import print_json, size
from smmf_core.config import ConfigProblems, ModelConfig, Problem, load_models, load_server
from smmf_core.config.parse import is_server_text
from smmf_core.engines.host_memory import free_bytes
from smmf_core.environments.interpreter import is_installed, missing

GIB = 2**30


def add_parser(subparsers: Any) -> None:
    parser = subparsers.add_parser(
        "check",
        help="validate configuration files",
        description="Names every problem with file, line, key and the nearest valid key, and "
        "estimates whether the models fit in memory. FILE may be a folder, too.",
    )
    parser.add_argument("file", metavar="FILE", nargs="*", help="none: the demo model")
    add_json_flag(parser)


def run(args: argparse.Namespace) -> int:
    problems: list[Problem] = []
    targets = [file for file in args.file if not _is_server_file(file)]
    for file in args.file:
        if file not in targets:
            problems += _server_problems(file)
    models: list[ModelConfig] = []
    if targets or not args.file:
        try:
            models = load_models(targets, is_installed=is_installed)
        except ConfigProblems as error:
            problems += error.problems
    _report(args, models, problems)
    return 1 if problems else 0


def _is_server_file(file: str) -> bool:
    try:
        return file.endswith(".toml") and is_server_text(Path(file).read_text("utf-8"))
    except (OSError, UnicodeDecodeError):
        return False


def _server_problems(file: str) -> list[Problem]:
    try:
        load_server(file, {})
    except ConfigProblems as error:
        return error.problems
    return []


def _report(args: argparse.Namespace, models: list[ModelConfig], problems: list[Problem]) -> None:
    available = free_bytes()
    if wants_json(args):
        print_json(
            {
                "problems": [_as_row(problem) for problem in problems],
                "models": [_model_row(config) for config in models],
                "available_bytes": available,
            }
        )
        return
    for problem in problems:
        print(problem, file=sys.stderr)
    for config in models:
        lacking = missing(config)
        verdict = f"ok, but {lacking}" if lacking else f"ok, {_fit(config, available)}"
        print(f"{config.source}: {config.model.name}: {verdict}")
    if not problems and not models:
        print("ok")


def _as_row(problem: Problem) -> dict[str, Any]:
    fields = ("file", "line", "key", "kind", "message")
    return {name: getattr(problem, name) for name in fields}


def _model_row(config: ModelConfig) -> dict[str, Any]:
    """`missing`: why it would not start here."""
    name = config.model.name
    return {"name": name, "memory_bytes": need_bytes(config), "missing": missing(config)}


def _fit(config: ModelConfig, available: int) -> str:
    need = need_bytes(config)
    if not need:
        return "needs no memory worth naming"
    replicas = config.deployment.replicas
    verdict = "fits" if need <= available else "does NOT fit"
    return f"{size(need)} for {replicas} replica(s) {verdict} in the {size(available)} available"


def need_bytes(config: ModelConfig) -> int:
    """Of all replicas: `memory_gib` where given, else the weights in the number format that the
    backend computes in. The KV cache comes on top, by use."""
    replicas = config.deployment.replicas
    if config.deployment.memory_gib:
        return int(config.deployment.memory_gib * GIB) * replicas
    path = Path(config.model.path)
    if not config.model.path or not path.exists():
        return 0
    if path.is_file():
        return path.stat().st_size * replicas
    return weight_bytes(path, _bytes_per_weight(config)) * replicas


def _bytes_per_weight(config: ModelConfig) -> float:
    """0: as stored."""
    options = config.optimization
    if options.load_in_4bit:
        return 0.5
    if options.load_in_8bit:
        return 1
    if config.model.backend == "reference" or options.dtype == "float32":
        return 4
    return 0 if options.dtype == "auto" else 2


def weight_bytes(folder: Path, bytes_per_weight: float) -> int:
    """Memory of a folder's model files: safetensors by their weights (0: as stored), else GGUF."""
    from safetensors import safe_open

    files = sorted(folder.glob("*.safetensors"))
    if not files or not bytes_per_weight:
        return sum(file.stat().st_size for file in files or folder.glob("*.gguf"))
    weights = 0
    for file in files:
        with safe_open(file, framework="numpy") as tensors:
            for name in tensors.keys():  # noqa: SIM118  (not a dict)
                weights += math.prod(tensors.get_slice(name).get_shape())
    return int(weights * bytes_per_weight)
