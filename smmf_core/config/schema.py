"""The configuration of a server and of a model as typed structs, with defaults and bounds.

Owns the key names and what each means; must not read files or the environment.
"""

from __future__ import annotations

import hashlib
from typing import Annotated, Any, Literal

import msgspec

from smmf_core.config import later
from smmf_core.config.durations import keep_alive_s
from smmf_core.config.remote import Authentication, Proxy
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

    host: Text = "127.0.0.1"  # where inference listens: OpenAI's routes
    port: Port = 8000  # 0: any free one
    admin_host: Text = "127.0.0.1"  # administration; not loopback: needs a key with the role admin
    admin_port: Port = 8001
    routers: Count = 1  # processes that share the inference port
    name: FileName = "default"  # names the run directory
    run_dir: str = ""  # "": a folder of this user, by the server's name
    api_keys: list[Text] = []  # beside those of `smmf keys create`; none at all: none is needed
    no_auth: bool = False  # start on an address that others reach, without any key
    cors_origins: list[str] = []  # of web pages that may call, or "*"
    max_body_mb: Positive = 32.0  # of a request
    tls_cert: str = ""  # PEM file: HTTPS, on the admin port where it is not loopback; "": HTTP
    tls_key: str = ""  # PEM file, not encrypted; "": the key is in tls_cert's
    zmq_port: Port = 0  # of the client library from other machines, encrypted (CURVE); 0: none
    zmq_host: str = ""  # its address; "": host
    zmq_key: str = ""  # file with its secret key; "": made at the first start, in the state folder


class Timeouts(Section):
    """`[timeouts]`, in seconds; 0 is no limit where it says so."""

    connect_s: Seconds = 10.0  # for a connection to another server
    queue_s: Seconds = 120.0  # waiting for a slot, loading not counted
    inference_s: Seconds = 60.0  # between two tokens
    first_token_s: Seconds = 120.0  # from a worker's slot to its first token
    total_s: Seconds = 0.0  # the whole request; 0: no limit
    load_s: Seconds = 900.0  # a worker's start until it is ready
    load_wait_s: Seconds = 60.0  # how long a request waits for a model that loads
    hang_s: Seconds = 120.0  # a worker with open requests may be silent; 0: for ever, else >= 3
    start_s: Seconds = 1.0  # a worker that lived shorter failed to start
    drain_s: Seconds = 30.0  # for open requests when something stops
    grace_s: Seconds = 60.0  # how long children go on without a Controller


class Limits(Section):
    """`[limits]`: per model and Router; 0 is no limit."""

    max_queue: Limit = 10_000  # requests that wait for a model
    max_queue_tokens: Limit = 0  # tokens of their prompts
    max_concurrency: Limit = 0  # requests open at once in the whole Router


Share = Annotated[float, msgspec.Meta(ge=0, le=1)]
Action = Literal["alert", "remove", "restart"]


class Health(Section):
    """`[health]`: when an instance is unwell, and what is done about it; 0: never."""

    response_time_s: Seconds = 5.0  # time to first token, p95 over the window
    response_time_action: Action = "alert"  # remove: from rotation, never the last one
    error_rate: Share = 0.05  # of requests, over the window; clients' faults do not count
    error_rate_action: Action = "remove"
    memory: Share = 0.90  # of memory_gib, else of its device; engines that reserve are exempt
    memory_action: Action = "alert"
    queue_length: Limit = 100  # requests that wait for the model
    queue_length_action: Action = "alert"
    heartbeat_s: Seconds = 30.0  # since its last sign of life
    heartbeat_action: Action = "restart"
    window_s: Positive = 60.0  # over which response times and errors are looked at
    min_samples: Count = 20  # fewer requests in the window decide nothing


class Registry(Section):
    """`[registry]`: where models registered at run time, events and states are kept."""

    kind: Literal["sql"] = "sql"  # SQLAlchemy
    url: str = ""  # SQLAlchemy's; "": an SQLite file in the state folder of the server's name


Place = Annotated[str, msgspec.Meta(pattern=r"^(cpu|mps|cuda:\d+)$")]


class Memory(Section):
    """`[memory]`: what loaded models may take; when it is full, idle ones make room."""

    budget_gib: Seconds | dict[Place, Seconds] = 0.0  # of RAM, or of each device named; 0: 90 %
    policy: Literal["lru", "cheapest"] = "lru"  # who goes first: unused longest, or fastest to load


