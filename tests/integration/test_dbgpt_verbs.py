"""DB-GPT's verbs: its three processes together are one `smmf serve`; its model verbs and flags."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from server import Server, echo_toml, fresh_port

WAIT_S = 60.0
KEY = "sk-of-the-api-server"


def dbgpt_models(*names: str) -> str:
    """As DB-GPT's own files have them, on our echo engine."""
    return "".join(
        f'[[models.llms]]\nname = "{name}"\nprovider = "echo"\npath = "nowhere"\n' for name in names
    )


class Cluster:
    """DB-GPT's three processes, each by its own file."""

    def __init__(self, folder: Path) -> None:
        self.server = Server(folder)
        admin = self.server.admin_port
        (folder / "controller.toml").write_text(
            f'[service.model.controller]\nhost = "127.0.0.1"\nport = {admin}\n'
            f"[service.model.api]\nport = {fresh_port()}\n"
        )
        (folder / "worker.toml").write_text(
            f'[service.model.worker]\ncontroller_addr = "http://127.0.0.1:{admin}"\n'
            + dbgpt_models("a", "b")
        )
        (folder / "api.toml").write_text(
            f'[service.model.api]\nhost = "127.0.0.1"\nport = {self.server.port}\n'
            f'api_keys = "{KEY}"\ncontroller_addr = "${{env:NO_SUCH:-http://127.0.0.1:{admin}}}"\n'
        )

    @property
    def environment(self) -> dict[str, str]:
        """Without our own way to name the server."""
        found = dict(self.server.environment)
        del found["SMMF_URL"]
        return found

    def start_controller(self) -> None:
        command = [*SMMF, "start", "controller", "-c", str(self.server.folder / "controller.toml")]
        with self.server.log.open("ab") as log:
            self.server.process = subprocess.Popen(
                command, env=self.environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log
            )

    def start(self, role: str, file: str, **extra: str) -> subprocess.CompletedProcess[str]:
        path = str(self.server.folder / file)
        return run(["start", role, "-c", path], {**self.environment, **extra})


SMMF = [sys.executable, "-m", "smmf_core.cli.main"]


def run(
    arguments: list[str], environment: dict[str, str], stdin: str | None = None
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*SMMF, *arguments],
        env=environment,
        input=stdin,
        stdin=subprocess.DEVNULL if stdin is None else None,
        capture_output=True,
        text=True,
        timeout=WAIT_S,
    )


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    found = Cluster(tmp_path_factory.mktemp("dbgpt"))
    found.start_controller()
    yield found
    assert found.server.stop() == 0


def test_the_three_together_are_one_server(cluster: Cluster, folder: Path) -> None:
    server = cluster.server
    server.wait_admin()
    assert server.admin("GET", "/admin/v1/models") == []
    told = f"smmf: controller on {server.admin_url}; `smmf start worker -c FILE` adds models\n"
    assert told in server.log.read_text()
    worker = cluster.start("worker", "worker.toml")
    assert worker.returncode == 0, worker.stderr
    assert "a is registered" in worker.stdout
    assert "b is registered" in worker.stdout
    api = cluster.start("apiserver", "api.toml")
    assert api.returncode == 0, api.stderr
    assert server.base_url in api.stdout
    server.wait_ready()
    assert server.chat(model="a")[0] == 401
    assert with_key(server, "a") == with_key(server, "b") == 200

    (folder / "smmf.toml").write_text(f'[server]\napi_keys = ["{KEY}"]\n')
    (folder / "local-a.toml").write_text(dbgpt_models("a", "b"))
    whole = Server(folder).start()
    try:
        assert models_of(whole) == models_of(server)
        assert with_key(whole, "b") == 200
    finally:
        assert whole.stop() == 0


def with_key(server: Server, model: str) -> int:
    body = {"model": model, "messages": [{"role": "user", "content": "hi"}]}
    headers = {"authorization": f"Bearer {KEY}"}
    return server.request("POST", "/v1/chat/completions", body, headers)[0]


