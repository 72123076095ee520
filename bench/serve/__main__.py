"""`python -m bench.serve [--only NAME ...] [--out FILE]`: run scenarios, keep the figures."""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Any

from bench.serve.scenarios import SCENARIOS

RESULTS = Path(__file__).parent.parent / "results" / "serve.json"
_PACKAGES = ("smmf", "uvloop", "httptools", "pyzmq", "msgspec", "fastapi", "uvicorn")


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


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.serve", description=__doc__)
    parser.add_argument("--only", nargs="+", choices=SCENARIOS, default=list(SCENARIOS))
    parser.add_argument("--out", type=Path, default=RESULTS)
    args = parser.parse_args()
    kept: dict[str, Any] = json.loads(args.out.read_text()) if args.out.exists() else {}
    kept["machine"] = machine()
    failed = 0
    for name in args.only:
        print(f"{name} ...", file=sys.stderr, flush=True)
        figures = SCENARIOS[name]()
        kept[name] = figures
        failed += bool(figures.get("errors"))
        print(f"  {json.dumps(figures)}", file=sys.stderr, flush=True)
        args.out.parent.mkdir(parents=True, exist_ok=True)
        args.out.write_text(json.dumps(kept, indent=1) + "\n")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
