"""add, rm, alias, reload against a real server."""

from __future__ import annotations

import json
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from command import read, refused, said, smmf
from server import Server, echo_toml
from store_suite import until


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    (tmp_path / "local-a.toml").write_text(echo_toml("a", engine={"tokens": 1}))
    started = Server(tmp_path).start()
    yield started
    assert started.stop() == 0


def names(server: Server) -> list[str]:
    return [row["name"] for row in read(server, "list")]


def words(server: Server, model: str) -> int:
    """How many the model answers with."""
    return len(said(server, "chat", model, "hi").split())


def test_add_and_rm(server: Server, tmp_path: Path) -> None:
    file = tmp_path / "b.toml"
    file.write_text(echo_toml("b", engine={"tokens": 2}))
    assert said(server, "add", str(file)).startswith("b is registered; it is ready")
    assert said(server, "add", str(file)).startswith("b is registered already; it is ready")
    assert names(server) == ["a", "b"]
    assert words(server, "b") == 2
    assert said(server, "rm", "b") == "b is removed\n"
    assert refused(server, "rm", "b").startswith("no model named b")
    assert names(server) == ["a"]
    assert smmf(server, "chat", "b", "hi").returncode == 1
    assert said(server, "add", str(file)).startswith("b is registered; it is ready")


def test_add_of_a_changed_file_replaces_the_model(server: Server, tmp_path: Path) -> None:
    file = tmp_path / "b.toml"
    file.write_text(echo_toml("b", engine={"tokens": 2}))
    said(server, "add", str(file))
    file.write_text(echo_toml("b", engine={"tokens": 3}))
    assert said(server, "add", str(file)).startswith("b is changed; it is ready")
    assert words(server, "b") == 3


def test_what_cannot_be_added(server: Server, tmp_path: Path) -> None:
    file = tmp_path / "b.toml"
    file.write_text('[model]\nname = "b"\nbackend = "ecco"\n')
    assert "did you mean 'echo'?" in refused(server, "add", str(file))
    assert "no such file" in refused(server, "add", str(tmp_path / "none.toml"))
    file.write_text(echo_toml("a"))
    assert "a is registered from" in refused(server, "add", str(file))
    file.write_text(echo_toml("b", engine={"fail": "load"}))
    assert refused(server, "add", str(file)).startswith("b is registered, but it is failed: ")
    assert names(server) == ["a", "b"]


def test_added_by_text_and_by_json(server: Server) -> None:
    text = {"toml": echo_toml("b"), "wait": True}
    code, body = server.ask_admin("POST", "/admin/v1/models", text)
    assert (code, [row["status"] for row in body["models"]]) == (201, ["ready"])
    config = {"model": {"name": "c", "backend": "echo"}, "deployment": {"autostart": False}}
    code, body = server.ask_admin("POST", "/admin/v1/models", {"config": config})
    assert (code, [row["status"] for row in body["models"]]) == (201, ["registered"])
    assert server.ask_admin("POST", "/admin/v1/models", {})[0] == 400
    assert server.ask_admin("POST", "/admin/v1/models", {"config": {}})[0] == 400


def test_a_model_that_scales_by_itself_keeps_its_bounds(server: Server, tmp_path: Path) -> None:
    file = tmp_path / "b.toml"
    file.write_text(echo_toml("b", deployment={"min_replicas": 1, "max_replicas": 2}))
    said(server, "add", str(file))
    for arguments in (("scale", "b", "5"), ("start", "b", "--replicas", "3")):
        told = refused(server, *arguments)
        assert told.startswith("b scales by itself between 1 and 2 replicas ([deployment] ")
    assert said(server, "scale", "b", "2").startswith("b is ready")
    assert said(server, "scale", "b", "0") == "b is stopped\n"


def test_a_secret_in_clear_is_told(server: Server, tmp_path: Path) -> None:
    file = tmp_path / "b.toml"
    for path, told in (("https://me:sk-1@host/b", True), ("${env:HOME}/b", False)):
        text = echo_toml("b").replace("[model]\n", f'[model]\npath = "{path}"\n')
        file.write_text(text)
        message = said(server, "add", str(file))
        assert ("`${env:NAME}` would keep it out" in message) is told, message
        assert "sk-1" not in message


