"""Aliases that move while requests run: dynamic model switching without a failed request."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from server import Server, echo_toml

MOVES = 20
WAIT_S = 20.0


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder: Path = tmp_path_factory.mktemp("alias")
    engine = {"tokens": 4, "step_ms": 2}
    slots = {"max_concurrency": 2}  # so that some always wait
    for name in ("blue", "green"):
        text = echo_toml(name, engine=dict(engine), deployment=dict(slots))
        (folder / f"local-{name}.toml").write_text(text)
    started = Server(folder).start()
    yield started
    assert started.stop() == 0


def point(server: Server, model: str) -> None:
    """Returns once the Router has heard of it."""
    server.admin("PUT", "/admin/v1/aliases/live", {"model": model})
    limit = time.monotonic() + WAIT_S
    while json.loads(server.get("/v1/models/live")[2]).get("root") != model:
        assert time.monotonic() < limit
        time.sleep(0.002)


def ask(server: Server) -> tuple[int, str]:
    """The status, and the instance that answered."""
    body = {"model": "live", "prompt": "x"}
    status, headers, answer = server.request("POST", "/v1/completions", body)
    assert status != 200 or json.loads(answer)["model"] == "live"
    return status, headers.get("x-smmf-instance", "")


def test_a_moved_alias_fails_no_request(server: Server) -> None:
    point(server, "blue")
    assert ask(server) == (200, "blue-0")
    answers: list[tuple[int, str]] = []
    is_over = threading.Event()

    def client() -> None:
        while not is_over.is_set():
            answers.append(ask(server))

    clients = [threading.Thread(target=client) for _ in range(8)]
    for thread in clients:
        thread.start()
    for move in range(MOVES):
        point(server, ("green", "blue")[move % 2])
    is_over.set()
    for thread in clients:
        thread.join()
    assert {status for status, _ in answers} == {200}
    assert {instance for _, instance in answers} == {"blue-0", "green-0"}
    assert ask(server) == (200, "blue-0")


def test_models_come_before_aliases_each_with_its_status(server: Server) -> None:
    point(server, "green")
    rows: list[dict[str, Any]] = json.loads(server.get("/v1/models")[2])["data"]
    assert [(row["id"], row["root"], row["status"]) for row in rows] == [
        ("blue", "blue", "ready"),
        ("green", "green", "ready"),
        ("live", "green", "ready"),
    ]


def test_what_an_alias_means_is_an_event(server: Server) -> None:
    server.admin("PUT", "/admin/v1/aliases/other", {"model": "blue"})
    server.admin("DELETE", "/admin/v1/aliases/other")
    server.admin("POST", "/admin/v1/models/blue:pin")
    server.admin("POST", "/admin/v1/models/blue:unpin")
    reasons = [row["reason"] for row in server.admin("GET", "/admin/v1/events?model=blue")]
    assert reasons[-4:] == ["other means it", "other no longer means it", "pinned", "unpinned"]


def test_an_alias_of_what_cannot_answer_says_so(server: Server) -> None:
    server.admin("POST", "/admin/v1/models/green:stop", {})
    said = server.admin("PUT", "/admin/v1/aliases/other", {"model": "green"})["message"]
    assert said == "other means green, which is stopped: stopped by the operator"
    server.admin("POST", "/admin/v1/models/green:start", {})
