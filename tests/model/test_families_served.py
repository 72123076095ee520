"""Families behind the whole stack: a checkpoint without a template, and one of published files."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import engines_env
import pytest

engines_env.require("transformers")

from family_models import write_model
from family_table import NATIVE
from legacy_models import LEGACY, write_legacy
from openai import BadRequestError, OpenAI
from server import Server

pytestmark = pytest.mark.timeout(400)
USER = [{"role": "user", "content": "Hi"}]


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[OpenAI]:
    folder: Path = tmp_path_factory.mktemp("families")
    write_legacy(next(legacy for legacy in LEGACY if legacy.family == "Baichuan 2 7B"), folder)
    vicuna = next(tiny for tiny in NATIVE if tiny.family == "Vicuna")
    write_model(vicuna, folder).rename(folder / "a-base-model")
    for name, path in (("old", "Baichuan2-7B-Chat"), ("base", "a-base-model")):
        lines = [f'name = "{name}"', 'backend = "transformers"', f'path = "{path}"']
        (folder / f"local-{name}.toml").write_text("\n".join(["[model]", *lines]) + "\n")
    server = Server(folder).start(wait=False)
    server.wait_ready(200)
    with OpenAI(base_url=server.base_url, api_key="unused", max_retries=0) as client:
        yield client
    assert server.stop() == 0


def test_published_files_answer_a_chat(client: OpenAI) -> None:
    answer = client.chat.completions.create(
        model="old", messages=USER, max_tokens=8, temperature=0, extra_body={"ignore_eos": True}
    )
    assert answer.usage is not None
    assert answer.usage.completion_tokens == 8
    assert answer.choices[0].finish_reason == "length"


def test_a_model_without_a_template_completes_but_does_not_chat(client: OpenAI) -> None:
    answer = client.completions.create(model="base", prompt="the fox", max_tokens=4, temperature=0)
    assert answer.choices[0].text
    with pytest.raises(BadRequestError, match="no chat template") as caught:
        client.chat.completions.create(model="base", messages=USER, max_tokens=4)
    assert caught.value.param == "messages"
