"""SMMF in the place of DB-GPT's own model servers: the unchanged `dbgpt` package asks it.

tests/dbgpt/asks.py runs once, in the environment that `make test` has made; what it got is looked
at here.
"""

from __future__ import annotations

import itertools
import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import clients_env
import pytest
from server import Server, echo_toml

SCRIPT = Path(__file__).parent.parent / "dbgpt" / "asks.py"
WORDS = " the quick brown fox jumps"


def model_toml(name: str, task: str) -> str:
    return f'[model]\nname = "{name}"\nbackend = "echo"\ntask = "{task}"\n'


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder: Path = tmp_path_factory.mktemp("dbgpt")
    (folder / "local-words.toml").write_text(echo_toml("words", engine={"tokens": 5}))
    (folder / "local-parrot.toml").write_text(echo_toml("parrot", engine={"text": "echo"}))
    thinker = echo_toml("thinker", engine={"text": "echo", "reasoning_format": "deepseek_r1"})
    (folder / "local-thinker.toml").write_text(thinker)
    (folder / "local-near.toml").write_text(model_toml("near", "embed"))
    (folder / "local-rank.toml").write_text(model_toml("rank", "rerank"))
    started = Server(folder).start()
    yield started
    assert started.stop() == 0


@pytest.fixture(scope="module")
def answers(server: Server, tmp_path_factory: pytest.TempPathFactory) -> Any:
    command = [clients_env.dbgpt_python(), str(SCRIPT), f"http://127.0.0.1:{server.port}"]
    done = subprocess.run(
        command,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=100,
        cwd=tmp_path_factory.mktemp("work"),  # it writes into folders beside it
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout.splitlines()[-1])


def test_a_whole_answer(answers: Any) -> None:
    said = answers["whole"]
    assert (said["text"], said["error_code"], said["thinking"]) == (WORDS, 0, None)
    assert said["usage"]["completion_tokens"] == 5


def test_limits_and_stop_words(answers: Any) -> None:
    assert answers["cut"]["text"] == answers["stopped"]["text"] == " the quick brown"


def test_a_stream(answers: Any) -> None:
    texts = [output["text"] for output in answers["streamed"]]
    assert texts[-1] == WORDS
    assert all(later.startswith(former) for former, later in itertools.pairwise(texts))


def test_thoughts(answers: Any) -> None:
    last = answers["thinking_streamed"][-1]
    for said in (answers["thinking"], last):
        assert (said["text"], said["thinking"]) == ("Three.", "So it is.")


def test_an_unknown_model_is_told(answers: Any) -> None:
    assert answers["unknown"]["error_code"] == 1
    assert "404 - The model `nobody` does not exist" in answers["unknown"]["text"]


@pytest.mark.parametrize("path", ["embeddings", "embeddings_of_api"])
def test_embeddings(answers: Any, path: str) -> None:
    said = answers[path]
    assert said["documents"] == said["awaited"]
    cat, other_cat, market = said["documents"]
    assert said["query"] == cat
    assert dot(cat, other_cat) > 0.4 > dot(cat, market)


@pytest.mark.parametrize("path", ["relevance", "relevance_of_api"])
def test_relevance(answers: Any, path: str) -> None:
    said = answers[path]
    assert said["scores"] == said["awaited"]
    market, birds, trees = said["scores"]
    assert birds > trees > market


def test_flows(answers: Any) -> None:
    assert answers["flow"] == "Repeat: zorp"
    assert answers["streaming_flow"][-1] == WORDS


def test_a_flow_that_speaks_openai(answers: Any) -> None:
    *events, done = (event.removeprefix("data: ").strip() for event in answers["openai_flow"])
    assert done == "[DONE]"
    deltas = [json.loads(event)["choices"][0]["delta"] for event in events]
    assert "".join(delta.get("content") or "" for delta in deltas) == WORDS


def dot(a: list[float], b: list[float]) -> float:
    return sum(x * y for x, y in zip(a, b, strict=True))
