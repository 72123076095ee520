"""What a reload touches: only what changed, and whether Workers start again for it."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from smmf_core.config import (
    ConfigProblems,
    ModelConfig,
    RawConfig,
    ServerConfig,
    Sources,
    load_models,
    load_raw,
    resolve,
)
from smmf_core.config.parse import parse_model, parse_server
from smmf_core.config.raw import read_toml
from smmf_core.config.reload import ServerChanges, needs_restart, plan, server_changes


def model(name: str, text: str = "") -> ModelConfig:
    table = read_toml(f'[model]\nname = "{name}"\nbackend = "echo"\n{text}', f"{name}.toml")
    return parse_model(table, {}, lambda file: "")


def server(text: str) -> ServerConfig:
    return parse_server(read_toml(text, "s.toml"), {}, lambda file: "")


def names(configs: list[ModelConfig]) -> list[str]:
    return [config.model.name for config in configs]


def test_each_model_is_added_changed_removed_or_left_alone() -> None:
    old = [model("a"), model("b"), model("c")]
    new = [model("d"), model("b", "[engine]\ntokens = 3\n"), model("a")]
    result = plan(old, new)
    assert names(result.added) == ["d"]
    assert names(result.removed) == ["c"]
    assert names(result.unchanged) == ["a"]
    assert [(c.old.engine, c.new.engine) for c in result.changed] == [({}, {"tokens": 3})]
    assert not result.is_empty


def test_a_file_that_only_moved_changes_nothing() -> None:
    old, new = model("a"), model("a")
    new.source = "elsewhere.toml"
    assert plan([old], [new]).is_empty
    assert plan([], []).is_empty


@pytest.mark.parametrize(
    ("text", "restarts"),
    [
        ('[routing]\nstrategy = "round_robin"\n', False),
        ("[inference]\ntemperature = 0.5\n", False),
        ("[deployment]\nweight = 2\n", False),
        ("[deployment]\nreplicas = 2\n", False),
        ("[deployment]\nmin_replicas = 1\nmax_replicas = 3\n", False),
        ('[deployment]\nkeep_alive = "5m"\nautostart = false\n', False),
        ('aliases = ["b"]\ncost = 2\n', False),
        ("[deployment]\nmax_concurrency = 2\n", True),
        ('[deployment]\ndevice = "cpu"\n', True),
        ("[optimization]\nmax_batch_size = 2\n", True),
        ("[engine]\ntokens = 2\n", True),
        ('path = "x"\n', True),
    ],
)
def test_what_a_worker_does_not_look_at_needs_no_restart(text: str, restarts: bool) -> None:
    old, new = model("a"), model("a", text)
    assert needs_restart(old, new) is restarts
    (change,) = plan([old], [new]).changed
    assert change.needs_restart is restarts


def test_server_settings_apply_at_once_or_at_the_next_start() -> None:
    old = server("")
    new = server(
        '[server]\nport = 1\napi_keys = ["k"]\n[health]\nmemory = 0.5\n[limits]\nmax_queue = 1\n'
        '[timeouts]\nqueue_s = 1\n[log]\nlevel = "debug"\nformat = "json"\n'
        '[registry]\nurl = "sqlite://"\n[memory]\npolicy = "cheapest"\n'
    )
    changes = server_changes(old, new)
    assert changes.live == [
        "server.api_keys",
        "timeouts.queue_s",
        "limits.max_queue",
        "log.level",
        "health.memory",
        "memory.policy",
    ]
    assert changes.restart == ["server.port", "log.format", "registry.url"]
    new = server("")
    new.models, new.source = ["x.toml"], "y.toml"
    assert server_changes(old, new) == server_changes(old, old)


def test_a_certificate_may_be_another_one_but_tls_neither_comes_nor_goes() -> None:
    plain, one = server(""), server('[server]\ntls_cert = "a.pem"\ntls_key = "k.pem"')
    other = server('[server]\ntls_cert = "b.pem"')
    assert server_changes(one, other) == ServerChanges(["server.tls_cert", "server.tls_key"], [])
    for old, new in ((plain, other), (other, plain)):
        assert server_changes(old, new) == ServerChanges([], ["server.tls_cert"])


# --- loading again --------------------------------------------------------------------------------


def test_loading_is_all_or_nothing_and_names_every_problem(tmp_path: Path) -> None:
    (tmp_path / "local-a.toml").write_text('[model]\nname = "a"\nbackend = "echo"\n')
    (tmp_path / "local-b.toml").write_text('[model]\nname = "b"\nbackend = "ekko"\n')
    (tmp_path / "local-c.toml").write_text('[model]\nname = "c"\n[deployment]\nreplica = 1\n')
    with pytest.raises(ConfigProblems) as caught:
        load_models([str(tmp_path)])
    found = [(Path(p.file).name, p.line, p.key) for p in caught.value.problems]
    assert found == [
        ("local-b.toml", 3, "[model] backend"),
        ("local-c.toml", 1, "[model] backend"),
        ("local-c.toml", 4, "[deployment] replica"),
    ]


def test_a_folder_holds_models_of_every_kind(tmp_path: Path) -> None:
    (tmp_path / "local-a.toml").write_text('[model]\nname = "a"\nbackend = "echo"\n')
    (tmp_path / "proxy-b.toml").write_text('[proxy]\nprovider = "openai"\n')
    (tmp_path / "dbgpt-local-c.toml").write_text('[model]\nname = "c"\nbackend = "echo"\n')
    (tmp_path / "dbgpt-proxy-d.toml").write_text(
        '[[models.llms]]\nname = "d"\nprovider = "proxy/deepseek"\napi_key = "k"\n'
    )
    (tmp_path / "smmf.toml").write_text("[server]\n")
    models = load_models([str(tmp_path)])
    assert names(models) == ["a", "b", "c", "d"]
    assert [config.is_remote for config in models] == [False, True, False, True]


def test_everything_is_read_again_from_where_it_came(tmp_path: Path) -> None:
    (tmp_path / "smmf.toml").write_text('models = ["local-*.toml"]\n[server]\nport = 1\n')
    (tmp_path / "local-a.toml").write_text('[model]\nname = "a"\nbackend = "echo"\n')
    sources = Sources(str(tmp_path / "smmf.toml"), {"server.port": 7})
    config, old = sources.load()
    assert (config.server.port, names(old)) == (7, ["a"])
    (tmp_path / "local-b.toml").write_text('[model]\nname = "b"\nbackend = "echo"\n')
    config, new = sources.load()
    assert names(plan(old, new).added) == ["b"]
    (tmp_path / "smmf.toml").write_text("[server]\nprot = 1\n")
    with pytest.raises(ConfigProblems, match=r"smmf.toml:2: \[server\] prot: unknown key"):
        sources.load()
    assert names(Sources(targets=[str(tmp_path / "local-b.toml")]).load()[1]) == ["b"]


# --- what is stored -------------------------------------------------------------------------------


def test_a_stored_configuration_has_references_and_loads_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SMMF_TEST_KEY", "sk-1")
    (tmp_path / "secret").write_text("sk-2\n")
    (tmp_path / "proxy-a.toml").write_text(
        '[proxy]\nprovider = "wenxin"\n[authentication]\nwenxin_api_key = "${env:SMMF_TEST_KEY}"\n'
        'wenxin_secret_key = "${file:secret}"\n'
    )
    (raw,) = load_raw(str(tmp_path / "proxy-a.toml"))
    stored = msgspec.json.encode(raw.table)
    assert b"sk-" not in stored
    config = resolve(RawConfig(msgspec.json.decode(stored), raw.source))
    assert config == resolve(raw)
    assert config.authentication is not None
    assert config.authentication.proxy_api_key == "sk-1"
    assert config.authentication.proxy_api_secret == "sk-2"
    monkeypatch.delenv("SMMF_TEST_KEY")
    with pytest.raises(ConfigProblems, match="SMMF_TEST_KEY is not set"):
        resolve(raw)


def test_resolving_leaves_what_is_stored_as_it_was(tmp_path: Path) -> None:
    file = tmp_path / "local-a.toml"
    file.write_text('[model]\nmodel_name = "a"\nbackend = "echo"\ntask = "embed"\npath = "x"\n')
    (raw,) = load_raw(str(file))
    before = msgspec.json.encode(raw.table)
    first = resolve(raw)
    assert first.model.path == str(tmp_path / "x")
    assert msgspec.json.encode(raw.table) == before
    assert resolve(raw) == first


def test_a_bare_folder_is_stored_like_a_file(tmp_path: Path) -> None:
    folder = tmp_path / "tiny"
    folder.mkdir()
    (folder / "config.json").write_text('{"architectures": ["LlamaForCausalLM"]}')
    (raw,) = load_raw(str(folder))
    assert raw.table["model"]["path"] == str(folder)
    assert resolve(RawConfig(raw.table, raw.source)).model.name == "tiny"
