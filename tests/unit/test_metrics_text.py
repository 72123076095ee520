"""/metrics is valid text whatever models and engines are called, and says what Controllers know."""

from __future__ import annotations

import pytest
from prometheus_client.parser import text_string_to_metric_families

from smmf_core.http.prometheus import render
from smmf_core.metrics import Metrics


def parsed(metrics: Metrics) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    """Samples by name and labels, read by the official parser; each must be there once."""
    samples: dict[tuple[str, tuple[tuple[str, str], ...]], float] = {}
    for family in text_string_to_metric_families(render(metrics).decode()):
        for sample in family.samples:
            key = (sample.name, tuple(sorted(sample.labels.items())))
            assert key not in samples, f"twice: {key}"
            samples[key] = sample.value
    return samples


def key(name: str, **labels: str) -> tuple[str, tuple[tuple[str, str], ...]]:
    return name, tuple(sorted(labels.items()))


def gathered(mine: Metrics) -> Metrics:
    """As a Router has it: the Controller's figures come over the wire."""
    total = Metrics()
    total.add(Metrics().dump())
    total.add(mine.dump())
    return total


def test_what_the_controller_tells_of_instances() -> None:
    mine = Metrics()
    mine.gauges.instance_up = {"m-0": ("m", 1), "m-1": ("m", 0)}
    mine.gauges.instance_memory = {"m-0": ("m", 1000)}
    mine.gauges.load_s = {"m-0": ("m", 2.5)}
    mine.gauges.gpus = {"m-0": ("m", {"cuda:0": (0.5, 100), "cuda:1": (0.25, 200)})}
    mine.gauges.alerts = {"m-0": ("m", "m-0", ["memory", "error_rate"]), "m": ("m", "", ["queue"])}
    mine.gauges.status = {"m": "ready", "n": "failed"}
    mine.gauges.restarts = {"m-0": ("m", 3), "m-1": ("m", 0)}
    samples = parsed(gathered(mine))
    instance = {"model": "m", "instance": "m-0"}
    expected = {
        key("smmf_instance_up", **instance): 1,
        key("smmf_instance_up", model="m", instance="m-1"): 0,
        key("smmf_instance_memory_bytes", **instance): 1000,
        key("smmf_load_seconds", **instance): 2.5,
        key("smmf_gpu_utilization_ratio", **instance, gpu="cuda:1"): 0.25,
        key("smmf_gpu_memory_bytes", **instance, gpu="cuda:0"): 100,
        key("smmf_health_alerts", **instance, reason="memory"): 1,
        key("smmf_health_alerts", **instance, reason="error_rate"): 1,
        key("smmf_health_alerts", model="m", instance="", reason="queue"): 1,
        key("smmf_model_status", model="n", status="failed"): 1,
        key("smmf_restarts_total", **instance): 3,
        key("smmf_restarts_total", model="m", instance="m-1"): 0,
    }
    assert {name: samples.get(name) for name in expected} == expected


@pytest.mark.parametrize("name", ['a"b', "a\nb", "a\\b", "好/模型", "a{b}", ""])
def test_any_name_of_a_model(name: str) -> None:
    mine = Metrics()
    mine.model(name).requests["chat", 200] = 1
    mine.gauges.instance_up = {f"{name}-0": (name, 1)}
    mine.gauges.status = {name: "ready"}
    samples = parsed(mine)
    assert samples[key("smmf_requests_total", model=name, route="chat", code="200")] == 1
    assert samples[key("smmf_instance_up", model=name, instance=f"{name}-0")] == 1


def test_engines_names_that_become_the_same_one() -> None:
    mine = Metrics()
    mine.gauges.engine = {
        "m-0": ("m", {"kv cache": 1.0, "kv.cache": 2.0, "steps_total": 3.0, "steps.total": 4.0}),
        "m-1": ("m", {"kv_cache": 5.0, "steps total": 6.0, "steps": 7.0, "nan": float("nan")}),
        "n-0": ("n", {"": 8.0, "_total": 9.0, "é": 10.0, "1": 11.0}),
    }
    samples = parsed(gathered(mine))
    first, second = {"model": "m", "instance": "m-0"}, {"model": "m", "instance": "m-1"}
    assert samples[key("smmf_engine_kv_cache", **first)] == 1
    assert samples[key("smmf_engine_kv_cache", **second)] == 5
    assert samples[key("smmf_engine_steps_total", **first)] == 3
    assert samples[key("smmf_engine_steps_total", **second)] == 6
    assert samples[key("smmf_engine_steps", **second)] == 7
    assert len([name for name, _ in samples if name.startswith("smmf_engine_")]) == 10
