"""API keys and usage on a real server of two Routers: verbs, roles, limits of who may ask, and what
is left of all of it after a restart."""

from __future__ import annotations

import http.client
import json
import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from command import read, refused, said
from postgres_env import Postgres
from server import Server, echo_toml
from store_suite import until

OPEN = "127.1"  # this machine; a name that is not known to be only that counts as open
CHAT = {"model": "echo", "messages": [{"role": "user", "content": "one two three"}]}


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    (tmp_path / "local-echo.toml").write_text(echo_toml(engine={"tokens": 3}))
    server = Server(tmp_path, "--routers", "2")
    yield server
    if server.process is not None:
        assert server.stop() == 0


def make(server: Server, *flags: str) -> dict[str, Any]:
    """By the verb, whether the server runs or not."""
    row: dict[str, Any] = read(server, "keys", "create", *flags)
    return row


def post(server: Server, key: str = "", **wanted: Any) -> dict[str, Any]:
    """By the admin API."""
    status, row = talk(server, key, "POST", "/admin/v1/keys", wanted)
    assert status == 201, row
    made: dict[str, Any] = row
    return made


class Keyed(Server):
    """The same server, for commands whose user has a key."""

    def __init__(self, server: Server, key: str) -> None:
        self.__dict__.update(server.__dict__)
        self.key = key


def ask(server: Server, key: str, **fields: Any) -> int:
    headers = {"Authorization": f"Bearer {key}"} if key else {}
    return server.request("POST", "/v1/chat/completions", {**CHAT, **fields}, headers)[0]


def talk(server: Server, key: str, method: str, path: str, body: Any = None) -> tuple[int, Any]:
    """(status, JSON) of the admin API."""
    connection = http.client.HTTPConnection("127.0.0.1", server.admin_port, timeout=60)
    try:
        headers = {"Content-Type": "application/json", "Authorization": f"Bearer {key}"}
        connection.request(method, path, None if body is None else json.dumps(body), headers)
        response = connection.getresponse()
        return response.status, json.loads(response.read())
    finally:
        connection.close()


def ask_admin(server: Server, key: str, method: str, path: str, body: Any = None) -> int:
    return talk(server, key, method, path, body)[0]


def get(server: Server, path: str, key: str = "") -> Any:
    status, answer = talk(server, key, "GET", f"/admin/v1/{path}")
    assert status == 200, answer
    return answer


def on_every_router(ask_once: Callable[[], int], status: int) -> None:
    """Connections are spread over the Routers by the kernel: enough of them reach both. Each hears
    of a change by a message of its own, in its own time."""
    until(lambda: {ask_once() for _ in range(20)} == {status})


def test_the_first_key_locks_the_port_and_revoking_opens_it(server: Server) -> None:
    server.start()
    on_every_router(lambda: ask(server, ""), 200)
    key = make(server, "first")["key"]
    until(lambda: ask(server, "") == 401)
    on_every_router(lambda: ask(server, ""), 401)
    on_every_router(lambda: ask(server, "sk-smmf-wrong"), 401)
    on_every_router(lambda: ask(server, key), 200)
    (row,) = read(server, "keys", "list")
    assert (row["name"], row["state"], row["roles"]) == ("first", "active", ["inference"])
    assert said(server, "keys", "revoke", row["id"]) == f"{row['id']} is revoked\n"
    until(lambda: ask(server, "") == 200)
    on_every_router(lambda: ask(server, ""), 200)
    assert read(server, "keys", "list") == []
    assert [row["state"] for row in read(server, "keys", "list", "--all")] == ["revoked"]


