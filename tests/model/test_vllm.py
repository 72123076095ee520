"""The vllm backend, under an interpreter of its own: behind a real server, and by hand."""

from __future__ import annotations

import concurrent.futures
import json
import os
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from lora import make_adapter, make_merged
from openai import APIError, BadRequestError, NotFoundError, OpenAI
from server import Server
from vllm_env import ROOT, run_cases

from smmf_core.config import bundled

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

KV_BYTES = 128 << 20
ENDLESS: dict[str, Any] = {"max_tokens": 1900, "stream": True, "extra_body": {"ignore_eos": True}}
STORY = "Tell me a story about a fox named Momo."
PERSON = {
    "type": "object",
    "properties": {"name": {"type": "string", "maxLength": 12}, "age": {"type": "integer"}},
    "required": ["name", "age"],
    "additionalProperties": False,
}
WEATHER = {
    "name": "get_weather",
    "parameters": {
        "type": "object",
        "properties": {"city": {"type": "string", "maxLength": 12}},
        "required": ["city"],
        "additionalProperties": False,
    },
}


# --- by hand, under that interpreter ---


def test_it_keeps_the_common_contract(vllm_python: str, tmp_path: Path) -> None:
    file = "tests/model/test_engine_contract.py"
    out = run_cases(vllm_python, tmp_path, file, SMMF_CONTRACT_ENGINES="vllm")
    assert "2 skipped" in out  # vLLM draws its tokens itself


def test_its_own_cases(vllm_python: str, tmp_path: Path) -> None:
    assert "passed" in run_cases(vllm_python, tmp_path, "tests/model/vllm_cases.py")


def test_its_failures(vllm_python: str, tmp_path: Path) -> None:
    assert "passed" in run_cases(vllm_python, tmp_path, "tests/model/vllm_failure_cases.py")


# --- behind the server ---


THREADS = """
import os, torch
from smmf_core.engines.vllm.load import _limit_threads
for cores, replicas in ((1, 1), (2, 1), (2, 2), (9, 1), (9, 3)):
    os.environ.pop("OMP_NUM_THREADS", None)
    os.sched_getaffinity = lambda process, cores=cores: set(range(cores))
    _limit_threads(replicas)
    print(os.environ["OMP_NUM_THREADS"], torch.get_num_threads())
os.environ["OMP_NUM_THREADS"] = "5"
_limit_threads(1)
print(os.environ["OMP_NUM_THREADS"], torch.get_num_threads())
"""


def test_threads_leave_a_core_to_others(vllm_python: str) -> None:
    """Unless the user says how many."""
    done = subprocess.run(
        [vllm_python, "-c", THREADS], cwd=ROOT, capture_output=True, text=True, timeout=120
    )
    assert done.stdout.split() == ["1", "1"] * 3 + ["8", "8", "2", "2", "5", "2"], done.stderr


def write_model(folder: Path, name: str, backend: str, path: Path, rest: str = "") -> None:
    text = f"""[model]
name = "{name}"
backend = "{backend}"
path = "{path}"
[optimization]
dtype = "float32"
{rest}"""
    (folder / f"local-{name}.toml").write_text(text)


