"""The documented keys: each is built, or refused as a later release's; what keys say together."""

from __future__ import annotations

import math

import pytest

from smmf_core.config import (
    ConfigProblems,
    ModelConfig,
    Problem,
    ServerConfig,
    keep_alive_s,
    later,
    load_server,
    span_s,
)
from smmf_core.config.parse import parse_model, parse_server
from smmf_core.config.raw import read_toml
from smmf_core.errors import ConfigError

MINIMAL = '[model]\nname = "m"\nbackend = "vllm"\n'


def no_files(name: str) -> str:
    raise FileNotFoundError(2, "No such file", name)


def model(text: str, env: dict[str, str] | None = None) -> ModelConfig:
    return parse_model(read_toml(MINIMAL + text, "m.toml"), env or {}, no_files)


def server(text: str) -> ServerConfig:
    return parse_server(read_toml(text, "s.toml"), {}, no_files)


def problems(text: str) -> list[Problem]:
    is_model = text.startswith(("[deployment]", "[routing]", "[optimization]", "[engine]"))
    with pytest.raises(ConfigProblems) as caught:
        model(text) if is_model else server(text)
    return caught.value.problems


# --- every key ------------------------------------------------------------------------------------

MODEL_KEYS = """
[deployment]
replicas = 2
device = "cuda"
gpus = 1
environment = "process"
python = ""
weight = 1
max_concurrency = 16
memory_gib = 16
keep_alive = "5m"
autostart = true
[optimization]
dtype = "auto"
load_in_8bit = false
load_in_4bit = false
quantization = ""
attention = "sdpa"
batching = "continuous"
max_batch_size = 32
max_batch_delay_ms = 100
max_batch_tokens = 8192
[engine]
max_model_len = 8192
[inference]
temperature = 0.7
max_tokens = 512
[routing]
strategy = "least_connections"
"""
SERVER_KEYS = """
models = ["local-*.toml"]
[server]
host = "127.0.0.1"
port = 1
admin_host = "127.0.0.1"
admin_port = 2
routers = 1
name = "n"
run_dir = ""
api_keys = []
cors_origins = []
max_body_mb = 1
tls_cert = ""
tls_key = ""
zmq_port = 1
zmq_host = ""
zmq_key = ""
[registry]
kind = "sql"
url = "sqlite:///x.db"
[timeouts]
connect_s = 10
queue_s = 120
inference_s = 60
first_token_s = 1
total_s = 1
load_s = 1
load_wait_s = 1
start_s = 1
drain_s = 1
grace_s = 60
failover_wait_s = 5
[limits]
max_queue = 1
max_queue_tokens = 1
max_concurrency = 1
[health]
response_time_s = 5
response_time_action = "alert"
error_rate = 0.05
error_rate_action = "remove"
memory = 0.9
memory_action = "restart"
queue_length = 100
queue_length_action = "alert"
heartbeat_s = 30
heartbeat_action = "restart"
window_s = 60
min_samples = 20
[memory]
budget_gib = 8
policy = "cheapest"
[cache]
enabled = false
max_mb = 100
ttl_s = 60
[log]
level = "info"
format = "text"
requests = "metadata"
retention_days = 7
[trace]
"""


def test_every_documented_key_is_known() -> None:
    config = model(MODEL_KEYS)
    assert (config.deployment.replicas, config.deployment.gpus) == (2, 1)
    assert config.deployment.idle_s == 300
    loaded = server(SERVER_KEYS)
    assert loaded.health.memory_action == "restart"
    assert (loaded.memory.budget_gib, loaded.memory.policy) == (8, "cheapest")
    assert loaded.registry.url == "sqlite:///x.db"


@pytest.mark.parametrize(
    ("text", "key"),
    [
        ('[deployment]\nenvironment = "ray"', "[deployment] environment"),
        ('[deployment]\nenvironment = "kubernetes"', "[deployment] environment"),
        ('[routing]\nfallback = ["b"]', "[routing] fallback"),
        ('[routing]\nstrategy = "power_of_two"', "[routing] strategy"),
        ('[routing]\nstrategy = "session"', "[routing] strategy"),
        ('[registry]\nkind = "etcd"', "[registry] kind"),
        ("[timeouts]\nfailover_wait_s = 6", "[timeouts] failover_wait_s"),
        ('[log]\nrequests = "full"', "[log] requests"),
        ("[cache]\nenabled = true", "[cache]"),
        ('[trace]\nendpoint = "http://x"', "[trace]"),
    ],
)
def test_what_a_later_release_has_is_an_error_that_says_so(text: str, key: str) -> None:
    (problem,) = problems(text)
    assert (problem.key, problem.kind) == (key, "later")
    assert problem.message.endswith(later.MESSAGE)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "[timeouts]\nhang_s = 1",
            "[timeouts] hang_s: must be 0 or at least 3: a worker tells of itself once a second",
        ),
        ("[health]\nerror_rate = 5", "[health] error_rate: expected a number <= 1"),
        ('[health]\nmemory_action = "kill"', "'kill' is not one of 'alert', 'remove', 'restart'"),
        ("[health]\nreponse_time_s = 5", "did you mean 'response_time_s'?"),
        ("[memory]\nbudget_gib = -1", "[memory] budget_gib: expected a number >= 0"),
        ("[memory.budget_gib]\ngpu0 = 1", "[memory] budget_gib: "),
        ('[memory]\nbudget_gib = "all"', "[memory] budget_gib: expected a number or a table"),
        ("[registry]\nurl = 3", "[registry] url: expected a string"),
        ('[server]\napi_keys = ["a", " b"]', "[server] api_keys: a key is not empty"),
        ('[server]\napi_keys = ["a\\nb"]', "[server] api_keys: a key is not empty"),
        ("[log]\nretention_days = 0", "[log] retention_days: expected a number > 0"),
        ("[cashe]\nenabled = true", "[cashe]: unknown section; did you mean 'cache'?"),
    ],
)
def test_bounds_of_the_server_s_keys(text: str, message: str) -> None:
    (problem,) = problems(text)
    assert message in str(problem)


