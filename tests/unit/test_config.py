"""Configuration: values, defaults, and every problem with its line, key and nearest key."""

from __future__ import annotations

import json
import os
import tomllib
from pathlib import Path

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from smmf_core.config import (
    ConfigProblems,
    ModelConfig,
    ModelFlags,
    Problem,
    Server,
    ServerConfig,
    bundled,
    later,
    load_models,
    load_server,
    run_directory,
    spec_hash,
)
from smmf_core.config.kinds import kind_of
from smmf_core.config.lines import key_lines
from smmf_core.config.parse import parse_model, parse_server
from smmf_core.config.raw import read_toml
from smmf_core.errors import ConfigError

MINIMAL = '[model]\nname = "m"\nbackend = "echo"\n'


def no_files(name: str) -> str:
    raise FileNotFoundError(2, "No such file", name)


def model(text: str, env: dict[str, str] | None = None) -> ModelConfig:
    return parse_model(read_toml(text, "m.toml"), env or {}, no_files)


def problems_of(text: str, env: dict[str, str] | None = None) -> list[Problem]:
    with pytest.raises(ConfigProblems) as caught:
        model(text, env)
    return caught.value.problems


def only_problem(text: str) -> str:
    (problem,) = problems_of(text)
    return str(problem)


def hf_folder(path: Path, architecture: str = "LlamaForCausalLM") -> Path:
    path.mkdir()
    (path / "config.json").write_text(json.dumps({"architectures": [architecture]}))
    return path


# --- values ---------------------------------------------------------------------------------------


def test_a_model_needs_a_name_and_a_backend_and_defaults_to_the_rest() -> None:
    config = model(MINIMAL)
    assert (config.model.name, config.model.backend, config.model.task) == ("m", "echo", "generate")
    assert (config.deployment.replicas, config.deployment.weight) == (1, 1.0)
    assert config.routing.strategy == "least_connections"
    assert (config.engine, config.inference, config.source) == ({}, {}, "m.toml")


def test_the_bundled_examples_load_and_the_server_example_shows_the_defaults() -> None:
    assert model(bundled("local-echo.toml").read_text()).model.name == "echo"
    demo = model(bundled("local-demo.toml").read_text())
    assert (demo.model.name, demo.model.backend) == ("demo", "reference")
    assert (demo.deployment.max_concurrency, demo.optimization.max_batch_size) == (64, 32)
    server = load_server(bundled("smmf.toml"), {})
    assert server.models == [str(bundled("local-*.toml"))]
    assert msgspec.structs.replace(server, models=[], source="") == ServerConfig()


def test_configs_travel_as_msgpack() -> None:
    config = model(MINIMAL + "[engine]\ntokens = 3\n[inference]\nstop = ['a']\n")
    assert msgspec.msgpack.decode(msgspec.msgpack.encode(config), type=ModelConfig) == config


def test_the_hash_tells_settings_apart_and_not_files() -> None:
    first, second = model(MINIMAL), model(MINIMAL)
    second.source = "elsewhere.toml"
    assert spec_hash(first) == spec_hash(second)
    second.engine["tokens"] = 4
    assert spec_hash(first) != spec_hash(second)


def test_the_mission_s_key_names_are_aliases() -> None:
    text = '[model]\nmodel_name = "m"\nmodel_type = "llama"\nmodel_path = "p"\nbackend = "echo"\n'
    named = model(text).model
    assert (named.name, named.type, named.path) == ("m", "llama", "p")
    assert "m.toml:4: [model] model_name: the same as 'name'" in only_problem(
        MINIMAL + 'model_name = "n"\n'
    )


def test_environment_and_files_fill_in_strings_and_numbers(tmp_path: Path) -> None:
    (tmp_path / "key").write_text("secret\n")
    text = (
        '[server]\nport = "${env:PORT}"\nname = "${env:NONE:-spare}"\napi_keys = ["${file:key}"]\n'
        'host = "${env:A}.${env:B}"\n'
    )
    env = {"PORT": "81", "A": "x", "B": "y"}
    raw = read_toml(text, "s.toml")
    config = parse_server(raw, env, lambda name: (tmp_path / name).read_text()).server
    assert (config.port, config.name, config.api_keys) == (81, "spare", ["secret"])
    assert config.host == "x.y"


# --- problems -------------------------------------------------------------------------------------


def test_an_unknown_key_names_file_line_and_nearest_key() -> None:
    text = MINIMAL + "[deployment]\n\nreplica = 2\n"
    assert only_problem(text) == (
        "m.toml:6: [deployment] replica: unknown key; did you mean 'replicas'?"
    )