def models_of(server: Server) -> list[dict[str, Any]]:
    keys = ("name", "task", "backend", "status", "replicas", "aliases", "capabilities")
    done = run(["list", "--json"], {**server.environment, "SMMF_API_KEY": KEY})
    return [{key: row[key] for key in keys} for row in json.loads(done.stdout)]


def test_each_may_be_started_again(cluster: Cluster) -> None:
    keyed = {"SMMF_API_KEY": KEY}
    again = cluster.start("worker", "worker.toml", **keyed)
    assert again.returncode == 0, again.stderr
    assert "registered already" in again.stdout
    again = cluster.start("apiserver", "api.toml", **keyed)
    assert again.returncode == 0, again.stderr
    second = cluster.start("controller", "controller.toml")
    assert second.returncode == 1
    assert "runs already" in second.stderr


def test_one_file_for_all_three_with_its_keys(folder: Path) -> None:
    """They are the API server's: it brings them, and each role's process sends one."""
    admin, server = fresh_port(), Server(folder)
    file = folder / "all.toml"
    file.write_text(
        f'[service.model.controller]\nhost = "0.0.0.0"\nport = {admin}\n'
        f'[service.model.api]\nport = {server.port}\napi_keys = "{KEY}"\n' + dbgpt_models("a")
    )
    environment = {**server.environment, "SMMF_URL": f"http://127.0.0.1:{admin}"}
    for role, flags in (("controller", ["-d"]), ("worker", []), ("apiserver", [])):
        done = run(["start", role, "-c", str(file), *flags], environment)
        assert done.returncode == 0, done.stderr
        if role != "apiserver":
            assert run(["list"], environment).returncode == 0, "it brings the keys"
    assert with_key(server, "a") == 200
    keyless = run(["list"], environment)
    assert keyless.returncode == 1
    assert keyless.stderr.endswith("; SMMF_API_KEY names the key\n")
    assert run(["shutdown"], {**environment, "SMMF_API_KEY": KEY}).returncode == 0


def test_an_address_that_is_taken_changes_nothing(cluster: Cluster) -> None:
    taken = cluster.server.admin_port
    text = (cluster.server.folder / "api.toml").read_text()
    wrong = text.replace(f"port = {cluster.server.port}", f"port = {taken}")
    (cluster.server.folder / "taken.toml").write_text(wrong)
    done = cluster.start("apiserver", "taken.toml", SMMF_API_KEY=KEY)
    assert (done.returncode, done.stdout) == (1, "")
    assert f"port {taken}" in done.stderr
    assert with_key(cluster.server, "a") == 200


def test_a_role_without_a_controller(cluster: Cluster, folder: Path) -> None:
    file = folder / "worker.toml"
    file.write_text(
        '[service.model.worker]\ncontroller_addr = "http://127.0.0.1:1"\n' + dbgpt_models("a")
    )
    done = run(["start", "worker", "-c", str(file)], cluster.environment)
    assert done.returncode == 1
    assert done.stderr.startswith("smmf: no server at http://127.0.0.1:1")
    done = run(["start", "worker", "-c", str(folder / "none.toml")], cluster.environment)
    assert done.returncode == 1
    assert "none.toml" in done.stderr


API_FOR_ALL = '[service.model.api]\nhost = "0.0.0.0"'


def test_a_controller_in_the_background(folder: Path) -> None:
    admin, port = fresh_port(), fresh_port()
    file = folder / "controller.toml"
    file.write_text(
        f"[service.model.controller]\nport = {admin}\n[service.model.api]\nport = {port}"
    )
    environment = {**os.environ, "XDG_RUNTIME_DIR": str(folder), "XDG_STATE_HOME": str(folder)}
    environment["SMMF_URL"] = f"http://127.0.0.1:{admin}"
    done = run(["start", "controller", "-c", str(file), "-d"], environment)
    assert done.returncode == 0, done.stderr
    assert json.loads(run(["list", "--json"], environment).stdout) == []
    file.write_text(file.read_text().replace("[service.model.api]", API_FOR_ALL))
    moved = run(["start", "apiserver", "-c", str(file)], environment)
    assert moved.returncode == 1, "other machines would reach it, and no key is needed"
    assert "`smmf keys create`" in moved.stderr
    again = run(["start", "controller", "-c", str(file), "--daemon"], environment)
    assert (again.returncode, again.stdout) == (1, "")
    assert "runs already" in again.stderr
    assert run(["shutdown"], environment).returncode == 0
    assert run(["list"], environment).returncode == 1


