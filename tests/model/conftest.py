"""What must hold before the models' tests import numpy."""

import os
from collections.abc import Iterator

import pytest

# The reference engine runs with one BLAS thread, as its Worker sets it; numpy reads it once.
for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(name, "1")


@pytest.fixture(scope="module")
def one_torch_thread() -> Iterator[None]:
    """On a busy machine two threads wait for each other; and no progress bars."""
    import torch
    from transformers.utils import logging

    logging.disable_progress_bar()
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)
