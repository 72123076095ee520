"""Starts the Worker under another interpreter, which may lack what it needs.

Owns the sentence that says so; must not import anything else before it has tried.
"""

from __future__ import annotations

import platform
import sys
from importlib import import_module

from smmf_core.environments.catalog import UNFIT, WORKER_NEEDS


def main() -> int:
    try:
        import_module("smmf_core.native._ring")  # built for one version of Python
        from smmf_core.worker.main import main as run
    except ImportError as error:
        needs = " ".join(need.split(">=")[0] for need in WORKER_NEEDS)
        print(
            f"{sys.executable} (Python {platform.python_version()}) cannot run a worker: {error}; "
            f"it must be of the same Python version as smmf's own, and have {needs}",
            file=sys.stderr,
        )
        return UNFIT
    return run()


if __name__ == "__main__":
    sys.exit(main())
