"""Counters and latency histograms of one Router, by model; merged over Routers.

Pure: fed once per request from native counters, nothing per token. Must not render: the Prometheus
text is http.prometheus's.
"""

from __future__ import annotations

from collections import Counter

import msgspec

from smmf_core.native._histogram import Histogram

HISTOGRAMS = ("request", "first_token", "per_token", "queue")


class ModelMetrics:
    """What is counted for one model. Histograms are in seconds."""

    def __init__(self) -> None:
        self.requests: Counter[tuple[str, int]] = Counter()  # (route, status)
        self.cancelled: Counter[str] = Counter()  # reason
        self.failovers = 0
        self.prompt_tokens = 0
        self.generation_tokens = 0
        self.request = Histogram()
        self.first_token = Histogram()
        self.per_token = Histogram()
        self.queue = Histogram()


class Gauges(msgspec.Struct):
    """What is true now rather than counted: read when metrics are asked for."""

    running: dict[str, int] = {}
    waiting: dict[str, int] = {}
    instance_up: dict[str, tuple[str, int]] = {}  # instance -> (model, 0 or 1)
    instance_memory: dict[str, tuple[str, int]] = {}  # bytes
    load_s: dict[str, tuple[str, float]] = {}  # instance -> (model, from the order until ready)
    gpus: dict[str, tuple[str, dict[str, tuple[float, int]]]] = {}
    """instance -> (model, device -> (utilisation 0..1 of the device, bytes of the instance))"""
    alerts: dict[str, tuple[str, str, list[str]]] = {}
    """instance, or a model for its queue -> (model, instance or "", thresholds that are crossed)"""
    status: dict[str, str] = {}  # model -> one of lifecycle.MODEL_STATES
    restarts: dict[str, tuple[str, int]] = {}  # instance -> (model, count)
    engine: dict[str, tuple[str, dict[str, float]]] = {}  # instance -> (model, its own figures)
    ring_full: int = 0
    late_records: int = 0
    connections: int = 0
    bad_requests: int = 0


class _ModelDump(msgspec.Struct, array_like=True):
    requests: list[tuple[str, int, int]]
    cancelled: dict[str, int]
    failovers: int
    prompt_tokens: int
    generation_tokens: int
    histograms: dict[str, bytes]


class _Dump(msgspec.Struct, array_like=True):
    models: dict[str, _ModelDump]
    gauges: Gauges


_decoder = msgspec.msgpack.Decoder(_Dump)


class Metrics:
    """All models of one Router, made at a model's first request."""

    def __init__(self) -> None:
        self.models: dict[str, ModelMetrics] = {}
        self.gauges = Gauges()

    def model(self, name: str) -> ModelMetrics:
        found = self.models.get(name)
        if found is None:
            found = self.models[name] = ModelMetrics()
        return found

    def dump(self) -> bytes:
        """Everything as msgpack, for another Router's /metrics."""
        models = {name: _dump_model(model) for name, model in self.models.items()}
        return msgspec.msgpack.encode(_Dump(models, self.gauges))

    def add(self, dumped: bytes) -> None:
        """Add another Router's dump. Raises msgspec.ValidationError for anything else."""
        dump = _decoder.decode(dumped)
        for name, model in dump.models.items():
            _add_model(self.model(name), model)
        for name, count in dump.gauges.running.items():
            self.gauges.running[name] = self.gauges.running.get(name, 0) + count
        for name, count in dump.gauges.waiting.items():
            self.gauges.waiting[name] = self.gauges.waiting.get(name, 0) + count
        self.gauges.instance_up |= dump.gauges.instance_up
        self.gauges.instance_memory |= dump.gauges.instance_memory
        self.gauges.load_s |= dump.gauges.load_s
        self.gauges.gpus |= dump.gauges.gpus
        self.gauges.alerts |= dump.gauges.alerts
        self.gauges.status |= dump.gauges.status
        self.gauges.restarts |= dump.gauges.restarts
        self.gauges.engine |= dump.gauges.engine
        self.gauges.connections += dump.gauges.connections
        self.gauges.bad_requests += dump.gauges.bad_requests
        self.gauges.late_records += dump.gauges.late_records
        self.gauges.ring_full += dump.gauges.ring_full


def _dump_model(model: ModelMetrics) -> _ModelDump:
    return _ModelDump(
        requests=[(route, code, count) for (route, code), count in model.requests.items()],
        cancelled=dict(model.cancelled),
        failovers=model.failovers,
        prompt_tokens=model.prompt_tokens,
        generation_tokens=model.generation_tokens,
        histograms={name: getattr(model, name).dump() for name in HISTOGRAMS},
    )


def _add_model(model: ModelMetrics, dump: _ModelDump) -> None:
    for route, code, count in dump.requests:
        model.requests[route, code] += count
    model.cancelled.update(dump.cancelled)
    model.failovers += dump.failovers
    model.prompt_tokens += dump.prompt_tokens
    model.generation_tokens += dump.generation_tokens
    for name, dumped in dump.histograms.items():
        other = Histogram()
        other.load(dumped)
        getattr(model, name).merge(other)
