"""The text of /metrics: native counters and histograms behind prometheus-client.

Imported at the first scrape, so that a Router that is never scraped does not pay for it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from prometheus_client import CollectorRegistry
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest

from smmf_core.metrics import Gauges, Metrics, ModelMetrics

CONTENT_TYPE = CONTENT_TYPE_LATEST.encode()

# Upper bounds in seconds; the native histograms are finer, these are what dashboards query.
_NO_NAME = re.compile("[^a-zA-Z0-9_]+")  # what a metric's name may not hold
_LATENCY_S = (
    0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300,
)  # fmt: skip
_HISTOGRAMS = {
    "request": ("smmf_request_seconds", "Time from acceptance to the end of the answer."),
    "first_token": (
        "smmf_time_to_first_token_seconds",
        "Time from acceptance to the first token.",
    ),
    "per_token": (
        "smmf_time_per_output_token_seconds",
        "Mean time between tokens of a request, after its first.",
    ),
    "queue": ("smmf_queue_seconds", "Time from acceptance to a worker."),
}


def render(metrics: Metrics) -> bytes:
    """The exposition text of `metrics`."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Collector(metrics))
    return generate_latest(registry)


class _Collector:
    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics

    def collect(self) -> Iterator[Metric]:
        yield from _counters(self._metrics.models)
        for field, (name, text) in _HISTOGRAMS.items():
            yield _histogram(self._metrics.models, field, name, text)
        yield from _gauges(self._metrics)
        yield from _instances(self._metrics.gauges)
        yield from _engines(self._metrics.gauges.engine)


def _counters(models: dict[str, ModelMetrics]) -> Iterator[Metric]:
    requests = CounterMetricFamily(
        "smmf_requests", "Requests by status.", labels=["model", "route", "code"]
    )
    cancelled = CounterMetricFamily(
        "smmf_cancelled", "Requests cancelled, by reason.", labels=["model", "reason"]
    )
    prompt = CounterMetricFamily("smmf_prompt_tokens", "Prompt tokens.", labels=["model"])
    generated = CounterMetricFamily("smmf_generation_tokens", "Tokens generated.", labels=["model"])
    failovers = CounterMetricFamily(
        "smmf_failovers", "Requests placed again after a worker died.", labels=["model"]
    )
    for name, model in models.items():
        for (route, code), count in model.requests.items():
            requests.add_metric([name, route, str(code)], count)
        for reason, count in model.cancelled.items():
            cancelled.add_metric([name, reason], count)
        prompt.add_metric([name], model.prompt_tokens)
        generated.add_metric([name], model.generation_tokens)
        failovers.add_metric([name], model.failovers)
    yield from (requests, cancelled, prompt, generated, failovers)


def _histogram(models: dict[str, ModelMetrics], field: str, name: str, text: str) -> Metric:
    family = HistogramMetricFamily(name, text, labels=["model"])
    for model_name, model in models.items():
        native = getattr(model, field)
        counts = native.cumulative(_LATENCY_S)
        buckets = [
            (str(float(bound)), float(count))
            for bound, count in zip(_LATENCY_S, counts, strict=True)
        ]
        buckets.append(("+Inf", float(native.count)))
        family.add_metric([model_name], buckets, native.sum)
    return family


def _gauges(metrics: Metrics) -> Iterator[Metric]:
    gauges = metrics.gauges
    running = GaugeMetricFamily("smmf_requests_running", "Requests on workers.", labels=["model"])
    waiting = GaugeMetricFamily("smmf_requests_waiting", "Requests waiting.", labels=["model"])
    for model, count in gauges.running.items():
        running.add_metric([model], count)
    for model, count in gauges.waiting.items():
        waiting.add_metric([model], count)
    status = GaugeMetricFamily(
        "smmf_model_status", "1 for the state that the model is in.", labels=["model", "status"]
    )
    for model, state in gauges.status.items():
        status.add_metric([model, state], 1)
    yield from (running, waiting, status)
    yield CounterMetricFamily("smmf_ring_full", "Times a ring was full.", gauges.ring_full)
    yield CounterMetricFamily(
        "smmf_late_records", "Records of requests that had ended.", gauges.late_records
    )
    yield GaugeMetricFamily("smmf_connections", "Open HTTP connections.", gauges.connections)
    yield CounterMetricFamily(
        "smmf_bad_requests", "Requests refused by the HTTP parser.", gauges.bad_requests
    )


def _instances(gauges: Gauges) -> Iterator[Metric]:
    """What is told of each instance."""
    labels = ["model", "instance"]
    up = GaugeMetricFamily("smmf_instance_up", "Whether the instance answers.", labels=labels)
    for instance, (model, is_up) in gauges.instance_up.items():
        up.add_metric([model, instance], is_up)
    memory = GaugeMetricFamily("smmf_instance_memory_bytes", "Resident memory.", labels=labels)
    for instance, (model, size) in gauges.instance_memory.items():
        memory.add_metric([model, instance], size)
    restarts = CounterMetricFamily(
        "smmf_restarts", "Times the instance was started again after its end.", labels=labels
    )
    for instance, (model, count) in gauges.restarts.items():
        restarts.add_metric([model, instance], count)
    load = GaugeMetricFamily(
        "smmf_load_seconds", "From the order to load until it was ready.", labels=labels
    )
    for instance, (model, load_s) in gauges.load_s.items():
        load.add_metric([model, instance], load_s)
    alerts = GaugeMetricFamily(
        "smmf_health_alerts", "1 while a threshold is crossed.", labels=[*labels, "reason"]
    )
    for model, instance, causes in gauges.alerts.values():
        for cause in causes:
            alerts.add_metric([model, instance, cause], 1)
    yield from (up, memory, restarts, load, alerts, *_gpus(gauges.gpus))


def _gpus(gpus: dict[str, tuple[str, dict[str, tuple[float, int]]]]) -> Iterator[Metric]:
    labels = ["model", "instance", "gpu"]
    utilization = GaugeMetricFamily(
        "smmf_gpu_utilization_ratio", "How busy the instance's GPU is, 0 to 1.", labels=labels
    )
    memory = GaugeMetricFamily(
        "smmf_gpu_memory_bytes", "What the instance holds of its GPU's memory.", labels=labels
    )
    for instance, (model, devices) in gpus.items():
        for gpu, (ratio, size) in devices.items():
            utilization.add_metric([model, instance, gpu], ratio)
            memory.add_metric([model, instance, gpu], size)
    yield from (utilization, memory)


def _engines(engines: dict[str, tuple[str, dict[str, float]]]) -> Iterator[Metric]:
    """What engines tell of themselves, as `smmf_engine_<their name>`; `..._total` are counters.

    Names that differ only in what a metric's name may not hold are one metric, of which an instance
    has one value: the first.
    """
    families: dict[str, GaugeMetricFamily | CounterMetricFamily] = {}
    for instance, (model, figures) in engines.items():
        told = set()
        for name, value in figures.items():
            shown = "smmf_engine_" + _NO_NAME.sub("_", name)
            if shown in told:
                continue
            told.add(shown)
            if shown not in families:
                kind = CounterMetricFamily if shown.endswith("_total") else GaugeMetricFamily
                text = f"The engine's own {name}."
                families[shown] = kind(shown, text, labels=["model", "instance"])
            families[shown].add_metric([model, instance], value)
    yield from families.values()
