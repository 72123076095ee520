"""Reads configuration files and resolves what `smmf serve` was told to serve.

The one part of the configuration that touches the file system and the environment. Owns the rules
for targets; must not judge keys (parse does).
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from importlib.util import find_spec
from ipaddress import ip_address
from pathlib import Path
from tempfile import gettempdir
from typing import Any, Literal

import msgspec

from smmf_core.config.parse import embed_slots, is_server_text, parse_model, parse_server
from smmf_core.config.problems import ConfigProblems, Problem, key_in_words
from smmf_core.config.schema import Model, ModelConfig, Server, ServerConfig
from smmf_core.errors import ConfigError
from smmf_core.plugins import backend_names

_PACKAGE = Path(__file__).resolve().parent.parent
_GLOB = "*?["


class ModelFlags(msgspec.Struct, frozen=True):
    """Command-line settings of a target that has no file, and of the demo model."""

    backend: str | None = None
    served_model_name: list[str] = []  # the first is the name, the others aliases
    max_model_len: int | None = None
    replicas: int | None = None

    @property
    def given(self) -> bool:
        return self != ModelFlags()


def bundled(name: str) -> Path:
    """A file or folder of `configs/`: beside the package in a checkout, inside it in a wheel."""
    inside = _PACKAGE / "configs" / name
    return inside if inside.exists() else _PACKAGE.parent / "configs" / name


def run_directory(server: Server) -> Path:
    """Where a server keeps its control socket: by its configuration, else by its name.

    `$XDG_RUNTIME_DIR/smmf/NAME`, and without that variable a folder of this user under the
    temporary one. Whoever creates it checks its owner.
    """
    if server.run_dir:
        return Path(server.run_dir).expanduser()
    runtime = os.environ.get("XDG_RUNTIME_DIR")
    base = Path(runtime) / "smmf" if runtime else Path(gettempdir()) / f"smmf-{os.getuid()}"
    return base / server.name


def load_server(path: str | Path | None, overrides: Mapping[str, Any]) -> ServerConfig:
    """The server's configuration; `overrides` by dotted key ("server.port"), None means not given.

    Relative entries of `models` become paths beside the file.
    """
    config = ServerConfig()
    if path is not None:
        file = Path(path)
        config = parse_server(_read(file), str(path), os.environ, _secrets(file))
        config.models = [str(file.parent / entry) for entry in config.models]
    built = msgspec.to_builtins(config)
    for key, value in overrides.items():
        if value is not None:
            section, _, name = key.partition(".")
            built[section][name] = value
    try:
        config = msgspec.convert(built, ServerConfig)
    except msgspec.ValidationError as error:
        raise ConfigError(key_in_words(error)) from None
    if not is_loopback(config.server.admin_host) and not config.server.api_keys:
        raise _wrong(config.source, "needs api_keys when it is not loopback", "[server] admin_host")
    return config


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches the address. A name other than localhost counts as open."""
    try:
        return host == "localhost" or ip_address(host).is_loopback
    except ValueError:
        return False


def load_models(
    targets: list[str],
    flags: ModelFlags | None = None,
    is_installed: Callable[[str], bool] = lambda backend: find_spec(backend) is not None,
) -> list[ModelConfig]:
    """The models of the targets in their order, names and aliases unique among them.

    A target is, in this order of trial:
    1. a pattern (`local-*.toml`): its matches, sorted
    2. a `.toml` file: that model
    3. a folder with `config.json`: a Hugging Face model, named like the folder; an embedding model
       if it has `modules.json`, a reranker if it classifies sequences
    4. another folder: its `local-*.toml`, sorted
    5. a `.gguf` file
    Without targets: the demo model. `is_installed` tells of a backend whether it could run here.
    Raises ConfigError naming what is wrong with each.
    """
    flags = flags or ModelFlags()
    models: list[ModelConfig] = []
    problems: list[Problem] = []
    if not targets:
        models = [_with_flags(load_model(bundled("local-demo.toml")), flags)]
    for target in targets:
        try:
            models.extend(_load_target(target, flags, is_installed))
        except ConfigProblems as error:
            problems.extend(error.problems)
    problems.extend(_clashes(models))
    problems.extend(filter(None, map(_folder_problem, models)))
    if problems:
        raise ConfigProblems(problems)
    return models


def load_model(path: str | Path) -> ModelConfig:
    """One model's file; its folder is not looked at. A relative `path` is taken beside the file."""
    file = Path(path)
    text = _read(file)
    if is_server_text(text):
        raise _wrong(str(path), "this configures the server: give it with --config")
    config = parse_model(text, str(path), os.environ, _secrets(file))
    if config.model.path:
        config.model.path = _beside(file, config.model.path)
    adapters = config.engine.get("adapters")
    if isinstance(adapters, dict):
        config.engine["adapters"] = {n: _beside(file, str(p)) for n, p in adapters.items()}
    for key in ("chat_template", "adapter_path"):
        if given := config.engine.get(key):
            config.engine[key] = _beside(file, str(given))
    return config


def _beside(file: Path, path: str) -> str:
    return str((file.parent / Path(path).expanduser()).resolve())


