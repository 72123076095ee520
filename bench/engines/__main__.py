"""`python -m bench.engines [--only NAME ...] [--out FILE]`: engines behind SMMF against their own.

Each engine's file measures it against the library's own loop and the library's own server, on the
same weights in the same run. An engine that is not installed here is named, not left out silently.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from importlib import import_module
from pathlib import Path
from typing import Any

from bench.serve.__main__ import machine

ENGINES = ("transformers", "llama_cpp", "mlx", "vllm", "embed")
RESULTS = Path(__file__).parent.parent / "results" / "engines.json"


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.engines", description=__doc__)
    parser.add_argument("--only", nargs="+", choices=ENGINES, default=list(ENGINES))
    parser.add_argument("--out", type=Path, default=RESULTS)
    args = parser.parse_args()
    kept: dict[str, Any] = json.loads(args.out.read_text()) if args.out.exists() else {}
    kept["machine"] = machine()
    os.environ.setdefault("OMP_NUM_THREADS", "1")  # ours and theirs alike, in processes to come too
    failed = 0
    for name in args.only:
        print(f"{name} ...", file=sys.stderr, flush=True)
        try:
            figures = import_module(f"bench.engines.{name}").run()
        except (ImportError, FileNotFoundError) as error:
            print(f"  not measured: {error}", file=sys.stderr)
            failed += 1
            continue
        kept[name] = figures
        print(f"  {json.dumps(figures)}", file=sys.stderr, flush=True)
        args.out.parent.mkdir(parents=True, exist_ok=True)
        args.out.write_text(json.dumps(kept, indent=1) + "\n")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
