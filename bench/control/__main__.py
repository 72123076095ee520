"""How long the control plane takes: figures into bench/results/control.json."""

from __future__ import annotations

import sys

from bench.control.lifecycle import crash, many_models, start_instance
from bench.control.loading import loading
from bench.control.swap_storm import swap_storm
from bench.runner import run

SCENARIOS = {
    scenario.__name__: scenario
    for scenario in (crash, start_instance, many_models, swap_storm, loading)
}

if __name__ == "__main__":
    sys.exit(run("control", SCENARIOS, __doc__))