def test_what_the_database_does_not_hear_is_told(tmp_path: Path) -> None:
    """With a key that the file has: who else may ask is in the database."""
    (tmp_path / "local-a.toml").write_text(echo_toml("a"))
    url = "postgresql+psycopg://127.0.0.1:1/none"
    keys = '[server]\napi_keys = ["mine"]\n'
    (tmp_path / "smmf.toml").write_text(f'{keys}[registry]\nurl = "{url}"\n')
    started = Server(tmp_path)
    started.key = "mine"
    started.start(wait=False)
    try:
        started.wait_admin()
        while started.ask_admin("GET", "/admin/v1/health")[1]["registry"]["is_available"]:
            time.sleep(0.05)
        warning = "(in memory only, until the registry's database answers)"
        assert said(started, "pin", "a") == f"a is pinned {warning}\n"
        assert read(started, "show", "a")["pinned"] is True
    finally:
        assert started.stop() == 0


def test_an_alias_moves_without_a_failed_request(server: Server, tmp_path: Path) -> None:
    file = tmp_path / "b.toml"
    file.write_text(echo_toml("b", engine={"tokens": 2}))
    said(server, "add", str(file))
    assert said(server, "alias", "x", "a") == "x means a\n"
    assert said(server, "alias", "x", "a") == "x means a already\n"
    failures: list[int] = []
    counts: set[int] = set()
    is_over = threading.Event()

    def ask() -> None:
        while not is_over.is_set():
            code, _, body = server.chat(model="x")
            if code == 200:
                counts.add(json.loads(body)["usage"]["completion_tokens"])
            else:
                failures.append(code)

    asking = threading.Thread(target=ask)
    asking.start()
    until(lambda: 1 in counts or bool(failures))
    assert said(server, "alias", "x", "b") == "x means b\n"
    assert words(server, "x") == 2
    until(lambda: 2 in counts or bool(failures))
    is_over.set()
    asking.join()
    assert failures == []
    assert counts == {1, 2}
    assert read(server, "alias") == [{"alias": "x", "model": "b", "runtime": True}]
    assert said(server, "alias", "x", "--rm") == "x is forgotten\n"
    assert refused(server, "alias", "x", "--rm").startswith("no alias named x")
    assert smmf(server, "chat", "x", "hi").returncode == 1


def test_an_alias_cannot_be_a_model_s_name(server: Server) -> None:
    assert "a model's own name" in refused(server, "alias", "a", "a")


def test_reload_touches_only_what_changed(server: Server, tmp_path: Path) -> None:
    (tmp_path / "local-b.toml").write_text(echo_toml("b", engine={"tokens": 2}))
    said(server, "add", str(tmp_path / "local-b.toml"))
    before = {row["id"]: row["pid"] for row in server.instances()}
    assert said(server, "reload") == "nothing has changed\n"
    (tmp_path / "local-a.toml").write_text(echo_toml("a", engine={"tokens": 4}))
    assert said(server, "reload").startswith("a is changed; it is ready")
    assert words(server, "a") == 4
    after = {row["id"]: row["pid"] for row in server.instances()}
    assert after["b-0"] == before["b-0"]
    assert before["a-0"] not in after.values()


def test_reload_brings_models_back_in_the_order_of_their_files(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / f"local-{name}.toml").write_text(echo_toml(name))
    started = Server(tmp_path).start()
    try:
        said(started, "rm", "a")
        assert names(started) == ["b"]
        said(started, "reload")
        assert names(started) == ["a", "b"]
    finally:
        assert started.stop() == 0


def test_reload_of_a_wrong_file_changes_nothing(server: Server, tmp_path: Path) -> None:
    (tmp_path / "local-a.toml").write_text("[model\n")
    assert "local-a.toml:1: " in refused(server, "reload")
    assert words(server, "a") == 1


def test_a_change_that_does_not_load_leaves_the_former_serving(
    server: Server, tmp_path: Path
) -> None:
    file = tmp_path / "local-a.toml"
    file.write_text(echo_toml("a", engine={"tokens": 4, "fail": "load"}))
    for verb in (["reload"], ["add", str(file)]):
        message = refused(server, *verb)
        assert message.startswith("a is changed, but it serves as before: "), message
        assert words(server, "a") == 1
    assert "the change could not be made" in read(server, "show", "a")["reason"]
    file.write_text(echo_toml("a", engine={"tokens": 1}))
    assert said(server, "reload") == "nothing has changed\n"
    assert read(server, "show", "a")["reason"] == "", "nobody wants that change any more"


def test_the_server_reloads_on_a_hang_up(server: Server, tmp_path: Path) -> None:
    """It has no terminal: nobody could have closed one."""
    (tmp_path / "local-a.toml").write_text(echo_toml("a", engine={"tokens": 4}))
    assert server.process is not None
    server.process.send_signal(signal.SIGHUP)
    _, events = server.ask_admin("GET", "/admin/v1/events?instance=reload&wait_s=30")
    assert "changed: a" in events[-1]["reason"]
    said(server, "start", "a")
    assert words(server, "a") == 4
