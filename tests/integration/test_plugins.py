"""Plug-ins: the example package, installed as pip does it, behind a server; and broken ones."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from server import Server

from smmf_core.config import bundled

EXAMPLE = Path(__file__).resolve().parents[1] / "plugin_example"
INSTALL_S = 300


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the example package and what pip writes about it."""
    folder, source = tmp_path_factory.mktemp("plug-in"), tmp_path_factory.mktemp("source")
    for file in EXAMPLE.rglob("*"):  # a copy: a build leaves things beside the sources
        if file.suffix in (".py", ".toml"):
            copy = source / file.relative_to(EXAMPLE)
            copy.parent.mkdir(exist_ok=True)
            copy.write_bytes(file.read_bytes())
    flags = ["--quiet", "--no-deps", "--no-build-isolation", "--target", str(folder)]
    command = [sys.executable, "-m", "pip", "install", *flags, str(source)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=INSTALL_S)
    assert done.returncode == 0, done.stderr
    return folder


class PluggedServer(Server):
    """A server, and commands, that have more packages to import."""

    packages: Path

    @property
    def environment(self) -> dict[str, str]:
        paths = [str(self.packages), os.environ.get("PYTHONPATH", "")]
        return {**super().environment, "PYTHONPATH": os.pathsep.join(filter(None, paths))}

    def run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "smmf_core.cli.main", *arguments]
        return subprocess.run(
            command, env=self.environment, capture_output=True, text=True, timeout=60
        )


def model_toml(name: str, backend: str, more: str = "") -> str:
    return f'[model]\nname = "{name}"\nbackend = "{backend}"\n{more}'


@pytest.fixture(scope="module")
def shouting(installed: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[PluggedServer]:
    folder = tmp_path_factory.mktemp("server")
    placed = '[deployment]\nreplicas = 3\n[routing]\nstrategy = "last"\n'
    (folder / "local-shout.toml").write_text(model_toml("shout", "shout", placed))
    demo = f'path = "{bundled("demo")}"\n'
    (folder / "local-demo.toml").write_text(model_toml("shouting-demo", "reference", demo))
    server = PluggedServer(folder)
    server.packages = installed
    server.start()
    yield server
    assert server.stop() == 0


def test_a_plugged_in_engine_serves(shouting: PluggedServer) -> None:
    body = {"model": "shout", "prompt": "hear me", "max_tokens": 50}
    status, _, answer = shouting.request("POST", "/v1/completions", body)
    choice = json.loads(answer)["choices"][0]
    assert (status, choice["text"], choice["finish_reason"]) == (200, "HEAR ME", "stop")


def test_a_plugged_in_adapter_gives_the_chat_template(shouting: PluggedServer) -> None:
    status, _, answer = shouting.chat("quiet", model="shout")
    message = json.loads(answer)["choices"][0]["message"]
    assert (status, message["content"]) == (200, "QUIET! ")


def test_a_plugged_in_adapter_is_asked_for_other_backends_too(shouting: PluggedServer) -> None:
    rows = {row["name"]: row for row in shouting.admin("GET", "/admin/v1/models")}
    assert "shouting" in rows["shouting-demo"]["capabilities"]


def test_a_plugged_in_placement_rule_chooses_the_worker(shouting: PluggedServer) -> None:
    """The built-in ones take turns; this one takes the last to come up while it has room."""
    body = {"model": "shout", "prompt": "x"}
    answers = [shouting.request("POST", "/v1/completions", body) for _ in range(6)]
    assert {status for status, _, _ in answers} == {200}
    assert len({headers["x-smmf-instance"] for _, headers, _ in answers}) == 1


def test_plug_ins_are_listed(shouting: PluggedServer) -> None:
    done = shouting.run("engines", "list", "--json")
    (row,) = [row for row in json.loads(done.stdout) if row["name"] == "shout"]
    assert (row["installed"], row["version"]) == ("here", "smmf-shout 1.2.3")
    assert "plug-in: shout.engine" in shouting.run("doctor").stdout


# --- broken ones ----------------------------------------------------------------------------------


@pytest.fixture
def broken(tmp_path: Path) -> PluggedServer:
    """A package whose modules do not import."""
    packages = tmp_path / "packages"
    info = packages / "wreck-0.9.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: wreck\nVersion: 0.9\n")
    points = "[smmf.engines]\nwreck = wreck:create\n[smmf.placement]\nodd = wreck:rule\n"
    (info / "entry_points.txt").write_text(points)
    (packages / "wreck.py").write_text("raise RuntimeError('built for another planet')\n")
    server = PluggedServer(tmp_path)
    server.packages = packages
    return server


def test_a_broken_engine_fails_its_model_at_once_and_says_whose_fault_it_is(
    broken: PluggedServer,
) -> None:
    (broken.folder / "local-wreck.toml").write_text(model_toml("w", "wreck"))
    (broken.folder / "local-echo.toml").write_text(model_toml("echo", "echo"))
    broken.start()
    body = {"model": "w", "prompt": "x"}
    status, _, answer = broken.request("POST", "/v1/completions", body)
    assert status == 503
    message = json.loads(answer)["error"]["message"]
    assert "the plug-in 'wreck' of the package wreck 0.9 cannot be loaded" in message
    assert "RuntimeError: built for another planet" in message
    details = broken.admin("GET", "/admin/v1/models/w")
    assert details["status"] == "failed"
    events = [e for e in broken.admin("GET", "/admin/v1/events") if e["id"] == "w-0"]
    assert [event["state"] for event in events] == ["starting", "loading", "failed"]
    assert broken.stop() == 0


def test_a_broken_placement_rule_is_a_problem_of_the_configuration(broken: PluggedServer) -> None:
    file = broken.folder / "m.toml"
    file.write_text(model_toml("m", "echo", '[routing]\nstrategy = "odd"\n'))
    done = broken.run("check", str(file))
    assert done.returncode == 1
    expected = "m.toml:5: [routing] strategy: the plug-in 'odd' of the package wreck 0.9 cannot be"
    assert expected in done.stderr


def test_an_unknown_strategy_names_those_that_are_plugged_in(broken: PluggedServer) -> None:
    file = broken.folder / "m.toml"
    file.write_text(model_toml("m", "echo", '[routing]\nstrategy = "add"\n'))
    done = broken.run("check", str(file))
    assert "'weighted', 'odd'; did you mean 'odd'?" in done.stderr