def test_a_budget_may_be_given_per_device() -> None:
    text = '[memory.budget_gib]\ncpu = 8\n"cuda:0" = 70.5\n'
    assert server(text).memory.budget_gib == {"cpu": 8, "cuda:0": 70.5}


# --- keys together --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "replicas"),
    [
        ("min_replicas = 2\nmax_replicas = 4", 2),
        ("min_replicas = 0\nmax_replicas = 4", 1),
        ("min_replicas = 1\nmax_replicas = 4\nreplicas = 3", 3),
        ("min_replicas = 0\nmax_replicas = 4\nreplicas = 0", 0),
    ],
)
def test_an_autoscaled_model_starts_with_what_it_needs(text: str, replicas: int) -> None:
    deployment = model(f"[deployment]\n{text}\n").deployment
    assert deployment.is_autoscaled
    assert deployment.replicas == replicas


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("min_replicas = 2", "5: [deployment] min_replicas: needs max_replicas too"),
        ("max_replicas = 2", "5: [deployment] max_replicas: needs min_replicas too"),
        ("min_replicas = 3\nmax_replicas = 2", "5: [deployment] min_replicas: more than max_rep"),
        ("max_replicas = 0\nmin_replicas = 0", "5: [deployment] max_replicas: expected an integer"),
        ("min_replicas = 1\nmax_replicas = 2\nreplicas = 3", "7: [deployment] replicas: not betw"),
        ('gpus = 1\ndevice = "cpu"', '5: [deployment] gpus: must be 0 with device = "cpu"'),
        ('gpus = 2\ndevice = "cuda:1"', "5: [deployment] gpus: "),
        ('keep_alive = "5 minutes"', "5: [deployment] keep_alive: expected seconds or a span like"),
    ],
)
def test_keys_that_do_not_fit_together(text: str, message: str) -> None:
    (problem,) = problems(f"[deployment]\n{text}\n")
    assert message in str(problem)


def test_a_model_is_loaded_in_8_or_4_bits() -> None:
    (problem,) = problems("[optimization]\nload_in_4bit = true\nload_in_8bit = true\n")
    assert str(problem) == "m.toml:5: [optimization] load_in_4bit: not together with load_in_8bit"


def test_quantization_of_the_engine_wins() -> None:
    text = '[optimization]\nquantization = "gptq"\n'
    assert model(text).optimization.quantization == "gptq"
    text += '[engine]\nquantization = "awq"\n'
    assert model(text).optimization.quantization == "awq"


# --- how long a model stays -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        ("5m", 300), ("90s", 90), ("1h30m", 5400), ("500ms", 0.5), ("1.5h", 5400), (300, 300),
        ("300", 300), (0, 0), ("0", 0), ("0s", 0), (-1, math.inf), ("-1", math.inf),
        ("-1m", math.inf), (" 5M ", 300), (2.5, 2.5),
    ],
)  # fmt: skip
def test_spans_of_time(value: str | float, seconds: float) -> None:
    assert keep_alive_s(value, True) == keep_alive_s(value, False) == span_s(value) == seconds


@pytest.mark.parametrize("value", ["5 m", "m", "1d", "-", "--1", "5m3", "nan", "inf", math.nan])
def test_what_is_no_span(value: str | float) -> None:
    with pytest.raises(ValueError):
        span_s(value)


def test_a_model_stays_by_default_unless_a_request_loaded_it() -> None:
    assert keep_alive_s("", True) == math.inf
    assert keep_alive_s("", False) == 300
    assert model("").deployment.idle_s == math.inf
    assert model("[deployment]\nautostart = false\n").deployment.idle_s == 300
    scaled = "[deployment]\nmin_replicas = 0\nmax_replicas = 2\n"
    assert model(scaled).deployment.idle_s == 300  # to zero, by being idle
    assert model(scaled + 'keep_alive = "1m"\n').deployment.idle_s == 60


# --- values that are filled in --------------------------------------------------------------------


def test_an_engine_s_own_values_get_their_type_back() -> None:
    text = '[engine]\nseed = "${env:N}"\nx = ["${env:F}"]\neager = "${env:B}"\nname = "${env:S}"\n'
    env = {"N": "3", "F": "0.5", "B": "true", "S": "text"}
    assert model(text, env).engine == {"seed": 3, "x": [0.5], "eager": True, "name": "text"}


def test_dates_and_endless_numbers_are_no_values() -> None:
    with pytest.raises(ConfigProblems) as caught:
        read_toml("[a]\nx = 2026-01-01\ny = [inf]\n", "m.toml")
    assert [str(problem) for problem in caught.value.problems] == [
        "m.toml:2: [a] x: a date or time is not a value here; a string?",
        "m.toml:3: [a] y: expected a finite number",
    ]


@pytest.mark.parametrize(
    ("key", "message"), [("", r"length >= 1 \(in item \[0\]\)$"), (" mine", "a key is not empty")]
)
def test_keys_of_the_command_line_are_checked(key: str, message: str) -> None:
    with pytest.raises(ConfigError, match=r"\[server\] api_keys: .*" + message):
        load_server(None, {"server.api_keys": [key]})
