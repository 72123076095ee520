"""Verbs of instances against a real server: start, stop, restart, online, offline, debug."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from command import read, refused, said
from server import Server, echo_toml


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder: Path = tmp_path_factory.mktemp("instances")
    (folder / "local-m.toml").write_text(echo_toml("m", deployment={"replicas": 2}))
    started = Server(folder).start()
    yield started
    assert started.stop() == 0


@pytest.fixture(autouse=True)
def as_at_first(server: Server) -> Iterator[None]:
    yield
    server.admin("POST", "/admin/v1/models/m:start", {"replicas": 2})
    for name in ("m-0", "m-1"):
        server.admin("POST", f"/admin/v1/instances/{name}:online", {})


def states(server: Server) -> dict[str, str]:
    return {row["id"]: row["state"] for row in read(server, "ps")}


def instances_asked(server: Server, count: int = 8) -> set[str]:
    """Who answers."""
    return {server.chat(model="m")[1]["x-smmf-instance"] for _ in range(count)}


def test_stop_start_and_restart_one_of_two(server: Server) -> None:
    assert said(server, "stop", "m-1") == "m-1 is stopped\n"
    assert said(server, "stop", "m-1") == "m-1 is stopped already\n"
    assert states(server) == {"m-0": "ready"}
    assert read(server, "show", "m")["status"] == "ready"
    assert said(server, "start", "m-1").startswith("m-1 is ready")
    assert said(server, "start", "m-1") == "m-1 is ready already\n"
    (before,) = [row["pid"] for row in server.instances() if row["id"] == "m-1"]
    assert said(server, "restart", "m-1").startswith("m-1 is ready")
    (after,) = [row["pid"] for row in server.instances() if row["id"] == "m-1"]
    assert after != before


def test_offline_takes_out_of_rotation_without_stopping(server: Server) -> None:
    assert said(server, "offline", "m-0") == "m-0 is offline\n"
    assert said(server, "offline", "m-0") == "m-0 is offline already\n"
    assert states(server) == {"m-0": "offline", "m-1": "ready"}
    assert instances_asked(server) == {"m-1"}
    assert said(server, "online", "m-0") == "m-0 is in rotation\n"
    assert said(server, "online", "m-0") == "m-0 is in rotation already\n"
    assert instances_asked(server) == {"m-0", "m-1"}


def test_all_offline_is_a_model_that_is_offline(server: Server) -> None:
    said(server, "offline", "m-0")
    said(server, "offline", "m-1")
    assert read(server, "show", "m")["status"] == "offline"
    code, _, body = server.chat(model="m")
    assert (code, json.loads(body)["error"]["code"]) == (503, "model_unavailable")
    said(server, "online", "m-1")
    assert instances_asked(server) == {"m-1"}


def test_a_killed_one_comes_back_and_stays_offline(server: Server) -> None:
    said(server, "offline", "m-0")
    (row,) = [row for row in server.instances() if row["id"] == "m-0"]
    os.kill(row["pid"], signal.SIGKILL)
    assert said(server, "restart", "m-0").startswith("m-0 is ready")
    assert states(server)["m-0"] == "offline"


def test_a_stopped_instance_cannot_start_while_its_model_is_stopped(server: Server) -> None:
    said(server, "stop", "m")
    assert "m is stopped" in refused(server, "start", "m-0")
    assert "m is stopped" in refused(server, "restart", "m-0")


@pytest.mark.parametrize("verb", ["start", "stop", "restart", "online", "offline", "debug"])
def test_an_instance_that_does_not_exist(server: Server, verb: str) -> None:
    assert refused(server, verb, "m-10").endswith("named m-10; did you mean 'm-1'?")


@pytest.mark.parametrize("verb", ["online", "offline", "debug"])
def test_a_model_is_not_an_instance(server: Server, verb: str) -> None:
    assert "m is a model, its instances: m-0, m-1" in refused(server, verb, "m")


def test_debug_tells_the_live_state(server: Server) -> None:
    facts = read(server, "debug", "m-0")
    assert "step_loop" in json.dumps(facts)
    assert "m-0" in said(server, "debug", "m-0")


def test_debug_of_what_does_not_run(server: Server) -> None:
    said(server, "stop", "m-1")
    assert "m-1 is stopped" in refused(server, "debug", "m-1")
