"""The control plane against real processes: adoption, deaths, orphans, two servers, stop."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from server import Server, echo_toml

WAIT_S = 40
DATA_PATH = (
    "numpy",
    "jinja2",
    "httptools",
    "zmq",
    "tokenizers",
    "smmf_core.router",
    "smmf_core.worker",
)


def wait_for(true: Callable[[], Any], what: str) -> None:
    until = time.monotonic() + WAIT_S
    while not true():
        assert time.monotonic() < until, what
        time.sleep(0.02)


def is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def pids(server: Server, *roles: str) -> dict[str, int]:
    rows = server.instances()
    return {row["id"]: row["pid"] for row in rows if row["role"] in roles and row["pid"]}


def recorded(server: Server) -> list[int]:
    rows = json.loads((server.run_dir / "children.json").read_text())
    return [row["pid"] for row in rows if row["role"] != "controller" and row["pid"]]


def kill_controller(server: Server) -> None:
    assert server.process is not None
    server.process.kill()
    server.process.wait()


def start_again(server: Server) -> None:
    """A new Controller; Routers that live say that they are ready before it has begun."""
    server.start(wait=False)
    wait_for(lambda: has_begun(server), "the new controller")
    wait_for(lambda: {r["state"] for r in server.instances()} == {"ready"}, "all are ready")
    server.wait_ready()


def has_begun(server: Server) -> bool:
    try:
        return bool(server.admin("GET", "/admin/v1/health"))
    except OSError:
        return False


def open_stream(server: Server, tokens: int, step_ms: int) -> socket.socket:
    """A stream of which the first bytes have come."""
    body = {
        "model": "echo",
        "stream": True,
        "messages": [{"role": "user", "content": "x"}],
        "smmf_echo": {"tokens": tokens, "step_ms": step_ms},
    }
    data = json.dumps(body).encode()
    head = f"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nContent-Length: {len(data)}\r\n\r\n"
    client = socket.create_connection(("127.0.0.1", server.port), timeout=WAIT_S)
    client.sendall(head.encode() + data)
    assert client.recv(1)
    return client


def read_to_done(client: socket.socket) -> bytes:
    got = b""
    with client:
        while b"[DONE]" not in got:
            part = client.recv(65536)
            assert part, got[-500:]
            got += part
    return got


@pytest.fixture
def make(folder: Path) -> Iterator[Callable[..., Server]]:
    """Servers on one folder; all ended at the end, and nothing of them left."""
    servers: list[Server] = []

    def start(*flags: str, config: str = "", wait: bool = True, **sections: Any) -> Server:
        (folder / "local-echo.toml").write_text(echo_toml(**sections))
        if config:
            (folder / "smmf.toml").write_text(config)
        server = Server(folder, *flags)
        servers.append(server)
        return server.start(wait)

    yield start
    for server in servers:
        assert server.process is not None
        if server.process.poll() is None:
            server.stop()
    left = {p for s in servers if (s.run_dir / "children.json").exists() for p in recorded(s)}
    assert not [pid for pid in left if is_alive(pid)]


def test_a_new_controller_adopts_what_runs(make: Callable[..., Server]) -> None:
    """Streams go on, models and Routers stay, and the new one manages them."""
    server = make(deployment={"replicas": 2})
    before = pids(server, "router", "worker")
    stream = open_stream(server, tokens=100, step_ms=20)
    kill_controller(server)
    assert server.chat(smmf_echo={"tokens": 1})[0] == 200
    start_again(server)
    assert pids(server, "router", "worker") == before
    text = read_to_done(stream)
    assert text.count(b'"content":') >= 90
    assert b'"error"' not in text
    victim = before["echo-1"]
    os.kill(victim, signal.SIGKILL)
    wait_for(lambda: pids(server, "worker").get("echo-1") not in (None, victim), "restart")
    assert server.stop() == 0
    assert not any(map(is_alive, before.values()))
    assert sorted(p.name for p in server.run_dir.iterdir()) == ["lock", "logs"]


def test_a_death_without_a_controller_is_noticed_by_the_next(make: Callable[..., Server]) -> None:
    server = make(deployment={"replicas": 2})
    before = pids(server, "worker")
    kill_controller(server)
    os.kill(before["echo-0"], signal.SIGKILL)
    wait_for(lambda: not is_alive(before["echo-0"]), "death")
    start_again(server)
    after = pids(server, "worker")
    assert after["echo-1"] == before["echo-1"]
    assert after["echo-0"] != before["echo-0"]


def test_a_router_dead_without_a_controller(make: Callable[..., Server]) -> None:
    server = make()
    before = pids(server, "router", "worker")
    kill_controller(server)
    os.kill(before["router-0"], signal.SIGKILL)
    wait_for(lambda: not is_alive(before["router-0"]), "death")
    start_again(server)
    assert server.chat(smmf_echo={"tokens": 1})[0] == 200
    assert pids(server, "worker")["echo-0"] == before["echo-0"]


def test_a_changed_model_is_replaced_when_adopted(make: Callable[..., Server]) -> None:
    """The former process serves until its successor does."""
    server = make()
    before = pids(server, "router", "worker")
    kill_controller(server)
    (server.folder / "local-echo.toml").write_text(echo_toml(engine={"tokens": 7}))
    server.start(wait=False)
    wait_for(lambda: has_begun(server), "the new controller")
    wait_for(lambda: not is_alive(before["echo-0"]), "the former process's end")
    assert json.loads(server.chat()[2])["usage"]["completion_tokens"] == 7
    assert pids(server, "router") == {"router-0": before["router-0"]}


def test_a_model_no_longer_wanted_is_ended_when_adopted(make: Callable[..., Server]) -> None:
    server = make(deployment={"replicas": 2})
    before = pids(server, "worker")
    kill_controller(server)
    (server.folder / "local-echo.toml").write_text(echo_toml("other"))
    start_again(server)
    wait_for(lambda: not any(map(is_alive, before.values())), "the former model's end")
    assert [row["id"] for row in server.admin("GET", "/admin/v1/instances")] == ["other-0"]


def test_without_a_controller_children_end_after_the_grace_period(
    make: Callable[..., Server],
) -> None:
    server = make(config="[timeouts]\ngrace_s = 0.5\ndrain_s = 5\n")
    children = pids(server, "router", "worker").values()
    kill_controller(server)
    wait_for(lambda: not any(map(is_alive, children)), "children outlived their grace period")


def test_a_killed_router_comes_back_and_models_stay_loaded(make: Callable[..., Server]) -> None:
    server = make()
    before = pids(server, "router", "worker")
    os.kill(before["router-0"], signal.SIGKILL)
    for _ in range(20):  # no connection is refused meanwhile: the Controller holds the socket
        socket.create_connection(("127.0.0.1", server.port), timeout=WAIT_S).close()
    assert server.chat(smmf_echo={"tokens": 1})[0] == 200
    after = pids(server, "router", "worker")
    assert after["echo-0"] == before["echo-0"]
    assert after["router-0"] != before["router-0"]


def test_metrics_tell_of_memory_and_restarts(make: Callable[..., Server]) -> None:
    server = make()
    memory = 'smmf_instance_memory_bytes{instance="echo-0",model="echo"}'
    wait_for(lambda: server.metrics().get(memory, 0) > 1 << 20, "memory")
    os.kill(server.pid_of("worker"), signal.SIGKILL)
    restarts = 'smmf_restarts_total{instance="echo-0",model="echo"}'
    wait_for(lambda: server.metrics().get(restarts) == 1, "restarts")


def test_several_routers_answer_and_share_their_metrics(make: Callable[..., Server]) -> None:
    server = make("--routers", "2", config="[timeouts]\ndrain_s = 5\n")
    assert sorted(pids(server, "router")) == ["router-0", "router-1"]
    for _ in range(20):
        assert server.chat(smmf_echo={"tokens": 1})[0] == 200
    name = 'smmf_generation_tokens_total{model="echo"}'
    wait_for(lambda: server.metrics().get(name) == 20, "one scrape tells of all Routers")


def test_sigterm_lets_a_stream_finish(make: Callable[..., Server]) -> None:
    server = make()
    stream = open_stream(server, tokens=40, step_ms=20)
    assert server.process is not None
    server.process.send_signal(signal.SIGTERM)
    text = read_to_done(stream)
    assert text.count(b'"content":') >= 30
    assert b'"error"' not in text
    assert server.process.wait(WAIT_S) == 0


def test_more_signals_do_not_wait(make: Callable[..., Server]) -> None:
    server = make()
    children = pids(server, "router", "worker")
    stream = open_stream(server, tokens=100_000, step_ms=20)
    assert server.process is not None
    server.process.send_signal(signal.SIGINT)
    wait_for(lambda: server.admin("GET", "/admin/v1/health")["status"] == "stopping", "draining")
    while server.process.poll() is None:
        server.process.send_signal(signal.SIGINT)
        time.sleep(0.001)
    assert server.process.wait(WAIT_S) == 0
    assert not any(map(is_alive, children.values()))
    assert not (server.run_dir / "children.json").exists()
    stream.close()


def test_a_signal_before_the_loop_runs_is_not_lost(make: Callable[..., Server]) -> None:
    server = make(wait=False)
    assert server.process is not None
    wait_for((server.run_dir / "children.json").exists, "the first children")
    children = recorded(server)
    assert server.stop() == 0
    assert children
    assert not any(map(is_alive, children))


def test_a_run_directory_that_vanished_does_not_keep_it_from_ending(
    make: Callable[..., Server],
) -> None:
    server = make()
    shutil.rmtree(server.run_dir)
    children = pids(server, "router", "worker")
    assert server.stop() == 0
    assert not any(map(is_alive, children.values()))


def failed_start(server: Server, *flags: str) -> str:
    ports = ["--port", str(server.port), "--admin-port", str(server.admin_port), *flags]
    command = [sys.executable, "-m", "smmf_core.cli.main", "serve", *ports]
    done = subprocess.run(
        command, env=server.environment, capture_output=True, text=True, timeout=WAIT_S
    )
    assert done.returncode == 1
    assert len(done.stderr.splitlines()) == 1
    return done.stderr


def test_a_second_server_of_the_same_name_is_refused(make: Callable[..., Server]) -> None:
    server = make()
    assert server.process is not None
    said = failed_start(server)
    assert "'default'" in said
    assert f"pid {server.process.pid}" in said
    assert server.chat(smmf_echo={"tokens": 1})[0] == 200


def test_a_port_in_use_is_named(make: Callable[..., Server]) -> None:
    server = make()
    said = failed_start(server, "--name", "other")
    assert f"port {server.admin_port} on 127.0.0.1 is in use" in said
    said = failed_start(server, "--name", "other", "--admin-port", "0")
    assert f"port {server.port} on 127.0.0.1 is in use" in said


def test_stopped_instances_stay_stopped(make: Callable[..., Server]) -> None:
    server = make(deployment={"replicas": 2})
    row = server.admin("POST", "/admin/v1/instances/echo-0:stop", {})
    assert row["state"] == "stopped"
    assert [r["id"] for r in server.admin("GET", "/admin/v1/instances")] == ["echo-1"]
    assert server.chat(smmf_echo={"tokens": 1})[0] == 200
    model = server.admin("POST", "/admin/v1/models/echo:stop", {"force": True})
    assert (model["status"], model["reason"]) == ("stopped", "stopped by the operator")
    wait_for(lambda: server.chat()[0] == 503, "a stopped model is unavailable")
    assert b"stopped by the operator" in server.chat()[2]


def test_stop_lets_open_streams_finish(make: Callable[..., Server]) -> None:
    server = make()
    stream = open_stream(server, tokens=30, step_ms=20)
    server.admin("POST", "/admin/v1/models/echo:stop", {"timeout_s": 20})
    text = read_to_done(stream)
    assert b'"error"' not in text
    assert text.count(b'"content":') >= 25


def test_the_controller_is_light(make: Callable[..., Server]) -> None:
    server = make()
    rows = {row["role"]: row for row in server.instances()}
    assert rows["controller"]["mem"] + rows["router"]["mem"] < 150 << 20
    code = (
        "import sys, smmf_core.cli.serve, smmf_core.admin.server\n"
        f"print([m for m in sys.modules if m.startswith({DATA_PATH!r})])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True,
        cwd=Path(__file__).parents[2],
    )  # fmt: skip
    assert done.stdout.strip() == "[]"


def test_admin_keys_and_errors(make: Callable[..., Server]) -> None:
    server = make("--api-key", "secret")

    def status(key: str | None, path: str, body: Any = None) -> tuple[int, Any]:
        import http.client

        connection = http.client.HTTPConnection("127.0.0.1", server.admin_port, timeout=WAIT_S)
        headers = {"Content-Type": "application/json"}
        if key:
            headers["Authorization"] = f"Bearer {key}"
        data = None if body is None else json.dumps(body)
        connection.request("GET" if body is None else "POST", path, data, headers)
        response = connection.getresponse()
        answer = json.loads(response.read())
        connection.close()
        return response.status, answer.get("error", {}).get("code")

    assert status(None, "/admin/v1/health") == (401, "invalid_api_key")
    assert status("wrong", "/admin/v1/health") == (401, "invalid_api_key")
    assert status("secret", "/admin/v1/health") == (200, None)
    assert status("secret", "/admin/v1/models/none") == (404, "model_not_found")
    assert status("secret", "/admin/v1/nothing") == (404, "unknown_url")
    assert status("secret", "/admin/v1/models/echo:dance", {})[0] == 404
    assert status("secret", "/admin/v1/models/echo:stop", {"forced": 1}) == (400, "bad_request")
    assert status("secret", "/schema/openapi.json") == (200, None)
