"""Every message between the Controller and its children (control.sock), as tagged msgspec structs.

Owns the control vocabulary; what Routers and Workers say to one another is in messages.
"""

from __future__ import annotations

from typing import Any

import msgspec

from smmf_core.messages import Message

ROLES = ("inference", "read", "admin")  # ask models; look at everything; change everything


class ModelEntry(Message):
    """What a Router must know of one model. `index` is its number in the Scheduler."""

    index: int
    name: str
    aliases: list[str]
    task: str
    backend: str
    state: str  # lifecycle.MODEL_STATES
    reason: str  # why it is not ready, for the operator and the 503
    created: int
    context_length: int
    strategy: str
    max_queue: int
    max_queue_tokens: int
    defaults: dict[str, Any]  # [inference]
    capabilities: list[str]
    adapters: list[str] = []  # asked for as `name:adapter`
    dimensions: int = 0  # of an embedding model's vectors, once known
    cost: float = 0.0  # of a request, relative to other models: what `auto` chooses by
    retry_in_s: float = 0.0  # one that failed: until it is started again; 0: it is not


class WorkerEntry(Message):
    """What a Router must know of one Worker incarnation."""

    worker: int
    incarnation: int
    model: int
    instance: str  # stable replica id, as shown by `smmf ps`
    weight: float
    online: bool  # in rotation


class Welcome(Message):
    """Controller -> child, the answer to Hello: what to be.

    For a Router with [its listening socket, that of the client library's TCP port if there is one].
    A Router's spec is the ServerConfig as msgpack, a Worker's its ModelConfig.
    """

    protocol: int
    spec: bytes
    grace_s: float = 60.0  # without a Controller for so long: drain and exit
    drain_s: float = 30.0  # how long that drain may take


class Registry(Message):
    """Controller -> Router: the whole truth; replaces the former version."""

    version: int
    models: list[ModelEntry]
    workers: list[WorkerEntry]
    is_settled: bool = True  # the admin API listens, and no autostart replica is on its way


class KeyEntry(Message):
    """What a Router must know of one API key. The key itself is nowhere."""

    id: str  # as operators see it
    slot: int  # its row in the table of limits
    digest: bytes  # SHA-256 of the key, 32 bytes
    roles: list[str]  # of ROLES
    models: list[str] = []  # that it may ask for, by name or alias; empty: all
    expires_at: float = 0.0  # Unix seconds; 0: never
    requests_per_minute: int = 0  # 0: no limit, also below
    tokens_per_minute: int = 0  # prompt and generated
    max_concurrency: int = 0  # open requests
    monthly_tokens: int = 0  # the budget of a calendar month, UTC


class Keys(Message):
    """Controller -> Router, with [memfd of the table of limits]: the whole truth; replaces the
    former version. Until the first one a Router answers nobody who would need a key."""

    version: int
    entries: list[KeyEntry]
    required: bool  # False: there is no key, and anyone may ask
    unknown: str = ""  # why there may be other keys, too: 503 for who comes with none of these


class ReadCertificate(Message):
    """Controller -> Router: TLS is to go on with what is in these files now."""

    cert: str
    key: str


class Attach(Message):
    """Controller -> Router and Worker, with [ring memfd, data, space, pidfd of the peer]."""

    worker: int
    incarnation: int
    router: int
    epoch: int
    endpoint: str  # the Router's ZeroMQ ROUTER socket
    slots: int  # this Router's share


class Detach(Message):
    """Controller -> child: that peer is gone for good."""

    worker: int
    incarnation: int
    router: int
    epoch: int


class Adapters(Message):
    """Controller -> Worker: the whole wanted set of LoRA adapters, name -> path."""

    wanted: dict[str, str]
    serial: int  # of the wish; the report that answers it carries the same


class Loading(Message):
    """Controller -> Router: how far a model's load is, for who waits for it; at most once a second
    and model."""

    model: int
    phase: str  # lifecycle.PHASES
    progress: float  # 0..1
    ready_in_s: float  # an estimate; 0: none


class Probe(Message):
    """Controller -> Worker: answer a small request of your own, and tell how it went (Probed)."""

    serial: int


