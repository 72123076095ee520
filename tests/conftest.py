"""What must hold before any test module is imported."""

import os

# The reference engine's results are exact with one BLAS thread, which numpy fixes when imported.
for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(name, "1")