@pytest.fixture(scope="module")
def server(vllm_python: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """The demo model in both vLLM engines, in `reference`, and there with an adapter merged."""
    folder: Path = tmp_path_factory.mktemp("vllm")
    adapter = make_adapter(folder / "one")
    engine = (
        f'[deployment]\npython = "{vllm_python}"\n[engine]\nkv_cache_memory_bytes = 134217728\n'
    )
    lora = f'[engine.adapters]\none = "{adapter}"\n'
    write_model(folder, "demo", "vllm", bundled("demo"), engine + lora)
    broken = make_adapter(folder / "broken")
    (broken / "adapter_model.safetensors").write_bytes(b"nothing")
    apart = engine + "in_process = false\n" + lora + f'broken = "{broken}"\n'
    write_model(folder, "apart", "vllm", bundled("demo"), apart)
    write_model(folder, "known", "reference", bundled("demo"))
    write_model(folder, "merged", "reference", make_merged(folder / "model", adapter))
    server = Server(folder)
    server.start(wait=False)
    server.wait_ready(600)
    yield server
    assert server.stop() == 0
    wait_until(lambda: not left_behind(server))


def left_behind(server: Server) -> list[str]:
    """Processes of vLLM's that were started for this server."""
    mark = str(server.run_root)
    found = []
    for path in Path("/proc").glob("[0-9]*"):
        try:
            is_vllm = (path / "cmdline").read_bytes().startswith(b"VLLM::")
            if is_vllm and mark.encode() in (path / "environ").read_bytes():
                found.append(path.name)
        except OSError:  # ended meanwhile
            continue
    return found


@pytest.fixture
def client(server: Server) -> Iterator[OpenAI]:
    with OpenAI(base_url=server.base_url, api_key="unused", max_retries=0, timeout=120) as client:
        yield client


def ask(client: OpenAI, model: str, text: str = STORY, **fields: Any) -> Any:
    fields = {"max_tokens": 40, "temperature": 0, **fields}
    messages: Any = [{"role": "user", "content": text}]
    return client.chat.completions.create(model=model, messages=messages, **fields)


def text_of(answer: Any) -> str:
    return str(answer.choices[0].message.content)


def stream(client: OpenAI, model: str, text: str) -> str:
    chunks = ask(client, model, text, stream=True)
    return "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)


def wait_until(condition: Any, timeout_s: float = 60.0) -> None:
    until = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < until
        time.sleep(0.1)


def figure(server: Server, name: str, model: str = "demo") -> float:
    found = [
        value
        for key, value in server.metrics().items()
        if key.startswith(f"smmf_engine_{name}{{") and f'model="{model}"' in key
    ]
    return sum(found)


@pytest.mark.parametrize("model", ["demo", "apart"])
def test_greedy_text_is_that_of_the_reference(client: OpenAI, model: str) -> None:
    for text in (STORY, "Who are you?", "What is a river?", "Repeat: zorp-4821"):
        own, known = ask(client, model, text), ask(client, "known", text)
        assert text_of(own) == text_of(known)
        assert own.choices[0].finish_reason == known.choices[0].finish_reason
        assert own.usage.completion_tokens == known.usage.completion_tokens


@pytest.mark.parametrize("model", ["demo", "apart"])
def test_streams_side_by_side_are_those_alone(client: OpenAI, model: str) -> None:
    texts = [f"Tell me a story about a fox named {name}." for name in ("Momo", "Ada", "Ben", "Eve")]
    alone = [stream(client, model, text) for text in texts]
    with concurrent.futures.ThreadPoolExecutor(12) as pool:
        together = list(pool.map(lambda text: stream(client, model, text), texts * 3))
    assert together == alone * 3


@pytest.mark.parametrize("model", ["demo", "apart"])
def test_a_client_that_leaves_stops_the_work(client: OpenAI, server: Server, model: str) -> None:
    more: Any = {"extra_body": {"ignore_eos": True}, "stream": True, "max_tokens": 1900}
    is_seen = False
    for _ in range(5):  # on a busy machine it may be over before it is seen to run: then once more
        with ask(client, model, **more) as answer:
            next(iter(answer))
            until = time.monotonic() + 10
            while not is_seen and time.monotonic() < until:
                is_seen = figure(server, "running", model) == 1
                time.sleep(0.02)
        if is_seen:
            break
    assert is_seen
    wait_until(lambda: figure(server, "running", model) == 0)


@pytest.mark.parametrize("model", ["demo", "apart"])
def test_logprobs_are_those_of_the_reference(client: OpenAI, model: str) -> None:
    fields = {"max_tokens": 6, "logprobs": True, "top_logprobs": 3}
    for own, known in zip(
        ask(client, model, **fields).choices[0].logprobs.content,
        ask(client, "known", **fields).choices[0].logprobs.content,
        strict=True,
    ):
        assert own.token == known.token
        assert own.logprob == pytest.approx(known.logprob, abs=1e-3)
        assert [t.token for t in own.top_logprobs] == [t.token for t in known.top_logprobs]


@pytest.mark.parametrize("model", ["demo", "apart"])
def test_the_prompt_has_logprobs_too(client: OpenAI, model: str) -> None:
    fields: Any = {"prompt": "Once upon a time", "echo": True, "logprobs": 1, "max_tokens": 0}
    own, known = (client.completions.create(model=m, **fields) for m in (model, "known"))
    assert own.choices[0].text == known.choices[0].text == "Once upon a time"
    assert own.choices[0].logprobs.tokens == known.choices[0].logprobs.tokens
    for value, right in zip(
        own.choices[0].logprobs.token_logprobs[1:],
        known.choices[0].logprobs.token_logprobs[1:],
        strict=True,
    ):
        assert value == pytest.approx(right, abs=1e-3)


@pytest.mark.parametrize("model", ["demo", "apart"])
def test_answers_take_the_form_that_is_asked_for(client: OpenAI, model: str) -> None:
    form = {"type": "json_schema", "json_schema": {"name": "person", "schema": PERSON}}
    person = json.loads(text_of(ask(client, model, max_tokens=120, response_format=form)))
    assert set(person) == {"name", "age"}
    tools = [{"type": "function", "function": WEATHER}]
    choice = {"type": "function", "function": {"name": "get_weather"}}
    for chosen in (choice, "required"):
        answer = ask(client, model, max_tokens=120, tools=tools, tool_choice=chosen)
        message = answer.choices[0].message
        if message.tool_calls:
            call = {
                "name": message.tool_calls[0].function.name,
                "arguments": json.loads(message.tool_calls[0].function.arguments),
            }
        else:
            text = message.content
            call = json.loads(text.removeprefix("<tool_call>").removesuffix("</tool_call>"))
        assert call["name"] == "get_weather"
        assert set(call["arguments"]) == {"city"}


@pytest.mark.parametrize("model", ["demo", "apart"])
def test_seeds_choose_the_text(client: OpenAI, model: str) -> None:
    def choices(seed: int) -> list[str]:
        answer = ask(client, model, n=3, seed=seed, temperature=1.5, max_tokens=24)
        return [str(choice.message.content) for choice in answer.choices]

    first = choices(5)
    assert len(set(first)) == 3
    assert choices(5) == first
    assert choices(6) != first


def test_stop_strings_and_penalties(client: OpenAI) -> None:
    for fields in ({"stop": ["fox"]}, {"frequency_penalty": 1.0}, {"presence_penalty": 1.5}):
        own, known = (ask(client, model, **fields) for model in ("demo", "known"))
        assert text_of(own) == text_of(known)
        assert own.choices[0].finish_reason == known.choices[0].finish_reason


def test_a_known_prompt_is_cached(client: OpenAI) -> None:
    long = "The cook was in the kitchen and the fox was not. " * 25
    first, again = (ask(client, "demo", long, max_tokens=1).usage for _ in range(2))
    assert first.prompt_tokens > 256
    assert again.prompt_tokens_details.cached_tokens >= 256


@pytest.mark.parametrize("model", ["demo", "apart"])
def test_an_adapter_is_a_model(client: OpenAI, model: str) -> None:
    texts = [STORY, "What is a river?"]
    adapted = [text_of(ask(client, f"{model}:one", text)) for text in texts]
    assert adapted == [text_of(ask(client, "merged", text)) for text in texts]
    assert adapted != [text_of(ask(client, model, text)) for text in texts]


def test_an_adapter_that_cannot_be_loaded_costs_its_requests(client: OpenAI) -> None:
    """Where it is loaded when it is first needed: in the engine whose core is elsewhere."""
    for _ in range(2):
        with pytest.raises(BadRequestError, match="cannot load the adapter"):
            ask(client, "apart:broken")
    assert text_of(ask(client, "apart", "Who are you?")).startswith("I am")


@pytest.mark.parametrize("model", ["demo", "apart"])
def test_a_bad_request_is_told_so_and_costs_nobody_else(client: OpenAI, model: str) -> None:
    form = {"type": "json_schema", "json_schema": {"name": "x", "schema": {"type": "nonsense"}}}
    with pytest.raises(BadRequestError) as caught:
        ask(client, model, response_format=form)
    assert caught.value.param == "response_format.json_schema.schema"
    with pytest.raises(BadRequestError) as caught:
        ask(client, model, "word " * 4000)
    assert caught.value.code == "context_length_exceeded"
    with pytest.raises(NotFoundError):
        ask(client, f"{model}:nobody")
    assert text_of(ask(client, model, "Who are you?")).startswith("I am")


def test_the_death_of_a_core_is_told_and_mended(client: OpenAI, server: Server) -> None:
    """Of the engine whose core is a process of its own. On a busy machine the core may have written
    the whole answer before this process has seen its beginning: then once more."""
    for _ in range(5):
        before = worker_pid(server, "apart")
        told = told_of_a_kill(client, core_pid(before))
        wait_until(lambda before=before: worker_pid(server, "apart") not in (0, before), 120)
        wait_until(lambda: is_ready(server, "apart"), 200)
        if told:
            break
    assert "died" in told
    assert text_of(ask(client, "apart", "Who are you?")).startswith("I am")


def told_of_a_kill(client: OpenAI, core: int) -> str:
    """The error that the answer ended with; "" when it was whole."""
    more: Any = {"extra_body": {"ignore_eos": True}, "stream_options": {"include_usage": True}}
    with ask(client, "apart", max_tokens=1900, stream=True, **more) as answers:
        chunks = iter(answers)
        next(chunk for chunk in chunks if chunk.choices[0].delta.content)  # it has begun
        os.kill(core, signal.SIGKILL)
        try:
            last = list(chunks)[-1]
        except APIError as error:
            return error.message
    assert last.usage.completion_tokens == 1900
    return ""


def worker_pid(server: Server, model: str) -> int:
    rows = [row for row in server.instances() if row.get("model") == model and row["pid"]]
    return int(rows[0]["pid"]) if rows else 0


def is_ready(server: Server, model: str) -> bool:
    rows = [row for row in server.instances() if row.get("model") == model]
    return any(row["state"] == "ready" for row in rows)


def core_pid(worker: int) -> int:
    command = ["ps", "-o", "pid=,args=", "--ppid", str(worker)]
    lines = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()
    return next(int(line.split()[0]) for line in lines if "EngineCore" in line)


def test_a_model_that_vllm_does_not_know_says_so(vllm_python: str, folder: Path) -> None:
    model = folder / "model"
    model.mkdir()
    for file in bundled("demo").glob("*.json"):
        (model / file.name).write_text(file.read_text().replace("LlamaForCausalLM", "NoSuchLM"))
    (model / "model.safetensors").symlink_to(bundled("demo") / "model.safetensors")
    engine = f'[deployment]\npython = "{vllm_python}"\n'
    write_model(folder, "wrong", "vllm", model, engine)
    server = Server(folder)
    server.start(wait=False)
    assert server.process is not None
    wait_until(lambda: "NoSuchLM" in said(server) or server.process.poll() is not None, 300)
    assert "NoSuchLM" in said(server), server.log.read_text()
    assert server.stop() in (0, 1)


def said(server: Server) -> str:
    logs = list(server.run_dir.glob("logs/worker-*.log"))
    return "".join(
        line
        for path in logs
        for line in path.read_text().splitlines(keepends=True)
        if "cannot load" in line
    )