def test_a_wrong_type_is_told_in_words() -> None:
    text = MINIMAL + '[deployment]\nreplicas = "two"\n'
    assert only_problem(text) == (
        "m.toml:5: [deployment] replicas: expected an integer, got a string"
    )


def test_all_problems_of_a_file_come_at_once_in_order_of_lines() -> None:
    text = '[model]\nbackend = "ekko"\nalias = []\n[deploymnt]\nx = 1\n[routing]\nstrategy = 1\n'
    assert [(p.line, p.key, p.kind) for p in problems_of(text)] == [
        (1, "[model] name", "missing"),
        (2, "[model] backend", "value"),
        (3, "[model] alias", "unknown"),
        (4, "[deploymnt]", "unknown"),
        (7, "[routing] strategy", "type"),
    ]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[deployment]\nreplicas = -1", "5: [deployment] replicas: expected an integer >= 0"),
        ("[deployment]\nweight = nan", "5: [deployment] weight: expected a finite number"),
        ("[deployment]\nweight = 0", "5: [deployment] weight: expected a number > 0"),
        ("[deployment]\nautostart = 1", "5: [deployment] autostart: expected true or false, got"),
        ("[model.x]\ny = 1", "4: [model] x: unknown key"),
        ("aliases = ['a', 3]", "4: [model] aliases: expected a string, got an integer (in item [1"),
        ("[engine]\nn_ctx = 1", "5: [engine] n_ctx: unknown key"),
        ("[engine]\nfail = 'crash'", "5: [engine] fail: "),
        ("[inference]\ntemprature = 1", "did you mean 'temperature'?"),
        ("[inference]\ntemperature = 3", "5: [inference] temperature: expected a number <= 2"),
        ("[[routing]]\nstrategy = 'x'", "4: [routing]: expected a table"),
        ("[deployment]\npython = '${env:NOPE}'", "5: [deployment] python: the environment varia"),
        ("[deployment]\npython = '${file:nope}'", "5: [deployment] python: cannot read nope"),
        ("[deployment", "4: Expected ']'"),
        ("name = 'again'", "4: Cannot overwrite a value"),
    ],
)
def test_what_is_wrong_with_a_model(text: str, message: str) -> None:
    assert message in only_problem(MINIMAL + text + "\n")


@pytest.mark.parametrize(
    "text",
    [
        '[deployment]\nenvironment = "ray"',
        '[routing]\nfallback = ["b"]',
        '[routing]\nstrategy = "prefix"',
    ],
)
def test_a_key_of_a_later_release_is_an_error_that_says_so(text: str) -> None:
    (problem,) = problems_of(MINIMAL + text + "\n")
    assert problem.kind == "later"
    assert later.MESSAGE in problem.message


def test_a_later_key_whose_value_changes_nothing_is_let_through() -> None:
    text = '[deployment]\nenvironment = "process"\n[routing]\nfallback = []\n'
    assert model(MINIMAL + text).deployment.replicas == 1


def test_what_stands_outside_of_sections() -> None:
    assert [str(p) for p in problems_of('name = "m"\nmodel = 3\n')] == [
        "m.toml:1: [name]: unknown key; every key stands in a [section]",
        "m.toml:2: [model]: expected a table",
        "m.toml:2: [model] name: must be given",
        "m.toml:2: [model] backend: must be given",
    ]


def test_interpolated_strings_are_ordinary_ones() -> None:
    env = {"A": "x"}
    text = MINIMAL + 'aliases = ["${env:A}"]\n[inference]\nstop = ["${env:A}y"]\n'
    config = model(text, env)
    assert msgspec.msgpack.decode(msgspec.msgpack.encode(config), type=ModelConfig) == config
    assert type(config.model.aliases[0]) is type(config.inference["stop"][0]) is str


def test_an_unknown_backend_names_the_nearest() -> None:
    problem = only_problem('[model]\nname = "m"\nbackend = "vlm"\n')
    assert "'vlm' is not one of 'echo', 'reference', 'transformers'" in problem
    assert "did you mean 'vllm'?" in problem


def test_an_engines_own_names_pass_where_only_it_knows_them() -> None:
    text = '[model]\nname = "m"\nbackend = "vllm"\n[engine]\ngpu_memory_utilization = 0.5\n'
    assert model(text).engine == {"gpu_memory_utilization": 0.5}


def test_overrides_win_over_the_file_and_are_checked(tmp_path: Path) -> None:
    file = tmp_path / "smmf.toml"
    file.write_text('models = ["a.toml"]\n[server]\nport = 1\nadmin_port = 2\n')
    config = load_server(file, {"server.port": 3, "server.admin_port": None})
    assert (config.server.port, config.server.admin_port) == (3, 2)
    assert config.models == [str(tmp_path / "a.toml")]
    with pytest.raises(ConfigError) as caught:
        load_server(None, {"server.port": 70_000})
    assert str(caught.value) == "[server] port: expected an integer <= 65535"


