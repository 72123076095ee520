"""Configuration: what may stand in a file (schema), what is wrong with it, and loading it.

Only `load` reads files and the environment; everything else is pure.
"""

from smmf_core.config.load import (
    ModelFlags,
    bundled,
    load_model,
    load_models,
    load_server,
    run_directory,
)
from smmf_core.config.problems import ConfigProblems, Problem
from smmf_core.config.schema import (
    Deployment,
    Limits,
    Log,
    Model,
    ModelConfig,
    Optimization,
    Routing,
    Server,
    ServerConfig,
    Timeouts,
    spec_hash,
)

__all__ = [
    "ConfigProblems",
    "Deployment",
    "Limits",
    "Log",
    "Model",
    "ModelConfig",
    "ModelFlags",
    "Optimization",
    "Problem",
    "Routing",
    "Server",
    "ServerConfig",
    "Timeouts",
    "bundled",
    "load_model",
    "load_models",
    "load_server",
    "run_directory",
    "spec_hash",
]
