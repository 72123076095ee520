"""LoRA adapters of a running model: loaded, asked for as `model:adapter`, unloaded, refused."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from lora import make_adapter, make_merged
from openai import BadRequestError, NotFoundError, OpenAI
from server import Server

from smmf_core.config import bundled

PROMPT = "Once upon a time there was"
pytestmark = pytest.mark.timeout(400)


def toml(name: str, path: Path, adapters: dict[str, Path], replicas: int) -> str:
    lines = "".join(f'{key} = "{value}"\n' for key, value in adapters.items())
    return (
        f'[model]\nname = "{name}"\nbackend = "transformers"\npath = "{path}"\n'
        f'[deployment]\nreplicas = {replicas}\ndevice = "cpu"\n[optimization]\ndtype = "float32"\n'
        f"[engine]\nthreads = 1\n[engine.adapters]\n{lines}"
    )


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`first` and `second` are adapters, `merged` the demo model with `second` added."""
    folder = tmp_path_factory.mktemp("adapters")
    make_adapter(folder / "first", seed=1)
    make_merged(folder / "merged", make_adapter(folder / "second", seed=2))
    return folder


@pytest.fixture(scope="module")
def server(folder: Path) -> Iterator[Server]:
    text = toml("demo", bundled("demo"), {"first": folder / "first"}, replicas=2)
    (folder / "local-demo.toml").write_text(text)
    (folder / "local-merged.toml").write_text(toml("merged", folder / "merged", {}, replicas=1))
    started = Server(folder).start(wait=False)
    started.wait_ready(200)
    yield started
    assert started.stop() == 0


@pytest.fixture(scope="module")
def client(server: Server) -> Iterator[OpenAI]:
    with OpenAI(base_url=server.base_url, api_key="unused", max_retries=0) as client:
        yield client


def smmf(server: Server, *words: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "smmf_core.cli.main", *words]
    environment = {**os.environ, **server.environment}
    return subprocess.run(command, capture_output=True, text=True, env=environment, timeout=60)


def complete(client: OpenAI, model: str) -> str:
    fields: Any = {"max_tokens": 24, "temperature": 0}
    answer = client.completions.create(model=model, prompt=PROMPT, **fields)
    assert answer.model == model
    return answer.choices[0].text


def test_an_adapter_of_the_file_is_there_from_the_start(client: OpenAI) -> None:
    assert "demo:first" in [model.id for model in client.models.list()]
    assert client.models.retrieve("demo:first").id == "demo:first"
    assert complete(client, "demo:first") != complete(client, "demo")


def test_an_adapter_is_loaded_and_unloaded_while_the_model_runs(
    client: OpenAI, server: Server, folder: Path
) -> None:
    plain, wanted = complete(client, "demo"), complete(client, "merged")
    loaded = smmf(server, "adapter", "load", "demo", "second", str(folder / "second"))
    assert (loaded.returncode, loaded.stdout) == (0, "adapters: demo:first, demo:second\n")
    answers = [complete(client, "demo:second") for _ in range(4)]  # of both replicas
    assert answers == [wanted] * 4
    assert complete(client, "demo") == plain
    assert smmf(server, "adapter", "unload", "demo", "second").returncode == 0
    with pytest.raises(NotFoundError) as caught:
        complete(client, "demo:second")
    assert caught.value.code == "model_not_found"
    assert complete(client, "demo:first") != plain


def test_one_that_cannot_be_loaded_changes_nothing(
    client: OpenAI, server: Server, tmp_path: Path
) -> None:
    refused = smmf(server, "adapter", "load", "demo", "bad", str(tmp_path))
    assert refused.returncode == 1
    assert "adapter_config.json is missing" in refused.stderr
    assert "demo:bad" not in [model.id for model in client.models.list()]
    assert complete(client, "demo:first")


def test_two_changes_at_once_do_not_undo_each_other(
    client: OpenAI, server: Server, folder: Path, tmp_path: Path
) -> None:
    wishes = {"bad": tmp_path, "third": folder / "second"}
    with ThreadPoolExecutor(2) as pool:
        asked = {
            name: pool.submit(smmf, server, "adapter", "load", "demo", name, str(path))
            for name, path in wishes.items()
        }
        codes = {name: future.result().returncode for name, future in asked.items()}
    assert codes == {"bad": 1, "third": 0}
    names = [model.id for model in client.models.list()]
    assert ("demo:third" in names, "demo:bad" in names) == (True, False)
    assert smmf(server, "adapter", "unload", "demo", "third").returncode == 0


def test_a_new_replica_gets_what_was_loaded_since(
    client: OpenAI, server: Server, folder: Path
) -> None:
    smmf(server, "adapter", "load", "demo", "second", str(folder / "second"))
    wanted = complete(client, "demo:second")
    former = pids_of_ready(server)
    for pid in former:
        os.kill(pid, 9)
    while len(pids_of_ready(server) - former) < 2:  # pytest's time-out ends it
        time.sleep(0.2)
    server.wait_ready(200)
    found = json.loads(smmf(server, "show", "demo", "--json").stdout)
    while found["ready"] < 2 or "second" not in found["adapters"]:
        found = json.loads(smmf(server, "show", "demo", "--json").stdout)
    assert complete(client, "demo:second") == wanted


def pids_of_ready(server: Server) -> set[int]:
    rows = [row for row in server.instances() if row.get("model") == "demo"]
    return {row["pid"] for row in rows if row["state"] == "ready"}


def test_an_adapter_of_another_model_is_not_found(client: OpenAI) -> None:
    with pytest.raises(NotFoundError):
        complete(client, "merged:first")


def test_adapters_need_an_engine_that_takes_them(client: OpenAI, folder: Path) -> None:
    folder = folder / "echo"
    folder.mkdir()
    (folder / "local-echo.toml").write_text('[model]\nname = "echo"\nbackend = "echo"\n')
    server = Server(folder).start()
    try:
        refused = smmf(server, "adapter", "load", "echo", "x", "/nowhere")
        assert refused.returncode == 1
        assert "does not take adapters" in refused.stderr
    finally:
        assert server.stop() == 0
    with pytest.raises((BadRequestError, NotFoundError)):
        complete(client, "demo:")
