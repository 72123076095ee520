"""The files that a server was started with, read at the start and again at each reload.

Owns that each model's values are kept as they stand beside what they mean; config judges them.
"""

from __future__ import annotations

from smmf_core.config import ConfigProblems, ModelConfig, Problem, RawConfig, ServerConfig
from smmf_core.config.load import Sources, clashes, load_raw, load_server, resolve
from smmf_core.config.targets import folder_problem
from smmf_core.environments.interpreter import is_installed

Found = list[tuple[RawConfig, ModelConfig]]


def read(sources: Sources) -> tuple[ServerConfig, Found]:
    """All or nothing. Raises ConfigError naming everything that is wrong."""
    server = load_server(sources.config, sources.overrides)
    found: Found = []
    problems: list[Problem] = []
    for target in sources.targets or server.models or [""]:
        try:
            raws = load_raw(target, sources.flags, is_installed)
        except ConfigProblems as error:
            problems += error.problems
            continue
        for raw in raws:
            try:
                found.append((raw, resolve(raw)))
            except ConfigProblems as error:
                problems += error.problems
    configs = [config for _, config in found]
    problems += [*clashes(configs), *filter(None, map(folder_problem, configs))]
    if problems:
        raise ConfigProblems(problems)
    return server, found
