"""Engines behind SMMF against their own: figures into bench/results/engines.json.

Each engine's file measures it against the library's own loop and the library's own server, on the
same weights in the same run. An engine that is not installed here is named, not left out silently.
"""

from __future__ import annotations

import os
import sys
from functools import partial
from importlib import import_module
from typing import Any

from bench.runner import run

ENGINES = ("transformers", "llama_cpp", "mlx", "vllm", "embed")


def _measure(engine: str) -> dict[str, Any]:
    """Imports its library only now: a missing one must not keep the others from being measured."""
    figures: dict[str, Any] = import_module(f"bench.engines.{engine}").run()
    return figures


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "1")  # ours and theirs alike, in processes to come too
    sys.exit(run("engines", {engine: partial(_measure, engine) for engine in ENGINES}, __doc__))
