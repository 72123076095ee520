"""Weight files in the page cache: which are worth it, and that they come and stay away."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from smmf_core.controller.page_cache import (
    HALF_LIFE_S,
    Candidate,
    Popularity,
    ReadAhead,
    cached_bytes,
    choose,
    read,
)

SIZE = 8 << 20


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    """A file that is on the disk and not in the page cache."""
    if not hasattr(os, "posix_fadvise"):
        pytest.skip("no way to drop a file from the page cache here")
    file = tmp_path / "model.safetensors"
    file.write_bytes(os.urandom(SIZE))
    drop(file)
    if cached_bytes(file):
        pytest.skip("this file system keeps its files in memory")
    return file


def drop(file: Path) -> None:
    with file.open("rb") as opened:
        os.fsync(opened.fileno())
        os.posix_fadvise(opened.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def test_mincore_tells_what_is_cached(weights: Path) -> None:
    weights.read_bytes()
    assert cached_bytes(weights) == SIZE
    drop(weights)
    assert cached_bytes(weights) == 0
    empty = weights.with_name("empty")
    empty.touch()
    assert cached_bytes(empty) == 0


def test_a_file_is_read_whole(weights: Path) -> None:
    read(weights, lambda: True)
    assert cached_bytes(weights) == SIZE


def test_what_is_partly_there_is_completed(weights: Path) -> None:
    weights.read_bytes()
    with weights.open("rb") as opened:
        os.posix_fadvise(opened.fileno(), SIZE // 2, 1 << 20, os.POSIX_FADV_DONTNEED)
    assert cached_bytes(weights) < SIZE
    read(weights, lambda: True)
    assert cached_bytes(weights) == SIZE


def test_what_is_there_is_not_read_again(weights: Path) -> None:
    weights.read_bytes()
    read(weights, lambda: pytest.fail("it was read"))


def test_a_newer_wish_ends_it_between_two_chunks(weights: Path) -> None:
    answers = iter([True, False])
    read(weights, lambda: next(answers))
    assert next(answers, None) is None


def test_a_file_that_is_gone_is_passed_over(tmp_path: Path) -> None:
    read(tmp_path / "missing", lambda: True)


def test_the_thread_carries_out_the_last_wish_and_ends(weights: Path) -> None:
    reader = ReadAhead()
    reader.wish([weights.with_name("missing"), weights])
    deadline = time.monotonic() + 30
    while cached_bytes(weights) < SIZE:
        assert time.monotonic() < deadline
    reader.wish([])
    reader.close()


def test_the_most_asked_for_that_fit_are_chosen() -> None:
    a, b, c, d = (Path(name) for name in "abcd")
    candidates = [
        Candidate(1.0, (a,), 40),
        Candidate(9.0, (b,), 80),
        Candidate(5.0, (c,), 30),
        Candidate(0.0, (d,), 1),
    ]
    assert choose(candidates, 120) == [b, c]
    assert choose(candidates, 150) == [b, c, a]
    assert choose(candidates, 75) == [c, a]
    assert choose(candidates, 0) == []


def test_popularity_halves_with_every_hour() -> None:
    popularity = Popularity()
    popularity.used(1, 8, 0.0)
    popularity.used(2, 3, HALF_LIFE_S)
    assert popularity.score(1, HALF_LIFE_S) == pytest.approx(4.0)
    popularity.used(1, 2, HALF_LIFE_S)
    assert popularity.score(1, 2 * HALF_LIFE_S) == pytest.approx(3.0)
    assert popularity.score(3, 0.0) == 0.0
    popularity.forget(1)
    assert popularity.score(1, 0.0) == 0.0