def test_a_revoked_key_ends_at_once_and_what_is_open_goes_on(
    server: Server, tmp_path: Path
) -> None:
    slow = echo_toml(engine={"tokens": 400, "step_ms": 5})
    (tmp_path / "local-echo.toml").write_text(slow)
    server.start()
    server.wait_admin()
    post(server, name="another")
    row = post(server, name="mine")
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=60)
    body = json.dumps({**CHAT, "stream": True})
    headers = {"Content-Type": "application/json", "Authorization": f"Bearer {row['key']}"}
    connection.request("POST", "/v1/chat/completions", body, headers)
    stream = connection.getresponse()
    assert stream.status == 200
    server.admin("DELETE", f"/admin/v1/keys/{row['id']}")
    until(lambda: ask(server, row["key"], max_tokens=1) == 401)
    on_every_router(lambda: ask(server, row["key"], max_tokens=1), 401)
    assert stream.read().endswith(b"data: [DONE]\n\n")
    connection.close()


def test_roles_on_both_ports(server: Server) -> None:
    """A `read` key gives GET, an `inference` key models, an `admin` key everything."""
    server.start()
    server.wait_admin()
    asker = post(server)["key"]
    reader = post(server, roles=["read"])["key"]
    assert server.ask_admin("GET", "/admin/v1/keys")[0] == 200, "no key with the role admin yet"
    made = post(server, roles=["admin"])
    assert made["message"].endswith("another of the role admin, in SMMF_API_KEY"), "it locks"
    admin = made["key"]
    until(lambda: ask(server, admin) == 200)
    found = {
        (who, method): ask_admin(server, key, method, "/admin/v1/keys", body)
        for who, key in (("", ""), ("asker", asker), ("reader", reader), ("admin", admin))
        for method, body in (("GET", None), ("POST", {"name": "x"}))
    }
    assert found == {
        ("", "GET"): 401,
        ("", "POST"): 401,
        ("asker", "GET"): 403,
        ("asker", "POST"): 403,
        ("reader", "GET"): 200,
        ("reader", "POST"): 403,
        ("admin", "GET"): 200,
        ("admin", "POST"): 201,
    }
    assert said(Keyed(server, asker), "chat", "echo", "hi")
    assert ask(server, reader) == 403
    assert [ask(server, key) for key in (asker, admin)] == [200, 200]
    assert "SMMF_API_KEY names the key" in refused(server, "keys", "list")
    assert len(read(Keyed(server, reader), "keys", "list")) == 4


def test_usage_is_exact_over_two_routers_and_a_restart(server: Server) -> None:
    key = make(server, "counted")  # no server runs yet
    server.start()
    for _ in range(40):
        assert ask(server, key["key"]) == 200
    assert ask(server, key["key"], temperature=9) == 400
    counted = {"requests": 41, "errors": 1}

    def row() -> dict[str, Any]:
        rows = get(server, f"usage?key={key['id']}&by=key")
        return rows[0] if rows else {}

    until(lambda: counted.items() <= row().items())
    before = row()
    assert before["generated"] == 40 * 3
    assert before["prompt"] > 40
    assert get(server, "keys")[0]["last_used"] == get(server, "usage?by=day")[0]["day"]
    assert ask(server, key["key"]) == 200
    assert server.stop() == 0
    (stopped,) = read(server, "usage", "--key", key["id"], "--by", "key")  # of the registry
    assert (stopped["requests"], stopped["generated"]) == (42, 123)
    server.start()
    server.wait_admin()
    assert row() == stopped
    assert ask(server, key["key"]) == 200
    until(lambda: row()["requests"] == 43)
    assert {r["model"] for r in read(server, "usage", "--since", "30d")} >= {"echo"}
    assert get(server, "usage?since=2999-01-01") == []


def test_keys_outlive_a_restart_and_a_killed_controller(server: Server) -> None:
    server.start()
    server.wait_admin()
    kept, gone = post(server, name="kept"), post(server, name="gone")
    server.admin("DELETE", f"/admin/v1/keys/{gone['id']}")
    assert server.stop() == 0
    server.start()
    on_every_router(lambda: ask(server, kept["key"]), 200)
    on_every_router(lambda: ask(server, gone["key"]), 401)
    assert server.process is not None
    routers = {row["id"]: row["pid"] for row in server.instances() if row["role"] == "router"}
    server.process.send_signal(signal.SIGKILL)
    server.process.wait()
    on_every_router(lambda: ask(server, kept["key"]), 200)
    on_every_router(lambda: ask(server, ""), 401)
    server.start(wait=False)
    server.wait_admin()
    server.wait_ready()
    later = post(server, name="later")
    until(lambda: ask(server, later["key"]) == 200)
    on_every_router(lambda: ask(server, later["key"]), 200)
    on_every_router(lambda: ask(server, gone["key"]), 401)
    rows = {row["id"]: row["pid"] for row in server.instances() if row["role"] == "router"}
    assert rows == routers, "the Routers were adopted"