class Log(Section):
    """`[log]`: what is written down."""

    level: Literal["debug", "info", "warning", "error"] = "info"  # and what is worse
    format: Literal["text", "json"] = "text"  # json: one object a line
    requests: Literal["metadata", "off"] = "metadata"  # a line per request in access.log
    retention_days: Positive = 7.0  # of rotated files and of events


class ServerConfig(Section):
    """`smmf.toml`"""

    server: Server = msgspec.field(default_factory=Server)
    timeouts: Timeouts = msgspec.field(default_factory=Timeouts)
    limits: Limits = msgspec.field(default_factory=Limits)
    log: Log = msgspec.field(default_factory=Log)
    health: Health = msgspec.field(default_factory=Health)
    registry: Registry = msgspec.field(default_factory=Registry)
    memory: Memory = msgspec.field(default_factory=Memory)
    models: list[Text] = []
    source: str = ""  # the file it came from


class Model(Section):
    """`[model]`: what clients call it and where it is."""

    name: Text  # what clients ask for
    backend: Text  # a built-in one or a plug-in's
    type: str = ""  # architecture family; "": told by the model's files
    path: str = ""  # a Hugging Face folder or GGUF file; relative: beside this file
    task: Literal["generate", "embed", "rerank"] = "generate"  # what it does
    aliases: list[Text] = []  # other names of it
    cost: Seconds = 0.0  # relative price of a request: `auto` takes the cheapest; 0: by its size


Device = Annotated[str, msgspec.Meta(pattern=r"^(auto|cpu|mps|cuda(:\d+)?)$")]


class Deployment(Section):
    """`[deployment]`: how many, where, how much at once."""

    replicas: Limit = 1  # with how many it starts, where min_replicas is given
    device: Device = "auto"  # the engine's own choice
    environment: Literal["process"] = "process"  # of its Workers
    python: str = ""  # the worker's interpreter; "": this one
    weight: Positive = 1.0  # of a replica, for the strategy "weighted"
    max_concurrency: Count = 16  # slots of one replica
    memory_gib: Seconds = 0.0  # expected need of one replica; 0: estimated
    autostart: bool = True  # False: its first request loads it
    min_replicas: Limit | None = None  # scales between both; 0: to none while it is idle
    max_replicas: Count | None = None
    gpus: Limit = 0  # devices of one replica; 0: one if `device` is cuda
    keep_alive: str | float = ""  # idle so long: unloaded; "-1": never; "": 5m if loaded on demand

    @property
    def is_autoscaled(self) -> bool:
        return self.min_replicas is not None

    @property
    def idle_s(self) -> float:
        """How long the model may be idle before it is unloaded; inf: for ever."""
        return keep_alive_s(self.keep_alive, self.autostart and self.min_replicas != 0)


class Optimization(Section):
    """`[optimization]`: number format, kernels and batching."""

    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"  # auto: the checkpoint's
    load_in_8bit: bool = False  # by bitsandbytes
    load_in_4bit: bool = False
    quantization: str = ""  # "": the checkpoint's; [engine] quantization wins
    attention: str = ""  # "": the engine's own choice
    batching: Literal["continuous", "static"] = "continuous"  # static: batches of a window
    max_batch_size: Count = 32  # sequences of one step
    max_batch_delay_ms: Seconds = 100.0  # the static window
    max_batch_tokens: Count = 8192  # of one step


class Routing(Section):
    """`[routing]`: which replica answers."""

    strategy: Text = "least_connections"  # a built-in one or a plug-in's


class ModelConfig(Section):
    """A model's file. A remote model has `proxy`, and `model.backend` is its provider's name."""

    model: Model
    deployment: Deployment = msgspec.field(default_factory=Deployment)
    optimization: Optimization = msgspec.field(default_factory=Optimization)
    engine: dict[str, Any] = {}
    inference: dict[str, Any] = {}
    routing: Routing = msgspec.field(default_factory=Routing)
    proxy: Proxy | None = None
    authentication: Authentication | None = None
    parameters: dict[str, Any] = {}  # the provider's own; defaults of requests are in `inference`
    source: str = ""  # the file or folder it came from

    @property
    def is_remote(self) -> bool:
        return self.proxy is not None

    @property
    def why_not_served(self) -> str:
        """Why a valid configuration cannot be started in this release; "": it can."""
        return f"[proxy]: {later.MESSAGE}" if self.is_remote else ""


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
