"""What a running server writes down, and `smmf logs` and `smmf events` over it."""

from __future__ import annotations

import argparse
import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from server import Server, echo_toml

from smmf_core import logs as log_lines
from smmf_core.cli import logs
from smmf_core.cli.http import Endpoint
from smmf_core.http import access_log

WAIT_S = 60.0


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("logs")
    text = echo_toml("a", deployment={"replicas": 2})
    (folder / "local-a.toml").write_text(text.replace("[model]\n", '[model]\naliases = ["al"]\n'))
    (folder / "local-b.toml").write_text(echo_toml("b"))
    started = Server(folder).start()
    yield started
    assert started.stop() == 0


def command(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "smmf_core.cli.main", *arguments]


def smmf(server: Server, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command(*arguments),
        env=server.environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=WAIT_S,
    )


def said(server: Server, *arguments: str) -> list[str]:
    done = smmf(server, *arguments)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def until_said(server: Server, text: str, *arguments: str) -> list[str]:
    """Lines are written a few times a second."""
    deadline = time.monotonic() + WAIT_S
    while True:
        lines = said(server, *arguments)
        if any(text in line for line in lines):
            return lines
        assert time.monotonic() < deadline, lines
        time.sleep(0.1)


def chat(server: Server, request_id: str, **fields: Any) -> int:
    body = {"messages": [{"role": "user", "content": "hi"}], "model": "a", **fields}
    headers = {"x-request-id": request_id}
    return server.request("POST", "/v1/chat/completions", body, headers)[0]


# --- smmf logs ---


def test_of_a_model_an_instance_and_the_servers_own_processes(server: Server) -> None:
    lines = said(server, "logs", "a")
    assert {line.partition(" | ")[0].strip() for line in lines} == {"a-0", "a-1"}
    alone = said(server, "logs", "a-1")
    assert alone
    assert all(log_lines.is_stamped(line) for line in alone)
    assert any("a-0" in line for line in said(server, "logs", "controller"))
    everything = said(server, "logs")
    assert {"a-0", "b-0", "controller"} <= {line.partition(" | ")[0].strip() for line in everything}
    assert said(server, "logs", "-n", "1") == everything[-1:]
    stamps = [log_lines.stamp_of(line.partition(" | ")[2]) for line in everything]
    known = [stamp for stamp in stamps if stamp]
    assert known == sorted(known)


def test_of_what_there_is_not(server: Server) -> None:
    done = smmf(server, "logs", "none")
    assert (done.returncode, done.stderr) == (1, "smmf: no logs of none\n")
    assert smmf(server, "logs", "-n", "x").returncode == 2


def test_the_access_log(server: Server) -> None:
    assert chat(server, "whole") == 200
    assert chat(server, "streamed", stream=True, max_tokens=3) == 200
    assert chat(server, "missing", model="none") == 404
    assert chat(server, "wrong", temperature="x") == 400
    lines = until_said(server, " wrong ", "logs", "--access")
    by_id = {line.split()[1]: line for line in lines}
    whole, streamed, missing, wrong = (by_id[i] for i in ("whole", "streamed", "missing", "wrong"))
    assert "model=a instance=a-" in whole
    assert " status=200 " in whole
    assert whole.endswith(" finish=stop stream=no")
    assert " generated=3 " in streamed
    assert streamed.endswith(" finish=length stream=yes")
    assert "first_token_ms=-" not in streamed
    assert "model=none instance=- " in missing
    assert missing.endswith(" status=404 " + missing.partition(" status=404 ")[2])
    assert " finish=model_not_found " in missing
    assert " status=400 " in wrong
    of_none = said(server, "logs", "--access", "none")
    assert [line.split()[1] for line in of_none] == ["missing"]
    assert json.loads("".join(said(server, "logs", "--access", "none", "--json"))) == [
        access_log.fields_of(missing)
    ]


def test_the_access_log_of_what_there_is_not(server: Server) -> None:
    done = smmf(server, "logs", "--access", "nothing")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == "smmf: no requests of nothing\n"
    assert said(server, "logs", "--access", "b") == []


def test_an_alias_is_as_good_as_the_name(server: Server) -> None:
    assert chat(server, "by-alias", model="al") == 200
    lines = until_said(server, " by-alias ", "logs", "--access", "a")
    assert any(" by-alias key=- model=a " in line for line in lines)
    assert said(server, "logs", "--access", "al") == lines
    assert said(server, "logs", "al") == said(server, "logs", "a")


def test_for_programs(server: Server) -> None:
    rows = json.loads("".join(said(server, "logs", "a-1", "--json", "-n", "3")))
    assert [row["line"] for row in rows] == said(server, "logs", "a-1", "-n", "3")
    assert {row["process"] for row in rows} == {"a-1"}
    assert all(row["line"].startswith(row["time"]) for row in rows)


class Follower:
    """A verb that goes on until it is interrupted; what it says goes to a file."""

    def __init__(self, server: Server, path: Path, *arguments: str) -> None:
        self._path = path
        with path.open("wb") as output:
            self._process = subprocess.Popen(
                command(*arguments), env=server.environment, stdout=output
            )

    def until_first(self) -> str:
        deadline = time.monotonic() + WAIT_S
        while not (text := self._path.read_text()):
            assert time.monotonic() < deadline
            time.sleep(0.1)
        return text

    def until(self, is_enough: Callable[[list[str]], bool], act: Callable[[], object]) -> list[str]:
        """Acts, now and again, until what was said is enough. The whole lines."""
        deadline = time.monotonic() + WAIT_S
        while not is_enough(lines := self._path.read_text().splitlines()):
            assert time.monotonic() < deadline, lines
            act()
            time.sleep(0.1)
        self._process.send_signal(signal.SIGINT)
        assert self._process.wait(WAIT_S) == 130
        return lines


