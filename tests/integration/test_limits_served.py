"""API keys on a real server with two Routers: limits are exact over both, whoever competes."""

from __future__ import annotations

import json
import os
import signal
import socket
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from openai import OpenAI, RateLimitError
from server import Server, echo_toml

from smmf_core.client import Client, RateLimited, Unauthorized

WAIT_S = 60.0
THREADS = 8
LONG = {"tokens": 100_000, "step_ms": 50}  # an answer that does not end by itself
SECRET = "for-the-test-itself"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder: Path = tmp_path_factory.mktemp("limits")
    echo = echo_toml(engine={"max_model_len": 200_000})
    (folder / "local-echo.toml").write_text(echo.replace("\n", '\naliases = ["fast"]\n', 1))
    (folder / "local-other.toml").write_text(echo_toml("other"))
    (folder / "smmf.toml").write_text(f'[server]\nrouters = 2\napi_keys = ["{SECRET}"]\n')
    started = OwnServer(folder).start()
    yield started
    assert started.stop() == 0


class OwnServer(Server):
    """Its admin API needs the configured key."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.key = SECRET

    def new_key(self, **wanted: Any) -> tuple[str, str]:
        """(id, key) of a new one, once every Router has it."""
        made = self.admin("POST", "/admin/v1/keys", wanted)
        self.until_all(made["key"], may_ask=True)
        return made["id"], made["key"]

    def until_all(self, key: str, may_ask: bool) -> None:
        """Until each of the Routers has heard of it."""

        def know() -> bool:
            lanes = list(self.run_dir.glob("client-*.sock"))
            return len(lanes) == 2 and all(is_known(lane, key) == may_ask for lane in lanes)

        until(know, "both Routers")

    def get_models(self, key: str) -> tuple[int, dict[str, str], Any]:
        status, headers, body = self.request("GET", "/v1/models", None, bearer(key))
        return status, headers, json.loads(body)

    def ask(self, key: str, **fields: Any) -> tuple[int, dict[str, str], Any]:
        body = {"model": "echo", "messages": [{"role": "user", "content": "hi"}], **fields}
        status, headers, answer = self.request("POST", "/v1/chat/completions", body, bearer(key))
        return status, headers, json.loads(answer)

    def usage(self, key_id: str) -> dict[str, Any]:
        rows = self.admin("GET", f"/admin/v1/usage?key={key_id}&by=key")
        return rows[0] if rows else {}


class Stream:
    """One streamed request on a connection of its own, as far as its head."""

    def __init__(self, server: Server, key: str) -> None:
        self.socket = socket.create_connection(("127.0.0.1", server.port), timeout=WAIT_S)
        fields: dict[str, Any] = {"messages": [{"role": "user", "content": "hi"}], "model": "echo"}
        body = json.dumps({**fields, "stream": True, "smmf_echo": LONG}).encode()
        head = "POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nConnection: close\r\n"
        head += f"Authorization: Bearer {key}\r\nContent-Length: {len(body)}\r\n\r\n"
        self.socket.sendall(head.encode() + body)
        self.status = int(self.socket.recv(1024).split()[1])
        if self.status != 200:
            self.socket.close()

    def is_broken(self) -> bool:
        """Whether its Router is gone, now that everything it had sent is here."""
        self.socket.setblocking(False)
        try:
            while self.socket.recv(65536):
                continue
        except BlockingIOError:
            return False
        except OSError:
            return True
        return True


def is_known(lane: Path, key: str) -> bool:
    """Asks one Router."""
    with Client(f"ipc://{lane}", api_key=key) as client:
        try:
            client.models()
        except Unauthorized:
            return False
        return True


def bearer(key: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {key}"}


def until(condition: Callable[[], Any], what: str) -> None:
    limit = time.monotonic() + WAIT_S
    while not condition():
        assert time.monotonic() < limit, what
        time.sleep(0.02)


def at_once(act: Callable[[], Any], times: int) -> list[Any]:
    with ThreadPoolExecutor(THREADS) as threads:
        return [future.result() for future in [threads.submit(act) for _ in range(times)]]


def test_requests_of_a_minute_are_exact(server: OwnServer) -> None:
    _, key = server.new_key(requests_per_minute=20)
    answers = at_once(lambda: server.ask(key, smmf_echo={"tokens": 1}), 60)
    assert Counter(status for status, _, _ in answers) == {200: 20, 429: 40}
    left = sorted(int(h["x-ratelimit-remaining-requests"]) for s, h, _ in answers if s == 200)
    assert left[0] == 0
    assert left[-1] <= 19
    for status, headers, body in answers:
        assert headers["x-ratelimit-limit-requests"] == "20"
        if status == 429:
            assert 1 <= int(headers["retry-after"]) <= 60
            assert body["error"]["code"] == "rate_limit_exceeded"
            assert "Limit 20, Used 20, Requested 1" in body["error"]["message"]
    client = OpenAI(base_url=server.base_url, api_key=key, max_retries=0)
    with pytest.raises(RateLimitError) as caught:
        client.chat.completions.create(model="echo", messages=[{"role": "user", "content": "x"}])
    assert caught.value.response.headers["x-ratelimit-remaining-requests"] == "0"
    client.close()


def test_tokens_of_a_minute_are_exact(server: OwnServer) -> None:
    _, key = server.new_key(tokens_per_minute=500)
    fields = {"max_tokens": 40, "smmf_echo": {"tokens": 30}}
    answers = at_once(lambda: server.ask(key, **fields), 40)
    while answers[-1][0] == 200 or answers[-2][0] == 200:  # nobody else asks
        answers.append(server.ask(key, **fields))
    assert {status for status, _, _ in answers} == {200, 429}
    used = [body["usage"]["total_tokens"] for status, _, body in answers if status == 200]
    assert 500 - 41 < sum(used) <= 500  # 40, and an estimate of one for "hi"
    status, headers, body = server.ask(key, max_tokens=501)
    assert status == 429
    assert "Limit 500, Requested 50" in body["error"]["message"]
    assert headers["x-should-retry"] == "false"
    assert "retry-after" not in headers


def test_open_requests_are_exact_and_come_back(server: OwnServer) -> None:
    _, key = server.new_key(max_concurrency=3)
    streams = at_once(lambda: Stream(server, key), 24)
    held = [stream for stream in streams if stream.status == 200]
    assert Counter(stream.status for stream in streams) == {200: 3, 429: 21}
    held.pop().socket.close()
    until(lambda: held_more(server, key, held), "given back")
    assert Stream(server, key).status == 429
    for stream in held:
        stream.socket.close()


def held_more(server: OwnServer, key: str, held: list[Stream]) -> bool:
    stream = Stream(server, key)
    if stream.status == 200:
        held.append(stream)
    return stream.status == 200


def test_what_a_killed_router_held_is_given_back(server: OwnServer) -> None:
    _, key = server.new_key(max_concurrency=8)
    held = [Stream(server, key) for _ in range(8)]
    assert [stream.status for stream in held] == [200] * 8
    for name in ("router-0", "router-1"):
        pid = pids(server)[name]
        os.kill(pid, signal.SIGKILL)
        until(lambda name=name, pid=pid: pids(server).get(name) not in (None, pid), "a new one")
        broken = [stream for stream in held if stream.is_broken()]
        held = [stream for stream in held if stream not in broken]
        for stream in broken:
            stream.socket.close()
            until(lambda held=held: held_more(server, key, held), "given back")
        assert Stream(server, key).status == 429
    for stream in held:
        stream.socket.close()


def pids(server: Server) -> dict[str, int]:
    return {row["id"]: row["pid"] for row in server.instances() if row["pid"]}


def test_an_unload_tells_what_is_left(server: OwnServer) -> None:
    _, key = server.new_key(requests_per_minute=5)
    body = {"model": "other", "keep_alive": 0}
    status, headers, _ = server.request("POST", "/api/generate", body, bearer(key))
    assert (status, headers["x-ratelimit-remaining-requests"]) == (200, "5")


def test_clients_of_messages_are_told_as_anthropics_are(server: OwnServer) -> None:
    _, key = server.new_key(requests_per_minute=1)
    body = {"model": "echo", "max_tokens": 5, "messages": [{"role": "user", "content": "hi"}]}
    for expected in (200, 429):
        asked_at = time.time()
        status, headers, answer = server.request("POST", "/v1/messages", body, {"x-api-key": key})
        assert status == expected, answer
        assert headers["anthropic-ratelimit-requests-limit"] == "1"
        assert headers["anthropic-ratelimit-requests-remaining"] == "0"
        reset = datetime.fromisoformat(headers["anthropic-ratelimit-requests-reset"])
        assert asked_at - 1 <= reset.timestamp() <= time.time() + 60
    assert json.loads(answer)["error"]["type"] == "rate_limit_error"


def test_a_budget_ends(server: OwnServer) -> None:
    _, key = server.new_key(monthly_tokens=60)
    status, _, body = server.ask(key, smmf_echo={"tokens": 57})
    assert status == 200
    status, headers, body = server.ask(key)
    assert (status, body["error"]["code"]) == (429, "budget_exhausted")
    assert body["error"]["type"] == "insufficient_quota"
    assert headers["x-should-retry"] == "false"


def test_a_months_budget_is_exact(server: OwnServer) -> None:
    """What open requests have reserved is not to be had, whichever Router has them."""
    _, key = server.new_key(monthly_tokens=200)
    fields = {"max_tokens": 60, "smmf_echo": {"tokens": 60, "step_ms": 5}}
    answers = at_once(lambda: server.ask(key, **fields), 16)
    used = [body["usage"]["total_tokens"] for status, _, body in answers if status == 200]
    assert 0 < sum(used) <= 200
    assert {body["error"]["code"] for status, _, body in answers if status != 200} == {
        "budget_exhausted"
    }
    assert server.ask(key, max_tokens=200 - sum(used) - 1)[0] == 200


def test_a_key_has_its_models_and_its_roles(server: OwnServer) -> None:
    _, key = server.new_key(models=["fast"])
    assert [model["id"] for model in server.get_models(key)[2]["data"]] == ["echo", "fast"]
    assert server.ask(key)[0] == server.ask(key, model="fast")[0] == 200
    status, _, body = server.ask(key, model="other")
    assert (status, body["error"]["code"]) == (403, "permission_denied")
    for path, expected in (("echo", 200), ("other", 403)):
        assert server.request("GET", f"/v1/models/{path}", None, bearer(key))[0] == expected
    _, reader = server.new_key(roles=["read"])
    assert server.ask(reader)[0] == 403
    assert server.ask("")[0] == 401


def test_a_key_expires_and_a_revoked_one_is_unknown(server: OwnServer) -> None:
    made = server.admin("POST", "/admin/v1/keys", {"expires_at": time.time() + 5})
    until(lambda: server.get_models(made["key"])[0] == 401, "expired")
    until(lambda: "expired at" in server.get_models(made["key"])[2]["error"]["message"], "why")
    key_id, key = server.new_key()
    server.admin("DELETE", f"/admin/v1/keys/{key_id}")
    server.until_all(key, may_ask=False)


def test_the_fast_lane_has_the_same_limits(server: OwnServer) -> None:
    _, key = server.new_key(requests_per_minute=3)
    messages = [{"role": "user", "content": "hi"}]
    with Client(f"ipc://{server.run_dir}", api_key=key, retries=0) as client:
        assert server.ask(key)[0] == server.ask(key)[0] == 200
        assert client.chat(messages, model="echo").text
        with pytest.raises(RateLimited, match="Limit 3, Used 3"):
            client.chat(messages, model="echo")


def test_no_usage_is_lost_with_a_controller_or_at_a_stop(server: OwnServer) -> None:
    key_id, key = server.new_key()
    expected = Counter(requests=0, errors=0, prompt=0, generated=0)

    def use(times: int) -> None:
        for number in range(times):
            status, _, body = server.ask(key, model="none" if number % 3 == 2 else "echo")
            usage = body.get("usage") or {"prompt_tokens": 0, "completion_tokens": 0}
            expected.update(requests=1, errors=int(status != 200))
            expected.update(prompt=usage["prompt_tokens"])
            expected.update(generated=usage["completion_tokens"])

    use(6)
    assert server.process is not None
    server.process.kill()
    server.process.wait()
    use(6)
    server.start()
    server.wait_admin()
    use(3)
    assert server.stop() == 0  # a Router's last words tell of its last requests
    server.start()
    server.wait_admin()
    assert expected["errors"] == 5
    until(lambda: expected.items() <= server.usage(key_id).items(), f"usage of {expected}")