def test_a_reload_of_the_configured_keys_restarts_no_router(server: Server, tmp_path: Path) -> None:
    config = tmp_path / "smmf.toml"
    config.write_text('[server]\napi_keys = ["one"]\n')
    server.start()
    everyone = "instances?all=1"
    pids = {row["pid"] for row in get(server, everyone, "one")}
    config.write_text('[server]\napi_keys = ["two"]\n')
    assert server.process is not None
    server.process.send_signal(signal.SIGHUP)
    until(lambda: ask(server, "two") == 200)
    on_every_router(lambda: ask(server, "two"), 200)
    on_every_router(lambda: ask(server, "one"), 401)
    assert {row["pid"] for row in get(server, everyone, "two")} == pids
    rows = get(server, "keys", "two")
    assert [row["id"] for row in rows] == ["config-1"]
    told = refused(Keyed(server, "two"), "keys", "revoke", "config-1")
    assert "stands in [server] api_keys" in told


def test_the_key_itself_is_nowhere_but_in_its_answer(server: Server, tmp_path: Path) -> None:
    server.start()
    server.wait_admin()
    row = post(server, name="secret", roles=["admin"])
    key = row["key"]
    until(lambda: ask(server, key) == 200)
    until(lambda: bool(get(server, f"usage?key={row['id']}", key)))
    secret = key.removeprefix(f"sk-smmf-{row['id']}-")
    for path in ("keys?all=1", "events", "usage", "instances?all=1", "models", "health"):
        assert secret not in json.dumps(get(server, path, key))
    assert ask_admin(server, key, "GET", f"/admin/v1/keys/{row['id']}") == 405
    server.stop()
    server.process = None
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert any(path.name == "registry.db" for path in files)
    assert [path for path in files if secret.encode() in path.read_bytes()] == []


def test_what_a_stop_cuts_off_is_used(server: Server, tmp_path: Path) -> None:
    slow = echo_toml(engine={"tokens": 100_000, "step_ms": 5, "max_model_len": 200_000})
    (tmp_path / "local-echo.toml").write_text(slow)
    (tmp_path / "smmf.toml").write_text("[timeouts]\ndrain_s = 0.2\n")
    server.start()
    server.wait_admin()
    row = post(server, roles=["admin", "inference"])
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=60)
    headers = {"Content-Type": "application/json", "Authorization": f"Bearer {row['key']}"}
    connection.request(
        "POST", "/v1/chat/completions", json.dumps({**CHAT, "stream": True}), headers
    )
    assert connection.getresponse().read(1000)
    assert server.stop() == 0
    connection.close()
    (used,) = read(server, "usage", "--server", "default", "--key", row["id"])
    assert used["requests"] == 1
    assert used["prompt"] > 0
    assert used["generated"] > 0


def test_an_open_address_needs_a_key(server: Server, tmp_path: Path) -> None:
    everywhere = ("serve", "--host", "0.0.0.0", "--port", "0", "--admin-port", "0")
    message = refused(server, *everywhere)
    for way_out in ("`smmf keys create`", "[server] api_keys", "--no-auth"):
        assert way_out in message
    dbgpt = tmp_path / "dbgpt-open.toml"
    dbgpt.write_text(
        '[service.model.api]\nhost = "0.0.0.0"\n[[models.llms]]\nname = "m"\nprovider = "hf"\n'
    )
    assert "`smmf keys create`" in refused(server, "serve", "--config", str(dbgpt))
    made = make(server)
    server.flags = ("--host", OPEN)
    server.start()
    assert ask(server, "") == 401
    assert ask(server, made["key"]) == 200
    server.wait_admin()
    server.admin("DELETE", f"/admin/v1/keys/{made['id']}")
    until(lambda: ask(server, made["key"]) == 401)
    assert ask(server, "") == 401, "no key is left, but other machines reach it"


