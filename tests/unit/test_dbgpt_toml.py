"""DB-GPT's own files load unchanged, and what they ask for in vain is warned of."""

from __future__ import annotations

from pathlib import Path

import pytest

from smmf_core.config import (
    ConfigProblems,
    ModelConfig,
    bundled,
    load_models,
    load_raw,
    load_raw_server,
    load_server,
    resolve,
)
from smmf_core.config.targets import is_server_file

FILES = Path(__file__).parent / "dbgpt"
LOCAL, MIXED, CLUSTER = (
    str(FILES / f"dbgpt-{name}.toml") for name in ("local-all", "proxy-mixed", "cluster")
)


@pytest.fixture(autouse=True)
def variables(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SMMF_TEST_KEY", "sk-1")
    monkeypatch.setenv("SMMF_TEST_PASSWORD", "pw")


def local(name: str) -> ModelConfig:
    return {config.model.name: config for config in load_models([LOCAL])}[name]


def warnings(target: str) -> list[str]:
    return [str(w).removeprefix(f"{target}:") for raw in load_raw(target) for w in raw.warnings]


# --- remote models --------------------------------------------------------------------------------


def test_a_file_of_remote_models_loads_as_it_is() -> None:
    chat, embed, rerank = load_models([MIXED])
    assert [m.model.task for m in (chat, embed, rerank)] == ["generate", "embed", "rerank"]
    assert [m.model.name for m in (chat, embed, rerank)] == [
        "gpt-4o",
        "bge-large",
        "BAAI/bge-reranker-v2-m3",
    ]
    assert all(m.is_remote for m in (chat, embed, rerank))
    assert chat.proxy is not None
    assert embed.proxy is not None
    assert rerank.proxy is not None
    assert (chat.proxy.provider, chat.proxy.model) == ("openai", "gpt-4o")
    assert chat.deployment.max_concurrency == 20
    assert embed.proxy.proxy_server_url == "https://api.siliconflow.cn/v1"
    assert embed.proxy.model == "BAAI/bge-large-zh-v1.5"
    assert rerank.proxy.provider == "siliconflow"
    assert rerank.authentication is not None
    assert rerank.authentication.proxy_api_key == "sk-1"


def test_the_environment_chooses_the_provider(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SMMF_TEST_PROVIDER", "proxy/deepseek")
    monkeypatch.setenv("SMMF_TEST_LLM", "deepseek-chat")
    chat = load_models([MIXED])[0]
    assert (chat.model.name, chat.model.backend) == ("deepseek-chat", "deepseek")


def test_references_stay_references_until_they_are_resolved() -> None:
    raws = load_raw(MIXED)
    assert raws[0].table["model"]["name"] == "${env:SMMF_TEST_LLM:-gpt-4o}"
    assert raws[0].table["authentication"]["proxy_api_key"] == "${env:SMMF_TEST_KEY}"
    assert resolve(raws[0]).model.name == "gpt-4o"


def test_what_is_not_honoured_of_remote_models_is_warned_of() -> None:
    assert warnings(MIXED) == [
        "19: [rag]: not read: this is for DB-GPT's own application",
        "8: [service] web: not read: this is for DB-GPT's own application",
        "29: [[models.llms]] context_length: not honoured here",
    ]


def test_a_provider_that_is_not_known_speaks_openai_s_protocol(tmp_path: Path) -> None:
    file = tmp_path / "dbgpt-proxy-new.toml"
    text = '[[models.llms]]\nname = "m"\nprovider = "proxy/brand-new"\n'
    file.write_text(text + 'api_base = "https://new.example/v1"\napi_type = "open_ai"\n')
    (config,) = load_models([str(file)])
    assert config.model.backend == "openai"
    (warning,) = warnings(str(file))
    assert "3: [[models.llms]] provider: 'proxy/brand-new' is not known here" in warning
    file.write_text(text)
    with pytest.raises(ConfigProblems, match=r"3: \[\[models.llms\]\] provider: 'brand-new' is"):
        load_models([str(file)])


def test_azure_is_a_type_of_openai(tmp_path: Path) -> None:
    file = tmp_path / "dbgpt-proxy-azure.toml"
    file.write_text(
        '[[models.llms]]\nname = "m"\nprovider = "proxy/openai"\napi_type = "azure"\n'
        'api_base = "https://x.openai.azure.com"\napi_version = "2024-10-21"\n'
        'http_proxy = "http://proxy:1"\n'
    )
    (config,) = load_models([str(file)])
    assert config.proxy is not None
    assert (config.model.backend, config.proxy.proxy_api_version) == ("azure", "2024-10-21")
    assert config.proxy.proxies == "http://proxy:1"


# --- local models ---------------------------------------------------------------------------------


def test_transformers_keys() -> None:
    config = local("qwen-chat")
    assert config.model.backend == "transformers"
    assert config.model.path == str(FILES / "models/Qwen2.5-7B-Instruct")
    assert (config.deployment.device, config.deployment.gpus) == ("cuda", 2)
    assert config.deployment.max_concurrency == 5
    assert (config.optimization.dtype, config.optimization.load_in_4bit) == ("bfloat16", True)
    assert config.optimization.attention == "flash_attention_2"
    assert config.engine == {
        "trust_remote_code": True,
        "max_model_len": 8192,
        "device_map": "auto",
    }


def test_vllm_keys_pass_under_their_own_names() -> None:
    config = local("deepseek-r1-1.5b")
    assert (config.model.backend, config.optimization.dtype) == ("vllm", "float16")
    assert config.optimization.quantization == "awq"
    assert config.engine == {
        "gpu_memory_utilization": 0.5,
        "tensor_parallel_size": 1,
        "quantization": "awq",
        "enforce_eager": True,
    }


def test_both_llama_cpps_are_one_backend() -> None:
    library, server = local("qwen-gguf"), local("coder-gguf")
    assert library.model.backend == server.model.backend == "llama_cpp"
    assert library.engine == {"n_gpu_layers": -1, "n_batch": 256}
    assert library.deployment.device == "cpu"
    assert server.engine == {"n_threads": 4, "n_ctx": 2048}
    assert server.deployment.max_concurrency == 4


def test_mlx_embeddings_and_rerankers() -> None:
    assert local("qwen-mlx").model.backend == "mlx"
    embed, rerank = local("BAAI/bge-m3"), local("bge-reranker")
    assert (embed.model.task, embed.engine) == ("embed", {"normalize": True})
    assert embed.model.path == str(FILES / "BAAI/bge-m3")
    assert (rerank.model.task, rerank.engine) == ("rerank", {"max_model_len": 512})


def test_what_is_not_honoured_of_local_models_is_warned_of() -> None:
    assert warnings(LOCAL) == [
        "3: [models] default_llm: not honoured here: a request names its model",
        "18: [[models.llms]] prompt_template: not honoured here",
        "19: [[models.llms]] quantization: not honoured here: bnb_4bit_quant_type",
        "38: [[models.llms]] cache_capacity: not honoured here",
        "54: [[models.embeddings]] name: no path: a folder of this name is expected beside the "
        "file; models from a hub are not in this release yet",
    ]


def test_a_typing_error_is_a_warning_with_the_nearest_key(tmp_path: Path) -> None:
    file = tmp_path / "dbgpt-local-x.toml"
    file.write_text('[[models.llms]]\nname = "m"\nprovider = "hf"\npath = "x"\ndevise = "cpu"\n')
    (warning,) = warnings(str(file))
    assert warning == "5: [[models.llms]] devise: not honoured here; did you mean 'device'?"


def test_problems_have_db_gpt_s_names_and_lines(tmp_path: Path) -> None:
    file = tmp_path / "dbgpt-local-x.toml"
    file.write_text(
        '[[models.llms]]\nname = "a"\nprovider = "hf"\npath = "x"\nconcurrency = 0\n'
        '[[models.llms]]\nname = "b"\nprovider = "sglang"\n[[models.llms]]\npath = "x"\n'
    )
    with pytest.raises(ConfigProblems) as caught:
        load_models([str(file)])
    found = [str(problem).removeprefix(f"{file}:") for problem in caught.value.problems]
    assert found[0] == "5: [[models.llms]] concurrency: expected an integer >= 1"
    assert found[1].startswith("8: [[models.llms]] provider: 'sglang' is not one of 'echo',")
    assert found[2:] == [
        "9: [[models.llms]] name: must be given",
        "9: [[models.llms]] provider: must be given",
    ]


@pytest.mark.parametrize("text", ["[models]\nllms = 3\n", '[models]\nllms = ["a"]\n'])
def test_a_list_that_is_none(tmp_path: Path, text: str) -> None:
    file = tmp_path / "dbgpt-x.toml"
    file.write_text(text)
    with pytest.raises(ConfigProblems, match=r"2: \[models\] llms: expected tables \[\[models.ll"):
        load_models([str(file)])


def test_our_own_form_under_db_gpt_s_file_names(tmp_path: Path) -> None:
    (tmp_path / "dbgpt-local-demo.toml").write_bytes(bundled("local-echo.toml").read_bytes())
    (tmp_path / "dbgpt-proxy-deepseek.toml").write_text('[proxy]\nprovider = "deepseek"\n')
    assert [c.model.name for c in load_models([str(tmp_path)])] == ["echo", "deepseek"]


# --- the server -----------------------------------------------------------------------------------


def test_a_cluster_s_file_configures_the_server() -> None:
    config = load_server(CLUSTER, {})
    assert (config.server.host, config.server.port) == ("127.0.0.1", 8100)
    assert (config.server.admin_host, config.server.admin_port) == ("0.0.0.0", 8000)
    assert config.server.api_keys == ["one", "two"]
    assert config.server.cors_origins == ["https://example.org"]
    assert config.registry.url == "postgresql+psycopg://smmf:pw@db.local:5432/registry"
    assert (config.log.level, config.health.heartbeat_s) == ("info", 60)
    assert config.models == []
    assert is_server_file(CLUSTER)
    with pytest.raises(ConfigProblems, match="no model in it"):
        load_models([CLUSTER])
    assert len(load_models([str(FILES)])) == 7 + 3  # a folder's other files


def test_a_controller_without_keys_is_this_machine_s_alone(tmp_path: Path) -> None:
    file = tmp_path / "dbgpt-x.toml"
    file.write_text('[service.model.controller]\nhost = "0.0.0.0"\n')
    config = load_server(file, {})
    assert (config.server.admin_host, config.server.admin_port) == ("127.0.0.1", 8000)
    assert config.server.port == 8100
    (warning,) = load_raw_server(file).warnings
    assert "2: [service.model.controller] host: without api_keys only this machine" in str(warning)


def test_a_file_with_models_is_served_by_its_own_settings() -> None:
    config = load_server(MIXED, {})
    assert config.models == [MIXED]
    assert (config.server.port, config.log.level) == (8000, "warning")
    assert not is_server_file(MIXED)
    assert len(load_models(config.models)) == 3


def test_a_model_s_file_is_no_server_s() -> None:
    with pytest.raises(ConfigProblems, match="this is a model: name it as a target"):
        load_server(bundled("local-echo.toml"), {})
