"""`smmf engines list|install|remove`: engines and their environments.

Owns the verb's flags and output, and the choice of a build; must not install (environments does).
"""

from __future__ import annotations

import argparse
import re
import sys
from typing import Any

from smmf_core.cli.http import add_json_flag, wants_json
from smmf_core.cli.table import print_json, table
from smmf_core.environments import gpu, managed
from smmf_core.environments.catalog import (
    CPU,
    CUDA_VERSIONS,
    ENGINES,
    Engine,
    closest_variant,
    variant_for_gpu,
)
from smmf_core.environments.interpreter import is_here
from smmf_core.errors import ControlError

_CUDA = re.compile(r"\d+(\.\d+)?")


def add_parser(subparsers: Any) -> None:
    parser = subparsers.add_parser(
        "engines",
        help="engines and their environments",
        description="An engine runs in the environment of smmf itself, if its packages are there, "
        "or in a managed one of its own ($SMMF_ENGINES_DIR, else ~/.local/share/smmf/engines).",
    )
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    listing = actions.add_parser("list", help="which engines are installed, and where")
    add_json_flag(listing)
    install = actions.add_parser("install", help="make an engine's environment")
    install.add_argument("name", choices=ENGINES, metavar="NAME", help=", ".join(ENGINES))
    device = install.add_mutually_exclusive_group()
    device.add_argument(
        "--cuda",
        type=_cuda_version,
        metavar="VERSION",
        help=f"CUDA version that the driver has: {', '.join(CUDA_VERSIONS)}; default: the GPU's",
    )
    device.add_argument("--cpu", action="store_true", help="without a GPU")
    install.add_argument(
        "--here", action="store_true", help="into the environment that smmf itself runs in"
    )
    install.add_argument("--force", action="store_true", help="again, though it is there")
    remove = actions.add_parser("remove", help="remove an engine's managed environment")
    remove.add_argument("name", choices=ENGINES, metavar="NAME", help=", ".join(ENGINES))


def run(args: argparse.Namespace) -> int:
    if args.action == "list":
        return _list(args)
    engine = ENGINES[args.name]
    return _remove(engine) if args.action == "remove" else _install(engine, args)


def _cuda_version(text: str) -> str:
    if _CUDA.fullmatch(text) is None:
        raise argparse.ArgumentTypeError(f"'{text}' is not a CUDA version such as 12.4")
    return text if "." in text else f"{text}.0"


def _list(args: argparse.Namespace) -> int:
    from smmf_core.environments.state import State, all_states

    states = all_states()
    if wants_json(args):
        print_json([state._asdict() for state in states])
    else:
        print(table([name.upper() for name in State._fields], states))
    return 0


def _install(engine: Engine, args: argparse.Namespace) -> int:
    from smmf_core.environments.install import Order, install, install_here

    order = Order(engine, _variant(engine, args))
    if args.here:
        version = install_here(order, sys.stderr)
        print(f"{engine.name} {version} ({order.device}) is in {sys.prefix}")
        return 0
    made = install(order, sys.stderr, args.force)
    if is_here(engine):
        text = f"{sys.prefix} has {engine.name}, too: that is what its models run on, as before"
        print(f"smmf: {text}", file=sys.stderr)
    print(f"{engine.name} {made.stamp.version} ({made.stamp.device}) is in {made.folder}")
    return 0


def _variant(engine: Engine, args: argparse.Namespace) -> str:
    """Which build:

    1. As asked: the CPU's, or that of the CUDA version or of the newest before it.
    2. Else the newest that the first GPU and its driver run.
    3. Without a GPU the CPU's.
    """
    if args.cpu:  # 1
        return CPU
    if args.cuda:
        variant = closest_variant(engine, args.cuda)
        if variant is None:
            known = ", ".join(CUDA_VERSIONS)
            raise ControlError(f"there is nothing for CUDA {args.cuda}: known are {known}")
        return variant
    found = gpu.find()
    if not found.gpus or not found.cuda:  # 3
        return CPU
    best = variant_for_gpu(engine, found.gpus[0].capability, found.cuda)  # 2
    if best is None:
        raise ControlError(
            f"no build of {engine.name} for {found.gpus[0].name} "
            f"({found.gpus[0].generation}) with CUDA {found.cuda}; --cpu installs one for the CPU"
        )
    return best


def _remove(engine: Engine) -> int:
    with managed.locked(engine.name):
        was_there = managed.remove(engine.name)
    print(f"{engine.name} is removed" if was_there else f"{engine.name} was not there")
    return 0