def test_an_open_admin_address_needs_a_key_with_that_role(server: Server) -> None:
    open_admin = ("serve", "--port", "0", "--admin-port", "0", "--admin-host", "0.0.0.0")
    make(server)
    for flags in ((), ("--no-auth",)):
        assert "`smmf keys create --role admin`" in refused(server, *open_admin, *flags)
    admin = make(server, "--role", "admin")["key"]
    server.flags = ("--admin-host", OPEN)
    server.start()
    assert ask_admin(server, "", "GET", "/admin/v1/health") == 401
    assert ask_admin(server, admin, "GET", "/admin/v1/health") == 200


def test_what_a_killed_router_had_open_is_given_back(server: Server, tmp_path: Path) -> None:
    slow = echo_toml(engine={"tokens": 100_000, "step_ms": 5})
    (tmp_path / "local-echo.toml").write_text(slow)
    server.start()
    server.wait_admin()
    key = post(server, max_concurrency=1)["key"]
    until(lambda: ask(server, key, max_tokens=1) == 200)
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=60)
    headers = {"Content-Type": "application/json", "Authorization": f"Bearer {key}"}
    connection.request(
        "POST", "/v1/chat/completions", json.dumps({**CHAT, "stream": True}), headers
    )
    assert connection.getresponse().status == 200
    on_every_router(lambda: ask(server, key, max_tokens=1), 429)
    for row in server.instances():
        if row["role"] == "router":
            os.kill(row["pid"], signal.SIGKILL)
    until(lambda: status_of(lambda: ask(server, key, max_tokens=1)) == 200)
    connection.close()


def test_a_months_budget_outlives_a_restart(server: Server) -> None:
    key = make(server, "--monthly-tokens", "10")["key"]
    server.start()
    until(lambda: ask(server, key) == 429)
    assert server.stop() == 0
    server.start()
    on_every_router(lambda: ask(server, key), 429)


@pytest.fixture(scope="module")
def postgres() -> Iterator[Postgres]:
    postgres = Postgres()
    yield postgres.start()
    postgres.remove()


def test_keys_in_postgresql(server: Server, postgres: Postgres, tmp_path: Path) -> None:
    config = tmp_path / "smmf.toml"
    config.write_text(f'[registry]\nurl = "{postgres.url()}"\n')
    key = make(server, "--config", str(config))["key"]
    server.flags = ("--host", OPEN)
    server.start()
    assert ask(server, "") == 401
    assert ask(server, key) == 200
    server.wait_admin()
    until(lambda: [row["requests"] for row in get(server, "usage?by=key")] == [1])


def test_an_open_address_may_be_served_without_a_key(server: Server) -> None:
    server.flags = ("--host", OPEN, "--no-auth")
    server.start()
    assert ask(server, "") == 200


def test_a_database_that_cannot_be_read_keeps_everybody_out(server: Server, tmp_path: Path) -> None:
    file = tmp_path / "state" / "smmf" / "default" / "registry.db"
    key = make(server, "kept")
    good = file.read_bytes()
    file.write_bytes(b"rubbish" * 1000)
    server.start(wait=False)
    server.wait_admin()
    until(lambda: status_of(lambda: ask(server, "")) == 503)
    status, _, body = server.request("POST", "/v1/chat/completions", CHAT)
    assert (status, json.loads(body)["error"]["code"]) == (503, "registry_unavailable")
    assert server.ask_admin("POST", "/admin/v1/keys", {})[0] == 503
    file.write_bytes(good)
    until(lambda: ask(server, key["key"]) == 200)
    on_every_router(lambda: ask(server, ""), 401)


def status_of(ask_once: Callable[[], int]) -> int:
    """0 while nobody answers."""
    try:
        return ask_once()
    except (OSError, http.client.HTTPException):
        return 0
