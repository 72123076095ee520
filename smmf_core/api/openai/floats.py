"""float32 vectors as the numbers that JSON shows best.

Owns the rounding; imported at the first use, so that a Router without it does not pay for numpy.
"""

from __future__ import annotations

import numpy as np

from smmf_core.messages import Vectors

_DIGITS = 9  # enough for every float32 to come back as itself
_MAX_POWER = 22  # 10 ** 22 is the largest power of ten that a double holds exactly


def float_rows(vectors: Vectors) -> list[list[float]]:
    """Each value as the double of its nine significant decimal digits.

    JSON encoders write the shortest text of a double: nine digits where the float32's own double
    would take seventeen. Below 1e-13 there are fewer.
    """
    values = np.frombuffer(vectors.data, "<f4").astype(np.float64)
    with np.errstate(divide="ignore"):
        exponents = np.floor(np.log10(np.abs(values)))
    powers = np.clip(_DIGITS - 1 - exponents, 0, _MAX_POWER)
    scales = np.power(10.0, np.arange(_MAX_POWER + 1))[powers.astype(np.int64)]
    rounded = np.rint(values * scales) / scales
    rows: list[list[float]] = rounded.reshape(-1, vectors.dimensions).tolist()
    return rows
