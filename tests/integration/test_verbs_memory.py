"""start, pin and unpin where memory is short, against a real server: budget for one model."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from command import read, refused, said
from server import Server, echo_toml

WAIT_S = 30.0


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("memory")
    for name in ("a", "b"):
        deployment = {"autostart": False, "memory_gib": 1.0}
        (folder / f"local-{name}.toml").write_text(echo_toml(name, deployment=deployment))
    (folder / "smmf.toml").write_text("[memory]\nbudget_gib = 1.5\n")
    started = Server(folder).start()
    yield started
    assert started.stop() == 0


def ask(server: Server, model: str) -> int:
    return server.chat(model=model)[0]


def test_start_of_a_model_waits_for_those_that_were_just_used(server: Server) -> None:
    for model, other in (("a", "b"), ("b", "a")):
        assert ask(server, other) == 200
        assert said(server, "start", model).startswith(f"{model} is ready")


def test_what_a_pinned_model_keeps_out_comes_in_when_it_is_unpinned(server: Server) -> None:
    said(server, "start", "a")
    said(server, "pin", "a")
    assert "unpin one" in refused(server, "start", "b")
    assert said(server, "unpin", "a") == "a is not pinned\n"
    limit = time.monotonic() + WAIT_S
    while read(server, "show", "b")["status"] != "ready":
        assert time.monotonic() < limit
    assert ask(server, "b") == 200


def test_serve_says_who_found_no_room(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / f"local-{name}.toml").write_text(
            echo_toml(name, deployment={"memory_gib": 1.0})
        )
    (tmp_path / "smmf.toml").write_text("[memory]\nbudget_gib = 1.5\n")
    started = Server(tmp_path).start()
    told = "smmf: b is not loaded: no memory on cpu: a-0 would have to go\n"
    assert started.stop() == 0
    assert told in started.log.read_text()
