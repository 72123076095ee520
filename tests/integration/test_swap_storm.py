"""Three models, memory for one: nobody fails, loads stay few, and a busy model lets others in."""

from __future__ import annotations

import http.client
import threading

import pytest

from bench.control.swap_storm import CLIENTS, ask, batches, bound, start, swap_storm

DURATION_S = 6.0
LOAD_S = 0.3


@pytest.mark.slow
def test_a_storm_fails_no_request_and_loads_in_batches() -> None:
    figures = swap_storm(DURATION_S, LOAD_S)
    assert figures["errors"] == {}
    assert figures["requests"] > CLIENTS
    assert figures["loads"] > 3  # they were really swapped
    assert figures["loads"] >= figures["bound"]
    assert figures["loads"] <= 3 * figures["batches"] + 3


@pytest.mark.slow
def test_a_model_that_is_never_idle_gives_way_and_cuts_no_request_short() -> None:
    server = start(LOAD_S)
    is_over = threading.Event()
    answers: list[str] = []
    crowd = [
        threading.Thread(target=keep_asking, args=(server.port, is_over, answers)) for _ in range(6)
    ]
    try:
        for thread in crowd:
            thread.start()
        assert [ask_once(server.port, model) for model in "bc"] == ["", ""]
    finally:
        is_over.set()
        for thread in crowd:
            thread.join()
        server.stop()
    assert answers
    assert set(answers) == {""}


def keep_asking(port: int, is_over: threading.Event, answers: list[str]) -> None:
    while not is_over.is_set():
        answers.append(ask_once(port, "a"))


def ask_once(port: int, model: str) -> str:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=90)
    try:
        return ask(connection, model)
    finally:
        connection.close()


def test_the_figures_that_loads_are_compared_with() -> None:
    wishes = ["aabba", "bcb", "a"]
    assert bound(wishes) == 3
    assert batches(wishes) == 5
    assert batches(["a", "a"]) == bound(["a", "a"]) == 1
