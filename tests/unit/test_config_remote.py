"""Remote models: the sections, every provider's own keys, and what does not apply to them."""

from __future__ import annotations

import msgspec
import pytest

from smmf_core.config import ConfigProblems, ModelConfig, Proxy, later, redacted
from smmf_core.config.parse_remote import parse_remote
from smmf_core.config.providers import PROVIDERS, canonical, own_keys
from smmf_core.config.raw import read_toml

OPENAI = '[proxy]\nprovider = "openai"\n'


def no_files(name: str) -> str:
    raise FileNotFoundError(2, "No such file", name)


def remote(text: str, file: str = "proxy-x.toml") -> ModelConfig:
    return parse_remote(read_toml(text, file), {"KEY": "sk-1"}, no_files)


def proxy_of(config: ModelConfig) -> Proxy:
    assert config.proxy is not None
    return config.proxy


def only_problem(text: str) -> str:
    with pytest.raises(ConfigProblems) as caught:
        remote(text)
    (problem,) = caught.value.problems
    return str(problem)


FULL = """
[model]
name = "gpt"
aliases = ["best"]
type = "gpt"
task = "generate"
cost = 3.0
[proxy]
provider = "openai"
model = "gpt-4o"
proxy_server_url = "https://example.org/v1/chat/completions"
proxy_api_version = "2024-10-21"
proxies = { https = "http://proxy:3128" }
[authentication]
proxy_api_key = "${env:KEY}"
[parameters]
temperature = 0.2
max_tokens = 100
reasoning_effort = "low"
[deployment]
max_concurrency = 8
weight = 2
[routing]
strategy = "round_robin"
"""


def test_all_sections_of_a_remote_model() -> None:
    config = remote(FULL)
    proxy = proxy_of(config)
    assert (config.model.name, config.model.backend, config.model.aliases) == (
        "gpt",
        "openai",
        ["best"],
    )
    assert (proxy.provider, proxy.model) == ("openai", "gpt-4o")
    assert proxy.proxy_server_url == "https://example.org/v1"
    assert proxy.proxies == {"https": "http://proxy:3128"}
    assert config.authentication is not None
    assert config.authentication.proxy_api_key == "sk-1"
    assert config.inference == {"temperature": 0.2, "max_tokens": 100}
    assert config.parameters == {"reasoning_effort": "low"}
    assert (config.deployment.max_concurrency, config.deployment.weight) == (8, 2)
    assert config.routing.strategy == "round_robin"


def test_a_remote_model_is_valid_and_says_that_it_is_not_served_yet() -> None:
    config = remote(FULL)
    assert config.is_remote
    assert config.why_not_served == f"[proxy]: {later.MESSAGE}"
    again = msgspec.msgpack.decode(msgspec.msgpack.encode(config), type=ModelConfig)
    assert again == config
    assert again.is_remote


@pytest.mark.parametrize(
    ("text", "name", "upstream"),
    [
        (OPENAI, "x", "x"),
        (OPENAI + 'model = "gpt-4o"\n', "gpt-4o", "gpt-4o"),
        ('[model]\nname = "mine"\n' + OPENAI + 'model = "gpt-4o"\n', "mine", "gpt-4o"),
        (OPENAI + 'model_name = "mine"\nmodel_type = "gpt"\n', "mine", "mine"),
        ('[model]\nmodel_name = "mine"\n' + OPENAI, "mine", "mine"),
    ],
)
def test_what_a_remote_model_is_called(text: str, name: str, upstream: str) -> None:
    config = remote(text)
    assert (config.model.name, proxy_of(config).model) == (name, upstream)


@pytest.mark.parametrize(
    ("provider", "keys", "expected"),
    [
        ("openai", {"openai_api_key": "k", "openai_api_base": "http://a/v1"}, ("k", "", "a/v1")),
        ("azure", {"openai_api_key": "k", "openai_api_base": "http://a"}, ("k", "", "a")),
        ("deepseek", {"deepseek_api_key": "k"}, ("k", "", "")),
        ("tongyi", {"qwen_api_key": "k"}, ("k", "", "")),
        ("tongyi", {"tongyi_api_key": "k"}, ("k", "", "")),
        ("qwen", {"qwen_api_key": "k"}, ("k", "", "")),
        ("ollama", {"ollama_api_base": "http://a:1"}, ("", "", "a:1")),
        ("wenxin", {"wenxin_api_key": "k", "wenxin_secret_key": "s"}, ("k", "s", "")),
        ("zhipu", {"zhipu_api_key": "k"}, ("k", "", "")),
        ("spark", {"proxy_api_key": "k", "proxy_api_secret": "s"}, ("k", "s", "")),
    ],
)
def test_the_mission_s_key_names(
    provider: str, keys: dict[str, str], expected: tuple[str, str, str]
) -> None:
    lines = "".join(f'{key} = "{value}"\n' for key, value in keys.items())
    config = remote(f'[proxy]\nprovider = "{provider}"\n[authentication]\n{lines}')
    found = config.authentication
    assert found is not None
    url = proxy_of(config).proxy_server_url.removeprefix("http://")
    assert (found.proxy_api_key, found.proxy_api_secret, url) == expected


