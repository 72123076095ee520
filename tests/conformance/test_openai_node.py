"""The official client for Node, and Vercel's AI SDK, against a real server.

tests/node/*.test.ts are type-checked, then run. Each is one test here; what is said when it fails
is Node's own report.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import clients_env
import pytest
from server import Server, echo_toml

from smmf_core.config import bundled

SCRIPTS = Path(__file__).parent.parent / "node"
FILES = sorted(path.name for path in SCRIPTS.glob("*.test.ts"))
WAIT_S = 100


def write_models(folder: Path) -> None:
    words = {"tokens": 5, "tool_format": "hermes"}
    thinks = {"text": "echo", "reasoning_format": "deepseek_r1"}
    embed = '[model]\nname = "{}"\nbackend = "echo"\ntask = "embed"\n'
    models = {
        "words": echo_toml("words", engine=words),
        "slash": echo_toml("org/words:tag", engine=words),
        "parrot": echo_toml("parrot", engine={"text": "echo"}),
        "thinker": echo_toml("thinker", engine=thinks),
        "near": embed.format("near"),
        "nest": embed.format("nest") + "[engine]\nmatryoshka = true\n",
        "demo": f'[model]\nname = "demo"\nbackend = "reference"\npath = "{bundled("demo")}"\n',
    }
    for name, text in models.items():
        (folder / f"local-{name}.toml").write_text(text)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder: Path = tmp_path_factory.mktemp("node")
    write_models(folder)
    started = Server(folder).start()
    yield started
    assert started.stop() == 0


@pytest.fixture(scope="module")
def locked(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """One that wants a key."""
    folder: Path = tmp_path_factory.mktemp("locked")
    (folder / "local-words.toml").write_text(echo_toml("words"))
    started = Server(folder, "--api-key", "secret").start()
    yield started
    assert started.stop() == 0


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The scripts beside the packages: modules are looked for in the folders above a script."""
    folder = tmp_path_factory.mktemp("scripts") / "node"
    shutil.copytree(SCRIPTS, folder, ignore=shutil.ignore_patterns("node_modules"))
    (folder / "node_modules").symlink_to(clients_env.node().modules)
    return folder


def run(folder: Path, *arguments: str, **variables: str) -> None:
    done = subprocess.run(
        [clients_env.node().program, *arguments],
        cwd=folder,
        env={**os.environ, **variables},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=WAIT_S,
    )
    assert done.returncode == 0, done.stdout[-5000:] + done.stderr[-2000:]


def test_the_types_fit(folder: Path) -> None:
    run(folder, "node_modules/typescript/bin/tsc", "--project", ".")


@pytest.mark.parametrize("name", FILES)
def test_script(name: str, folder: Path, server: Server, locked: Server) -> None:
    urls = {"SMMF_BASE_URL": server.base_url, "SMMF_LOCKED_URL": locked.base_url}
    run(folder, "--test", name, **urls)
