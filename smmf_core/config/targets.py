"""What `smmf serve` and `smmf add` were told to serve: files, folders, patterns.

Owns the rules for targets; must not judge keys (parse does) or read the environment.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import msgspec

from smmf_core.config.kinds import holds_models, kind_of
from smmf_core.config.problems import ConfigProblems, Problem
from smmf_core.config.raw import RawConfig, read_toml
from smmf_core.config.schema import ModelConfig
from smmf_core.plugins import backend_names

MODEL_FILES = ("local-*.toml", "proxy-*.toml", "dbgpt-*.toml")
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


def find(target: str, flags: ModelFlags, is_installed: Callable[[str], bool]) -> list[RawConfig]:
    """The files of a target, as they stand.

    1. "": the demo model
    2. a pattern (`local-*.toml`): its matches, sorted
    3. a `.toml` file
    4. a folder with `config.json`: a Hugging Face model, named like the folder; an embedding model
       if it has `modules.json`, a reranker if it classifies sequences
    5. another folder: its MODEL_FILES, each kind sorted
    6. a `.gguf` file
    Raises ConfigProblems naming what is wrong with each.
    """
    path = Path(target).expanduser()
    if not target:
        return [_with_flags(read_raw(bundled("local-demo.toml")), flags)]  # 1.
    if any(letter in target for letter in _GLOB) and not path.exists():
        return _read_files(sorted(path.parent.glob(path.name)), target)  # 2.
    if target.endswith(".toml"):
        if flags.given:
            raise wrong(target, "--backend and the like are for targets without a file")
        return [read_raw(path)]  # 3.
    if (path / "config.json").is_file():
        backend = _folder_backend(path, is_installed)
        return [_from_path(path, path.resolve().name, backend, flags)]  # 4.
    if path.is_dir():
        files = [file for pattern in MODEL_FILES for file in sorted(path.glob(pattern))]
        return _read_files(files, target)  # 5.
    if target.endswith(".gguf") and path.is_file():
        return [_from_path(path, path.stem, "llama_cpp", flags)]  # 6.
    if path.exists() or target.startswith((".", "/", "~")):
        raise wrong(target, "neither a .toml file nor a folder of a model or of .toml files")
    raise wrong(target, "no such file or folder; models from a hub are not in this release yet")


def read_raw(file: Path) -> RawConfig:
    """A TOML file as it stands. Raises ConfigProblems."""
    try:
        return read_toml(file.read_text("utf-8"), str(file))
    except UnicodeDecodeError as error:
        raise wrong(str(file), f"not UTF-8: {error.reason} at byte {error.start}") from None
    except OSError as error:
        raise wrong(str(file), (error.strerror or str(error)).lower()) from None


def is_server_file(name: str) -> bool:
    """Whether a TOML file configures the server and holds no model."""
    try:
        table = read_raw(Path(name)).table if name.endswith(".toml") else {}
    except ConfigProblems:
        return False  # loading it as a model tells what is wrong
    kind = kind_of(table)
    return kind == "server" or (kind == "dbgpt" and not holds_models(table))


def folder_problem(config: ModelConfig) -> Problem | None:
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


def wrong(source: str, message: str, key: str = "") -> ConfigProblems:
    """An error of a file as a whole."""
    return ConfigProblems([Problem(source, 0, key, "file", message)])


def _read_files(files: list[Path], target: str) -> list[RawConfig]:
    """DB-GPT's files without a model, which are servers' of the same name, are passed over."""
    raws: list[RawConfig] = []
    problems: list[Problem] = []
    for file in files:
        try:
            raw = read_raw(file)
        except ConfigProblems as error:
            problems.extend(error.problems)
        else:
            if kind_of(raw.table) != "dbgpt" or holds_models(raw.table):
                raws.append(raw)
    if problems:
        raise ConfigProblems(problems)
    if not raws:
        raise wrong(target, f"no model file ({', '.join(MODEL_FILES)}) there")
    return raws


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


def _from_path(path: Path, name: str, backend: str, flags: ModelFlags) -> RawConfig:
    """A target without a file, named like its path."""
    model: dict[str, Any] = {"name": name, "backend": backend, "path": str(path.resolve())}
    model["task"] = _folder_task(path)
    return _with_flags(RawConfig({"model": model}, str(path)), flags)


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


def _with_flags(raw: RawConfig, flags: ModelFlags) -> RawConfig:
    """Flags are checked as the file's own values are."""
    if flags.backend is not None and flags.backend not in backend_names():
        choices = ", ".join(backend_names())
        raise wrong("--backend", f"'{flags.backend}' is not one of {choices}")
    model, engine = raw.table["model"], raw.table.setdefault("engine", {})
    if flags.backend is not None and flags.backend != model["backend"]:
        model["backend"] = flags.backend
        engine.clear()
    if flags.served_model_name:
        model["name"], *model["aliases"] = flags.served_model_name
    if flags.max_model_len is not None:
        key = "n_ctx" if model["backend"] == "llama_cpp" else "max_model_len"
        engine[key] = flags.max_model_len
    if flags.replicas is not None:
        raw.table.setdefault("deployment", {})["replicas"] = flags.replicas
    return raw
