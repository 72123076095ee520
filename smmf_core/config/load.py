"""Reads configuration files, fills in references, and hands out checked configuration.

The one part of the configuration that reads the environment. Must not judge keys (parse does) nor
decide what a target on the command line is (targets does).
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from importlib.util import find_spec
from pathlib import Path
from tempfile import gettempdir
from typing import Any

import msgspec

from smmf_core.config import targets
from smmf_core.config.dbgpt import model_files, server_file
from smmf_core.config.kinds import kind_of
from smmf_core.config.parse import parse_model, parse_server
from smmf_core.config.parse_remote import parse_remote
from smmf_core.config.problems import ConfigProblems, Problem, key_in_words
from smmf_core.config.raw import RawConfig
from smmf_core.config.schema import ModelConfig, Server, ServerConfig
from smmf_core.config.source import ReadFile
from smmf_core.config.targets import ModelFlags, read_raw, wrong
from smmf_core.errors import ConfigError
from smmf_core.keys import wrong_keys

_FILES = ("tls_cert", "tls_key", "zmq_key")  # of [server]
IsInstalled = Callable[[str], bool]


def _is_importable(backend: str) -> bool:
    return find_spec(backend) is not None


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
        raw = load_raw_server(path)
        config = parse_server(raw, os.environ, _secrets(raw.source))
        folder = Path(path).parent
        config.models = [str(folder / entry) for entry in config.models]
        for key in _FILES:
            if given := getattr(config.server, key):
                setattr(config.server, key, _beside(folder, given))
    built = msgspec.to_builtins(config)
    for key, value in overrides.items():
        if value is not None:
            section, _, name = key.partition(".")
            built[section][name] = value
    try:
        config = msgspec.convert(built, ServerConfig)
    except msgspec.ValidationError as error:
        raise ConfigError(key_in_words(error)) from None
    if message := wrong_keys(config.server.api_keys):
        raise ConfigError(f"[server] api_keys: {message}")
    return config


def load_raw_server(path: str | Path) -> RawConfig:
    """The server's file as it stands, DB-GPT's in our sections, with warnings."""
    raw = read_raw(Path(path))
    kind = kind_of(raw.table)
    if kind == "dbgpt":
        return server_file(raw)
    if kind == "model" and raw.table:
        raise wrong(str(path), "this is a model: name it as a target, or in `models`")
    return raw


def load_raw(
    target: str,
    flags: ModelFlags | None = None,
    is_installed: IsInstalled = _is_importable,
) -> list[RawConfig]:
    """The models of a target before their references are filled in; see targets.find."""
    raws: list[RawConfig] = []
    for found in targets.find(target, flags or ModelFlags(), is_installed):
        if kind_of(found.table) == "dbgpt":
            raws.extend(model_files(found, os.environ))
        else:
            raws.append(found)
    return raws


def resolve(raw: RawConfig) -> ModelConfig:
    """A model with its references filled in, relative paths taken beside its source.

    Raises ConfigProblems naming everything that is wrong.
    """
    if kind_of(raw.table) == "server":
        raise wrong(raw.source, "this configures the server: give it with --config")
    folder = Path(raw.source).parent
    if "proxy" in raw.table:
        return parse_remote(raw, os.environ, _secrets(raw.source))
    config = parse_model(raw, os.environ, _secrets(raw.source))
    if config.model.path:
        config.model.path = _beside(folder, config.model.path)
    adapters = config.engine.get("adapters")
    if isinstance(adapters, dict):
        config.engine["adapters"] = {n: _beside(folder, str(p)) for n, p in adapters.items()}
    for key in ("chat_template", "adapter_path"):
        if given := config.engine.get(key):
            config.engine[key] = _beside(folder, str(given))
    return config


def load_models(
    names: list[str],
    flags: ModelFlags | None = None,
    is_installed: IsInstalled = _is_importable,
) -> list[ModelConfig]:
    """The models of the targets in their order, names and aliases unique among them; without
    targets the demo model. All or nothing: raises ConfigProblems naming what is wrong with each.
    `is_installed` tells of a backend whether it could run here.
    """
    models: list[ModelConfig] = []
    problems: list[Problem] = []
    for name in names or [""]:
        try:
            for raw in load_raw(name, flags, is_installed):
                try:
                    models.append(resolve(raw))
                except ConfigProblems as error:
                    problems.extend(error.problems)
        except ConfigProblems as error:
            problems.extend(error.problems)
    problems.extend(clashes(models))
    problems.extend(filter(None, map(targets.folder_problem, models)))
    if problems:
        raise ConfigProblems(problems)
    return models


class Sources(msgspec.Struct, frozen=True):
    """Where a server's whole configuration comes from: kept, to be read again at a reload."""

    config: str | None = None  # smmf.toml
    overrides: dict[str, Any] = {}  # of the command line, by dotted key
    targets: list[str] = []  # none: the configuration's `models`
    flags: ModelFlags = ModelFlags()

    def load(
        self, is_installed: IsInstalled = _is_importable
    ) -> tuple[ServerConfig, list[ModelConfig]]:
        """All or nothing: raises ConfigError naming what is wrong with the server's file, or, once
        that is right, with each model's."""
        server = load_server(self.config, self.overrides)
        return server, load_models(self.targets or server.models, self.flags, is_installed)


def clashes(models: list[ModelConfig]) -> list[Problem]:
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


def _beside(folder: Path, path: str) -> str:
    return str((folder / Path(path).expanduser()).resolve())


def _secrets(source: str) -> ReadFile:
    """Reads `${file:PATH}`; a relative path is taken beside the configuration."""
    return lambda name: (Path(source).parent / Path(name).expanduser()).read_text("utf-8")