def test_following(server: Server, tmp_path: Path) -> None:
    follower = Follower(server, tmp_path / "said", "logs", "--access", "-f", "-n", "0")
    lines = follower.until(bool, lambda: chat(server, "followed"))
    assert lines[0].split()[1] == "followed"


def test_by_the_admin_api_as_from_another_machine(server: Server) -> None:
    def flags(**given: Any) -> argparse.Namespace:
        default = {"names": [], "lines": 100, "access": False, "follow": False}
        where = {"url": server.admin_url, "name": None, "run_dir": None}
        return argparse.Namespace(**{**default, **where, **given})

    def batches_of(**given: Any) -> Iterator[logs.Lines]:
        return logs._of_server(Endpoint(server.admin_url), logs._Lines(flags(**given)))

    def first(**given: Any) -> logs.Lines:
        return next(batches_of(**given))

    assert first(names=["a-0"]) == said(server, "logs", "a-0")
    assert first(names=["a"], lines=1) == said(server, "logs", "a", "-n", "1")
    assert chat(server, "remote") == 200
    until_said(server, " remote ", "logs", "--access")
    assert first(names=["al"]) == said(server, "logs", "a")
    batches = batches_of(access=True, follow=True)
    assert any(" remote " in line for line in next(batches))
    assert next(batches) == []
    with pytest.raises(Exception, match="no logs of none"):
        first(names=["none"])


# --- smmf events ---


def test_events(server: Server) -> None:
    events = json.loads(smmf(server, "events", "--json").stdout)
    states = [event["state"] for event in events if event["id"] == "a-0"]
    assert states[-1] == "ready"
    assert [e["time"] for e in events] == sorted(e["time"] for e in events)
    lines = said(server, "events", "b-0")
    assert lines
    assert all(line.split()[2] == "b-0" for line in lines)
    assert len(said(server, "events", "-n", "2")) == 2
    assert said(server, "events", "al") == said(server, "events", "a")
    done = smmf(server, "events", "a-00")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == "smmf: no model or instance named a-00; did you mean 'a-0'?\n"


def test_following_events(server: Server, tmp_path: Path) -> None:
    def states(lines: list[str]) -> list[str]:
        return [e["state"] for e in map(json.loads, lines) if e["id"] == "b-0"]

    follower = Follower(server, tmp_path / "said", "events", "b", "-f", "-n", "1", "--json")
    began = follower.until_first()
    said(server, "restart", "b-0")
    lines = follower.until(lambda lines: states(lines[1:])[-1:] == ["ready"], lambda: None)
    assert states(lines)[:2] == ["ready", "draining"], began


# --- other ways to write ---


def test_json_and_levels(folder: Path) -> None:
    (folder / "local-a.toml").write_text(echo_toml("a"))
    (folder / "smmf.toml").write_text('[log]\nformat = "json"\nlevel = "debug"\n')
    server = Server(folder).start()
    try:
        assert chat(server, "as-json", stream=True) == 200
        lines = until_said(server, "as-json", "logs", "--access")
        (fields,) = [f for f in map(json.loads, lines) if f["request_id"] == "as-json"]
        assert (fields["model"], fields["instance"], fields["status"]) == ("a", "a-0", 200)
        assert fields["stream"] is True
        worker = [json.loads(line) for line in said(server, "logs", "a-0")]
        assert {line["process"] for line in worker} == {"a-0"}
        controller = [json.loads(line) for line in said(server, "logs", "controller")]
        assert {line["process"] for line in controller} == {"controller"}
    finally:
        assert server.stop() == 0


def test_no_access_log(folder: Path) -> None:
    (folder / "local-a.toml").write_text(echo_toml("a"))
    (folder / "smmf.toml").write_text('[log]\nrequests = "off"\n')
    server = Server(folder).start()
    assert chat(server, "unseen") == 200
    assert server.stop() == 0
    assert not (server.run_dir / "logs" / "access.log").exists()


def test_logs_that_cannot_be_written_stop_nothing(folder: Path) -> None:
    """/dev/full answers every write as a full disk does."""
    (folder / "local-a.toml").write_text(echo_toml("a"))
    server = Server(folder)
    written = server.run_dir / "logs"
    written.mkdir(parents=True, mode=0o700)
    for path in (server.run_dir, server.run_dir.parent):
        path.chmod(0o700)
    names = ("access.log", "router-0.log", "worker-a-0.log", "controller.log")
    for name in names:
        (written / name).symlink_to("/dev/full")
    server.start()
    assert chat(server, "unwritten") == 200
    assert server.stop() == 0
    assert all((written / name).is_symlink() for name in names)


def test_of_a_server_that_is_dead(folder: Path) -> None:
    """Its files are still there; they are what one wants to read then."""
    (folder / "local-a.toml").write_text(echo_toml("a", engine={"fail": "load"}))
    server = Server(folder).start(wait=False)
    server.wait_admin()
    until_said(server, "cannot load a", "logs", "a")
    server.stop()
    assert any("cannot load a" in line for line in said(server, "logs", "a"))
    run_dir = str(server.run_dir)
    assert said(server, "logs", "a", "--run-dir", run_dir) == said(server, "logs", "a")
    none = smmf(server, "logs", "--run-dir", str(folder / "none"))
    assert none.returncode == 1
    assert none.stderr.startswith("smmf: no logs in ")
