"""Models that their first request loads: one load for all, honest waiting, unloading when idle."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from server import Server, echo_toml

WAIT_S = 30.0
Answer = tuple[int, dict[str, str], bytes]


def lazy_toml(name: str, load_s: float, **deployment: Any) -> str:
    deployment.setdefault("autostart", False)
    return echo_toml(name, deployment=deployment, engine={"tokens": 4, "load_s": load_s})


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder: Path = tmp_path_factory.mktemp("demand")
    (folder / "local-quick.toml").write_text(lazy_toml("quick", 0.3))
    (folder / "local-slow.toml").write_text(lazy_toml("slow", 10.0))
    (folder / "local-brief.toml").write_text(lazy_toml("brief", 0.0, keep_alive="1s"))
    (folder / "smmf.toml").write_text("[timeouts]\nload_wait_s = 3\n")
    started = Server(folder).start()
    yield started
    assert started.stop() == 0


def ask(server: Server, model: str, waits: bool = True, **body: Any) -> Answer:
    """`waits`: longer than the server would have it."""
    headers = {"X-SMMF-Timeout": str(WAIT_S)} if waits else None
    return server.request(
        "POST", "/v1/completions", {"model": model, "prompt": "x", **body}, headers
    )


def status_of(server: Server, model: str) -> str:
    status: str = json.loads(server.get(f"/v1/models/{model}")[2])["status"]
    return status


def until(condition: Callable[[], bool]) -> None:
    limit = time.monotonic() + WAIT_S
    while not condition():
        assert time.monotonic() < limit
        time.sleep(0.02)


def loads_of(server: Server, model: str) -> int:
    """How often a replica of the model has become ready."""
    events = server.admin("GET", f"/admin/v1/events?model={model}")
    return sum(event["state"] == "ready" and event["role"] == "worker" for event in events)


def test_a_server_whose_models_load_on_demand_is_ready(server: Server) -> None:
    assert server.get("/ready")[0] == 200
    assert status_of(server, "quick") == "registered"


def test_all_who_wait_have_one_load(server: Server) -> None:
    with ThreadPoolExecutor(10) as pool:
        answers = list(pool.map(lambda _: ask(server, "quick"), range(10)))
    assert [status for status, _, _ in answers] == [200] * 10
    assert loads_of(server, "quick") == 1
    assert status_of(server, "quick") == "ready"


def test_past_the_wait_it_says_how_far_the_load_is_and_the_load_goes_on(server: Server) -> None:
    status, headers, body = ask(server, "slow", waits=False)
    error = json.loads(body)["error"]
    assert (status, error["code"]) == (503, "model_loading")
    assert "is loading: " in error["message"]
    assert " %" in error["message"]
    assert 1 <= int(headers["retry-after"]) <= 60
    assert status_of(server, "slow") == "starting"
    assert ask(server, "slow")[0] == 200
    assert loads_of(server, "slow") == 1


def test_idle_it_is_unloaded_and_the_next_request_loads_it_again(server: Server) -> None:
    for count in (1, 2):
        assert ask(server, "brief")[0] == 200
        assert loads_of(server, "brief") == count
        until(lambda: status_of(server, "brief") == "registered")


def test_a_stopped_model_is_not_loaded_by_a_request(server: Server) -> None:
    server.admin("POST", "/admin/v1/models/brief:stop", {})
    status, _, body = ask(server, "brief")
    assert (status, json.loads(body)["error"]["code"]) == (503, "model_unavailable")
    server.admin("POST", "/admin/v1/models/brief:start", {})
    assert ask(server, "brief")[0] == 200


def test_a_stream_that_outlasts_keep_alive_is_not_cut(server: Server) -> None:
    echo = {"tokens": 20, "step_ms": 100}
    status, _, body = ask(
        server, "brief", stream=True, smmf_echo=echo, max_tokens=20, keep_alive="500ms"
    )
    assert status == 200
    assert body.endswith(b"data: [DONE]\n\n")
    assert body.count(b'"text"') >= 20
