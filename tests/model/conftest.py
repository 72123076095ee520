"""What must hold before the models' tests import numpy."""

import os

# The reference engine runs with one BLAS thread, as its Worker sets it; numpy reads it once.
for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(name, "1")
