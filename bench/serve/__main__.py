"""What a real `smmf serve` costs, against the floors: figures into bench/results/serve.json."""

from __future__ import annotations

import sys

from bench.runner import run
from bench.serve.scenarios import SCENARIOS

if __name__ == "__main__":
    sys.exit(run("serve", SCENARIOS, __doc__))