@pytest.mark.parametrize("provider", PROVIDERS)
def test_every_provider_takes_its_own_key_and_the_common_one(provider: str) -> None:
    url = 'proxy_server_url = "http://localhost:1"\n'
    for key in ("proxy_api_key", f"{provider}_api_key"):
        config = remote(f'[proxy]\nprovider = "{provider}"\n{url}[authentication]\n{key} = "k"\n')
        assert config.authentication is not None
        assert config.authentication.proxy_api_key == "k"
        assert config.model.backend == provider


def test_other_names_of_providers_are_theirs_alone() -> None:
    names = [name for own, others in PROVIDERS.items() for name in (own, *others)]
    assert len(names) == len(set(names))
    assert canonical("proxy/Bard") == "gemini"
    assert canonical("lm-studio") == "lmstudio"
    assert canonical("nobody") is None
    assert own_keys("spark")["xunfei_app_id"] == "proxy_api_app_id"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('[proxy]\nprovider = "opnai"\n', "x.toml:2: [proxy] provider: 'opnai' is not a provider"),
        ('[proxy]\nprovider = "opnai"\n', "did you mean 'openai'?"),
        ("[proxy]\nprovider = 3\n", "2: [proxy] provider: expected a string, got an integer"),
        ('[proxy]\nmodel = "m"\n', "1: [proxy] provider: must be given"),
        ('[proxy]\nprovider = "vllm"\n', "1: [proxy] proxy_server_url: must be given: where"),
        (OPENAI + 'proxy_server_url = "a.org"\n', "3: [proxy] proxy_server_url: "),
        (OPENAI + 'proxy_server_url = "http://me:pw@a.org"\n', "3: [proxy] proxy_server_url: "),
        (OPENAI + 'modle = "m"\n', "3: [proxy] modle: unknown key; did you mean 'model'?"),
        (OPENAI + '[authentication]\nopenai_key = "k"\n', "did you mean 'openai_api_key'?"),
        (
            OPENAI + '[authentication]\nopenai_api_key = "k"\nproxy_api_key = "j"\n',
            "4: [authentication] openai_api_key: the same as 'proxy_api_key'",
        ),
        (OPENAI + '[authentication]\ndeepseek_api_key = "k"\n', "unknown key"),
        (OPENAI + "[parameters]\ntemperature = 3\n", "4: [parameters] temperature: expected a num"),
        (OPENAI + "[deployment]\nreplicas = 2\n", "4: [deployment] replicas: does not apply to a"),
        (OPENAI + "[inference]\nseed = 1\n", "3: [inference]: does not apply to a remote model"),
        (OPENAI + '[model]\nbackend = "echo"\n', "4: [model] backend: a remote model has [proxy]"),
        (OPENAI + '[routing]\nfallback = ["b"]\n', f"4: [routing] fallback: {later.MESSAGE}"),
    ],
)
def test_what_is_wrong_with_a_remote_model(text: str, message: str) -> None:
    problem = only_problem(text)
    assert message in problem
    assert "pw" not in problem


def test_a_remote_model_s_secrets_are_not_shown() -> None:
    config = remote(FULL)
    assert "sk-1" not in repr(config)
    shown = redacted(msgspec.to_builtins(config))
    assert shown["authentication"]["proxy_api_key"] == "***"
    assert "sk-1" not in str(shown)
    raw = read_toml(FULL, "x.toml")
    assert redacted(raw.table)["authentication"]["proxy_api_key"] == "${env:KEY}"


@pytest.mark.parametrize(
    ("key", "value", "shown"),
    [
        ("api_keys", ["a", ""], ["***", ""]),
        ("wenxin_secret_key", "s", "***"),
        ("proxy_api_secret", "${file:/run/secret}", "${file:/run/secret}"),
        ("hf_token", "${env:HF_TOKEN:-hf_1}", "${env:HF_TOKEN:-***}"),
        ("headers", {"Authorization": "Bearer x", "X-Api-Key": "y"}, None),
        ("url", "postgresql://u:p/w@db/smmf", "postgresql://***@db/smmf"),
        ("proxies", {"https": "http://u:pw@p:1"}, {"https": "http://***@p:1"}),
        ("proxy_server_url", "https://a/v1?x=1&key=s&y=2", "https://a/v1?x=1&key=***&y=2"),
        ("max_batch_tokens", 8192, 8192),
        ("tokenizer", "slow", "slow"),
        ("stop", ["a"], ["a"]),
    ],
)
def test_what_is_hidden_and_what_is_not(key: str, value: object, shown: object) -> None:
    if shown is None:
        shown = {"Authorization": "***", "X-Api-Key": "***"}
    assert redacted({"a": {key: value}}) == {"a": {key: shown}}
