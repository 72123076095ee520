"""Runs named scenarios and keeps their figures in bench/results, with the machine's description.

Owns the command line of `python -m bench.<folder>`; must not measure anything.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
from collections.abc import Callable, Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parent / "results"
_PACKAGES = ("smmf", "uvloop", "httptools", "pyzmq", "msgspec", "fastapi", "uvicorn")

Scenario = Callable[[], dict[str, Any]]


def machine() -> dict[str, Any]:
    cpu = next(
        line.partition(":")[2].strip()
        for line in Path("/proc/cpuinfo").read_text().splitlines()
        if line.startswith("model name")
    )
    return {
        "cpu": cpu,
        "cores": os.cpu_count(),
        "kernel": platform.release().partition("-")[0],
        "python": platform.python_version(),
        "packages": {name: version(name) for name in _PACKAGES},
    }


def run(folder: str, scenarios: Mapping[str, Scenario], about: str | None) -> int:
    """What `--only` names, else all; what cannot be measured here is named. Returns an exit code:
    1 if a scenario had errors or was not measured."""
    parser = argparse.ArgumentParser(prog=f"python -m bench.{folder}", description=about)
    parser.add_argument("--only", nargs="+", choices=scenarios, default=list(scenarios))
    parser.add_argument("--out", type=Path, default=RESULTS / f"{folder}.json")
    args = parser.parse_args()
    kept: dict[str, Any] = json.loads(args.out.read_text()) if args.out.exists() else {}
    kept["machine"] = machine()
    failed = 0
    for name in args.only:
        print(f"{name} ...", file=sys.stderr, flush=True)
        try:
            figures = scenarios[name]()
        except (ImportError, FileNotFoundError) as error:
            print(f"  not measured: {error}", file=sys.stderr)
            failed += 1
            continue
        kept[name] = figures
        failed += bool(figures.get("errors"))
        print(f"  {json.dumps(figures)}", file=sys.stderr, flush=True)
        args.out.parent.mkdir(parents=True, exist_ok=True)
        args.out.write_text(json.dumps(kept, indent=1) + "\n")
    return 1 if failed else 0