def test_server_and_model_files_are_told_apart(tmp_path: Path) -> None:
    assert kind_of(tomllib.loads('models = ["x"]')) == "server"
    assert kind_of(tomllib.loads(MINIMAL)) == "model"
    file = tmp_path / "smmf.toml"
    file.write_text("[server]\n")
    with pytest.raises(ConfigProblems, match="give it with --config"):
        load_models([str(file)])


# --- targets --------------------------------------------------------------------------------------


def test_a_folder_gives_its_local_models_sorted(tmp_path: Path) -> None:
    for name in ("local-b", "local-a", "other"):
        (tmp_path / f"{name}.toml").write_text(MINIMAL.replace('"m"', f'"{name}"'))
    assert [c.model.name for c in load_models([str(tmp_path)])] == ["local-a", "local-b"]
    assert [c.model.name for c in load_models([str(tmp_path / "*.toml")])] == [
        "local-a",
        "local-b",
        "other",
    ]


def test_a_hugging_face_folder_is_a_model_named_like_it(tmp_path: Path) -> None:
    folder = hf_folder(tmp_path / "tiny")
    flags = ModelFlags(served_model_name=["a", "b"], max_model_len=64, replicas=2)
    (plain,) = load_models([str(folder)])
    assert (plain.model.name, plain.model.backend) == ("tiny", "transformers")
    (bare,) = load_models([str(folder)], is_installed=lambda backend: False)
    assert (plain.model.backend, bare.model.backend) == ("transformers", "reference")
    (flagged,) = load_models([str(folder)], flags)
    assert (flagged.model.name, flagged.model.aliases) == ("a", ["b"])
    assert (flagged.engine, flagged.deployment.replicas) == ({"max_model_len": 64}, 2)


def test_a_folder_says_its_task(tmp_path: Path) -> None:
    vectors, ranks, broken = (hf_folder(tmp_path / name) for name in ("vectors", "ranks", "broken"))
    (vectors / "modules.json").write_text("[]")
    (ranks / "config.json").write_text('{"architectures": ["BertForSequenceClassification"]}')
    (broken / "config.json").write_text("{")
    configs = load_models([str(vectors), str(ranks), str(broken)])
    assert [c.model.task for c in configs] == ["embed", "rerank", "generate"]
    assert [c.deployment.max_concurrency for c in configs] == [128, 128, 16]


@pytest.mark.parametrize("text", ["{", "[]", '"x"', '{"architectures": {"a": 1}}'])
def test_a_folder_whose_config_cannot_be_read_is_told_of(tmp_path: Path, text: str) -> None:
    folder = hf_folder(tmp_path / "broken")
    (folder / "config.json").write_text(text)
    with pytest.raises(ConfigError, match="cannot read"):
        load_models([str(folder)], is_installed=lambda backend: False)
    assert load_models([str(folder)], is_installed=lambda backend: True)  # its engine will tell


@pytest.mark.parametrize(
    ("more", "slots"),
    [
        ("", 128),
        ("[optimization]\nmax_batch_size = 64\n", 256),
        ("[optimization]\nmax_batch_size = 1000\n", 512),
        ("[deployment]\nmax_concurrency = 3\n", 3),
    ],
)
def test_an_embedding_model_has_slots_for_several_steps(more: str, slots: int) -> None:
    assert model(f'{MINIMAL}task = "embed"\n{more}').deployment.max_concurrency == slots
    assert model(MINIMAL + more.replace("1000", "8")).deployment.max_concurrency in (3, 16)


def test_a_relative_model_path_lies_beside_its_file(tmp_path: Path) -> None:
    hf_folder(tmp_path / "tiny")
    file = tmp_path / "local-tiny.toml"
    file.write_text('[model]\nname = "t"\nbackend = "reference"\npath = "tiny"\n')
    (config,) = load_models([str(file)])
    assert config.model.path == str(tmp_path / "tiny")


def test_a_gguf_file_is_a_model_of_llama_cpp(tmp_path: Path) -> None:
    (tmp_path / "small.gguf").write_bytes(b"GGUF")
    (config,) = load_models([str(tmp_path / "small.gguf")], ModelFlags(max_model_len=64))
    assert (config.model.name, config.model.backend) == ("small", "llama_cpp")
    assert config.engine == {"n_ctx": 64}


def test_adapters_lie_beside_their_file(tmp_path: Path) -> None:
    file = tmp_path / "local-a.toml"
    file.write_text(
        '[model]\nname = "t"\nbackend = "transformers"\n[engine.adapters]\npirate = "lora"\n'
    )
    (config,) = load_models([str(file)])
    assert config.engine == {"adapters": {"pirate": str(tmp_path / "lora")}}