# --- smmf model ---


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("model")
    (folder / "local-a.toml").write_text(
        echo_toml("a", deployment={"replicas": 2}, engine={"text": "echo"})
    )
    (folder / "local-e.toml").write_text(
        echo_toml("e").replace("[model]\n", '[model]\ntask = "embed"\n')
    )
    started = Server(folder).start()
    yield started
    assert started.stop() == 0


def model(server: Server, *arguments: str, stdin: str | None = None) -> str:
    done = run(["model", *arguments], server.environment, stdin)
    assert done.returncode == 0, done.stderr
    return done.stdout


def refused(server: Server, *arguments: str) -> str:
    done = run(["model", *arguments], server.environment)
    assert done.returncode == 1, done.stdout
    return done.stderr


def listed(server: Server, *arguments: str) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = json.loads(model(server, "list", *arguments, "--json"))
    return rows


def test_list(served: Server) -> None:
    rows = listed(served)
    assert [(row["model_name"], row["model_type"]) for row in rows] == [
        ("a", "llm"), ("a", "llm"), ("e", "text2vec"),
    ]  # fmt: skip
    assert {row["port"] for row in rows} == {served.port}
    assert all(row["healthy"] and row["enabled"] for row in rows)
    assert len(listed(served, "--model_type", "text2vec")) == 1
    assert len(listed(served, "--model_name", "a")) == 2
    headings = model(served, "list").splitlines()[0]
    assert headings.split("  ")[0] == "MODEL NAME"
    by_address = run(
        ["model", "--address", served.admin_url, "list", "--json"],
        {**served.environment, "SMMF_URL": "http://127.0.0.1:1"},
    )
    assert json.loads(by_address.stdout) == rows
    by_environment = {**served.environment, "CONTROLLER_ADDRESS": f"{served.admin_url},http://x"}
    assert json.loads(run(["model", "list", "--json"], by_environment).stdout) == rows


def test_stop_start_restart(served: Server) -> None:
    assert "stopped" in model(served, "stop", "--model_name", "a", "--model_type", "llm")
    assert all(not row["healthy"] for row in listed(served, "--model_name", "a"))
    assert "already" in model(served, "stop", "--model_name", "a")
    model(served, "start", "--model_name", "a", "--host", "127.0.0.1", "--port", str(served.port))
    before = {row["id"]: row["pid"] for row in served.instances() if row["model"] == "a"}
    assert len(before) == 2
    model(served, "restart", "--model_name", "a")
    after = {row["id"]: row["pid"] for row in served.instances() if row["model"] == "a"}
    assert not set(before.values()) & set(after.values())
    assert all(row["healthy"] for row in listed(served, "--model_name", "a"))


def test_what_there_is_not(served: Server) -> None:
    for verb in ("stop", "list"):
        assert "no model named none" in refused(served, verb, "--model_name", "none")
    assert "a is no reranker" in refused(
        served, "restart", "--model_name", "a", "--model_type", "reranker"
    )
    assert "no model at 127.0.0.1:1:" in refused(served, "stop", "--model_name", "a", "--port", "1")
    assert run(["model", "stop"], served.environment).returncode == 2
    assert run(["model"], served.environment).returncode == 2


def test_start_registers_a_model_with_its_provider(served: Server) -> None:
    told = model(served, "start", "--model_name", "c", "--provider", "echo", "--concurrency", "3")
    assert "c is registered" in told
    assert served.chat(model="c")[0] == 200
    (row,) = listed(served, "--model_name", "c")
    assert row["healthy"]
    assert "--concurrency is not a number" in refused(
        served, "start", "--model_name", "d", "--provider", "echo", "--concurrency", "x"
    )


def test_chat(served: Server) -> None:
    assert model(served, "chat", "-m", "a", stdin="say this") == "say this\n"
    assert "no model named none" in refused(served, "chat", "--model_name", "none")
