"""The demo model in every engine, side by side in one `smmf serve`, from the examples' own files:
the official client gets the same greedy text from all of them."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import engines_env
import pytest
from engines import demo_path
from openai import OpenAI
from server import Server

from smmf_core.config import bundled, load_models

EXAMPLES = Path(__file__).resolve().parents[2] / "configs" / "examples"
MODELS = {"transformers": "transformers", "llama-cpp": "llama_cpp", "mlx": "mlx", "vllm": "vllm"}
"""Names of engines, as they are installed, and of the backends."""
READY_S = 240.0  # four frameworks are imported at once, and one of them is vLLM
QUESTIONS = (
    "Who are you?",
    "Tell me a story about a fox named Momo.",
    "What is a river?",
    "Repeat: zorp-4821",
    "My name is Ada.",
    "Which is larger, 7 or 12?",
    "Say hello in three words.",
    "caf\u00e9 \u4f60\u597d \U0001f600",
)

pytestmark = pytest.mark.timeout(2 * READY_S)


def asked_engines() -> list[str]:
    return [name for name in MODELS if name not in engines_env.WITHOUT]


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[OpenAI]:
    folder: Path = tmp_path_factory.mktemp("examples")
    (folder.parent / "demo").symlink_to(bundled("demo"))
    for name in asked_engines():
        python = engines_env.require(name)
        text = (EXAMPLES / f"local-{name}.toml").read_text()
        if python != sys.executable:
            text = text.replace("[deployment]\n", f'[deployment]\npython = "{python}"\n')
        (folder / f"local-{name}.toml").write_text(text)
    if "llama-cpp" in asked_engines():
        shutil.copy(demo_path("llama_cpp"), folder / "demo.gguf")
    reference = (
        f'[model]\nname = "demo-reference"\nbackend = "reference"\npath = "{bundled("demo")}"'
    )
    (folder / "local-reference.toml").write_text(reference)
    server = Server(folder).start(wait=False)
    try:
        server.wait_ready(READY_S)
        with OpenAI(base_url=server.base_url, api_key="unused", max_retries=0) as client:
            yield client
    finally:
        status = server.stop()
    assert status == 0


def ask(client: OpenAI, engine: str, question: str, **fields: Any) -> str:
    messages: Any = [{"role": "user", "content": question}]
    answer = client.chat.completions.create(
        model=f"demo-{engine}", messages=messages, max_tokens=64, temperature=0, **fields
    )
    return answer.choices[0].message.content or ""


@pytest.fixture(scope="module")
def expected(client: OpenAI) -> list[str]:
    texts = [ask(client, "reference", question) for question in QUESTIONS]
    assert len(set(texts)) == len(texts)
    return texts


@pytest.mark.parametrize("engine", MODELS)
def test_the_same_text_one_by_one(client: OpenAI, expected: list[str], engine: str) -> None:
    engines_env.require(engine)
    assert [ask(client, engine, question) for question in QUESTIONS] == expected


def test_the_same_text_from_all_at_once(client: OpenAI, expected: list[str]) -> None:
    """Every question to every engine, all under way together."""
    asked = [(name, number) for name in asked_engines() for number in range(len(QUESTIONS))]
    with ThreadPoolExecutor(len(asked)) as pool:
        texts = list(pool.map(lambda pair: ask(client, pair[0], QUESTIONS[pair[1]]), asked))
    assert texts == [expected[number] for _, number in asked]


@pytest.mark.parametrize("engine", MODELS)
def test_streams_say_the_same(client: OpenAI, expected: list[str], engine: str) -> None:
    engines_env.require(engine)
    messages: Any = [{"role": "user", "content": QUESTIONS[1]}]
    chunks = client.chat.completions.create(
        model=f"demo-{engine}", messages=messages, max_tokens=64, temperature=0, stream=True
    )
    text = "".join(c.choices[0].delta.content or "" for c in chunks if c.choices)
    assert text == expected[1]


def test_all_are_listed_as_ready(client: OpenAI) -> None:
    listed = {model.id: model.model_dump()["status"] for model in client.models.list()}
    assert listed == {f"demo-{name}": "ready" for name in ["reference", *asked_engines()]}


@pytest.mark.parametrize("file", sorted(EXAMPLES.glob("*.toml")), ids=lambda file: file.stem)
def test_every_example_is_a_model(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MINILM_PATH", str(bundled("demo")))
    (model,) = load_models([str(file)])
    assert model.model.name
    assert f"local-{file.stem.removeprefix('local-')}.toml" in (EXAMPLES / "README.md").read_text()


def test_the_folder_above_does_not_serve_them() -> None:
    names = {model.model.name for model in load_models([str(EXAMPLES.parent)])}
    assert names == {"demo", "echo"}
