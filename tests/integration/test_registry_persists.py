"""A server's registry in its database: what is there after a restart, and what a request notices of
a database that is gone: nothing."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from postgres_env import Postgres
from server import Server, echo_toml
from store_suite import until

from smmf_core.store import ModelRegistry, SQLAlchemyStorage

CLIENTS = 4


@pytest.fixture(scope="module")
def postgres() -> Iterator[Postgres]:
    postgres = Postgres()
    yield postgres.start()
    postgres.remove()


@pytest.fixture(params=["sqlite", "postgres"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Of the database in use; SQLite's is where a server puts it by itself."""
    if request.param == "sqlite":
        return f"sqlite:///{file_of(tmp_path)}"
    postgres: Postgres = request.getfixturevalue("postgres")
    url = postgres.url()
    (tmp_path / "smmf.toml").write_text(f'[registry]\nurl = "{url}"\n[server]\nname = "persists"\n')
    return url


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    """One model of a file."""
    (tmp_path / "local-echo.toml").write_text(echo_toml("echo", engine={"tokens": 3}))
    server = Server(tmp_path)
    yield server
    if server.process is not None:
        assert server.stop() == 0


def file_of(folder: Path) -> Path:
    return folder / "state" / "smmf" / "default" / "registry.db"


def add(server: Server, name: str, **sections: dict[str, Any]) -> None:
    table = {"model": {"name": name, "backend": "echo"}, **sections}
    code, body = server.ask_admin("POST", "/admin/v1/models", {"config": table})
    assert code == 201, body


def models(server: Server) -> dict[str, dict[str, Any]]:
    return {row["name"]: row for row in server.admin("GET", "/admin/v1/models")}


def reasons(server: Server) -> list[str]:
    return [row["reason"] for row in server.admin("GET", "/admin/v1/events")]


class Clients:
    """Ask all the time, and count what does not succeed."""

    def __init__(self, server: Server) -> None:
        self.answered = 0
        self.failures: list[Any] = []
        self._server = server
        self._is_over = threading.Event()
        self._threads = [threading.Thread(target=self._ask) for _ in range(CLIENTS)]

    def __enter__(self) -> Clients:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._is_over.set()
        for thread in self._threads:
            thread.join()
        assert self.failures == []

    def go_on(self, count: int = 50) -> None:
        """Until so many more were answered."""
        wanted = self.answered + count
        until(lambda: self.answered >= wanted or bool(self.failures))

    def _ask(self) -> None:
        while not self._is_over.is_set():
            try:
                code, _, body = self._server.chat()
            except OSError as error:
                self.failures.append(error)
                return
            if code != 200:
                self.failures.append((code, body))
                return
            self.answered += 1


def test_what_was_done_at_run_time_is_there_after_a_restart(server: Server, url: str) -> None:
    server.start()
    add(server, "added", engine={"tokens": 5}, deployment={"max_concurrency": 7})
    add(server, "gone")
    add(server, "off")
    server.admin("POST", "/admin/v1/models/added:pin")
    server.admin("POST", "/admin/v1/models/off:stop")
    server.admin("POST", "/admin/v1/models/echo:scale", {"replicas": 2})
    server.admin("PUT", "/admin/v1/aliases/best", {"model": "added"})
    server.admin("DELETE", "/admin/v1/models/gone")
    assert server.stop() == 0
    server.start()
    until(lambda: "added" in models(server))
    until(lambda: server.chat(model="best")[0] == 200)
    until(lambda: len(server.admin("GET", "/admin/v1/instances")) == 3)
    found = models(server)
    assert set(found) == {"echo", "added", "off"}
    assert found["off"]["status"] == "stopped"
    assert server.admin("GET", "/admin/v1/models/added")["pinned"]
    server_name = "persists" if url.startswith("postgres") else "default"
    registry = ModelRegistry.open(url, server_name)
    until(lambda: registry.get_model("added").status == "ready")
    assert registry.get_model("added").config["engine"] == {"tokens": 5}
    assert [m.model_name for m in registry.list_models(status="stopped")] == ["off"]
    registry.close()


def test_what_was_stopped_is_not_loaded_at_the_next_start(server: Server, tmp_path: Path) -> None:
    (tmp_path / "local-off.toml").write_text(echo_toml("off"))
    server.start()
    server.admin("POST", "/admin/v1/models/off:stop")
    assert server.stop() == 0
    server.start()
    server.wait_admin()
    began = server.admin("GET", "/admin/v1/health")["started_at"]
    events = server.admin("GET", "/admin/v1/events?instance=off-0")
    assert [row for row in events if row["time"] > began] == []
    assert models(server)["off"]["status"] == "stopped"
    assert "off is stopped (stopped by the operator); `smmf start off`" in server.log.read_text()


def test_a_file_that_is_deleted_and_broken_costs_no_request(server: Server, tmp_path: Path) -> None:
    file = file_of(tmp_path)
    server.start()
    add(server, "added")
    until(file.exists)
    with Clients(server) as clients:
        for path in file.parent.glob("registry.db*"):
            path.unlink(missing_ok=True)
        add(server, "second")
        until(file.exists)
        for path in file.parent.glob("registry.db*"):
            path.unlink(missing_ok=True)
        file.write_bytes(b"rubbish" * 10_000)
        add(server, "third")
        clients.go_on()
        until(lambda: any("file is not a database" in reason for reason in reasons(server)))
        file.unlink()
        add(server, "fourth")
        until(lambda: rows_in(file) >= {"added", "second", "third", "fourth"})
        clients.go_on()
    assert server.stop() == 0
    server.start()
    until(lambda: set(models(server)) == {"echo", "added", "second", "third", "fourth"})


def rows_in(file: Path) -> set[str]:
    if not file.exists():
        return set()
    storage = SQLAlchemyStorage(f"sqlite:///{file}")
    storage.open()
    try:
        return {record.model_name for record in storage.models()}
    finally:
        storage.close()


def test_a_database_that_is_killed_costs_no_request(
    server: Server, postgres: Postgres, tmp_path: Path
) -> None:
    config = f'[registry]\nurl = "{postgres.url()}"\n[server]\nname = "killed"\n'
    (tmp_path / "smmf.toml").write_text(config)
    server.start()
    add(server, "before")
    try:
        with Clients(server) as clients:
            postgres.kill()
            began = time.monotonic()
            add(server, "during")
            server.admin("POST", "/admin/v1/models/echo:scale", {"replicas": 2})
            assert time.monotonic() - began < 30
            clients.go_on()
            until(lambda: any("registry" in reason for reason in reasons(server)))
            postgres.start()
            clients.go_on()
            registry = ModelRegistry.open(postgres.url(), "killed")
            until(lambda: {m.model_name for m in registry.list_models()} >= {"before", "during"})
            until(lambda: registry.get_model("echo").replicas == 2)
            registry.close()
    finally:
        postgres.start()
    assert server.stop() == 0
    server.start()
    until(lambda: set(models(server)) == {"echo", "before", "during"})
    until(lambda: server.chat(model="during")[0] == 200)


def test_a_server_without_a_place_for_its_registry_serves(server: Server, tmp_path: Path) -> None:
    (tmp_path / "state").write_text("a file where a folder should be")
    server.start()
    assert server.chat()[0] == 200
    add(server, "added")
    assert server.chat(model="added")[0] == 200
    until(lambda: any("registry" in reason for reason in reasons(server)))
    told = [reason for reason in reasons(server) if "registry" in reason]
    assert len(told) == 1, told
    assert str(tmp_path / "state") in told[0]
