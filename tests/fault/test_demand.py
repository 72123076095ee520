"""Loading on demand while things die: the Controller, and the Worker that loads."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from server import Server, echo_toml

WAIT_S = 30.0


@pytest.fixture
def server(folder: Path) -> Server:
    deployment = {"autostart": False, "keep_alive": "1s"}
    engine = {"tokens": 4, "load_s": 1.0}
    (folder / "local-lazy.toml").write_text(echo_toml("lazy", deployment=deployment, engine=engine))
    return Server(folder).start()


def ask(server: Server) -> int:
    return server.request("POST", "/v1/completions", {"model": "lazy", "prompt": "x"})[0]


def status_of(server: Server) -> str:
    status: str = json.loads(server.get("/v1/models/lazy")[2])["status"]
    return status


def until(condition: Callable[[], object]) -> None:
    limit = time.monotonic() + WAIT_S
    while not condition():
        assert time.monotonic() < limit
        time.sleep(0.02)


def test_a_new_controller_hears_of_who_waits(server: Server) -> None:
    assert server.process is not None
    server.process.kill()
    server.process.wait()
    with ThreadPoolExecutor(4) as pool:
        answers = [pool.submit(ask, server) for _ in range(4)]
        until(lambda: server.metrics()['smmf_requests_waiting{model="lazy"}'] == 4)
        server.start()
        assert [answer.result() for answer in answers] == [200] * 4
    assert server.stop() == 0


def test_a_worker_that_dies_while_it_loads_is_followed_by_another(server: Server) -> None:
    def loading() -> list[int]:
        return [row["pid"] for row in server.instances() if row["model"] == "lazy" and row["pid"]]

    with ThreadPoolExecutor(4) as pool:
        answers = [pool.submit(ask, server) for _ in range(4)]
        until(loading)
        os.kill(loading()[0], signal.SIGKILL)
        assert [answer.result() for answer in answers] == [200] * 4
    assert server.stop() == 0


def test_requests_at_the_very_moment_of_unloading_all_succeed(server: Server) -> None:
    assert ask(server) == 200
    for _ in range(3):
        until(lambda: status_of(server) == "registered")
        with ThreadPoolExecutor(8) as pool:
            assert set(pool.map(lambda _: ask(server), range(8))) == {200}
    assert server.stop() == 0
