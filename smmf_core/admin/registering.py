"""Routes that say which models there are: register, and read the configuration files again.

Owns the forms in which a model may be given; what a config means is config's to say.
"""

from __future__ import annotations

import os
from pathlib import Path

import msgspec
from litestar import Response, post
from litestar.datastructures import State

from smmf_core.admin import rows
from smmf_core.admin.bodies import AddModel
from smmf_core.admin.rows import Row
from smmf_core.admin.waiting import check_serves, remembered, until_gone, until_models
from smmf_core.config import ConfigProblems, ModelConfig, RawConfig, load_raw, resolve, spec_hash
from smmf_core.config.dbgpt import model_files
from smmf_core.config.kinds import kind_of
from smmf_core.config.load import clashes
from smmf_core.config.problems import Problem
from smmf_core.config.raw import read_toml
from smmf_core.config.redact import holds_secret
from smmf_core.controller.shell import ControllerShell
from smmf_core.environments.interpreter import is_installed
from smmf_core.errors import ApiError
from smmf_core.registry import Model

CLEAR_SECRET = "a secret of it is kept as it was given; `${env:NAME}` would keep it out"
FORMS = ("path", "toml", "config")
TEXT_SOURCE = "given.toml"  # what problems of a text are told with, when it has no name


@post("/models", status_code=201, summary="Register the models of a file, kept over restarts")
async def post_models(state: State, data: AddModel) -> Response[Row]:
    shell: ControllerShell = state.shell
    found = _checked(shell, _raws(data))
    words = {config.model.name: _register(shell, raw, config) for raw, config in found}
    models = [shell.core.registry.find(name) for name in words]
    if data.wait:
        await until_models(shell, models, data.timeout_s)
    said = [_said(shell, model, words[model.name], data.wait) for model in models]
    said += [f"{name}: {CLEAR_SECRET}" for name in words if holds_secret(shell.raws[name].table)]
    row = {
        "message": remembered(shell, "; ".join(said)),
        "models": [rows.model_details(shell, model) for model in models],
    }
    return Response(row, status_code=201 if data.wait else 202)


def _raws(body: AddModel) -> list[RawConfig]:
    """Raises ApiError unless exactly one form is given."""
    given = [form for form in FORMS if getattr(body, form) is not None]
    if len(given) != 1:
        raise ApiError("bad_request", f"Give one of {', '.join(FORMS)}.")
    if body.path is not None:
        return load_raw(body.path, is_installed=is_installed)
    source = body.source or TEXT_SOURCE
    raw = (
        read_toml(body.toml, source)
        if body.toml is not None
        else RawConfig(body.config or {}, source)
    )
    return model_files(raw, os.environ) if kind_of(raw.table) == "dbgpt" else [raw]


def _checked(shell: ControllerShell, raws: list[RawConfig]) -> list[tuple[RawConfig, ModelConfig]]:
    """All or nothing. Raises ConfigProblems, or ApiError when a name is another file's model."""
    found: list[tuple[RawConfig, ModelConfig]] = []
    problems: list[Problem] = []
    for raw in raws:
        try:
            found.append((raw, resolve(raw)))
        except ConfigProblems as error:
            problems += error.problems
    problems += clashes([config for _, config in found])
    if problems:
        raise ConfigProblems(problems)
    for _, config in found:
        _check_name(shell, config)
    return found


def _check_name(shell: ControllerShell, config: ModelConfig) -> None:
    """Its names are free, or its own: of the same name from the same file. Aliases that were
    pointed while serving stay where they are."""
    registry = shell.core.registry
    known = registry.named(config.model.name)
    if known is not None and not known.is_removed and not _is_same_source(known.config, config):
        source = known.config.source
        hint = f"`smmf rm {known.name}` first"
        raise ApiError("conflict", f"{known.name} is registered from {source}; {hint}")
    for model in registry:
        taken = {model.name, *model.aliases} - registry.pointed.keys()
        for name in {config.model.name, *config.model.aliases} & taken:
            if model.name != config.model.name:
                raise ApiError("conflict", f"{name} is a name of {model.name} already")


def _is_same_source(one: ModelConfig, other: ModelConfig) -> bool:
    return Path(one.source).absolute() == Path(other.source).absolute()


def _register(shell: ControllerShell, raw: RawConfig, config: ModelConfig) -> str:
    """What it is now: new, changed, or as it was already."""
    known = shell.core.registry.named(config.model.name)
    if known is not None and not known.is_removed and spec_hash(known.config) == spec_hash(config):
        shell.core.keep_model(known, shell.now)
        return "registered already"
    shell.raws[config.model.name] = raw
    if known is None or known.is_removed:
        shell.core.add_model(config, shell.now, is_runtime=True)
        return "registered"
    shell.core.replace_model(known, config, shell.now)
    return "changed"


def _said(shell: ControllerShell, model: Model, word: str, has_waited: bool) -> str:
    """Raises ApiError when it does not serve: registered it is all the same."""
    sentence = f"{model.name} is {word}"
    return _with_outcome(shell, model, sentence) if has_waited else sentence


def _with_outcome(shell: ControllerShell, model: Model, sentence: str) -> str:
    try:
        return f"{sentence}; {check_serves(shell, model, 'it')}"
    except ApiError as error:
        raise ApiError(error.code, f"{sentence}, but {error.message}") from None


@post("/reload", status_code=200, summary="Read the files again; only what changed is touched")
async def post_reload(state: State) -> Row:
    """All or nothing: a wrong file changes nothing, and the answer says what is wrong."""
    shell: ControllerShell = state.shell
    before = {model.name: model for model in shell.core.registry}
    result = shell.reload()
    leaving = [before[name] for name in result.removed]
    words = {name: f"{name} is added" for name in result.added}
    words |= {name: f"{name} is changed" for name in result.changed}
    models = [shell.core.registry.find(name) for name in words]
    await until_models(shell, models, None)
    await until_gone(shell, leaving, None)
    said = [_with_outcome(shell, model, words[model.name]) for model in models]
    said += [f"{name} is removed" for name in result.removed]
    said += [f"{key} waits for the next start of the server" for key in result.restart]
    said = said or ["nothing has changed"]
    if shell.config.server.tls_cert:
        said.append("the certificate is read again")
    return {"message": "; ".join(said), **msgspec.to_builtins(result)}


HANDLERS = [post_models, post_reload]
