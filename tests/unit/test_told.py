"""What of a Worker's failure a client is told."""

from __future__ import annotations

import pytest

from smmf_core.messages import Failure
from smmf_core.router.told import told


@pytest.mark.parametrize(
    ("message", "expected"),
    [
        ("The engine failed: no file /home/me/models/x.bin", "The engine failed: no file x.bin"),
        ("bad object <X at 0x7f31deadbeef>", "bad object <X at 0x...>"),
        ("oops\nTraceback (most recent call last):\n  File ...", "oops"),
        ("CUDA out of memory. Tried to allocate 2.00 GiB.", None),
        ("POST http://provider/v1/chat said no", None),
        ("1/2 of the tokens; a/b", None),
    ],
)
def test_nothing_of_the_machine(message: str, expected: str | None) -> None:
    error = told(Failure("internal_error", message, "p"))
    assert (error.message, error.param) == (expected or message, "p")


def test_refusals_are_in_our_own_words() -> None:
    text = "it answers /v1/chat/completions\nand /v1/messages"
    assert told(Failure("unsupported_value", text, "model")).message == text
