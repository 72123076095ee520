"""The configuration of a server and of a model as typed structs, with defaults and bounds.

Owns the key names and what each means; must not read files or the environment.
"""

from __future__ import annotations

import hashlib
from typing import Annotated, Any, Literal

import msgspec

from smmf_core.config.section import (
    Count,
    FileName,
    Limit,
    Port,
    Positive,
    Seconds,
    Section,
    Text,
)


class Server(Section):
    """`[server]`: where it listens and who may use it."""

    host: Text = "127.0.0.1"
    port: Port = 8000
    admin_host: Text = "127.0.0.1"
    admin_port: Port = 8001
    routers: Count = 1
    name: FileName = "default"  # names the run directory
    run_dir: str = ""  # "": a folder of this user, by the server's name
    api_keys: list[Text] = []
    cors_origins: list[str] = []
    max_body_mb: Positive = 32.0


class Timeouts(Section):
    """`[timeouts]`, in seconds; 0 is no limit where it says so."""

    connect_s: Seconds = 10.0
    queue_s: Seconds = 120.0  # waiting for a slot, loading not counted
    inference_s: Seconds = 60.0  # between two tokens
    first_token_s: Seconds = 120.0  # from a worker's slot to its first token
    total_s: Seconds = 0.0  # the whole request; 0: no limit
    load_s: Seconds = 900.0  # a worker's start until it is ready
    load_wait_s: Seconds = 60.0  # how long a request waits for a model that loads
    start_s: Seconds = 1.0  # a worker that lived shorter failed to start
    drain_s: Seconds = 30.0
    grace_s: Seconds = 60.0  # how long children go on without a Controller


class Limits(Section):
    """`[limits]`: per model and Router; 0 is no limit."""

    max_queue: Limit = 10_000  # requests
    max_queue_tokens: Limit = 0
    max_concurrency: Limit = 0  # requests open at once in the whole Router


class Log(Section):
    """`[log]`"""

    level: Literal["debug", "info", "warning", "error"] = "info"
    format: Literal["text", "json"] = "text"


class ServerConfig(Section):
    """`smmf.toml`"""

    server: Server = msgspec.field(default_factory=Server)
    timeouts: Timeouts = msgspec.field(default_factory=Timeouts)
    limits: Limits = msgspec.field(default_factory=Limits)
    log: Log = msgspec.field(default_factory=Log)
    models: list[Text] = []
    source: str = ""  # the file it came from


class Model(Section):
    """`[model]`: what clients call it and where it is."""

    name: Text
    backend: Text  # a built-in one or a plug-in's (plugins.backend_names)
    type: str = ""
    path: str = ""
    task: Literal["generate", "embed", "rerank"] = "generate"
    aliases: list[Text] = []


Device = Annotated[str, msgspec.Meta(pattern=r"^(auto|cpu|mps|cuda(:\d+)?)$")]


class Deployment(Section):
    """`[deployment]`: how many, where, how much at once."""

    replicas: Limit = 1
    device: Device = "auto"  # the engine's own choice
    environment: Literal["process"] = "process"
    python: str = ""  # the worker's interpreter; "": this one
    weight: Positive = 1.0
    max_concurrency: Count = 16  # slots of one replica
    memory_gib: Seconds = 0.0  # expected need of one replica; 0: unknown
    autostart: bool = True


class Optimization(Section):
    """`[optimization]`: number format, kernels and batching."""

    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    load_in_8bit: bool = False
    load_in_4bit: bool = False
    quantization: str = ""  # "": what the checkpoint says
    attention: str = ""  # "": the engine's own choice
    batching: Literal["continuous", "static"] = "continuous"
    max_batch_size: Count = 32
    max_batch_delay_ms: Seconds = 100.0  # the static window
    max_batch_tokens: Count = 8192


class Routing(Section):
    """`[routing]`"""

    strategy: Text = "least_connections"  # a built-in one or a plug-in's (plugins.strategy_names)


class ModelConfig(Section):
    """A local model's file."""

    model: Model
    deployment: Deployment = msgspec.field(default_factory=Deployment)
    optimization: Optimization = msgspec.field(default_factory=Optimization)
    engine: dict[str, Any] = {}
    inference: dict[str, Any] = {}
    routing: Routing = msgspec.field(default_factory=Routing)
    source: str = ""  # the file or folder it came from


class InferenceDefaults(Section):
    """`[inference]`: values for requests that do not give them."""

    max_tokens: Count | None = None
    min_tokens: Limit | None = None
    temperature: Annotated[float, msgspec.Meta(ge=0, le=2)] | None = None
    top_p: Annotated[float, msgspec.Meta(gt=0, le=1)] | None = None
    top_k: Annotated[int, msgspec.Meta(ge=-1)] | None = None
    min_p: Annotated[float, msgspec.Meta(ge=0, le=1)] | None = None
    presence_penalty: Annotated[float, msgspec.Meta(ge=-2, le=2)] | None = None
    frequency_penalty: Annotated[float, msgspec.Meta(ge=-2, le=2)] | None = None
    repetition_penalty: Positive | None = None
    seed: int | None = None
    stop: str | list[str] | None = None
    stop_token_ids: list[int] | None = None
    ignore_eos: bool | None = None


def spec_hash(config: ServerConfig | ModelConfig) -> str:
    """The same for the same settings, whatever file they came from; 16 hex digits."""
    bare = msgspec.structs.replace(config, source="")
    encoded = msgspec.msgpack.encode(bare, order="deterministic")
    return hashlib.sha256(encoded).hexdigest()[:16]
