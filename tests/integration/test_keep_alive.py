"""`keep_alive` in a request's body: how long the model stays loaded after it."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from server import Server, echo_toml

WAIT_S = 30.0


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder: Path = tmp_path_factory.mktemp("keep")
    for name in ("a", "b", "c"):
        keys = {"autostart": False, "keep_alive": "2s"}
        (folder / f"local-{name}.toml").write_text(echo_toml(name, deployment=keys))
    started = Server(folder).start()
    yield started
    assert started.stop() == 0


def ask(server: Server, model: str, **body: Any) -> tuple[int, dict[str, Any]]:
    body = {"model": model, "messages": [{"role": "user", "content": "x"}], **body}
    status, _, answer = server.request("POST", "/v1/chat/completions", body)
    return status, json.loads(answer)


def status_of(server: Server, model: str) -> str:
    status: str = json.loads(server.get(f"/v1/models/{model}")[2])["status"]
    return status


def unloaded_after_s(server: Server, model: str) -> float:
    began = time.monotonic()
    while status_of(server, model) != "registered":
        assert time.monotonic() - began < WAIT_S
        time.sleep(0.02)
    return time.monotonic() - began


def test_zero_unloads_it_at_once_and_without_it_the_models_own_time_holds(server: Server) -> None:
    assert ask(server, "a")[0] == 200
    began = time.monotonic()
    assert ask(server, "a")[0] == 200  # loaded already: at once
    unloaded_after_s(server, "a")
    assert time.monotonic() - began > 1.0
    assert ask(server, "a", keep_alive=0)[0] == 200
    unloaded_after_s(server, "a")


def test_the_newest_request_that_gives_one_has_it(server: Server) -> None:
    assert ask(server, "b", keep_alive="100ms")[0] == 200
    assert ask(server, "b", keep_alive=-1)[0] == 200
    assert ask(server, "b")[0] == 200
    time.sleep(4.0)  # twice the model's own
    assert status_of(server, "b") == "ready"
    assert ask(server, "b", keep_alive="0")[0] == 200
    unloaded_after_s(server, "b")


@pytest.mark.parametrize("wrong", ["soon", "5 parsecs", {}, [1]])
def test_a_wrong_one_is_refused_and_loads_nothing(server: Server, wrong: Any) -> None:
    status, body = ask(server, "c", keep_alive=wrong)
    assert (status, body["error"]["param"]) == (400, "keep_alive")
    assert status_of(server, "c") == "registered"
