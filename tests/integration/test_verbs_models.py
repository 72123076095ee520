"""Verbs of models against a real server, as a new user tries them: right, twice, on what does not
exist, on what is starting, dead or failed, and while requests run."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from command import WAIT_S, begin, read, refused, said
from server import Server, echo_toml


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """`two`: two replicas. Not started: `slow`, loads in a second; `slower`, does not while a test
    looks; `broken`, never."""
    folder: Path = tmp_path_factory.mktemp("verbs")
    (folder / "local-two.toml").write_text(
        echo_toml("two", deployment={"replicas": 2}, engine={"tokens": 200, "step_ms": 5})
    )
    on_demand = {"slow": {"load_s": 2.0}, "slower": {"load_s": 60.0}, "broken": {"fail": "load"}}
    for name, engine in on_demand.items():
        text = echo_toml(name, deployment={"autostart": False}, engine=engine)
        (folder / f"local-{name}.toml").write_text(text)
    started = Server(folder).start()
    yield started
    assert started.stop() == 0


@pytest.fixture(autouse=True)
def as_at_first(server: Server) -> Iterator[None]:
    yield
    server.admin("POST", "/admin/v1/models/two:start", {"replicas": 2})
    for name in ("slow", "slower", "broken"):
        server.admin("POST", f"/admin/v1/models/{name}:stop", {"force": True})


def status(server: Server, model: str) -> str:
    text: str = server.admin("GET", f"/admin/v1/models/{model}")["status"]
    return text


def wait_for(server: Server, model: str, wanted: str) -> None:
    while status(server, model) != wanted:
        time.sleep(0.01)


def ids(server: Server, model: str) -> list[str]:
    return sorted(row["id"] for row in read(server, "ps") if row["model"] == model)


def pids(server: Server, model: str) -> list[int]:
    return sorted(row["pid"] for row in server.instances() if row["model"] == model)


def answer(server: Server, model: str, **fields: Any) -> tuple[int, Any]:
    status, _, body = server.chat(model=model, **fields)
    return status, json.loads(body)


# --- start and stop -------------------------------------------------------------------------------


def test_stop_and_start_twice_each(server: Server) -> None:
    assert said(server, "stop", "two") == "two is stopped\n"
    assert said(server, "stop", "two") == "two is stopped already\n"
    assert ids(server, "two") == []
    code, body = answer(server, "two")
    assert (code, body["error"]["code"]) == (503, "model_unavailable")
    assert said(server, "start", "two").startswith("two is ready (2 replicas")
    assert said(server, "start", "two") == "two is ready already\n"
    assert answer(server, "two", max_tokens=2)[0] == 200


def test_start_waits_until_a_slow_model_is_ready(server: Server) -> None:
    assert status(server, "slow") != "ready"
    starting = begin(server, "start", "slow")
    second = begin(server, "start", "slow")
    assert "ready" in starting.communicate()[0]
    assert "ready" in second.communicate()[0]
    assert status(server, "slow") == "ready"
    assert len(ids(server, "slow")) == 1


def test_start_need_not_wait(server: Server) -> None:
    assert said(server, "start", "slower", "--no-wait") == "slower is starting\n"
    (row,) = [row for row in read(server, "ps") if row["model"] == "slower"]
    assert row["state"] in ("starting", "loading")
    assert row["phase"] != ""
    assert 0 <= row["progress"] <= 1


def test_stop_of_what_is_starting_ends_the_wait_of_the_start(server: Server) -> None:
    starting = begin(server, "start", "slower")
    wait_for(server, "slower", "starting")
    assert said(server, "stop", "slower") == "slower is stopped\n"
    out, err = starting.communicate()
    assert (starting.returncode, out) == (1, "")
    assert err.startswith("smmf: slower is stopp")


def test_start_of_what_cannot_load_tells_why(server: Server) -> None:
    message = refused(server, "start", "broken")
    assert message.startswith("broken is failed: ")
    assert status(server, "broken") == "failed"
    code, body = answer(server, "broken")
    assert (code, body["error"]["code"]) == (503, "model_unavailable")
    assert refused(server, "restart", "broken").startswith("broken is failed: ")
    assert said(server, "stop", "broken") == "broken is stopped\n"


def test_stop_lets_requests_finish(server: Server) -> None:
    with begin(server, "chat", "two", "hi") as chat:
        assert chat.stdout is not None
        assert chat.stderr is not None
        first = chat.stdout.read(1)
        assert said(server, "stop", "two") == "two is stopped\n"
        words = (first + chat.stdout.read()).split()
        assert (chat.wait(), chat.stderr.read()) == (0, "")
    assert len(words) == 200


def test_stop_by_force_does_not(server: Server) -> None:
    with ThreadPoolExecutor() as pool:
        long = {"tokens": 20_000, "step_ms": 5}
        asked = pool.submit(answer, server, "two", smmf_echo=long, ignore_eos=True)
        while not any(row["in_flight"] for row in read(server, "ps")):
            assert not asked.done()
        assert said(server, "stop", "two", "--force") == "two is stopped\n"
        code, body = asked.result(WAIT_S)
    assert code >= 500, body


def test_a_dead_worker_is_replaced_and_verbs_go_on(server: Server) -> None:
    victim = pids(server, "two")[0]
    os.kill(victim, signal.SIGKILL)
    assert "two is ready" in said(server, "start", "two")
    assert victim not in pids(server, "two")
    os.kill(pids(server, "two")[0], signal.SIGKILL)
    assert said(server, "stop", "two") == "two is stopped\n"


# --- restart, scale -------------------------------------------------------------------------------


def test_restart_renews_all_replicas_and_loses_no_request(server: Server) -> None:
    before = pids(server, "two")
    chats = [begin(server, "chat", "two", "hi") for _ in range(4)]
    restarting = begin(server, "restart", "two")
    more = [begin(server, "chat", "two", "hi") for _ in range(4)]
    assert restarting.communicate()[0].startswith("two is ready (2 replicas")
    assert not set(before) & set(pids(server, "two"))
    for chat in chats + more:
        out, err = chat.communicate()
        assert (chat.returncode, err) == (0, "")
        assert len(out.split()) == 200


def test_restart_starts_what_is_stopped(server: Server) -> None:
    said(server, "stop", "two")
    assert said(server, "restart", "two").startswith("two is ready")


def test_scale_up_down_and_to_nothing(server: Server) -> None:
    assert said(server, "scale", "two", "3").startswith("two is ready (3 replicas")
    assert ids(server, "two") == ["two-0", "two-1", "two-2"]
    assert said(server, "scale", "two", "3").startswith("two is ready (3 replicas")
    assert said(server, "scale", "two", "1").startswith("two is ready")
    assert ids(server, "two") == ["two-0"]
    assert said(server, "scale", "two", "0") == "two is stopped\n"
    assert ids(server, "two") == []
    assert answer(server, "two")[0] == 503
    assert said(server, "scale", "two", "1").startswith("two is ready")
    assert read(server, "show", "two")["replicas"] == 1


def test_the_scaled_count_is_remembered_over_stop_and_start(server: Server) -> None:
    said(server, "scale", "two", "3")
    said(server, "stop", "two")
    assert said(server, "start", "two").startswith("two is ready (3 replicas")
    assert said(server, "start", "two", "--replicas", "1").startswith("two is ready")
    assert ids(server, "two") == ["two-0"]


@pytest.mark.parametrize("count", ["257", "100000"])
def test_scale_to_what_cannot_be(server: Server, count: str) -> None:
    assert refused(server, "scale", "two", count) == "replicas: expected an integer <= 256"


@pytest.mark.parametrize(
    ("method", "path", "body", "message"),
    [
        ("POST", "models/two:scale", {}, "replicas must be given"),
        ("POST", "models/two:scale", {"replicas": "2"}, "replicas: expected an integer, got a str"),
        ("POST", "models/two:stop", {"timeout_s": -1}, "timeout_s: expected a number >= 0.0"),
        ("POST", "models/two:stop", {"forse": True}, "there is no field 'forse'; did you mean"),
        ("PUT", "aliases/x", {"model": 1}, "model: expected a string, got an integer"),
        ("PUT", "aliases/x", {}, "model must be given"),
        ("GET", "events?limit=-1", None, "limit: expected an integer >= 0"),
        ("GET", "logs?lines=x", None, "lines: expected an integer"),
    ],
)
def test_a_wrong_field_is_named(
    server: Server, method: str, path: str, body: Any, message: str
) -> None:
    status, answer = server.ask_admin(method, f"/admin/v1/{path}", body)
    assert (status, answer["error"]["message"][: len(message)]) == (400, message)


# --- pin, names, run ------------------------------------------------------------------------------


def test_pin_and_unpin_twice_each(server: Server) -> None:
    assert said(server, "pin", "two") == "two is pinned\n"
    assert said(server, "pin", "two") == "two is pinned already\n"
    assert read(server, "show", "two")["pinned"] is True
    assert said(server, "unpin", "two") == "two is not pinned\n"
    assert said(server, "unpin", "two") == "two was not pinned\n"


@pytest.mark.parametrize(
    "arguments",
    [
        ["start", "tow"],
        ["stop", "tow"],
        ["restart", "tow"],
        ["scale", "tow", "2"],
        ["pin", "tow"],
        ["unpin", "tow"],
        ["show", "tow"],
        ["rm", "tow"],
        ["run", "tow", "hi"],
        ["alias", "other", "tow"],
    ],
)
def test_a_model_that_does_not_exist(server: Server, arguments: list[str]) -> None:
    message = refused(server, *arguments)
    assert message.endswith("named tow; did you mean 'two'?")


def test_run_loads_the_model_first(server: Server) -> None:
    assert said(server, "run", "slow", "hi", "--max-tokens", "3").split() != []
    assert status(server, "slow") == "ready"


def test_the_first_request_loads_a_registered_model(server: Server) -> None:
    server.admin("POST", "/admin/v1/models/slow:start", {"wait": False})
    assert said(server, "chat", "slow", "hi").split() != []


def test_a_terminal_shows_progress_while_it_waits(server: Server) -> None:
    ours, theirs = os.openpty()
    starting = begin(server, "start", "slow", stderr=theirs)
    os.close(theirs)
    out = starting.communicate()[0]
    shown = os.read(ours, 65536).decode()
    os.close(ours)
    assert out.startswith("slow is ready")
    assert "slow-0" in shown
    assert "%" in shown
    assert "slow is ready" not in shown


def test_an_interrupted_wait_leaves_the_start_going_on(server: Server) -> None:
    starting = begin(server, "start", "slower")
    wait_for(server, "slower", "starting")
    starting.send_signal(signal.SIGINT)
    assert starting.communicate() == ("", "")
    assert starting.returncode == 130
    assert status(server, "slower") == "starting"


# --- the admin API itself -------------------------------------------------------------------------


def test_waiting_has_a_limit_and_the_start_goes_on(server: Server) -> None:
    code, body = server.ask_admin("POST", "/admin/v1/models/slower:start", {"timeout_s": 0.2})
    assert code == 503
    assert body["error"]["message"] == "after 0.2 s slower is starting; it goes on"
    assert status(server, "slower") == "starting"


def test_an_answer_that_did_not_wait_is_202(server: Server) -> None:
    assert server.ask_admin("POST", "/admin/v1/models/slower:start", {"wait": False})[0] == 202
    assert server.ask_admin("POST", "/admin/v1/models/slower:stop", {"wait": False})[0] == 202


@pytest.mark.parametrize(
    ("path", "body", "code"),
    [
        ("/admin/v1/models/two:stop", {"forec": True}, 400),
        ("/admin/v1/models/two:scale", {}, 400),
        ("/admin/v1/models/two:scale", {"replicas": "2"}, 400),
        ("/admin/v1/models/two:dance", {}, 404),
        ("/admin/v1/models/none:start", {}, 404),
        ("/admin/v1/instances/two-0:dance", {}, 404),
        ("/admin/v1/instances/none:stop", {}, 404),
    ],
)
def test_wrong_use_of_the_api(server: Server, path: str, body: Any, code: int) -> None:
    told, envelope = server.ask_admin("POST", path, body)
    assert told == code
    assert envelope["error"]["message"]


def test_events_can_be_limited_and_followed(server: Server) -> None:
    _, events = server.ask_admin("GET", "/admin/v1/events?model=two&limit=2")
    assert len(events) == 2
    assert {event["id"] for event in events} <= {"two", "two-0", "two-1"}
    last = server.ask_admin("GET", "/admin/v1/events")[1][-1]["time"]
    path = f"/admin/v1/events?since={last!r}"
    assert server.ask_admin("GET", path) == (200, [])
    with ThreadPoolExecutor() as pool:
        following = pool.submit(server.ask_admin, "GET", f"{path}&wait_s=30&model=slower")
        said(server, "start", "slower", "--no-wait")
        code, news = following.result(WAIT_S)
    assert code == 200
    assert news[0]["id"].startswith("slower")
    assert server.ask_admin("GET", "/admin/v1/events?wait_s=1000")[0] == 400


def test_openapi_names_every_route(server: Server) -> None:
    _, document = server.ask_admin("GET", "/schema/openapi.json")
    assert {"/admin/v1/models", "/admin/v1/instances", "/admin/v1/events", "/admin/v1/aliases"} <= (
        set(document["paths"])
    )
