"""configs/SUPPORT.md is what the backends answer, all of them side by side in one `smmf serve`."""

from __future__ import annotations

from pathlib import Path

import engines_env
import pytest
import support_matrix
from support_matrix import BUILT_IN, GENERATE, NO, PAGE, READY_S, REFUSED, YES, Cell

pytestmark = pytest.mark.timeout(2 * READY_S)

Found = dict[tuple[str, str], Cell]


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> Found:
    with support_matrix.serving(tmp_path_factory.mktemp("matrix")) as server:
        return support_matrix.ask_all(server)


@pytest.mark.parametrize("backend", GENERATE)
def test_the_page_is_what_the_backend_answers(found: Found, backend: str) -> None:
    """Else: PYTHONPATH=tests:tests/model python tests/model/support_matrix.py"""
    if backend not in BUILT_IN:
        engines_env.require(backend)
    answered = [
        f"{support_matrix.names(row)}: {found[support_matrix.key_of(table, row), backend].word}"
        for table in support_matrix.TABLES
        if backend in table.backends
        for row in table.rows
    ]
    assert support_matrix.column(PAGE.read_text("utf-8"), backend) == answered


def test_nothing_is_ignored_by_what_chooses_tokens(found: Found) -> None:
    """What does not take effect is refused."""
    for (row, backend), cell in found.items():
        words = (YES, REFUSED, NO) if backend == "echo" else (YES, REFUSED)
        assert cell.word in words, (row, backend, cell.why)


def test_the_page_has_all_rows() -> None:
    text = PAGE.read_text("utf-8")
    assert text.startswith(support_matrix.HEAD)
    for table in support_matrix.TABLES:
        for row in table.rows:
            assert f"| {support_matrix.names(row)} |" in text
    assert Path(PAGE).stat().st_size < 20_000
