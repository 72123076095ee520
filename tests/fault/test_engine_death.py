"""Engines that say that they are dead, and such as load and then cannot answer: plug-ins here."""

from __future__ import annotations

import json
import os
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from server import Server

ENGINES = '''
from smmf_core.engines.base import EngineDead, Output
from smmf_core.engines.echo.engine import EchoEngine, EchoTokenizer


class Dying(EchoEngine):
    """Dies at the fiftieth token of whoever asks for it."""

    def step(self):
        for state in self._running.values():
            prompt = state.output.sequence.prompt
            if state.at == 49 and prompt == EchoTokenizer().encode("die", True):
                raise EngineDead("told to die")
        return super().step()


class Stillborn(EchoEngine):
    """Loads, and fails whatever it is asked."""

    def __init__(self, config):
        super().__init__(config)
        self.spec.warms_up = True

    def step(self):
        error = RuntimeError("it computes nothing")
        return [Output(s.output.sequence, 0, error=error) for s in self._running.values()]
'''
ENTRY_POINTS = "[smmf.engines]\ndying = dying_engines:Dying\nstillborn = dying_engines:Stillborn\n"
MODEL = """
[model]
name = "{name}"
backend = "{name}"
[deployment]
max_concurrency = 4
[optimization]
max_batch_size = 1
[engine]
tokens = 60
step_ms = 80
"""


class PluggedServer(Server):
    """A server whose Workers find the engines above."""

    @property
    def environment(self) -> dict[str, str]:
        paths = [str(self.folder / "packages"), os.environ.get("PYTHONPATH", "")]
        return {**super().environment, "PYTHONPATH": os.pathsep.join(filter(None, paths))}


@pytest.fixture
def server(folder: Path) -> Iterator[PluggedServer]:
    info = folder / "packages" / "dying_engines-1.0.dist-info"
    info.mkdir(parents=True)
    (folder / "packages" / "dying_engines.py").write_text(ENGINES)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: dying-engines\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(ENTRY_POINTS)
    for name in ("dying", "stillborn"):
        (folder / f"local-{name}.toml").write_text(MODEL.format(name=name))
    started = PluggedServer(folder)
    started.start(wait=False)
    yield started
    assert started.stop() == 0


def until(condition: Callable[[], Any]) -> Any:
    end = time.monotonic() + 30
    while True:
        try:
            if found := condition():
                return found
        except OSError:  # it is not up yet
            pass
        assert time.monotonic() < end
        time.sleep(0.02)


def instance(server: Server, model: str) -> dict[str, Any]:
    return next((row for row in server.instances() if row.get("model") == model), {})


def ask(server: Server, prompt: str, answers: dict[str, Any]) -> threading.Thread:
    def run() -> None:
        body = {"model": "dying", "prompt": prompt, "max_tokens": 100}
        status, _, text = server.request("POST", "/v1/completions", body)
        answers[prompt] = status, json.loads(text)

    thread = threading.Thread(target=run)
    thread.start()
    return thread


def test_what_only_waited_in_a_dead_engine_is_placed_again(server: PluggedServer) -> None:
    until(lambda: instance(server, "dying").get("state") == "ready")
    former = instance(server, "dying")["pid"]
    answers: dict[str, Any] = {}
    threads = [ask(server, "die", answers)]
    until(lambda: server.metrics().get('smmf_requests_running{model="dying"}') == 1)
    threads += [ask(server, "one", answers), ask(server, "two", answers)]
    until(lambda: server.metrics().get('smmf_requests_running{model="dying"}') == 3)
    for thread in threads:
        thread.join(60)
    status, failed = answers["die"]
    assert status == 500
    assert "told to die" in failed["error"]["message"]
    for prompt in ("one", "two"):
        status, answer = answers[prompt]
        assert (status, answer["usage"]["completion_tokens"]) == (200, 60)
    assert instance(server, "dying")["pid"] != former
    assert server.metrics()['smmf_failovers_total{model="dying"}'] == 2


def test_a_model_that_cannot_answer_is_never_ready(server: PluggedServer) -> None:
    logs = server.run_dir / "logs"
    until(lambda: any("computes nothing" in log.read_text() for log in logs.glob("worker-*.log")))
    body = {"model": "stillborn", "prompt": "x"}
    _, _, text = until(
        lambda: (found := server.request("POST", "/v1/completions", body))[0] == 503 and found
    )
    assert "fails its warm-up request: it computes nothing" in json.loads(text)["error"]["message"]
