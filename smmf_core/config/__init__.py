"""Configuration: what may stand in a file (schema), what is wrong with it, and loading it.

Only `load` reads the environment, and with `targets` the file system; everything else is pure.
"""

from smmf_core.config.durations import keep_alive_s, span_s
from smmf_core.config.load import (
    Sources,
    load_models,
    load_raw,
    load_raw_server,
    load_server,
    resolve,
    run_directory,
)
from smmf_core.config.problems import ConfigProblems, Problem
from smmf_core.config.raw import RawConfig
from smmf_core.config.redact import redacted
from smmf_core.config.remote import Authentication, Proxy
from smmf_core.config.schema import (
    Deployment,
    Health,
    Limits,
    Log,
    Memory,
    Model,
    ModelConfig,
    Optimization,
    Registry,
    Routing,
    Server,
    ServerConfig,
    Timeouts,
    spec_hash,
)
from smmf_core.config.targets import ModelFlags, bundled

__all__ = [
    "Authentication",
    "ConfigProblems",
    "Deployment",
    "Health",
    "Limits",
    "Log",
    "Memory",
    "Model",
    "ModelConfig",
    "ModelFlags",
    "Optimization",
    "Problem",
    "Proxy",
    "RawConfig",
    "Registry",
    "Routing",
    "Server",
    "ServerConfig",
    "Sources",
    "Timeouts",
    "bundled",
    "keep_alive_s",
    "load_models",
    "load_raw",
    "load_raw_server",
    "load_server",
    "redacted",
    "resolve",
    "run_directory",
    "span_s",
    "spec_hash",
]