def _load_target(
    target: str, flags: ModelFlags, is_installed: Callable[[str], bool]
) -> list[ModelConfig]:
    if any(letter in target for letter in _GLOB) and not Path(target).exists():
        pattern = Path(target)
        return _load_files(sorted(pattern.parent.glob(pattern.name)), target)
    path = Path(target).expanduser()
    if target.endswith(".toml"):
        if flags.given:
            raise _wrong(target, "--backend and the like are for targets without a file")
        return [load_model(target)]
    if (path / "config.json").is_file():
        backend = _folder_backend(path, is_installed)
        return [_from_path(path, path.resolve().name, backend, flags)]
    if path.is_dir():
        return _load_files(sorted(path.glob("local-*.toml")), target)
    if target.endswith(".gguf") and path.is_file():
        return [_from_path(path, path.stem, "llama_cpp", flags)]
    if path.exists() or target.startswith((".", "/", "~")):
        raise _wrong(target, "neither a .toml file nor a folder of a model or of .toml files")
    raise _wrong(target, "no such file or folder; models from a hub are not in this release yet")


def _load_files(files: list[Path], target: str) -> list[ModelConfig]:
    if not files:
        raise _wrong(target, "no model file (local-*.toml) there")
    models: list[ModelConfig] = []
    problems: list[Problem] = []
    for file in files:
        try:
            models.append(load_model(file))
        except ConfigProblems as error:
            problems.extend(error.problems)
    if problems:
        raise ConfigProblems(problems)
    return models


def _folder_backend(path: Path, is_installed: Callable[[str], bool]) -> str:
    """transformers where it is installed; without it, `reference` for what that can run."""
    if is_installed("transformers"):
        return "transformers"
    try:
        is_llama = _architecture(path).startswith("llama")
    except (OSError, ValueError):
        return "reference"  # whose check says what is wrong with the file
    return "reference" if is_llama else "transformers"


def _architecture(folder: Path) -> str:
    """The first that `config.json` names, in lower case. Raises OSError, ValueError."""
    found = json.loads((folder / "config.json").read_text("utf-8"))
    if not isinstance(found, dict):
        raise ValueError("it is not a table of settings")
    names = found.get("architectures") or [found.get("model_type")]
    if not isinstance(names, list):
        raise ValueError("its architectures are not a list")
    return str(names[0]).lower()


def _from_path(path: Path, name: str, backend: str, flags: ModelFlags) -> ModelConfig:
    """A target without a file, named like its path."""
    model = Model(name=name, backend=backend, path=str(path.resolve()), task=_folder_task(path))
    config = ModelConfig(model=model, source=str(path))
    if model.task != "generate":
        config.deployment.max_concurrency = embed_slots(config.optimization.max_batch_size)
    return _with_flags(config, flags)


def _folder_task(path: Path) -> Literal["generate", "embed", "rerank"]:
    """By sentence-transformers' own file, or the head of the model; what cannot be read, its engine
    will tell."""
    if (path / "modules.json").is_file():
        return "embed"
    try:
        is_classifier = _architecture(path).endswith("forsequenceclassification")
    except (OSError, ValueError):
        return "generate"
    return "rerank" if is_classifier else "generate"


def _with_flags(config: ModelConfig, flags: ModelFlags) -> ModelConfig:
    """Flags are checked as the file's own values are."""
    if flags.backend is not None and flags.backend not in backend_names():
        choices = ", ".join(backend_names())
        raise _wrong("--backend", f"'{flags.backend}' is not one of {choices}")
    built = msgspec.to_builtins(config)
    if flags.backend is not None and flags.backend != config.model.backend:
        built["model"]["backend"] = flags.backend
        built["engine"] = {}
    if flags.served_model_name:
        built["model"]["name"], *aliases = flags.served_model_name
        built["model"]["aliases"] = aliases
    if flags.max_model_len is not None:
        key = "n_ctx" if built["model"]["backend"] == "llama_cpp" else "max_model_len"
        built["engine"][key] = flags.max_model_len
    if flags.replicas is not None:
        built["deployment"]["replicas"] = flags.replicas
    try:
        return msgspec.convert(built, ModelConfig)
    except msgspec.ValidationError as error:
        raise ConfigError(f"{config.source}: {key_in_words(error)}") from None


def _folder_problem(config: ModelConfig) -> Problem | None:
    """The reference backend reads Llama-family folders only."""
    if config.model.backend != "reference":
        return None
    folder = Path(config.model.path)
    try:
        architecture = _architecture(folder)
    except (OSError, ValueError) as error:
        text = f"cannot read {folder / 'config.json'}: {error}"
        return Problem(config.source, 0, "[model] path", "file", text)
    if architecture.startswith("llama"):
        return None
    message = f"the reference backend cannot run {architecture}; the transformers backend may"
    return Problem(config.source, 0, "[model] path", "value", message)


def _clashes(models: list[ModelConfig]) -> list[Problem]:
    """Names and aliases that two models want."""
    owners: dict[str, str] = {}
    problems: list[Problem] = []
    for config in models:
        for name in dict.fromkeys([config.model.name, *config.model.aliases]):
            if name in owners:
                message = f"the name '{name}' is taken by {owners[name]}"
                problems.append(Problem(config.source, 0, "[model]", "value", message))
            owners.setdefault(name, config.source)
    return problems


def _read(file: Path) -> str:
    try:
        return file.read_text("utf-8")
    except UnicodeDecodeError as error:
        raise _wrong(str(file), f"not UTF-8: {error.reason} at byte {error.start}") from None
    except OSError as error:
        raise _wrong(str(file), (error.strerror or str(error)).lower()) from None


def _secrets(file: Path) -> Any:
    """Reads `${file:PATH}`; a relative path is taken beside the configuration."""
    return lambda name: (file.parent / Path(name).expanduser()).read_text("utf-8")


def _wrong(source: str, message: str, key: str = "") -> ConfigProblems:
    return ConfigProblems([Problem(source, 0, key, "file", message)])
