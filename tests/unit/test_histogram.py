"""Latency histograms against exact computation on the same values."""

from __future__ import annotations

import math
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from smmf_core.native._histogram import Histogram

ERROR = 1 / 32
NANOSECOND = 1e-9
seconds = st.one_of(st.floats(0, 1e4), st.floats(0, 1e-3), st.floats(0, 1e-7))
many = st.lists(seconds, min_size=1, max_size=200)


def filled(values: list[float]) -> Histogram:
    histogram = Histogram()
    histogram.record_many(values)
    return histogram


def is_close(got: float, exact: float) -> bool:
    return abs(got - exact) <= ERROR * exact + NANOSECOND


@given(many, st.floats(0, 1))
def test_quantiles_are_within_the_error(values: list[float], q: float) -> None:
    exact = sorted(values)[max(1, math.ceil(q * len(values))) - 1]
    assert is_close(filled(values).quantile(q), exact)


@given(many)
def test_count_and_sum_are_exact(values: list[float]) -> None:
    histogram = filled(values)
    assert histogram.count == len(values)
    assert histogram.sum == pytest.approx(math.fsum(values))


@given(many, many)
def test_a_merge_is_what_one_histogram_would_hold(a: list[float], b: list[float]) -> None:
    merged = filled(a)
    merged.merge(filled(b))
    both = filled(a + b)
    assert merged.count == both.count
    assert merged.sum == pytest.approx(both.sum)
    for q in (0, 0.1, 0.5, 0.9, 0.99, 1):
        assert merged.quantile(q) == both.quantile(q)


@given(many)
def test_a_dump_carries_everything(values: list[float]) -> None:
    histogram = filled(values)
    loaded = filled([1.0])
    loaded.load(histogram.dump())
    assert loaded.dump() == histogram.dump()
    assert (loaded.count, loaded.sum) == (histogram.count, histogram.sum)
    assert loaded.quantile(0.5) == histogram.quantile(0.5)


@given(many, st.lists(st.floats(1e-6, 100), min_size=1, max_size=8))
def test_cumulative_counts_are_exact_up_to_the_error_at_the_bound(
    values: list[float], bounds: list[float]
) -> None:
    bounds.sort()
    counts = filled(values).cumulative(bounds)
    assert counts == sorted(counts)
    for bound, count in zip(bounds, counts, strict=True):
        surely = sum(value <= bound * (1 - 2 * ERROR) - NANOSECOND for value in values)
        perhaps = sum(value <= bound * (1 + 2 * ERROR) + NANOSECOND for value in values)
        assert surely <= count <= perhaps


def test_an_empty_one_answers_zero() -> None:
    histogram = Histogram()
    assert (histogram.count, histogram.sum, histogram.quantile(0.5)) == (0, 0.0, 0.0)
    assert histogram.cumulative([1.0]) == [0]


def test_values_out_of_range_are_clamped() -> None:
    histogram = filled([-1.0, math.nan, math.inf, 1e9])
    assert histogram.count == 4
    assert histogram.quantile(0) == 0.0
    assert is_close(histogram.quantile(1), 2**44 / 1e9)
    assert histogram.cumulative([math.inf]) == [4]


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"1234567",
        b"x" * 9,
        struct.pack("<dHQ", 1.0, 656, 1),
        struct.pack("<dHQ", 1.0, 0, 1)[:-1],
    ],
)
def test_other_bytes_do_not_load(data: bytes) -> None:
    histogram = filled([1.0])
    before = histogram.dump()
    with pytest.raises(ValueError, match="not a dumped histogram"):
        histogram.load(data)
    assert histogram.dump() == before