def test_the_demo_model_takes_flags() -> None:
    with pytest.raises(ConfigError, match="--backend: 'vlm' is not one of echo, reference"):
        load_models([], ModelFlags(backend="vlm"))
    (config,) = load_models([], ModelFlags(backend="echo", replicas=3))
    assert (config.model.name, config.model.backend) == ("demo", "echo")
    assert (config.deployment.replicas, config.deployment.max_concurrency) == (3, 64)


def test_targets_that_cannot_be_served_are_named_together(tmp_path: Path) -> None:
    hf_folder(tmp_path / "qwen", "QwenForCausalLM")
    (tmp_path / "empty").mkdir()
    file = tmp_path / "local-qwen.toml"
    file.write_text('[model]\nname = "q"\nbackend = "reference"\npath = "qwen"\n')
    targets = [str(file), str(tmp_path / "empty"), "x.gguf", "org/model", "./nope"]
    with pytest.raises(ConfigProblems) as caught:
        load_models([*targets, "nope.toml"])
    messages = [problem.message for problem in caught.value.problems]
    for message, part in zip(
        messages,
        ["no model file", "no such file", "hub", "neither", "no such file", "cannot run qwen"],
        strict=True,
    ):
        assert part in message


def test_a_name_that_two_models_want_names_both_files(tmp_path: Path) -> None:
    (tmp_path / "a.toml").write_text(MINIMAL)
    (tmp_path / "b.toml").write_text(MINIMAL.replace('"m"', '"n"') + 'aliases = ["m"]\n')
    with pytest.raises(ConfigProblems) as caught:
        load_models([str(tmp_path / "a.toml"), str(tmp_path / "b.toml")])
    (problem,) = caught.value.problems
    assert problem.file.endswith("b.toml")
    assert "a.toml" in problem.message


def test_a_file_with_a_model_takes_no_flags_of_bare_targets(tmp_path: Path) -> None:
    (tmp_path / "a.toml").write_text(MINIMAL)
    with pytest.raises(ConfigProblems, match="without a file"):
        load_models([str(tmp_path / "a.toml")], ModelFlags(backend="reference"))


# --- lines ----------------------------------------------------------------------------------------


def test_lines_of_every_shape_of_key() -> None:
    text = (
        "a = 1 # [x]\n"
        's = """\n[no]\nb = 2\n"""\n'
        "t = '''\n'quoted' ''''\n"
        'd."e.f".g = [ # comment ]\n  1,\n  {h = "}", i = 2},\n]\n'
        "[u.v]\r\nw = 2024-01-01 00:00:00\n"
        "[[x]]\ny = 1\n[[x]]\ny = 2\n[x.z]\nq = 1\n"
    )
    tomllib.loads(text)
    lines = key_lines(text)
    expected = {
        ("a",): 1,
        ("s",): 2,
        ("t",): 6,
        ("d", "e.f", "g"): 8,
        ("d", "e.f", "g", "h"): 10,
        ("u", "v"): 12,
        ("u", "v", "w"): 13,
        ("x", "0", "y"): 15,
        ("x", "1", "y"): 17,
        ("x", "1", "z", "q"): 19,
    }
    assert {path: lines.get(path) for path in expected} == expected


_KEYS = st.from_regex(r"[a-z]{1,3}", fullmatch=True)
_STRINGS = st.text(st.sampled_from("a\"'\\\n#[]={}, é"), max_size=8)


@settings(deadline=None)  # a loaded machine is no failure
@given(st.lists(st.tuples(_KEYS, _STRINGS), unique_by=lambda pair: pair[0]))
def test_lines_are_right_whatever_the_strings_hold(pairs: list[tuple[str, str]]) -> None:
    """Each key is written as a multi-line basic string, so lines move by the values' own."""
    text, expected = "", {}
    for key, value in pairs:
        expected[(key,)] = text.count("\n") + 1
        body = value.replace("\\", "\\\\").replace('"', '\\"')
        text += f'{key} = """{body}"""\n'
    tomllib.loads(text)
    assert key_lines(text) == expected


# --- run directory --------------------------------------------------------------------------------


def test_the_run_directory_goes_by_configuration_then_user_and_name(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("XDG_RUNTIME_DIR", "/run/user/7")
    assert run_directory(Server(run_dir="/x")) == Path("/x")
    assert run_directory(Server(name="n")) == Path("/run/user/7/smmf/n")
    monkeypatch.delenv("XDG_RUNTIME_DIR")
    assert run_directory(Server()).parts[-2:] == (f"smmf-{os.getuid()}", "default")