class Inspect(Message):
    """Controller -> Worker: tell your live state (Inspected), for `smmf debug`."""

    serial: int


class PeerMetrics(Message):
    """Controller -> Router: the other Routers' metrics, so that any one answers for all."""

    dumps: list[bytes]


class Drain(Message):
    """Controller -> child: finish what is open and exit; after `timeout_s` exit anyway."""

    timeout_s: float


class Hello(Message):
    """Child -> Controller: first words, also after a reconnect.

    `attached`: (worker, incarnation, router, epoch) of every living ring. A Router sends its
    listening sockets along (SCM_RIGHTS), so that a new Controller can hold them.
    """

    protocol: int
    build: str
    role: str  # "router" | "worker"
    id: int
    incarnation: int  # a Router's epoch
    pid: int
    spec_hash: str
    state: str
    attached: list[tuple[int, int, int, int]]


class WorkerReport(Message):
    """Worker -> Controller, on change and every second while loading."""

    state: str  # "loading" | "ready" | "failed" | "draining"
    progress: float  # 0..1 while loading
    reason: str
    context_length: int
    capabilities: list[str]
    running: int
    waiting: int
    steps: int
    tokens: int
    device: str = ""
    adapters: dict[str, str] = {}  # loaded LoRA adapters, name -> path
    adapter_error: str = ""  # why the last change of them failed
    adapter_serial: int = 0  # the last Adapters that were dealt with
    metrics: dict[str, float] = {}  # the engine's own
    phase: str = ""  # lifecycle.PHASES, of those that a Worker is in: "load", "warm-up"
    finished: int = 0  # requests that ended well or by their client's fault, since its start
    faults: int = 0  # requests that it failed: errors of 500 and above
    first_token_s: list[float] = []  # of requests since the last report, the newest 64
    dimensions: int = 0  # of an embedding model's vectors


class Heartbeat(Message):
    """Worker -> Controller, every second, by a native thread: the process is scheduled."""


class Probed(Message):
    """Worker -> Controller, the answer to Probe."""

    serial: int
    ok: bool
    seconds: float
    reason: str = ""


class Inspected(Message):
    """Worker -> Controller, the answer to Inspect: JSON-ready facts by name."""

    serial: int
    facts: dict[str, Any]


class ModelLoad(msgspec.Struct, array_like=True, gc=False):
    """What a Router has of one model's requests."""

    index: int
    waiting: int
    running: int
    accepted: int  # since the Router's start
    oldest_wait_s: float = 0.0  # how long the oldest of the waiting has waited
    keep_alive_s: float | None = None  # as the newest request that gave one has it; -1: for ever
    words: int = 0  # how many requests gave one: a new one is news, be it the same


class LoadWanted(Message):
    """Router -> Controller: requests wait for a model that nobody loads. Repeated every second
    while that is so."""

    model: int


class UsageDelta(msgspec.Struct, array_like=True, gc=False):
    """What a key has used of a model since a Router's last report. `key`: "": without one."""

    key: str
    model: str
    requests: int = 0
    errors: int = 0  # of the requests
    prompt: int = 0  # tokens, cached ones among them
    cached: int = 0
    generated: int = 0


class RouterReport(Message):
    """Router -> Controller, every second; `workers`: (worker, in flight)."""

    models: list[ModelLoad]
    workers: list[tuple[int, int]]
    connections: int
    state: str  # "starting" | "ready" | "draining"
    metrics: bytes  # msgpack, merged by the Controller when there are several Routers
    usage: list[UsageDelta] = []  # since the last report


class WorkerLost(Message):
    """Router -> Controller: a Worker does not answer over ZeroMQ."""

    worker: int
    incarnation: int
    reason: str


ToChild = (
    Welcome
    | Registry
    | Keys
    | ReadCertificate
    | Attach
    | Detach
    | Adapters
    | PeerMetrics
    | Drain
    | Loading
    | Probe
    | Inspect
)
FromChild = (
    Hello | WorkerReport | RouterReport | WorkerLost | Heartbeat | Probed | Inspected | LoadWanted
)
